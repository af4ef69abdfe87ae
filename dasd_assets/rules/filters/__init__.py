"""Quality filters (report §6.2): what each drops, and the catalogue of all."""

from dasd_assets.rules.filters.repetition import repetition
