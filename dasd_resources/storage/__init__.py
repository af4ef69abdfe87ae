"""The warehouse: tables in a DuckLake catalog, commits, ledger, upkeep, backup."""
