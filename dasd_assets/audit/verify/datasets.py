"""Datasets and selections again, from the rows in them: ids, ranks and scores, what is held out, what was seen."""

import json
from collections.abc import Callable, Iterator, Mapping

from dasd_assets.audit.files import Fault
from dasd_assets.audit.prompt import Record
from dasd_assets.audit.verify.sampling import first_by_hash
from dasd_assets.audit.verify.scores import TOLERANCE
from dasd_assets.rules.asset_names import DAS, MIXED, RANDOM, checkpoint_asset, dataset_asset, selection_asset
from dasd_assets.rules.candidates import HELD_OUT
from dasd_assets.rules.competition import SHRUNK
from dasd_assets.rules.ids import mixed_selection_id, selection_id, sft_dataset_id
from dasd_resources.storage.lake import Reading


def datasets(reading: Reading) -> Iterator[Fault]:
    groups = reading.read(
        "SELECT DISTINCT recipe, dataset, policy, dataset_id FROM sft_examples ORDER BY ALL"
    ).to_dicts()
    for row in groups:
        key = {name: row[name] for name in ("recipe", "dataset", "policy")}
        query = """SELECT example_id FROM sft_examples
            WHERE recipe = $recipe AND dataset = $dataset AND policy = $policy ORDER BY example_id"""
        found = sft_dataset_id(**key, example_ids=reading.read(query, key)["example_id"])
        if found != row["dataset_id"]:
            name, what = " ".join(key.values()), f"its dataset_id is {row['dataset_id']}, its examples give {found}"
            yield Fault("sft_examples", name, what, f"materialize {dataset_asset(row['dataset'], row['policy'])} again")


def published(reading: Reading) -> Iterator[Fault]:
    """What `published_datasets` says of the datasets as they are now."""
    for row in reading.read(_PUBLISHED).iter_rows(named=True):
        name = f"{row['recipe']} {row['dataset']} {row['policy']}"
        what = f"sft_examples has {row['found']:,} examples of {row['dataset_id']}, it says {row['num_examples']:,}"
        yield Fault(
            "published_datasets", name, what, f"materialize {dataset_asset(row['dataset'], row['policy'])} again"
        )


_PUBLISHED = """SELECT p.*, count(e.example_id) AS found
    FROM (SELECT recipe, dataset, policy, dataset_id, num_examples FROM published_datasets) p
        LEFT JOIN sft_examples e USING (recipe, dataset, policy, dataset_id)
    GROUP BY ALL HAVING count(e.example_id) <> num_examples ORDER BY ALL"""


def selections(reading: Reading) -> Iterator[Fault]:
    """Ids of selected datasets, from the responses in them and the rule that chose these."""
    query = """SELECT recipe, dataset, policy, selection_version, selection_id,
            list(response_id ORDER BY response_id) AS ids
        FROM selected_responses GROUP BY ALL ORDER BY ALL"""
    for row in reading.read(query).iter_rows(named=True):
        dataset, ids = row["dataset"], row["ids"]
        found = (
            mixed_selection_id(MIXED, row["recipe"], ids)
            if dataset == MIXED
            else selection_id(dataset, row["policy"], row["selection_version"], ids)
        )
        if found != row["selection_id"]:
            name = f"{row['recipe']} {row['dataset']} {row['policy']}"
            what = f"its selection_id is {row['selection_id']}, its {len(row['ids']):,} responses give {found}"
            yield Fault("selected_responses", name, what, _select_again(row))


