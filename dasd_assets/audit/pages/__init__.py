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
