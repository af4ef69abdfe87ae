"""Differences between models that answered the same questions: intervals, p-values, and what could have been seen.

| module | what |
| --- | --- |
| `pairing` | answers -> a (S, Q) matrix of differences, one per seed and question |
| `variance` | how much of it seeds, questions and chance make; the standard error and its degrees of freedom |
| `bootstrap` | 95 % interval and p-value |
| `power` | minimum detectable effect, and what more seeds, questions or samples would buy |
| `holm` | p-values of a table that asks many questions |
| `comparison` | all of it: of one arm and a baseline, of a whole table, of a checkpoint and its parent |

The model, its sources, and how to read what comes out: docs/statistics.md. Left out: unpaired comparisons, which on the
same questions are less precise and no simpler.
"""
