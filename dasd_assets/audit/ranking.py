"""Why a response was chosen, or why not: the rules of `pool` and `selection`, applied to one response.

The rule is the one that `selection_rules` kept; ranks are counted over the pool as it is now. Counting the responses
above one needs no sort, and of the pool's tables only what lies above.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from dasd_assets.audit.prompt import Record
from dasd_assets.rules.asset_names import DAS, MIXED, RANDOM
from dasd_assets.rules.candidates import ACCEPTED, AT_TEMPERATURE, OF_BATCHES, OF_RECIPE
from dasd_assets.rules.ids import off_policy_order
from dasd_resources.storage.lake import Reading

SAMPLING = {"teacher": "teacher_fingerprint", "top_p": "top_p", "max_tokens": "max_tokens"}

OutcomeKind = Literal[
    "chosen",
    "pending",
    "question_withdrawn",
    "other_sampling",
    "beyond_candidates",
    "batch_absent",
    "filtered",
    "not_scored",
    "no_score_value",
    "not_best_of_question",
    "beyond_budget",
    "question_not_selected",
    "not_drawn",
    "not_selected",
]
OUTCOME_KINDS: dict[OutcomeKind, str] = {  # codes of `kind` in the `selections` of an audit
    "chosen": "The dataset has it.",
    "pending": "It should be chosen now; the next run does so.",
    "question_withdrawn": "A takedown withdrew its question.",
    "other_sampling": "Another teacher, nucleus or token limit than the recipe's made it.",
    "beyond_candidates": "The recipe takes fewer candidates of a question.",
    "batch_absent": "Its batch did not exist, or was quarantined, when the selection was made.",
    "filtered": "It failed a required filter, or has not been judged by one.",
    "not_scored": "It has no score under the current threshold yet.",
    "no_score_value": "Its score is undefined: no sentence has tokens of both models.",
    "not_best_of_question": "Another response to the same question has a better score.",
    "beyond_budget": "Its rank exceeds the budget of its domain.",
    "question_not_selected": "The control draws from the selected questions, and its question is not one.",
    "not_drawn": "It could have been drawn, and others were.",
    "not_selected": "The mixed-policy dataset draws from a selection that it is not in.",
}
assert get_args(OutcomeKind) == tuple(OUTCOME_KINDS), "each kind stands in both, in one order"
RANKED_LOWER: tuple[OutcomeKind, ...] = ("not_best_of_question", "beyond_budget")  # the control may still draw it


@dataclass(frozen=True)
class Exclusion:
    """Why a response is not in a dataset: for code, and for people."""

    kind: OutcomeKind
    why: str


PENDING = Exclusion("pending", "it should be chosen now, but is not yet: run `dasd run`")
QUESTION_WITHDRAWN = Exclusion("question_withdrawn", "its question is withdrawn")


def selections(reading: Reading, response: Record, verdicts: list[Record], domain: str | None) -> list[Record]:
    """One record per recipe, dataset and policy that could have chosen the response: chosen or not, and why.

    response: its row. verdicts: its `response_verdicts`. domain: of its question; None if that is withdrawn.
    """
    query = "SELECT * FROM selected_responses WHERE response_id = $id"
    rows = reading.read(query, {"id": response["response_id"]}).to_dicts()
    chosen = {(row["recipe"], row["dataset"], row["policy"]): row for row in rows}
    found: list[Record] = []
    for kept in reading.read("SELECT * FROM selection_rules ORDER BY recipe, dataset").to_dicts():
        rule = json.loads(kept["rule"])
        if rule["temperature"] != response["temperature"]:
            continue
        key = (kept["recipe"], kept["dataset"])
        if "drawn_from" in rule:
            row = chosen.pop((*key, DAS), None)
            excluded = PENDING if row else _why_not_mixed(reading, key[0], rule, response, domain)
            found.append(_outcome(*key, DAS, row, excluded))
            continue
        selected = (*key, DAS) in chosen
        why = None if selected else next(_exclusions(reading, rule, response, verdicts, domain), None)
        found.append(_outcome(*key, DAS, chosen.pop((*key, DAS), None), why or PENDING))
        row = chosen.pop((*key, RANDOM), None)
        found.append(_outcome(*key, RANDOM, row, _why_not_drawn(reading, key, rule, response, why)))
    found += [_outcome(*key, row) for key, row in chosen.items()]
    return found


def _outcome(recipe: str, dataset: str, policy: str, row: Record | None, excluded: Exclusion = PENDING) -> Record:
    """The response's row of a dataset as a record; where there is none, `excluded` says why."""
    of = {"recipe": recipe, "dataset": dataset, "policy": policy}
    if row is None:
        return {**of, "chosen": False, "kind": excluded.kind, "why": excluded.why}
    how = {
        DAS: f"rank {row['rank']} of domain {row['domain']} by {row['score_name']}",
        RANDOM: f"drawn as number {row['rank']} of domain {row['domain']}",
    }[policy]
    if dataset == MIXED:
        how = f"an off-policy row, drawn; {how} of its own dataset"
    shown = ("rank", "score", "score_name", "threshold", "domain", "selection_version", "selection_id", "run_id")
    return {**of, "chosen": True, "kind": "chosen", "why": how, **{key: row[key] for key in shown}}


