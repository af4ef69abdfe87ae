"""The figures of a plan without a pilot, each with its interval and where it comes from.

The report's are of gpt-oss-120b and Qwen3-4B on its own questions (§5, §6); another teacher may write a tenth of it.
Those of the CPU are measured on one core (docs/planning.md, 3 % of the report's size; docs/benchmarks.md), or say
that they are assumed. What is ours alone has wide intervals.
"""

from dasd_assets.plan.figures import Figure, Figures
from dasd_assets.plan.hardware import Machine
from dasd_assets.plan.model_size import ModelSize
from dasd_assets.plan.work import answering
from dasd_resources.recipe import Recipe

LOW_TEMPERATURE = "report §6.3: 1.45G tokens in 105K responses at T=0.6"
HIGH_TEMPERATURE = "report §6.3: 5.8G tokens in 330K responses at T=1.0"
MEANS = {LOW_TEMPERATURE: 1.45e9 / 105e3, HIGH_TEMPERATURE: 5.8e9 / 330e3}
NUM_QUESTIONS = 105_000
OF_QUESTIONS = "report §6.3: 105K questions; none has landed"
# LiveCodeBench as the report names it (§7): v5 is of August 2024 to February 2025, v6 of February to May 2025.
BENCHMARK_SIZES = {
    "aime24": 30,
    "aime25": 30,
    "math500": 500,
    "gpqa_diamond": 198,
    "livecodebench_v5": 279,
    "livecodebench_v6": 175,
}
UNKNOWN_BENCHMARK = 200
TOKENS_PER_SENTENCE = 27
OF_SENTENCES = f"ours: {TOKENS_PER_SENTENCE} tokens a sentence"
CONTINUED = Figure(12.7 / 15, 0.6, 0.95, "report §6.4.2: 12.7K of 15K continuations kept", True)
UTILISED = ("decode", "prefill", "training")
STORED_IN: dict[str, tuple[str, ...]] = {  # tables that grow with tokens, by the figure of their bytes
    "bytes.teacher_token": ("responses",),
    "bytes.student_token": ("student_tokens",),
    "bytes.student_logprob": ("student_logprobs",),
    "bytes.sentence": ("sentence_probabilities", "sentence_types"),
    "bytes.example_token": ("sft_examples",),
}


def assumed(recipe: Recipe, machine: Machine) -> Figures:
    """All figures of a recipe. Lengths are no longer than its limits allow."""
    figures = {**_of_responses(recipe), **_of_mixed_policy(), **_of_answers(recipe), **_of_machine(machine)}
    return {**figures, **_of_rates(), **of_disk()}


def _of_responses(recipe: Recipe) -> Figures:
    figures = {
        "asked_share": Figure(1.0, 0.9, 1.0, "assumed: few duplicates, rejected or contaminated questions", True),
        "answered_share": Figure(1.0, 0.99, 1.0, "assumed: hardly a request fails", True),
        "prompt_tokens": Figure(200, 100, 500, "assumed: a question with its template"),
        "length_spread": Figure(0.8, 0.6, 1.0, "assumed: lengths are log-normal, this their deviation"),
    }
    for dataset, temperature in recipe.datasets.items():
        origin = LOW_TEMPERATURE if temperature < 0.8 else HIGH_TEMPERATURE
        mean = min(MEANS[origin], 0.5 * recipe.generation.max_tokens)
        if mean < MEANS[origin]:
            origin = "assumed: half of generation.max_tokens"
        wrong = "report §6.3 keeps 330K; ours: " if recipe.filters.require_correct else ""
        share = 0.6 if recipe.filters.require_correct else 0.85
        figures |= {
            f"teacher_tokens.{dataset}": Figure(mean, 0.6 * mean, 1.5 * mean, origin),
            f"student_tokens.{dataset}": Figure(mean, 0.6 * mean, 1.5 * mean, f"{origin}, in the student's tokens"),
            f"sentences.{dataset}": Figure(mean / TOKENS_PER_SENTENCE, mean / 40, mean / 18, OF_SENTENCES),
            f"scored_share.{dataset}": Figure(0.9, 0.75, 0.98, "assumed: passes the filters but correctness", True),
            f"accepted_share.{dataset}": Figure(share, share - 0.2, share + 0.1, f"{wrong}assumed", True),
            f"covered_share.{dataset}": Figure(0.95, 0.8, 1.0, "assumed: questions with an accepted response", True),
        }
    return figures


def _of_mixed_policy() -> Figures:
    return {
        "rollout_length": Figure(0.9, 0.6, 1.2, "assumed: a rollout's tokens by those of its reference"),
        "cut_off_share": Figure(0.3, 0.15, 0.5, "report §5: 15K of 50K rollouts", True),
        "continuation_length": Figure(0.8, 0.4, 1.3, "assumed: a continuation's tokens by those of the reference"),
        "continued_share": CONTINUED,
    }


