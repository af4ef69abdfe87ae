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
from dasd_assets.rules.candidates import ACCEPTED, AT_TEMPERATURE, HELD_OUT, OF_BATCHES, OF_RECIPE, is_held_out
from dasd_assets.rules.competition import NUM_TOKENS, SHRUNK, Competition
from dasd_assets.rules.ids import off_policy_order
from dasd_assets.rules.instructions import instruction_params, stored_instructions
from dasd_resources.storage.lake import Reading
from dasd_resources.visible_text import excerpt

SAMPLING = {"teacher": "teacher_fingerprint", "top_p": "top_p", "max_tokens": "max_tokens"}

OutcomeKind = Literal[
    "chosen",
    "pending",
    "question_withdrawn",
    "question_held_out",
    "other_sampling",
    "other_instruction",
    "beyond_candidates",
    "batch_absent",
    "filtered",
    "not_scored",
    "no_score_value",
    "too_few_sentences",
    "not_best_of_question",
    "question_full",
    "beyond_budget",
    "question_not_selected",
    "not_drawn",
    "not_selected",
    "not_selected_there",
]
OUTCOME_KINDS: dict[OutcomeKind, str] = {  # codes of `kind` in the `selections` of an audit
    "chosen": "The dataset has it.",
    "pending": "It should be chosen now; the next run does so.",
    "question_withdrawn": "A takedown withdrew its question.",
    "question_held_out": "The recipe holds its question out of training.",
    "other_sampling": "Another teacher, nucleus or token limit than the recipe's made it.",
    "other_instruction": "Its question was asked with another instruction, or without one.",
    "beyond_candidates": "The recipe takes fewer candidates of a question.",
    "batch_absent": "Its batch did not exist, or was quarantined, when the selection was made.",
    "filtered": "It failed a required filter, or has not been judged by one.",
    "not_scored": "It has no score under the current threshold yet.",
    "no_score_value": "Its score is undefined: no sentence has tokens of both models.",
    "too_few_sentences": "The recipe asks for more sentences with tokens of both models.",
    "not_best_of_question": "Another response to the same question has a better score.",
    "question_full": "As many responses to the same question as the recipe allows rank above it.",
    "beyond_budget": "Those ranked above it use up the budget of its domain.",
    "question_not_selected": "The control draws from the selected questions, and its question is not one.",
    "not_drawn": "It could have been drawn, and others were.",
    "not_selected": "The mixed-policy dataset draws from a selection that it is not in.",
    "not_selected_there": "The recipe whose selection this one takes did not select it.",
}
assert get_args(OutcomeKind) == tuple(OUTCOME_KINDS), "each kind stands in both, in one order"
RANKED_LOWER: tuple[OutcomeKind, ...] = (
    "not_best_of_question",
    "question_full",
    "beyond_budget",
)


@dataclass(frozen=True)
class Exclusion:
    """Why a response is not in a dataset: for code, and for people."""

    kind: OutcomeKind
    why: str


# What a rule says that was kept before its key existed.
BY_DEFAULT: Record = {"min_sentences": 0, "held_out_share": 0.0, **instruction_params({})}
OF_EXPERIMENTS = "experiment_datasets"  # the table of what they choose by
PENDING = Exclusion("pending", "it should be chosen now, but is not yet: run `dasd run`")
QUESTION_WITHDRAWN = Exclusion("question_withdrawn", "its question is withdrawn")
QUESTION_HELD_OUT = Exclusion(
    "question_held_out", "its question is held out of training (recipe key heldout.questions)"
)


def selections(reading: Reading, response: Record, verdicts: list[Record], domain: str | None) -> list[Record]:
    """One record per recipe, dataset and policy that could have chosen the response: chosen or not, and why.

    response: its row. verdicts: its `response_verdicts`. domain: of its question; None if that is withdrawn.
    """
    query = "SELECT * FROM selected_responses WHERE response_id = $id"
    rows = reading.read(query, {"id": response["response_id"]}).to_dicts()
    chosen = {(row["recipe"], row["dataset"], row["policy"]): row for row in rows}
    found: list[Record] = []
    for kept in reading.read("SELECT * FROM selection_rules ORDER BY recipe, dataset").to_dicts():
        rule = {**BY_DEFAULT, **json.loads(kept["rule"])}
        if rule["temperature"] != response["temperature"]:
            continue
        key = (kept["recipe"], kept["dataset"])
        if "drawn_from" in rule:
            row = chosen.pop((*key, DAS), None)
            excluded = PENDING if row else _why_not_mixed(reading, key[0], rule, response, domain)
            found.append(_outcome(*key, DAS, row, excluded))
            continue
        if "selection_from" in rule:
            for policy in (DAS, RANDOM):
                row = chosen.pop((*key, policy), None)
                found.append(
                    _outcome(*key, policy, row, _why_not_carried(reading, key[1], policy, rule, response, verdicts))
                )
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
    }.get(policy, f"number {row['rank']} of domain {row['domain']}, for an experiment: its rule is in {OF_EXPERIMENTS}")
    if row["selected_by"] is not None:
        how = f"selected by recipe {row['selected_by']}: {how}"
    if dataset == MIXED:
        how = f"an off-policy row, drawn; {how} of its own dataset"
    shown = ("rank", "score", "score_name", "threshold", "domain", "selected_by")
    versions = ("selection_version", "selection_id", "run_id")
    return {**of, "chosen": True, "kind": "chosen", "why": how, **{key: row[key] for key in (*shown, *versions)}}


