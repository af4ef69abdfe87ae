"""A response from its question to the checkpoints that learned from it; a training example, by its source."""

from dasd_assets.audit.pages.layout import Rows, page, run, section
from dasd_assets.audit.pages.question import prompt_lines
from dasd_assets.audit.pages.rows import dataset_lines, rollout_lines
from dasd_assets.audit.prompt import Record
from dasd_resources.visible_text import excerpt_line


def response_page(record: Record) -> str:
    """A response's whole way."""
    made: Record = record["generation"]
    return page(
        f"Response {record['response_id']}",
        [
            *prompt_lines(record["prompt"]),
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
            ("made by", run(made)),
        ],
        section("Filters", _verdicts(record["verdicts"])),
        *_sentence_sections(record["sentences"]),
        section("Scores", _scores(record["scores"])),
        section("Selection", _selections(record["selections"])),
        section("Datasets now", dataset_lines(record["examples"])),
        section("Checkpoints trained on it", _trained(record["checkpoints"])),
        section("Rollouts measured against it", rollout_lines(record["rollouts"])),
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
    head = page(
        f"Training example {record['example_id']}",
        [],
        section("Datasets now", dataset_lines(datasets)),
        section("Checkpoints trained on it", _trained(record["checkpoints"])),
    )
    if "response" in record:
        return f"{head}\n\nmade of\n\n{response_page(record['response'])}"
    return f"{head}\n\nmade of\n\n{_continuation_page(record)}"


def _continuation_page(record: Record) -> str:
    made: Record = record["continuation"]
    rollout: Record = record["rollout"] or {}
    cuts: Rows = record["cut"]
    return page(
        f"Teacher continuation {made['continuation_id']}",
        [
            *prompt_lines(record["prompt"]),
            ("rollout", f"{made['rollout_id']} of checkpoint {rollout.get('checkpoint_id')}, {run(rollout)}"),
            *[("cut", f"after {c['cut_token']} tokens, {c['cut_char']} characters (seed {c['seed']})") for c in cuts],
            ("teacher", made["teacher_fingerprint"]),
            (
                "sampling",
                f"temperature {made['temperature']:g}, at most {made['max_tokens']:,} tokens, seed {made['seed']}",
            ),
            ("ended", f"{made['finish_reason']} after {made['num_tokens']:,} tokens"),
            ("made by", run(made)),
        ],
        section("Prefix (the student's)", [excerpt_line(made["prefix_text"], 400)]),
        section("Continuation (the teacher's)", [excerpt_line(made["continuation_text"], 400)]),
        section("Filters", _verdicts(record["verdicts"])),
    )


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
        section(f"Sentences: {len(some)}, under student {student} (segmenter {segmenter})", _sentences(some))
        for (student, segmenter), some in groups.items()
    ]


def _sentences(rows: Rows) -> list[str]:
    versions = sorted({version for row in rows for version in row["types"]})
    lines = [f"{'':>4} {'teacher':>8} {'student':>8}  type"]
    for row in rows:
        kinds = "/".join(str(row["types"].get(v, {}).get("sentence_type") or "-") for v in versions) or "-"
        lines.append(
            f"{row['sentence_index'] + 1:>4} {_prob(row['teacher_prob']):>8} {_prob(row['student_prob']):>8}  "
            f"{kinds:<8} {excerpt_line(row['text'], 84)}"
        )
    return lines


def _scores(rows: Rows) -> list[str]:
    return [
        f"{r['score_name']:<32}{'none' if r['score'] is None else format(r['score'], '>10.4f')}  "
        f"over {r['num_sentences']} sentences, under student {r['student_fingerprint']}, rule {r['threshold_version']}"
        for r in rows
    ]


def _selections(rows: Rows) -> list[str]:
    return [
        f"{r['recipe']} {r['dataset']} {r['policy']:<7} {'CHOSEN' if r['chosen'] else 'not chosen'}: {r['why']}"
        + (f", score {r['score']:.4f}, threshold {r['threshold']:g}" if r["chosen"] else "")
        for r in rows
    ] or ["no recipe has selected from its temperature"]


def _trained(rows: Rows) -> list[str]:
    return [
        f"{r['checkpoint_id']}  {r['recipe']} {r['name']:<9} on {r['dataset']} at snapshot {r['snapshot_id']}, "
        f"as example {r['example_id']}"
        for r in rows
    ]


def _prob(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
