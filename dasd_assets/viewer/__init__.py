"""`dasd view`: a web app that shows what is in a home, read-only, beside running writers (docs/viewer.md).

| module | what it is |
| --- | --- |
| `command` | `dasd view`: its arguments, and the server |
| `app` | all addresses, errors |
| `access` | who may ask: Host header, token, and the headers that keep a page from doing harm |
| `viewer` | what every page has: tables, recipe, templates |
| `links` | the address of each kind of row, here and in Dagster's web UI |
| `explore`, `explore_rows` | all responses: filter, sort, distributions; the table behind it |
| `question` | a question and all its candidates |
| `response`, `response_tokens` | a response, its sentences by type; the tokens of one sentence |
| `mixed_policy` | rollouts and continuations |
| `checkpoints`, `answers` | models' answers side by side; a model; one answer |
| `experiments`, `leaderboard` | arms compared, models by accuracy |
| `finding` | any id, or its beginning |
| `coloured`, `markup` | a text in sentences, and these in pieces of Markdown, LaTeX and code |

Texts are shown as text: no page has HTML that a model wrote, and the browser is told to run nothing but our own files.
"""