def _exclusions(
    reading: Reading, rule: Record, response: Record, verdicts: list[Record], domain: str | None
) -> Iterator[Exclusion]:
    """What keeps a response out, in the order in which pool and selection look; nothing if it should be chosen."""
    if domain is None:
        yield QUESTION_WITHDRAWN
    if is_held_out(reading, rule["held_out_share"], response["prompt_id"]):
        yield QUESTION_HELD_OUT
    yield from _outside_pool(rule, response, domain)
    failed = _failed(rule, verdicts)
    if failed and rule["only_accepted"]:
        yield Exclusion("filtered", f"not in the pool: {failed}")
    scored = _scored(reading, rule, response, str(domain))
    if isinstance(scored, Exclusion):
        yield scored
        return
    of_question = _outranked_in_question(reading, rule, scored)
    if failed and rule["policy"] == "top_k":
        yield Exclusion("filtered", f"passed over by selection: {failed}")
    yield from of_question
    if failed:
        yield Exclusion("filtered", f"the best of its question, and passed over by selection: {failed}")
    yield from _beyond_budget(reading, rule, scored)


def _quoted(instruction: str | None) -> str:
    return "nothing" if instruction is None else excerpt(instruction)


def _outside_pool(rule: Record, response: Record, domain: str | None) -> Iterator[Exclusion]:
    for name, column in SAMPLING.items():
        if response[column] != rule[name]:
            why = f"not in the pool: its {column} is {response[column]}, the recipe's {rule[name]}"
            yield Exclusion("other_sampling", why)
    if response["sample_index"] >= rule["num_candidates"]:
        number = response["sample_index"] + 1
        why = f"not in the pool: it is candidate {number} of its question, the recipe takes {rule['num_candidates']}"
        yield Exclusion("beyond_candidates", why)
    if domain is not None and response["instruction"] != (wanted := stored_instructions(rule).get(domain)):
        told = f"not in the pool: its question was asked with {_quoted(response['instruction'])} below it"
        yield Exclusion("other_instruction", f"{told}, the recipe's has {_quoted(wanted)}")
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


@dataclass(frozen=True)
class Scored:
    """A response in the pool. params: the rule's, and the response's own as far as queries on those above it need."""

    score: float
    cost: int
    domain: str
    params: Record


def _scored(reading: Reading, rule: Record, response: Record, domain: str) -> Scored | Exclusion:
    params = {
        "mean": rule.get("domain_means", {}).get(domain),
        **rule,
        "id": response["response_id"],
        "prompt": response["prompt_id"],
        "batch": response["batch"],
        "domain": domain,
    }
    query = f"""SELECT score, num_sentences, {_key(rule)} AS key, {_cost(rule)} AS cost
        FROM (SELECT * {_SCORES} AND s.response_id = $id AND s.batch = $batch) r"""
    rows = reading.read(query, params).to_dicts()
    if not rows:
        return Exclusion("not_scored", f"not in the pool: it has no {rule['score_name']} yet under this threshold")
    [row] = rows
    if row["score"] is None:
        why = f"its {rule['score_name']} has no value: no sentence has tokens on both sides"
        return Exclusion("no_score_value", why)
    if row["num_sentences"] < params["min_sentences"]:
        why = f"not in the pool: it has {row['num_sentences']} sentences, the recipe asks for {params['min_sentences']}"
        return Exclusion("too_few_sentences", why)
    return Scored(float(row["score"]), int(row["cost"] or 0), domain, {**params, "key": row["key"]})


def _key(rule: Record) -> str:
    """What ranks a row of `response_scores`, in SQL."""
    return SHRUNK if rule.get("pseudo_count") else "score"


def _cost(rule: Record) -> str:
    """What a response r takes of its domain's budget, in SQL."""
    if rule.get("budget_unit") != "tokens":
        return "1"
    return f"(SELECT t.num_tokens FROM {NUM_TOKENS} t WHERE t.response_id = r.response_id)"


