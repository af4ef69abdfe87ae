"""Why a response was chosen, or why not: the rules of `pool` and `selection`, told of one response.

The rule is the one that `selection_rules` kept; ranks are counted over the pool as it is now. Counting the responses
above one needs no sort, and of the pool's tables only what lies above.
"""

import json
from collections.abc import Iterator

from dasd_assets.audit.prompt import Record
from dasd_assets.rules.ids import off_policy_order
from dasd_resources.storage.lake import Reading

SAMPLING = {"teacher": "teacher_fingerprint", "top_p": "top_p", "max_tokens": "max_tokens"}


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
            row = chosen.pop((*key, "das"), None)
            found.append(
                _outcome(*key, "das", row, "" if row else _why_not_mixed(reading, key[0], rule, response, domain))
            )
            continue
        selected = (*key, "das") in chosen
        why = None if selected else next(_reasons(reading, rule, response, verdicts, domain), None)
        found.append(_outcome(*key, "das", chosen.pop((*key, "das"), None), why or _pending()))
        row = chosen.pop((*key, "random"), None)
        found.append(_outcome(*key, "random", row, _why_not_drawn(reading, key, rule, response, why)))
    found += [_outcome(*key, row, "") for key, row in chosen.items()]
    return found


def _outcome(recipe: str, dataset: str, policy: str, row: Record | None, why_not: str) -> Record:
    if row is None:
        return {"recipe": recipe, "dataset": dataset, "policy": policy, "chosen": False, "why": why_not}
    how = {
        "das": f"rank {row['rank']} of domain {row['domain']} by {row['score_name']}",
        "random": f"drawn as number {row['rank']} of domain {row['domain']}",
    }[policy]
    if dataset == "mixed":
        how = f"an off-policy row, drawn; {how} of its own dataset"
    told = ("rank", "score", "score_name", "threshold", "domain", "selection_version", "selection_id", "run_id")
    return {
        **{"recipe": recipe, "dataset": dataset, "policy": policy, "chosen": True, "why": how},
        **{key: row[key] for key in told},
    }


def _reasons(
    reading: Reading, rule: Record, response: Record, verdicts: list[Record], domain: str | None
) -> Iterator[str]:
    """What keeps a response out, in the order in which pool and selection look; nothing if it should be chosen."""
    if domain is None:
        yield "its question is withdrawn"
    yield from _outside_pool(rule, response)
    failed = _failed(rule, verdicts)
    if failed and rule["only_accepted"]:
        yield f"not in the pool: {failed}"
    score, missing = _score(reading, rule, response)
    if score is None:
        yield missing
        return
    yield from _outranked(reading, rule, response, score, str(domain))
    if failed:
        yield f"dropped after selection: {failed}"


def _outside_pool(rule: Record, response: Record) -> Iterator[str]:
    for name, column in SAMPLING.items():
        if response[column] != rule[name]:
            yield f"not in the pool: its {column} is {response[column]}, the recipe's {rule[name]}"
    if response["sample_index"] >= rule["num_candidates"]:
        yield (
            f"not in the pool: it is candidate {response['sample_index'] + 1} of its question, "
            f"the recipe takes {rule['num_candidates']}"
        )
    if response["batch"] not in rule["batches"]:
        yield f"not in the pool: its batch {response['batch']} did not exist, or was set aside, when it was made"


def _failed(rule: Record, verdicts: list[Record]) -> str | None:
    """The filters that the response did not pass, or has not been judged by."""
    now = {v["filter"]: v for v in verdicts if v["filter_version"] == rule["filter_version"]}
    unjudged = [name for name in rule["filters"] if name not in now]
    failed = [f"filter {n} ({now[n]['reason']})" for n in rule["filters"] if n in now and not now[n]["passed"]]
    if failed:
        return "; ".join(failed)
    return f"not judged yet by filter {', '.join(unjudged)}" if unjudged else None


def _score(reading: Reading, rule: Record, response: Record) -> tuple[float | None, str]:
    params = {**rule, "id": response["response_id"], "batch": response["batch"]}
    scores = reading.read(f"SELECT s.score {_SCORES} AND s.response_id = $id AND s.batch = $batch", params)["score"]
    if scores.is_empty():
        return None, f"not in the pool: it has no {rule['score_name']} yet under this threshold"
    score = scores[0]
    return score, f"its {rule['score_name']} has no value: no sentence has tokens on both sides"


