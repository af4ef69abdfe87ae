"""Where every row came from, what it touches, what is out of date, and whether all of it is still true.

| module | answers | command |
| --- | --- | --- |
| `response` | all of a response's way, from landed line to checkpoints | `audit response` |
| | the same, from a training example | `audit example` |
| `ranking` | why a response was chosen, or why not, by the rules of `selection` | |
| `checkpoint` | the exact rows trained on, recipe, code, environment, parents | `audit checkpoint` |
| `prompt` | all that a question touched, through chains of checkpoints | `audit prompt` |
| `outdated`, `changes` | what is out of date and why: inputs, code, recipe | `audit staleness` |
| `verify/`, `files` | which rows, files and folders disagree with what made them | `audit verify` |
| `takedown` | withdraws questions | `takedown` |
| `pages`, `command`, `arguments` | text; arguments | |

Each answer is a record of plain values, so that `--json` and the page say the same. Nothing but `outdated`,
`changes` and `verify` imports Dagster: an audit of a million responses is to answer sooner than that would load.
"""