def _exclusions(
    reading: Reading, rule: Record, response: Record, verdicts: list[Record], domain: str | None
) -> Iterator[Exclusion]:
    """What keeps a response out, in the order in which pool and selection look; nothing if it should be chosen."""
    if domain is None:
        yield QUESTION_WITHDRAWN
    yield from _outside_pool(rule, response)
    failed = _failed(rule, verdicts)
    if failed and rule["only_accepted"]:
        yield Exclusion("filtered", f"not in the pool: {failed}")
    score = _score(reading, rule, response)
    if isinstance(score, Exclusion):
        yield score
        return
    yield from _outranked(reading, rule, response, score, str(domain))
    if failed:
        yield Exclusion("filtered", f"dropped after selection: {failed}")


def _outside_pool(rule: Record, response: Record) -> Iterator[Exclusion]:
    for name, column in SAMPLING.items():
        if response[column] != rule[name]:
            why = f"not in the pool: its {column} is {response[column]}, the recipe's {rule[name]}"
            yield Exclusion("other_sampling", why)
    if response["sample_index"] >= rule["num_candidates"]:
        number = response["sample_index"] + 1
        why = f"not in the pool: it is candidate {number} of its question, the recipe takes {rule['num_candidates']}"
        yield Exclusion("beyond_candidates", why)
    if response["batch"] not in rule["batches"]:
        why = f"not in the pool: its batch {response['batch']} did not exist, or was quarantined, when it was made"
        yield Exclusion("batch_absent", why)


def _failed(rule: Record, verdicts: list[Record]) -> str | None:
    """The filters that the response did not pass, or has not been judged by."""
    now = {v["filter"]: v for v in verdicts if v["filter_version"] == rule["filter_version"]}
    unjudged = [name for name in rule["filters"] if name not in now]
    failed = [f"filter {n} ({now[n]['reason']})" for n in rule["filters"] if n in now and not now[n]["passed"]]
    if failed:
        return "; ".join(failed)
    return f"not judged yet by filter {', '.join(unjudged)}" if unjudged else None


def _score(reading: Reading, rule: Record, response: Record) -> float | Exclusion:
    params = {**rule, "id": response["response_id"], "batch": response["batch"]}
    scores = reading.read(f"SELECT s.score {_SCORES} AND s.response_id = $id AND s.batch = $batch", params)["score"]
    if scores.is_empty():
        return Exclusion("not_scored", f"not in the pool: it has no {rule['score_name']} yet under this threshold")
    if scores[0] is None:
        why = f"its {rule['score_name']} has no value: no sentence has tokens on both sides"
        return Exclusion("no_score_value", why)
    return float(scores[0])


def _outranked(reading: Reading, rule: Record, response: Record, score: float, domain: str) -> Iterator[Exclusion]:
    """The better response to the same question, or the rank beyond the budget."""
    params = {**rule, "id": response["response_id"], "score": score, "domain": domain}
    if rule["policy"] == "best_per_question":
        same = {**params, "prompt": response["prompt_id"], "batch": response["batch"]}
        better = reading.read(_ABOVE_OF_QUESTION, same).to_dicts()
        if better:
            why = (
                f"not the best of its question: {rule['score_name']} {score:.4f}, while response "
                f"{better[0]['response_id']} has {better[0]['score']:.4f} (it is number {len(better) + 1})"
            )
            yield Exclusion("not_best_of_question", why)
            return
    budget = rule["budget"].get(domain)
    if budget is not None:
        column = "num_questions" if rule["policy"] == "best_per_question" else "num_responses"
        with reading.all_cores():
            rank = int(reading.read(_NUM_ABOVE, params)[column].item()) + 1
        if rank > budget:
            why = f"ranked {rank:,} by {rule['score_name']} {score:.4f}; the budget of domain {domain} is {budget:,}"
            yield Exclusion("beyond_budget", why)


