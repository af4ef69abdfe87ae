"""Audits as text: one screen a person can read from top to bottom."""

import textwrap
from collections.abc import Iterable, Sequence

import yaml

from dasd_assets.audit.prompt import Record

WIDTH = 120
LABEL = 14
MAX_LINES = 5  # of one asset that is out of date
Rows = Sequence[Record]


def response_page(record: Record) -> str:
    """A response's whole way."""
    made: Record = record["generation"]
    return _page(
        f"Response {record['response_id']}",
        [
            *_prompt_lines(record["prompt"]),
            *_landed_lines(made, record["landed"]),
            ("teacher", f"{made['teacher_fingerprint']} by {made['engine']} in {made['dtype']}"),
            (
                "sampling",
                f"temperature {made['temperature']:g}, top-p {made['top_p']:g}, at most {made['max_tokens']:,} "
                f"tokens, candidate {made['sample_index'] + 1}, seed {made['seed']}",
            ),
            ("template", made["template_version"]),
            (
                "ended",
                f"{made['finish_reason']} after {made['num_tokens']:,} tokens, logprob {made['sum_logprob']:.2f}",
            ),
            ("made by", _run(made)),
        ],
        _section("Filters", _verdicts(record["verdicts"])),
        *_sentence_sections(record["sentences"]),
        _section("Scores", _scores(record["scores"])),
        _section("Selection", _selections(record["selections"])),
        _section("Datasets now", _datasets(record["examples"])),
        _section("Checkpoints trained on it", _trained(record["checkpoints"])),
        _section("Rollouts measured against it", _rollouts(record["rollouts"])),
    )


def _landed_lines(made: Record, landed: Rows) -> list[tuple[str, str]]:
    """Of a response that was imported: the lines that brought it, and where its logprobs are from."""
    if made["landed_id"] is None:
        return []
    lines = [f"line {row['source_line']} of {row['source_file']} (batch {row['batch']})" for row in landed]
    origin = "as they landed" if made["logprob_origin"] == "given" else "by prefill of its text"
    return [("landed as", f"{', '.join(lines) or 'from a line that is gone'}; logprobs {origin}")]


def example_page(record: Record) -> str:
    """A training example, then what it is made of."""
    datasets: Rows = record["datasets"]
    head = _page(
        f"Training example {record['example_id']}",
        [],
        _section("Datasets now", _datasets(datasets)),
        _section("Checkpoints trained on it", _trained(record["checkpoints"])),
    )
    if "response" in record:
        return f"{head}\n\nmade of\n\n{response_page(record['response'])}"
    return f"{head}\n\nmade of\n\n{_continuation_page(record)}"


def checkpoint_page(record: Record) -> str:
    """A checkpoint, what it was trained on, and what does not agree."""
    found: Record | None = record["trained_on"]
    chain: Rows = record["chain"]
    lines = [
        ("name", ", ".join(f"{_with_stage(r)} of recipe {r['recipe']}" for r in record["recipes"])),
        ("folder", str(record["path"])),
        ("weights", str(record["content_hash"])),
        ("made", f"{record['materialized_at']:%Y-%m-%d %H:%M} UTC, {_run(record)}"),
    ]
    if found is not None:
        lines += [
            ("dataset", f"{record['dataset']}, id {record['dataset_id']}, as of snapshot {record['snapshot_id']}"),
            ("rows", _rows_trained_on(record, found)),
            (
                "training",
                f"settings {record['training_version']}, {record['num_steps']} steps in "
                f"{record['seconds']:.0f} s, final loss {record['final_loss']:.4f}",
            ),
        ]
    faults: Sequence[str] = record["faults"]
    return _page(
        f"Checkpoint {record['checkpoint_id']}",
        lines,
        _section("Descends from", [f"{r['checkpoint_id']}  {r['name']:<9} {_trained_on(r)}" for r in chain[1:]]),
        _section("Environment", [f"{k:<14}{v}" for k, v in (record["environment"] or {}).items()]),
        _section("Recipe", _recipe(record["recipe_document"])),
        _section(
            "Held-out questions",
            [
                f"{r['benchmark']}, T={r['temperature']:<4g} accuracy {r['accuracy']:.3f}, {r['num_answers']:,} answers"
                + (f", {r['num_failed']:,} failed" if r["num_failed"] else "")
                for r in record["evaluations"]
            ],
        ),
        _section("DISAGREES", faults) if faults else "Everything agrees with its record.",
    )