def _outranked_in_question(reading: Reading, rule: Record, scored: Scored) -> Iterator[Exclusion]:
    """The better responses to the same question, where one, or so many, keep it out."""
    competition = Competition.of_rule(rule)
    if competition.is_plain:
        return
    query = f"""SELECT response_id, score {_above(rule, "r.prompt_id = $prompt AND r.batch = $batch")}
        WHERE accepted OR $policy <> 'top_k' ORDER BY key DESC, response_id"""
    better = reading.read(query, scored.params).to_dicts()
    if rule["policy"] == "best_per_question" and better:
        why = (
            f"not the best of its question: {rule['score_name']} {scored.score:.4f}, while response "
            f"{better[0]['response_id']} has {better[0]['score']:.4f} (it is number {len(better) + 1})"
        )
        yield Exclusion("not_best_of_question", why)
    elif competition.max_per_question is not None and len(better) >= competition.max_per_question:
        why = f"number {len(better) + 1} of its question, of which {competition.max_per_question} are kept"
        yield Exclusion("question_full", why)


def _beyond_budget(reading: Reading, rule: Record, scored: Scored) -> Iterator[Exclusion]:
    """What ranks above it in its domain, if that and its own cost exceed the budget."""
    budget = rule["budget"].get(scored.domain)
    if budget is None:
        return
    query = f"""WITH above AS ({_above(rule, f"p.domain = $domain AND {OF_BATCHES}")})
        SELECT coalesce(sum(cost), 0)::BIGINT FROM ({Competition.of_rule(rule).rows("above")})"""
    with reading.all_cores():
        spent = int(reading.read(query, scored.params).item()) + scored.cost
    if spent > budget:
        place = f"{spent:,} tokens with those ranked above it" if scored.cost > 1 else f"ranked {spent:,}"
        why = f"{place} by {rule['score_name']} {scored.score:.4f}; the budget of domain {scored.domain} is {budget:,}"
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


def _why_not_carried(
    reading: Reading, dataset: str, policy: str, rule: Record, response: Record, verdicts: list[Record]
) -> Exclusion:
    """Another recipe's selection is taken, less what is gone or too long for this recipe's student."""
    source = rule["selection_from"]
    params = {"recipe": source, "dataset": dataset, "policy": policy, "id": response["response_id"]}
    if reading.read(_SELECTED_THERE, params).is_empty():
        return Exclusion("not_selected_there", f"recipe {source}, whose selection this one takes, did not select it")
    if response["batch"] not in rule["batches"]:
        why = f"selected by recipe {source}, but its batch {response['batch']} is gone or quarantined"
        return Exclusion("batch_absent", why)
    if is_held_out(reading, rule["held_out_share"], response["prompt_id"]):
        return QUESTION_HELD_OUT
    judged = {**rule, "filters": ["length"], "filter_version": rule["length_version"]}
    if failed := _failed(judged, verdicts):
        return Exclusion("filtered", f"selected by recipe {source}, and left out for this student: {failed}")
    return PENDING


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


_SELECTED_THERE = """SELECT 1 FROM selected_responses
    WHERE recipe = $recipe AND dataset = $dataset AND policy = $policy AND response_id = $id"""
_SELECTED = """SELECT response_id FROM selected_responses
    WHERE recipe = $recipe AND dataset = $dataset AND policy = 'das'"""
_OF_QUESTION = """SELECT policy, response_id FROM selected_responses
    WHERE recipe = $recipe AND dataset = $dataset AND prompt_id = $prompt"""
_SCORES = """FROM response_scores s WHERE s.score_name = $score_name AND s.threshold_version = $threshold_version
    AND s.student_fingerprint = $student"""


def _above(rule: Record, where: str) -> str:
    """The rows of the pool that rank above a response, with the columns that a `Competition` needs."""
    # Those above first: verdicts are then looked up for them alone, not for every response there is.
    of_prompts = "JOIN prompts p ON p.prompt_id = r.prompt_id"
    return f"""FROM (WITH ranked AS MATERIALIZED (
            SELECT r.response_id, r.prompt_id, r.batch, p.domain, a.score, a.key
            FROM responses r JOIN (SELECT response_id, score, {_key(rule)} AS key {_SCORES}
                AND s.num_sentences >= $min_sentences) a USING (response_id) {of_prompts}
            WHERE (a.key > $key OR (a.key = $key AND r.response_id < $id))
                AND {OF_RECIPE} AND {AT_TEMPERATURE} AND NOT {HELD_OUT} AND {where})
        SELECT r.*, {_cost(rule)} AS cost, v.response_id IS NOT NULL AS accepted FROM ranked r
            LEFT JOIN ({ACCEPTED.format(scope=" AND response_id IN (SELECT response_id FROM ranked)")}) v
            USING (response_id)
        WHERE v.response_id IS NOT NULL OR NOT $only_accepted)"""
