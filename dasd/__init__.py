"""A home in Python and notebooks, read-only, beside running writers (docs/python.md).

    import dasd

    home = dasd.open()
    home.responses(domain="math").select("prompt_id", "temperature", "text").collect()

| module | what it is |
| --- | --- |
| `home` | a home's tables as lazy polars frames and DuckDB relations |
| `response` | one response, its sentences coloured in a notebook |

Thin: what it shows, `dasd_assets` and `dasd_resources` know; nothing of them imports it.
"""

from dasd.home import Home, NoHome, UnknownColumn, UnknownTable, open
from dasd.response import Response

__all__ = ["Home", "NoHome", "Response", "UnknownColumn", "UnknownTable", "open"]
