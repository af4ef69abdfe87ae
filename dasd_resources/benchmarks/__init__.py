"""Well-known benchmarks, read as their files are downloaded, and held-out questions that reasoning-gym generates.

| module | about |
| --- | --- |
| `layouts` | the catalogue: columns, verifier, instruction and limits of each benchmark |
| `sources` | where each is published |
| `private_tests` | LiveCodeBench's private tests without loading their pickles |
| `choices` | choices in an order that a seed and the question decide |
| `generated` | questions of a reasoning-gym task |
| `questions` | a recipe's benchmark -> its questions |

Only `dasd fetch-benchmarks` downloads: a run must not start that by surprise, and several sets may not be passed on.
"""
