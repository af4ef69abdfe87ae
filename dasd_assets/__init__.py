"""The DASD pipeline: one module per stage, named for its subject.

| stage | module | assets | tables | report |
| --- | --- | --- | --- | --- |
| models | `models` | `teacher_model`, `student_model` | `checkpoints` | §6.1 |
| prompts | `prompts` | `prompts` | `prompts`, `rejected_prompts` | §6.1 |
| teacher | `generations` | `teacher_generations_t060`, `…_t100` | `responses` | §3 |
| parity gate | `parity`, `gates` | blocking checks on the teacher's and the student's logprobs | | |
| filters | `filters`, `verdicts` | `response_verdicts` | `response_verdicts` | §6.2 |
| probabilities | `sentences`, `probabilities` | `student_logprobs`, `sentence_probabilities` | the same | §4 |
| | `divergence` | `sentence_types`, `response_scores` | the same | §4 |
| selection | `pool`, `selection` | `selected_responses_…`, `random_responses` | `selected_responses` | §4 |
| datasets | `sft_datasets`, `dataset_ids` | `sft_dataset_…` | `sft_examples` | §6.4.1 |
| training | `training` | `checkpoint_stage1`, `checkpoint_stage2`, … | `checkpoints` | §3, §6.4 |
| mixed policy | `mixed_policy` | `student_rollouts` … `mixed_policy_dataset` | the same, `sft_examples` | §5 |
| evaluation | `evaluation` | `benchmark_questions`, `evaluations` | the same | §7 |
| report | `report`, `plots` | `distillation_report` | | Figures 3, 5, 6, 7 |
| upkeep | `maintenance` | `maintenance` | | |

Everything down to `response_scores` is partitioned by prompt batch; what follows reads all batches.

What is made and when: `staleness` says what is out of date (over `materializations` and `code_versions`), `steps` puts
it in order, `planning` says what of it may run now (with `attempts`, `quarantine`, `recovery`); `run` (the command) and
`automation` (the service) have it made.
"""
