"""Audits as text: one screen a person can read from top to bottom.

| module | what it shows |
| --- | --- |
| `question` | a question, and all that it touched |
| `response` | a response, a training example, a continuation |
| `checkpoint` | a checkpoint, its data and what disagrees |
| `staleness` | what is out of date |
| `takedown` | what was withdrawn |
| `rows` | lines that several of them list |
| `layout` | titles, lines, sections |
"""

from dasd_assets.audit.pages.checkpoint import checkpoint_page
from dasd_assets.audit.pages.question import prompt_page
from dasd_assets.audit.pages.response import example_page, response_page
from dasd_assets.audit.pages.staleness import staleness_page
from dasd_assets.audit.pages.takedown import takedown_page

__all__ = ["checkpoint_page", "example_page", "prompt_page", "response_page", "staleness_page", "takedown_page"]
