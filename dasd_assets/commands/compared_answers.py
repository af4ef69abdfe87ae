"""The answers that two models, or two arms, both gave, and what they say of the difference between them.

Only answers to the same questions, sampled and judged in the same way, are compared: where a benchmark has grown, or a
token limit differs, the rest is left out and counted. What was asked and never came, as after a kill, is counted, too.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import polars as pl

from dasd_assets.commands.compared_models import Compared
from dasd_assets.rules.last_prompts import (
    ANSWER,
    OF_CHECKPOINTS,
    failed_answers,
    last_prompts,
    missing_answers,
    newest_answers,
)
from dasd_assets.rules.statistics.comparison import compare
from dasd_assets.rules.statistics.holm import holm
from dasd_assets.rules.statistics.pairing import paired_differences
from dasd_assets.rules.statistics.power import detectable_with
from dasd_resources.errors import UserError
from dasd_resources.storage.lake import Reading

Record = dict[str, Any]
SETTING = ["benchmark", "temperature", "top_p", "max_tokens", "instruction"]
A, B = "a", "b"
TRAITS = {"mean_tokens": "num_tokens", "cut_off_rate": "cut_off"}  # of answers besides being right, and their columns
MORE: dict[str, dict[str, float]] = {
    "twice the questions": {"questions": 2},
    "twice the samples": {"samples": 2},
    "twice the seeds": {"seeds": 2},
}


class NothingInCommon(UserError, ValueError):
    """No answers of the two can be compared; the message says what each has."""


@dataclass(frozen=True)
class Common:
    """What both have in one setting: answers (arm, seed, question_id, …).

    left_out: how many other questions each has in it. missing: answers that each was asked for and that are neither
    there nor failed.
    """

    setting: Record
    answers: pl.DataFrame
    left_out: dict[str, int]
    missing: dict[str, int]


def compared(reading: Reading, a: Compared, b: Compared) -> list[Record]:
    """A record per benchmark, sampling setting and, where a benchmark has several, domain; a less b.

    Left out are seeds under which one has no answer (`seeds_left_out`). Holm's correction is over the benchmarks' rows,
    and apart from these over the domains'. Raises NothingInCommon where there is not one.
    """
    ids = [*a.checkpoints.values(), *b.checkpoints.values()]
    found = reading.read(_ANSWERS, {"ids": ids})
    sides, answered = {A: a, B: b}, set(found["checkpoint_id"].unique())
    answering = {arm: _answering(of, answered) for arm, of in sides.items()}
    left_out = {arm: [s for s in of.checkpoints if s not in answering[arm].checkpoints] for arm, of in sides.items()}
    members = _members(answering[A], answering[B])
    answers = members.join(found, on="checkpoint_id")
    missing = members.join(reading.read(_MISSING, {"ids": ids}), on="checkpoint_id")
    whole, parts = [], []
    for common in _common(answers, missing, members.height):
        whole.append(_record(common, None))
        domains = common.answers["domain"].drop_nulls().unique().sort().to_list()
        parts += [_record(common, domain) for domain in domains] if len(domains) > 1 else []
    if not whole:
        raise NothingInCommon(_why(answers, a, b))
    return [{**record, "seeds_left_out": left_out} for record in (*_corrected(whole), *_corrected(parts))]


def _answering(of: Compared, answered: set[str]) -> Compared:
    """The same without the seeds under which it has no answer; as it is where it has none at all."""
    kept = {seed: checkpoint for seed, checkpoint in of.checkpoints.items() if checkpoint in answered}
    return replace(of, checkpoints=kept or of.checkpoints)


def _members(a: Compared, b: Compared) -> pl.DataFrame:
    """arm, seed, checkpoint_id of all that are paired; a single checkpoint, of seed None, with every seed of an arm.

    Raises NothingInCommon where no seed is common.
    """
    seeds = set(a.checkpoints) | set(b.checkpoints)
    if not (a.is_single or b.is_single):
        seeds = set(a.checkpoints) & set(b.checkpoints)
    if not seeds:
        each = "; ".join(f"{of.name}: {', '.join(map(str, of.checkpoints))}" for of in (a, b))
        raise NothingInCommon(f"no seed is common to the arms ({each}): train and evaluate both under the same")
    sides = [(arm, *one) for arm, of in ((A, a), (B, b)) for one in of.checkpoints.items() if one[0] in seeds]
    schema = {"arm": pl.String, "seed": pl.Int64, "checkpoint_id": pl.String}
    return pl.DataFrame(sides, schema=schema, orient="row")


def _common(answers: pl.DataFrame, missing: pl.DataFrame, num_members: int) -> Iterator[Common]:
    """Per setting that every member has, the questions that every one answered, judged in the same way.

    answers, missing: of `_ANSWERS` and `_MISSING`, by arm.
    """
    for setting, part in answers.sort(SETTING).group_by(SETTING, maintain_order=True):
        # 1. Of the verifiers' versions that judged answers of all, the one that judged last.
        versions = part.group_by("verifier_version").agg(
            pl.struct("arm", "seed").n_unique().alias("members"), pl.col("judged").max()
        )
        shared = versions.filter(pl.col("members") == num_members).sort("judged")
        if shared.is_empty():
            continue
        version = shared["verifier_version"][-1]
        alike = part.filter(pl.col("verifier_version") == version)
        # 2. The questions that all answered.
        both = alike.filter(pl.struct("arm", "seed").n_unique().over("question_id", "judged_by") == num_members)
        if both.is_empty():
            continue
        asked = {arm: part.filter(pl.col("arm") == arm)["question_id"].n_unique() for arm in (A, B)}
        left_out = {arm: num - both["question_id"].n_unique() for arm, num in asked.items()}
        named = dict(zip(SETTING, setting, strict=True))
        yield Common({**named, "verifier_version": version}, both, left_out, _num_missing(missing, named))


def _record(common: Common, domain: str | None) -> Record:
    """All that is said of one row of the page."""
    answers = common.answers if domain is None else common.answers.filter(pl.col("domain") == domain)
    paired = paired_differences(answers, A, B)
    arm, baseline = paired.arm.mean(axis=0), paired.baseline.mean(axis=0)
    found = asdict(compare(paired))
    accuracies = {A: found.pop("accuracy"), B: found.pop("baseline_accuracy")}
    return {
        **common.setting,
        "domain": domain,
        "accuracy": accuracies,
        **found,
        "detectable_with": {name: detectable_with(paired, **more) for name, more in MORE.items()},
        "num_only_right": {A: int(((arm > 0) & (baseline == 0)).sum()), B: int(((baseline > 0) & (arm == 0)).sum())},
        "num_better": {A: int((arm > baseline).sum()), B: int((baseline > arm).sum())},
        **_of_each(answers),
        **_traits(answers),
        "num_questions_left_out": common.left_out if domain is None else None,
        "num_missing": common.missing if domain is None else None,
    }


def _num_missing(missing: pl.DataFrame, setting: Record) -> dict[str, int]:
    """How many answers of a setting are missing of each. missing: of `_MISSING`."""
    of_setting = missing.filter(*(pl.col(name).eq_missing(pl.lit(value)) for name, value in setting.items()))
    return {arm: int(of_setting.filter(pl.col("arm") == arm)["num"].sum()) for arm in (A, B)}


def _of_each(answers: pl.DataFrame) -> Record:
    """Counts of both."""
    counts = answers.group_by("arm").agg(num_failed=pl.col("failed").sum(), num_answers=pl.len())
    of = {row["arm"]: row for row in counts.to_dicts()}
    return {name: {arm: of[arm][name] for arm in (A, B)} for name in ("num_failed", "num_answers")}


def _traits(answers: pl.DataFrame) -> Record:
    """Lengths and cut-off rates of both, each question weighing the same, and their differences, paired as accuracies.

    Failed answers have neither: only questions of which every model has an answer count. None without any.
    """
    num_members = answers.select("arm", "seed").n_unique()
    given = answers.filter(~pl.col("failed"))
    both = given.filter(pl.struct("arm", "seed").n_unique().over("question_id") == num_members)
    found = {
        name: None if both.is_empty() else compare(paired_differences(both, A, B, value=column))
        for name, column in TRAITS.items()
    }
    return {
        **{name: {A: of and of.accuracy, B: of and of.baseline_accuracy} for name, of in found.items()},
        "trait_differences": {
            name: of and {"difference": of.difference, "low": of.low, "high": of.high} for name, of in found.items()
        },
    }


def _corrected(records: list[Record]) -> list[Record]:
    """The records with `p_holm`, and of how many p-values these are corrected together."""
    adjusted = holm([record["p"] for record in records])
    number = sum(p is not None for p in adjusted)
    return [{**record, "p_holm": p, "num_corrected": number} for record, p in zip(records, adjusted, strict=True)]


def _why(answers: pl.DataFrame, a: Compared, b: Compared) -> str:
    """What each has, where nothing is common."""
    for arm, of in ((A, a), (B, b)):
        if answers.filter(pl.col("arm") == arm).is_empty():
            return (
                f"{of.name} has answered no held-out question: `dasd run` evaluates the checkpoints of a recipe whose "
                "`evaluation` names benchmarks"
            )
    each = [f"{of.name} has {_settings(answers.filter(pl.col('arm') == arm))}" for arm, of in ((A, a), (B, b))]
    return (
        f"no question was answered by both in one setting and judged by one version of the verifiers: "
        f"{'; '.join(each)}. Evaluate both by one recipe's `evaluation`"
    )


def _settings(answers: pl.DataFrame) -> str:
    rows = answers.select(*SETTING, "verifier_version").unique().sort(pl.all()).rows()
    return ", ".join(
        f"{benchmark} at T={temperature:g}, top-p {top_p:g}, at most {max_tokens:,} tokens, "
        f"{'no instruction' if instruction is None else repr(instruction)}, verifiers {version}"
        for benchmark, temperature, top_p, max_tokens, instruction, version in rows[:4]
    ) + (", …" if len(rows) > 4 else "")


_ASKED = f"{ANSWER}, instruction, verifier_version"
# A request that failed is a wrong answer by any judge. What was asked with several prompts counts as it was asked last.
_ANSWERS = f"""WITH asked_last AS ({last_prompts(OF_CHECKPOINTS)}),
    answers AS (
        SELECT {_ASKED}, judged_by, place AS judged, correct, num_tokens, (finish_reason = 'length')::INT AS cut_off,
            FALSE AS failed
        FROM ({newest_answers(OF_CHECKPOINTS, _ASKED)})
        UNION ALL
        SELECT {_ASKED}, NULL, -1, FALSE, NULL, NULL, TRUE FROM ({failed_answers(OF_CHECKPOINTS, _ASKED)}))
    SELECT answers.* REPLACE (CASE WHEN failed THEN judged_now ELSE judged_by END AS judged_by), domain FROM answers
        LEFT JOIN (SELECT benchmark, question_id, domain, judged_by AS judged_now FROM benchmark_questions)
            USING (benchmark, question_id)
    QUALIFY row_number() OVER (PARTITION BY {_ASKED} ORDER BY judged DESC) = 1"""
_MISSING = f"""WITH asked_last AS ({last_prompts(OF_CHECKPOINTS)}),
    answers AS ({newest_answers(OF_CHECKPOINTS)}),
    failed AS ({failed_answers(OF_CHECKPOINTS)})
    SELECT checkpoint_id, {", ".join(SETTING)}, count(*) AS num
    FROM ({missing_answers(OF_CHECKPOINTS, f"{ANSWER}, instruction")}) GROUP BY ALL"""