def prompt_page(record: Record) -> str:
    """A question and, where asked for, all that it touched."""
    below: dict[str, Rows] | None = record.get("downstream")
    sections: list[str] = []
    if below is not None:
        sections = [
            _section(
                f"Responses: {len(below['responses'])}",
                [
                    f"{r['response_id']}  T={r['temperature']:<4g} candidate {r['sample_index'] + 1}"
                    for r in below["responses"]
                ],
            ),
            _section(f"Rollouts: {len(below['rollouts'])}", _rollouts(below["rollouts"])),
            _section(
                f"Continuations: {len(below['continuations'])}",
                [f"{r['continuation_id']}  of rollout {r['rollout_id']}" for r in below["continuations"]],
            ),
            _section(f"Datasets now: {len(below['datasets'])} examples", _datasets(below["datasets"])),
            _section(f"Checkpoints: {len(below['checkpoints'])}", touched_lines(below["checkpoints"])),
        ]
    return _page(f"Prompt {record['prompt_id']}", _prompt_lines(record), *sections)


def staleness_page(record: Record) -> str:
    """What is out of date: a line per asset and its causes, with the batches they are the same for."""
    assets: dict[str, list[Record]] = {}
    for row in record["stale"]:
        assets.setdefault(row["asset"], []).append(row)
    lines = [f"{asset:<28}{line}" for asset, rows in assets.items() for line in _causes(rows)]
    quarantined = [f"{row['batch']}: {row['reason']}" for row in record["quarantined"]]
    parts = [_section(f"Out of date for recipe {record['recipe']}: {len(record['stale'])}", lines)]
    return "\n\n".join([*parts, *([_section("Quarantined batches", quarantined)] if quarantined else [])])


def _causes(rows: Rows) -> list[str]:
    """In full where few batches differ in their causes, else by their reasons alone."""
    full = _by_batch(rows, [("; ".join(cause["message"] for cause in row["causes"])) for row in rows])
    if len(full) <= MAX_LINES:
        return full
    return [f"{line} (each in --json)" for line in _by_batch(rows, [row["reason"] for row in rows])]


def _by_batch(rows: Rows, messages: Sequence[str]) -> list[str]:
    groups: dict[str, list[str | None]] = {}
    for row, line in zip(rows, messages, strict=True):
        groups.setdefault(line, []).append(row["batch"])
    return [f"{line}{_batches(named)}" for line, named in groups.items()]


def _batches(named: list[str | None]) -> str:
    known = [batch for batch in named if batch is not None]
    if not known:
        return ""
    return f" [{', '.join(known[:3])}{f', … {len(known)} batches' if len(known) > 3 else ''}]"


def takedown_page(record: Record) -> str:
    """What a takedown withdrew, and the checkpoints that had learned from it."""
    verb = "Brought back" if record["undone"] else "Withdrawn"
    already = f"{record['num_already']} were {'not withdrawn' if record['undone'] else 'withdrawn'} already"
    prompts = [
        f"{r['prompt_id']}" + (f"  {r['source_file']}, line {r['source_line']}" if "source_file" in r else "")
        for r in record["prompts"]
    ]
    sections = [_section(f"{verb}: {len(prompts)} prompts; {already}", prompts)]
    if record["unlanded"]:
        sections.append(_section("Not landed yet; refused when they land", map(str, record["unlanded"])))
    sections.append(
        _section("Checkpoints trained on them, or descended from one", touched_lines(record["checkpoints"]))
    )
    sections.append(
        "The next `dasd run`, or the service, rebuilds everything accordingly; old checkpoints stay on disk."
    )
    if again := [f"dasd experiment {row['experiment']} --recipe {row['recipe']}" for row in record["experiments"]]:
        sections.append(_section("But for experiments, which are run again by", again))
    return "\n\n".join(sections)


def _with_stage(row: Record) -> str:
    """`t060 (stage 1)`; the name alone of an untrained model."""
    return f"{row['name']} (stage {row['stage']})" if row["stage"] else str(row["name"])


