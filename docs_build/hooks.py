"""What mkdocs calls while it builds the site (`hooks` in mkdocs.yml)."""

import re
from pathlib import Path
from posixpath import dirname, join, normpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from dasd_assets.cli.parser import parser
from dasd_resources.recipe import RECIPES
from docs_build.links import WRITTEN_BY_EXPERIMENTS, dead_links
from docs_build.notebook import page as notebook_page
from docs_build.notebook import read as read_notebook
from docs_build.reference import commands_page, shipped_page

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")
SHIPPED_LINK = re.compile(r"dasd_resources/recipes/([\w-]+)\.yaml$")
SHIPPED = ("demo", "dasd-4b", "school")
MORE = "More"  # the section of pages that mkdocs.yml does not name


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Pages in docs/ that the navigation leaves out come last, so that no page is lost."""
    docs = Path(config.docs_dir)
    named = set(re.findall(r"[\w/.-]+\.md", repr(config.nav)))
    more = sorted(str(page.relative_to(docs)) for page in docs.rglob("*.md"))
    if left := [page for page in more if page not in named]:
        config.nav = [*(config.nav or []), {MORE: left}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that no file in docs/ holds."""
    made = {
        "index.md": _first_page(),
        "example.md": notebook_page(read_notebook()),
        "reference/commands.md": commands_page(parser()),
        **{f"reference/recipes/{name}.md": shipped_page(RECIPES / f"{name}.yaml") for name in SHIPPED},
    }
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files


def _first_page() -> str:
    """README.md, its links and pictures relative to docs/."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.sub(r"""(\]\(|src=")docs/""", r"\1", text)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A link to a file of the repository that is no page becomes its text; one to no file at all is an error."""
    folder = ROOT if page.file.src_uri == "index.md" else (ROOT / "docs" / page.file.src_uri).parent

    def without(link: re.Match[str]) -> str:
        text, address = link[1], link[2].partition("#")[0]
        at = normpath(join(dirname(page.file.src_uri), address))  # as mkdocs names files: relative to docs/
        if "://" in address or not address or files.get_file_from_path(at):
            return link[0]
        if recipe := SHIPPED_LINK.search(address):
            return f"[{text}]({'../' * page.file.src_uri.count('/')}reference/recipes/{recipe[1]}.md)"
        if not (folder / address).exists() and not address.startswith(WRITTEN_BY_EXPERIMENTS):
            raise PluginError(f"{page.file.src_uri}: {link[0]} leads to no file")
        return text

    return LINK.sub(without, markdown)


def on_post_build(config: MkDocsConfig) -> None:
    """Fails the build if a link of the site leads nowhere."""
    if dead := dead_links(Path(config.site_dir)):
        raise PluginError("links that lead nowhere:\n" + "\n".join(dead))