def _why_not_drawn(
    reading: Reading, key: tuple[str, str], rule: Record, response: Record, excluded: Exclusion | None
) -> Exclusion:
    """The control draws from accepted, scored responses; of the same questions if best-per-question.

    excluded: why the response is not in the selection; None if it is, or should be.
    """
    if excluded is not None and excluded.kind not in RANKED_LOWER:
        return excluded
    params = {"recipe": key[0], "dataset": key[1], "prompt": response["prompt_id"]}
    rows = reading.read(_OF_QUESTION, params).to_dicts()
    if rule["policy"] == "best_per_question":
        if not any(row["policy"] == DAS for row in rows):
            why = "its question is not among the selected ones, of which the control draws"
            return Exclusion("question_not_selected", why)
        drawn = [row["response_id"] for row in rows if row["policy"] == RANDOM]
        return Exclusion("not_drawn", f"response {drawn[0]} was drawn for its question" if drawn else "not drawn")
    return Exclusion("not_drawn", "not drawn: the control takes as many responses of its domain as the selection")


def _why_not_mixed(reading: Reading, recipe: str, rule: Record, response: Record, domain: str | None) -> Exclusion:
    """The mixed-policy dataset draws off-policy rows by a hash of seed and id, of the selected responses alone."""
    if domain is None:
        return QUESTION_WITHDRAWN
    params = {"recipe": recipe, "dataset": rule["drawn_from"]}
    ids = reading.read(_SELECTED, params)["response_id"].to_list()
    if response["response_id"] not in ids:
        why = f"not selected for {rule['drawn_from']}, of which the mixed-policy dataset draws"
        return Exclusion("not_selected", why)
    place = off_policy_order(ids, rule["seed"]).index(response["response_id"]) + 1
    if place <= rule["num_drawn"]:
        return PENDING
    why = (
        f"not drawn: number {place:,} of {len(ids):,} in the draw, of which the first {rule['num_drawn']:,} go with "
        f"{rule['num_on_policy']:,} continuations (ratio {rule['ratio']:g})"
    )
    return Exclusion("not_drawn", why)


_SELECTED = """SELECT response_id FROM selected_responses
    WHERE recipe = $recipe AND dataset = $dataset AND policy = 'das'"""
_OF_QUESTION = """SELECT policy, response_id FROM selected_responses
    WHERE recipe = $recipe AND dataset = $dataset AND prompt_id = $prompt"""
_SCORES = """FROM response_scores s WHERE s.score_name = $score_name AND s.threshold_version = $threshold_version
    AND s.student_fingerprint = $student"""
_ABOVE = (
    f"(SELECT s.response_id, s.score {_SCORES} AND (s.score > $score OR (s.score = $score AND s.response_id < $id))"
)
_IN_POOL = f"{OF_RECIPE} AND {AT_TEMPERATURE}"
_ACCEPTED = f"(NOT $only_accepted OR r.response_id IN ({ACCEPTED}))"
_ABOVE_OF_QUESTION = f"""SELECT r.response_id, a.score FROM responses r JOIN {_ABOVE} AND s.batch = $batch) a
    USING (response_id) WHERE r.prompt_id = $prompt AND r.batch = $batch AND {_IN_POOL}
    AND {_ACCEPTED.format(scope=" AND batch = $batch")} ORDER BY a.score DESC, r.response_id"""
# Those above first: verdicts are then looked up for them alone, not for every response there is.
_NUM_ABOVE = f"""WITH above AS MATERIALIZED (SELECT r.response_id, r.prompt_id
        FROM responses r JOIN {_ABOVE}) a USING (response_id) JOIN prompts p ON p.prompt_id = r.prompt_id
        WHERE {_IN_POOL} AND p.domain = $domain AND {OF_BATCHES})
    SELECT count(*) AS num_responses, count(DISTINCT r.prompt_id) AS num_questions FROM above r
    WHERE {_ACCEPTED.format(scope=" AND response_id IN (SELECT response_id FROM above)")}"""