def touched_lines(rows: Rows) -> list[str]:
    """A line for each checkpoint that a question touched: trained on it, or descended from one that was."""
    return [
        f"{r['checkpoint_id']}  {r['recipe']} {r['name']:<9} "
        + (
            f"trained on {r['num_examples']} of its examples"
            if r["num_examples"]
            else f"descends from {r['parent_checkpoint_id']}"
        )
        for r in rows
    ]


def _continuation_page(record: Record) -> str:
    made: Record = record["continuation"]
    rollout: Record = record["rollout"] or {}
    cuts: Rows = record["cut"]
    return _page(
        f"Teacher continuation {made['continuation_id']}",
        [
            *_prompt_lines(record["prompt"]),
            ("rollout", f"{made['rollout_id']} of checkpoint {rollout.get('checkpoint_id')}, {_run(rollout)}"),
            *[("cut", f"after {c['cut_token']} tokens, {c['cut_char']} characters (seed {c['seed']})") for c in cuts],
            ("teacher", made["teacher_fingerprint"]),
            (
                "sampling",
                f"temperature {made['temperature']:g}, at most {made['max_tokens']:,} tokens, seed {made['seed']}",
            ),
            ("ended", f"{made['finish_reason']} after {made['num_tokens']:,} tokens"),
            ("made by", _run(made)),
        ],
        _section("Prefix (the student's)", [_excerpt(made["prefix_text"], 400)]),
        _section("Continuation (the teacher's)", [_excerpt(made["continuation_text"], 400)]),
        _section("Filters", _verdicts(record["verdicts"])),
    )


def _prompt_lines(prompt: Record) -> list[tuple[str, str]]:
    withdrawn = prompt["withdrawn"]
    lines = [("prompt", str(prompt["prompt_id"]))]
    if withdrawn:
        lines.append(("WITHDRAWN", f"{withdrawn['reason']} ({withdrawn['withdrawn_at']:%Y-%m-%d %H:%M} UTC)"))
    if retired := prompt["retired"]:
        line = f"{retired['source_file']}, line {retired['source_line']} (batch {retired['batch']})"
        lines.append(("RETIRED", f"the same question is prompt {retired['now']}; its line is {line}"))
    if "question" in prompt:
        lines += [
            (
                "landed",
                f"{prompt['source_file']}, line {prompt['source_line']} (batch {prompt['batch']}), {_run(prompt)}",
            ),
            ("domain", prompt["domain"]),
            ("language", prompt["language"] or "unknown"),
            ("question", _excerpt(prompt["question"], 300)),
        ]
        if prompt["reference_answer"] is not None:
            lines.append(
                ("answer", f"{_excerpt(prompt['reference_answer'], 80)} (by {prompt['verifier'] or 'nobody'})")
            )
    lines += [("merged from", _merged(row)) for row in prompt["merged_lines"]]
    lines += [("asked by", _asked(row)) for row in prompt["asked"]]
    lines += [
        (_other_line(r["kind"]), f"{r['source_file']}, line {r['source_line']} (batch {r['batch']}): {r['reason']}")
        for r in prompt["other_lines"]
    ]
    return lines


def _other_line(kind: str) -> str:
    return "LEFT OUT" if kind in ("held_out", "overlaps_held_out") else "also in"


def _merged(row: Record) -> str:
    """What one line brought, and why it did not bring more."""
    line = f"{row['source_file']}, line {row['source_line']} (batch {row['line_batch']})"
    refused = f"; refused: {row['reason']}" if row["reason"] else ""
    return f"{line}: {', '.join(row['brought']) or 'nothing'}{refused}"


def _asked(row: Record) -> str:
    """Whether a recipe's quota has room for a question."""
    of = "all are asked" if row["quota"] is None else f"generation.questions_per_domain asks {row['quota']:,}"
    return f"recipe {row['recipe']}: {'yes' if row['asked'] else 'NO'}, number {row['place']:,} of its domain; {of}"


