"""Links of the built site that lead nowhere: every `href` and `src` of every page, raw HTML included, and its anchor.

Only addresses within the site are looked up; no other machine is asked. What a page would load from elsewhere is
reported, too.
"""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

WRITTEN_BY_EXPERIMENTS = "experiments/"  # in docs/, by `make experiments`: a link there may be older than its page


class _Page(HTMLParser):
    """The addresses that a page names, and the anchors that it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.loaded: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and name in ("href", "src"):
                self.addresses.append(value)
                self.loaded |= {value} if name == "src" else set()
            elif value and name in ("id", "name"):
                self.anchors.add(value)


def dead_links(site: Path) -> list[str]:
    """`page: address` of each that names no file of the site, or no anchor of the page it names."""
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    return [
        f"{path.relative_to(site)}: {address}"
        for path, page in sorted(pages.items())
        if path.name != "404.html"  # its addresses start at wherever the site is put
        for address in page.addresses
        if not _leads_somewhere(path, address, pages)
    ]


def _leads_somewhere(path: Path, address: str, pages: dict[Path, _Page]) -> bool:
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return not parts.netloc or address not in pages[path].loaded
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if target.is_dir():
        target /= "index.html"
    if target not in pages:
        return target.is_file()
    return not parts.fragment or unquote(parts.fragment) in pages[target].anchors | {"__skip"}
