"""Well-known benchmarks, read as their files are downloaded, and held-out questions that reasoning-gym generates.

| module | about |
| --- | --- |
| `layouts` | the catalogue: columns, verifier, instruction and limits of each benchmark |
| `choices` | choices in an order that a seed and the question decide |
| `generated` | questions of a reasoning-gym task |
| `questions` | a recipe's benchmark -> its questions |

Left out: downloads, for a run must not start one by surprise, and several sets may not be passed on.
"""