def ranks(reading: Reading) -> Iterator[Fault]:
    """Ranks of each selection and domain: 1 to n, but for rows that a draw or a later filter has left out."""
    rules: dict[tuple[str, str], Record] = {}
    for row in reading.read("SELECT recipe, dataset, rule FROM selection_rules").to_dicts():
        rule = _parsed(row["rule"])
        if rule is not None:
            rules[row["recipe"], row["dataset"]] = rule
        else:
            remedy = f"materialize what selects {row['dataset']} again"
            yield Fault("selection_rules", f"{row['recipe']} {row['dataset']}", "its rule cannot be read", remedy)
    for row in reading.read(_RANKS).iter_rows(named=True):
        rule = rules.get((row["recipe"], row["dataset"]), {})
        # Before there were domain_means, a rank was given before a later filter left its row out.
        gapless = rule.get("only_accepted") or "domain_means" in rule
        # What another recipe selected keeps its rank where its neighbours were too long for this student.
        whole = row["dataset"] != MIXED and "selection_from" not in rule and (row["policy"] == RANDOM or gapless)
        rises = _num_rises(reading, row, rule) if rule.get("pseudo_count") else row["rises"]
        what = None
        if row["least"] < 1 or row["distinct"] < row["number"]:
            what = "a rank is below 1 or there twice"
        elif whole and row["most"] != row["number"]:
            what = f"its ranks go to {row['most']}, of {row['number']} rows"
        elif row["policy"] == DAS and rises:
            what = f"the score rises with the rank {rises} times"
        if what:
            name = f"{row['recipe']} {row['dataset']} {row['policy']} {row['domain']}"
            yield Fault("selected_responses", name, what, _select_again(row))


def _parsed(rule: str) -> Record | None:
    """A rule as it was kept; None where that is no JSON object, or has something of another type than is written."""
    try:
        found = dict(json.loads(rule))
    except (ValueError, TypeError):
        return None
    return found if all(isinstance(found[key], kind) for key, kind in _TYPES.items() if key in found) else None


_TYPES = {"held_out_share": int | float, "drawn_from": str, "domain_means": dict}  # of what is read of a rule here


_RANKS = """SELECT recipe, dataset, policy, domain, count(*) AS number, count(DISTINCT rank) AS distinct,
        min(rank) AS least, max(rank) AS most, count(*) FILTER (score > above) AS rises
    FROM (SELECT *, lag(score) OVER (PARTITION BY recipe, dataset, policy, domain ORDER BY rank) AS above
        FROM selected_responses) GROUP BY ALL ORDER BY ALL"""


def _num_rises(reading: Reading, row: Record, rule: Record) -> int:
    """How often what ranks a domain's selected responses rises, where scores are drawn towards the domain's mean."""
    mean = rule.get("domain_means", {}).get(row["domain"])
    return int(reading.read(_RISES, {**rule, **row, "mean": mean, "tolerance": TOLERANCE}).item())


_RISES = f"""SELECT count(*) FILTER (key > above + $tolerance) FROM (
    SELECT key, lag(key) OVER (ORDER BY rank) AS above FROM (
        SELECT rank, {SHRUNK} AS key FROM (FROM selected_responses WHERE recipe = $recipe AND dataset = $dataset
            AND policy = $policy AND domain = $domain) s JOIN (SELECT response_id, num_sentences FROM response_scores
            WHERE score_name = $score_name AND threshold_version = $threshold_version
            AND student_fingerprint = $student) USING (response_id)))"""


def selected_scores(reading: Reading, sample: int | None) -> Iterator[Fault]:
    """Selected responses whose score is not the one that `response_scores` has under a rule of their threshold."""
    query = _SELECTED_SCORES.format(selected=first_by_hash("FROM selected_responses", "response_id", sample))
    for row in reading.read(query, {"tolerance": TOLERANCE}).iter_rows(named=True):
        name = f"{row['recipe']} {row['dataset']} {row['policy']} response_id {row['response_id']}"
        what = f"its {row['score_name']} is {row['score']}, at threshold {row['threshold']} response_scores has another"
        yield Fault("selected_responses", name, what, _select_again(row))


