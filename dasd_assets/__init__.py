"""The DASD pipeline: one module per stage, named for its subject; what they stand on is in rooms beside them.

| stage | module | assets | tables | report |
| --- | --- | --- | --- | --- |
| models | `models` | `teacher_model`, `student_model` | `checkpoints` | §6.1 |
| held out | `held_out_questions` | `held_out_questions` | the same | |
| prompts | `prompts`, `prompt_lines`, `alike_questions`, `withdrawals` | `prompts` | the same, … | §6.1 |
| teacher | `generations` | `teacher_generations_t060`, `…_t100` | `responses` | §3 |
| responses in | `landed_responses` | the same, where a recipe `imports` | `landed_responses`, `landed_logprobs`, … | |
| | `imported_responses` | `teacher_generations_t060`, …, in place of the teacher's | `responses` | |
| parity gate | `parity` | blocking checks on the teacher's and the student's logprobs | | |
| student's tokens | `student_tokens` | `student_tokens` | the same | |
| filters | `verdicts` | `response_verdicts` | the same | §6.2 |
| probabilities | `student_logprobs` | `student_logprobs` | the same | §4 |
| | `sentence_probabilities` | `sentence_probabilities` | the same | §4 |
| divergence | `divergence` | `sentence_types`, `response_scores` | the same | §4 |
| selection | `selection` | `selected_responses_…` | `selected_responses` | §4 |
| | `random_responses` | `random_responses` | `selected_responses` | Table 3 |
| | `selection_source` | `selection_source`, and both of the above, where a recipe has `selection_from` | | §7 |
| datasets | `sft_datasets` | `sft_dataset_…` | `sft_examples` | §6.4.1 |
| training | `training`, `stage_training` | `checkpoint_t060`, …, `checkpoint_mixed` | `checkpoints` | §3, §6.4 |
| mixed policy | `mixed_policy` | `student_rollouts` … `mixed_policy_dataset` | the same, `sft_examples` | §5 |
| evaluation | `evaluation` | `benchmark_questions`, `evaluations`, `evaluation_metrics` | the same, … | §7 |
| | | `leaderboard` | | |
| provenance | `answer_logprobs` | `answer_logprobs`, where a recipe has `provenance` | the same | §4 |
| | `answer_sentences` | `answer_sentences`, `answer_sentence_types` | the same | Figure 5 |
| | `answer_provenance` | `answer_provenance` | | Figures 5, 6 |
| held-out loss | `heldout_losses` | the same, where a recipe has `heldout` | the same, `heldout_logprobs` | §4 |
| data out | `published_dataset` | `published_dataset` | | |
| experiments | `experiments` | `experiment_checkpoints_…`, …, by arm and seed | `experiment_cells`, … | Tables 1–7 |
| report | `report` | `distillation_report` | | Figures 3, 5, 6, 7 |
| checks | `checks` | checks on what the stages made | | |
| upkeep | `maintenance` | `maintenance` | | |

From `prompts` to `response_scores` an asset has a partition per prompt batch; what follows reads all batches.

| room | rule |
| --- | --- |
| `rules` | decides a row's id, content or place; pure functions, no Dagster |
| `records` | what an asset says of itself: declaration, code version, partitions, tags, metadata |
| `service` | decides what runs and when |
| `plan` | what a recipe takes before it is run; pure functions, no Dagster |
| `commands` | what a person types; `cli` only parses |
| `audit` | explains rows |
| `viewer` | `dasd view`: a web app over a home, read-only |

An asset states once what it reads, writes and applies (`records.declaration`). What is made and when:
`service.staleness` says what is out of date (over `records.materializations` and `records.code_versions`),
`service.steps` puts it in order, `service.planning` says what of it may run now (with `service.attempts`,
`service.recovery` and `records.quarantine`); `commands.run` and `service.automation` have it made.

`definitions` puts the assets, checks, jobs and sensors together for Dagster.
Imports run one way: cli → viewer → commands, audit → definitions → service → stages → records → rules →
`dasd_resources`. On top of all is `dasd`, the Python API: a thin package beside this one.
"""