def _outranked(reading: Reading, rule: Record, response: Record, score: float, domain: str) -> Iterator[str]:
    """The better response to the same question, or the rank beyond the budget."""
    params = {**rule, "id": response["response_id"], "score": score, "domain": domain}
    if rule["policy"] == "best_per_question":
        same = {**params, "prompt": response["prompt_id"], "batch": response["batch"]}
        better = reading.read(_ABOVE_OF_QUESTION, same).to_dicts()
        if better:
            yield (
                f"not the best of its question: {rule['score_name']} {score:.4f}, while response "
                f"{better[0]['response_id']} has {better[0]['score']:.4f} (it is number {len(better) + 1})"
            )
            return
    budget = rule["budget"].get(domain)
    if budget is not None:
        column = "num_questions" if rule["policy"] == "best_per_question" else "num_responses"
        with reading.all_cores():
            rank = int(reading.read(_NUM_ABOVE, params)[column].item()) + 1
        if rank > budget:
            yield f"ranked {rank:,} by {rule['score_name']} {score:.4f}; the budget of domain {domain} is {budget:,}"


def _pending() -> str:
    return "it should be chosen now, but is not yet: run `dasd run`"


def _why_not_drawn(reading: Reading, key: tuple[str, str], rule: Record, response: Record, why: str | None) -> str:
    """The control draws from accepted, scored responses; of the same questions if best-per-question."""
    if why is not None and why.startswith(("not in the pool", "dropped after", "its ")):
        return why
    params = {"recipe": key[0], "dataset": key[1], "prompt": response["prompt_id"]}
    rows = reading.read(_OF_QUESTION, params).to_dicts()
    if rule["policy"] == "best_per_question":
        if not any(row["policy"] == "das" for row in rows):
            return "its question is not among the selected ones, of which the control draws"
        drawn = [row["response_id"] for row in rows if row["policy"] == "random"]
        return f"response {drawn[0]} was drawn for its question" if drawn else "not drawn"
    return "not drawn: the control takes as many responses of its domain as the selection"


def _why_not_mixed(reading: Reading, recipe: str, rule: Record, response: Record, domain: str | None) -> str:
    """The mixed-policy dataset draws off-policy rows by a hash of seed and id, of the selected responses alone."""
    if domain is None:
        return "its question is withdrawn"
    params = {"recipe": recipe, "dataset": rule["drawn_from"]}
    ids = reading.read(_SELECTED, params)["response_id"].to_list()
    if response["response_id"] not in ids:
        return f"not selected for {rule['drawn_from']}, of which the mixed-policy dataset draws"
    place = off_policy_order(ids, rule["seed"]).index(response["response_id"]) + 1
    if place <= rule["num_drawn"]:
        return _pending()
    return (
        f"not drawn: number {place:,} of {len(ids):,} in the draw, of which the first {rule['num_drawn']:,} go with "
        f"{rule['num_on_policy']:,} continuations (ratio {rule['ratio']:g})"
    )


_SELECTED = """SELECT response_id FROM selected_responses
    WHERE recipe = $recipe AND dataset = $dataset AND policy = 'das'"""
_OF_QUESTION = """SELECT policy, response_id FROM selected_responses
    WHERE recipe = $recipe AND dataset = $dataset AND prompt_id = $prompt"""
_SCORES = """FROM response_scores s WHERE s.score_name = $score_name AND s.threshold_version = $threshold_version
    AND s.student_fingerprint = $student"""
_ABOVE = (
    f"(SELECT s.response_id, s.score {_SCORES} AND (s.score > $score OR (s.score = $score AND s.response_id < $id))"
)
_OF_RECIPE = """r.teacher_fingerprint = $teacher AND r.top_p = $top_p AND r.max_tokens = $max_tokens
    AND r.sample_index < $num_candidates AND r.temperature = $temperature"""
_ACCEPTED = """(NOT $only_accepted OR r.response_id IN (SELECT v.response_id FROM response_verdicts v
    WHERE v.filter_version = $filter_version AND list_contains($filters, v.filter){scope}
    GROUP BY v.response_id HAVING bool_and(v.passed) AND count(*) = len($filters)))"""
_ABOVE_OF_QUESTION = f"""SELECT r.response_id, a.score FROM responses r JOIN {_ABOVE} AND s.batch = $batch) a
    USING (response_id) WHERE r.prompt_id = $prompt AND r.batch = $batch AND {_OF_RECIPE}
    AND {_ACCEPTED.format(scope=" AND v.batch = $batch")} ORDER BY a.score DESC, r.response_id"""
# Those above first: verdicts are then looked up for them alone, not for every response there is.
_NUM_ABOVE = f"""WITH above AS MATERIALIZED (SELECT r.response_id, r.prompt_id
        FROM responses r JOIN {_ABOVE}) a USING (response_id) JOIN prompts p ON p.prompt_id = r.prompt_id
        WHERE {_OF_RECIPE} AND p.domain = $domain AND r.batch IN (SELECT unnest($batches::VARCHAR[])))
    SELECT count(*) AS num_responses, count(DISTINCT r.prompt_id) AS num_questions FROM above r
    WHERE {_ACCEPTED.format(scope=" AND v.response_id IN (SELECT response_id FROM above)")}"""