_SELECTED_SCORES = """SELECT recipe, dataset, policy, response_id, score_name, score, threshold
    FROM ({selected}) s ANTI JOIN (
        SELECT response_id, score_name, threshold, score AS stored
        FROM response_scores JOIN (SELECT DISTINCT threshold_version, threshold FROM sentence_types)
            USING (threshold_version)
        WHERE response_id IN (SELECT response_id FROM ({selected}))) r
    ON s.response_id = r.response_id AND s.score_name = r.score_name AND s.threshold = r.threshold
        AND (abs(s.score - r.stored) <= $tolerance OR (s.score IS NULL AND r.stored IS NULL)) ORDER BY ALL"""


def _select_again(row: Record) -> str:
    """What to do about a row of `selected_responses`."""
    return f"materialize {selection_asset(row['dataset'], row['policy'])} again"


def held_out(reading: Reading, table: str) -> Iterator[Fault]:
    """Selected responses, or examples, of questions that the rule they were chosen by holds out of training.

    table: of HOLDING. A rule that cannot be read holds nothing out here: `ranks` names it.
    """
    key, rows, asset = HOLDING[table]
    rules = {(row[0], row[1], row[2]): _parsed(row[3]) or {} for row in reading.read(_RULES).iter_rows()}
    for group in reading.read(f"SELECT DISTINCT recipe, dataset, policy FROM {table} ORDER BY ALL").to_dicts():
        if share := _held_out_share(rules, **group):
            query = f"""SELECT r.{key}, r.prompt_id FROM {rows} r WHERE r.recipe = $recipe AND r.dataset = $dataset
                AND r.policy = $policy AND {HELD_OUT} ORDER BY ALL"""
            for row, prompt in reading.read(query, {**group, "held_out_share": share}).iter_rows():
                what = f"it is of question {prompt}, which its recipe holds out of training (heldout.questions)"
                remedy = f"materialize {asset(group['dataset'], group['policy'])} again"
                yield Fault(table, f"{' '.join(group.values())} {key} {row}", what, remedy)


def _held_out_share(rules: Mapping[tuple[str, str, str], Record], recipe: str, dataset: str, policy: str) -> float:
    """What is held out of a dataset; of a mixed one, what is held out of the selection whose questions it has."""
    if dataset == MIXED:
        dataset, policy = rules.get((recipe, MIXED, DAS), {}).get("drawn_from", MIXED), DAS
    parts = [rules.get((recipe, part, policy), {}) for part in dataset.split("+")]  # of an experiment, several at once
    return max(float(rule.get("held_out_share", 0)) for rule in parts)


_RULES = f"""SELECT recipe, dataset, policy, rule FROM experiment_datasets
    UNION ALL SELECT recipe, dataset, unnest(['{DAS}', '{RANDOM}']), rule FROM selection_rules"""
# Table -> the key of a row, where the rows stand with their questions, and what makes them.
HOLDING: dict[str, tuple[str, str, Callable[[str, str], str]]] = {
    "selected_responses": ("response_id", "selected_responses", selection_asset),
    "sft_examples": ("example_id", "lineage_examples", dataset_asset),
}


def num_examples(reading: Reading) -> Iterator[Fault]:
    """Whether `checkpoint_examples`, which a takedown reads, has all that a checkpoint was trained on."""
    for row in reading.read(_NUM_EXAMPLES).iter_rows(named=True):
        what = f"checkpoint_examples has {row['found']:,} rows of it, the record says {row['num_examples']:,} examples"
        if not row["found"]:
            what = "checkpoint_examples has no row of it (an earlier release trained it): a takedown cannot name it"
        asset = checkpoint_asset(row["name"])
        remedy = f"materialize {asset} again, which trains nothing as long as its dataset is the same"
        yield Fault("checkpoints", row["checkpoint_id"], what, remedy)


_NUM_EXAMPLES = """SELECT c.checkpoint_id, c.name, c.num_examples, count(e.example_id) AS found
    FROM (SELECT DISTINCT checkpoint_id, name, num_examples FROM checkpoints WHERE dataset IS NOT NULL) c
        LEFT JOIN checkpoint_examples e USING (checkpoint_id)
    GROUP BY ALL HAVING count(e.example_id) <> c.num_examples ORDER BY ALL"""
