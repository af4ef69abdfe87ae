"""What runs inside the sandbox, on the standard library alone; `values` is used on both sides.

| module | what it is |
| --- | --- |
| `supervisor` | the first process: a fresh child for each job, its limits, its end with all that descend from it |
| `children` | a child: its streams, its limits, how it ends |
| `jobs` | what a child does: run a program, call a function of it, answer a test's calls, score an answer |
| `tests` | assertions about a program that lives in another process |
| `values` | a value of a program as JSON, and back |
"""
