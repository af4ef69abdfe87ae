"""The one name of a dataset that no temperature gives: recipes name it, and so do assets and audits."""

MIXED = "mixed"  # the mixed-policy dataset
