"""Records: the declarations, partitions, versions, metadata and progress of assets; no stage, no decision what runs."""
