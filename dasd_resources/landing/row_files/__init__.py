"""Rows of landed files as JSON texts, streamed; for an unreadable row or file, why.

A row of any format becomes an equivalent line of JSON, so that everything after this package handles one format. Left
out: what a row must contain, which `prompt_files.py` checks; pickles, scripts, and whatever else would have to be run.

| module | formats |
| --- | --- |
| `lines` | `.jsonl` |
| `documents` | `.json` |
| `delimited` | `.csv`, `.tsv` |
| `unpacking` | all of these with `.gz` or `.zst` |
| `parquet`, `arrow` | `.parquet`; `.arrow`, `.feather` |
| `record_batches` | what these two have in common |
| `rows` | a row, and the bounds of every format |
| `formats` | a file's format, by its suffix |
"""
