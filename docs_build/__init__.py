"""What builds the documentation site (`make docs`) beside the pages in docs/.

| module | what it is |
| --- | --- |
| `hooks` | what mkdocs calls: the first page from README.md, the reference pages, the check of every link |
| `reference` | pages made from the code: recipe keys, commands, shipped recipes |
| `links` | links and anchors of the built site that lead nowhere |
| `pictures` | the README's two pictures, drawn from a home in which the demo has run |
| `notebook` | docs/example.ipynb: run anew, and as the page `example.md` |
"""