def _verdicts(rows: Rows) -> list[str]:
    versions = len({r["filter_version"] for r in rows}) > 1
    return [
        f"{'passed' if r['passed'] else 'FAILED'}  {r['filter']:<14}{r['reason'] or ''}"
        + (f"  [version {r['filter_version']}]" if versions else "")
        for r in rows
    ]


def _sentence_sections(rows: Rows) -> list[str]:
    groups: dict[tuple[str, str], list[Record]] = {}
    for row in rows:
        groups.setdefault((row["student_fingerprint"], row["segmenter_version"]), []).append(row)
    return [
        _section(f"Sentences: {len(some)}, under student {student} (segmenter {segmenter})", _sentences(some))
        for (student, segmenter), some in groups.items()
    ]


def _sentences(rows: Rows) -> list[str]:
    versions = sorted({version for row in rows for version in row["types"]})
    lines = [f"{'':>4} {'teacher':>8} {'student':>8}  type"]
    for row in rows:
        kinds = "/".join(str(row["types"].get(v, {}).get("sentence_type") or "-") for v in versions) or "-"
        lines.append(
            f"{row['sentence_index'] + 1:>4} {_prob(row['teacher_prob']):>8} {_prob(row['student_prob']):>8}  "
            f"{kinds:<8} {_excerpt(row['text'], 84)}"
        )
    return lines


def _scores(rows: Rows) -> list[str]:
    return [
        f"{r['score_name']:<32}{'none' if r['score'] is None else format(r['score'], '>10.4f')}  "
        f"over {r['num_sentences']} sentences, rule {r['threshold_version']}"
        for r in rows
    ]


def _selections(rows: Rows) -> list[str]:
    return [
        f"{r['recipe']} {r['dataset']} {r['policy']:<7} {'CHOSEN' if r['chosen'] else 'not chosen'}: {r['why']}"
        + (f", score {r['score']:.4f}, threshold {r['threshold']:g}" if r["chosen"] else "")
        for r in rows
    ] or ["no recipe has selected from its temperature"]


def _datasets(rows: Rows) -> list[str]:
    return [
        f"{r['recipe']} {r['dataset']} {r['policy']:<7} example {r['example_id']}, dataset {r['dataset_id']}, "
        f"snapshot {r['snapshot_id']}"
        for r in rows
    ]


def _trained(rows: Rows) -> list[str]:
    return [
        f"{r['checkpoint_id']}  {r['recipe']} {r['name']:<9} on {r['dataset']} at snapshot {r['snapshot_id']}, "
        f"as example {r['example_id']}"
        for r in rows
    ]


def _rollouts(rows: Rows) -> list[str]:
    return [f"{r['rollout_id']}  by checkpoint {r['checkpoint_id']}{', cut off' if r['cut_off'] else ''}" for r in rows]


def _trained_on(row: Record) -> str:
    if row["dataset"] is None:
        return "untrained"
    return f"{row['num_examples']:,} examples of {row['dataset']} at snapshot {row['snapshot_id']}"


def _rows_trained_on(record: Record, found: Record) -> str:
    if found["num_examples"] is None:
        return f"{record['num_examples']:,} by the record"
    tokens = "tokens and ids verified" if found["tokens_checked"] else "ids verified (the tokens too with --tokens)"
    return f"{found['num_examples']:,} examples, {found['num_tokens']:,} tokens; {tokens}"


def _recipe(document: object) -> list[str]:
    text = yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=WIDTH - 4, allow_unicode=True)
    return text.splitlines() if document else []


def _run(row: Record) -> str:
    return f"run {row['run_id']}" if row.get("run_id") else "run not recorded"


def _prob(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _excerpt(text: str, length: int) -> str:
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= length else f"{one_line[: length - 1]}…"


def _page(title: str, fields: Iterable[tuple[str, str]], *sections: str) -> str:
    lines = [title, *[_wrapped(f"{name:<{LABEL}}", value) for name, value in fields]]
    return "\n\n".join(["\n".join(lines), *[section for section in sections if section]])


def _section(title: str, lines: Iterable[str]) -> str:
    listed = [_wrapped("  ", line).rstrip() for line in lines]
    return "\n".join([title, *(listed or ["  none"])])


def _wrapped(start: str, text: str) -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent=start, subsequent_indent=" " * max(len(start), 4), drop_whitespace=False
    )
