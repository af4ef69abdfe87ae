"""What a distillation takes before it is begun: rows, tokens, time, disk and money of every stage, with intervals.

Everything follows from figures (`Figures`), each with an interval and where it comes from: a pilot, or an assumption.
A stage takes `fixed · starts + factor · modelled` seconds: what the machine would need by its peak figures at a stated
utilisation, times what a pilot found that estimate to be worth; 1 without one. The same computation with another recipe
is what a cheaper setting saves. Pure: the pilot itself is run by `dasd_assets/commands/pilot.py`. Left out: interest,
storage prices, failed machines.

| module | what |
| --- | --- |
| `figures` | a number with its interval and origin; the interval of what is computed from such numbers |
| `assumptions` | the figures without a pilot: the report's, and ours |
| `hardware` | peak figures and prices of some machines |
| `model_size` | parameters and bytes of a model, from its configuration |
| `scope` | what there is to do: questions, benchmarks, models, machine |
| `work` | rows and tokens of every table |
| `lengths` | what a lower limit of tokens makes of the responses |
| `engine_time` | seconds of decoding, prefill and training by a machine's peak figures |
| `stages` | the stages, and the seconds that each is modelled to take |
| `estimate` | all of it with intervals: `estimate(recipe, scope, figures)` |
| `savings` | cheaper settings, and what each saves |
| `measured` | the figures of a pilot's home |
| `page` | an estimate as text and as JSON |
"""
