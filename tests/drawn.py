"""Figures as the PNG images that the event log keeps of them, for tests to compare."""

import base64

from matplotlib.figure import Figure

from dasd_assets.records.plots import inline

PNG = b"\x89PNG\r\n\x1a\n"


def decoded(figure: Figure) -> bytes:
    """The image that `inline` puts into the metadata."""
    shown = inline(figure).md_str
    assert shown is not None
    return base64.b64decode(shown.removeprefix("![plot](data:image/png;base64,").removesuffix(")"))