def _of_answers(recipe: Recipe) -> Figures:
    limit = max(benchmark.max_tokens for benchmark in recipe.evaluation.benchmarks)
    mean = min(20_000.0, 0.5 * limit)
    figures = dict[str, Figure]()
    for name in answering(recipe):
        share = 0.4 if name == "student" else 1.0
        origin = "assumed: longer than the training set's" + (", the untrained student's shorter" if share < 1 else "")
        figures[f"answer_tokens.{name}"] = Figure(share * mean, 0.5 * share * mean, 1.6 * share * mean, origin)
    return figures


def _of_machine(machine: Machine) -> Figures:
    """Of the peak figures, how much is reached."""
    sharded = Figure(0.9, 0.8, 0.97, "assumed: of the rate, for each doubling of the devices of one copy", True)
    if machine.is_cpu:
        wide = "assumed: share of a core's peak, which libraries and sizes change much"
        shares = {f"utilisation.{kind}": Figure(0.3, 0.05, 0.9, wide, True) for kind in UTILISED}
        return {**shares, "parallel_efficiency": sharded}
    return {
        "parallel_efficiency": sharded,
        "utilisation.decode": Figure(0.35, 0.2, 0.6, "assumed: share of the bandwidth while decoding", True),
        "utilisation.prefill": Figure(0.4, 0.25, 0.55, "assumed: share of the peak while scoring", True),
        "utilisation.training": Figure(0.35, 0.2, 0.45, "assumed: share of the peak while training, 64K packed", True),
    }


def _of_rates() -> Figures:
    measured_here = "docs/benchmarks.md, one core"
    # Intervals hold other machines, too: the same share in one batch (docs/planning.md), and docs/benchmarks.md.
    at_length = "docs/planning.md, one core, 3 % of the report's size"
    return {
        "start_seconds": Figure(2.0, 0.5, 10.0, "assumed: a step, before it works"),
        "load_bytes_per_second": Figure(0.5e9, 0.2e9, 1.5e9, "assumed: weights into an engine, its warm-up included"),
        "landed_tokens_per_second": Figure(1.0e6, 0.3e6, 3.0e6, "assumed: tokens of landed rows parsed and stored"),
        # 767 M tokens in 1,250 s; 257 M on another machine in 650, 25.8 M in 62 to 72.
        "tokenised_per_second": Figure(0.62e6, 0.35e6, 0.9e6, f"{at_length}: tokens of texts that are tokenized"),
        # 608 s; a third of it elsewhere in 322. Numbers were verified, which takes next to nothing.
        "judged_tokens_per_second": Figure(1.25e6, 0.7e6, 2.0e6, f"{at_length}: tokens looked at for repetition"),
        "verified_per_second": Figure(50.0, 5.0, 500.0, "assumed: answers verified; programs take longest"),
        # 424 s; a third of it elsewhere in 459; 1.9 M tokens, and as many of the other model, in 3.8 s.
        "sentence_tokens_per_second": Figure(1.8e6, 0.5e6, 2.5e6, f"{at_length}: tokens into sentences"),
        # 54 M sentences in 560 s, half for types, half for scores; 18 M in 104 when twice as many were typed at once.
        "typed_per_second": Figure(0.2e6, 0.15e6, 1.0e6, f"{at_length}: sentences typed, or scored"),
        "pooled_per_second": Figure(0.4e6, 0.2e6, 0.8e6, f"{measured_here}: scored responses gathered and ranked"),
        # Some 325 M tokens of both policies' examples in 156 s; elsewhere 9.8 M in 14.4 and 15.3 s.
        "written_tokens_per_second": Figure(2.0e6, 0.6e6, 2.5e6, f"{at_length}: tokens read, joined and written"),
        "rows_per_second": Figure(20e3, 5e3, 80e3, "assumed: small rows read, parsed and written"),
    }


def of_disk() -> Figures:
    """Bytes of a token or a row as they are stored, compressed."""
    measured = "docs/planning.md, 3 % of the report's size"
    return {
        "bytes.teacher_token": Figure(10.5, 8.0, 12.0, f"{measured}: id, logprob, offset and text"),
        "bytes.student_token": Figure(4.8, 3.5, 6.0, f"{measured}: id and offset"),
        "bytes.student_logprob": Figure(4.0, 3.7, 4.5, f"{measured}: float32 does not compress"),
        "bytes.sentence": Figure(43.0, 25.0, 60.0, f"{measured}: sums, counts, spans and type"),
        "bytes.example_token": Figure(2.9, 2.3, 4.0, f"{measured}: input ids and labels"),
        "bytes.row": Figure(60.0, 30.0, 150.0, "assumed: any other row"),
    }


def load_seconds(model: ModelSize, bytes_per_second: float) -> float:
    """Until an engine with the model takes its first request."""
    return model.num_bytes / bytes_per_second
