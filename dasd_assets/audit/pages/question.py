"""A question: where it landed, who asked it, and where asked for, all that it touched."""

from dasd_assets.audit.pages.layout import Rows, page, run, section
from dasd_assets.audit.pages.rows import dataset_lines, rollout_lines, touched_lines
from dasd_assets.audit.prompt import Record
from dasd_resources.visible_text import excerpt_line


def prompt_page(record: Record) -> str:
    """A question and, where asked for, all that it touched."""
    below: dict[str, Rows] | None = record.get("downstream")
    sections: list[str] = []
    if below is not None:
        sections = [
            section(
                f"Responses: {len(below['responses'])}",
                [
                    f"{r['response_id']}  T={r['temperature']:<4g} candidate {r['sample_index'] + 1}"
                    for r in below["responses"]
                ],
            ),
            section(f"Rollouts: {len(below['rollouts'])}", rollout_lines(below["rollouts"])),
            section(
                f"Continuations: {len(below['continuations'])}",
                [f"{r['continuation_id']}  of rollout {r['rollout_id']}" for r in below["continuations"]],
            ),
            section(f"Datasets now: {len(below['datasets'])} examples", dataset_lines(below["datasets"])),
            section(f"Checkpoints: {len(below['checkpoints'])}", touched_lines(below["checkpoints"])),
        ]
    return page(f"Prompt {record['prompt_id']}", prompt_lines(record), *sections)


def prompt_lines(prompt: Record) -> list[tuple[str, str]]:
    """Name and value of what is known of a question."""
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
                f"{prompt['source_file']}, line {prompt['source_line']} (batch {prompt['batch']}), {run(prompt)}",
            ),
            ("domain", prompt["domain"]),
            ("language", prompt["language"] or "unknown"),
            ("question", excerpt_line(prompt["question"], 300)),
        ]
        if prompt["reference_answer"] is not None:
            answer = excerpt_line(prompt["reference_answer"], 80)
            lines.append(("answer", f"{answer} (by {prompt['verifier'] or 'nobody'})"))
    lines += [("merged from", _merged(row)) for row in prompt["merged_lines"]]
    lines += [("asked by", _asked(row)) for row in prompt["asked"]]
    lines += [("HELD OUT", f"no stage of recipe {name} is trained on it") for name in prompt["held_out_by"]]
    lines += [
        (other_line(r["kind"]), f"{r['source_file']}, line {r['source_line']} (batch {r['batch']}): {r['reason']}")
        for r in prompt["other_lines"]
    ]
    return lines


def other_line(kind: str | None) -> str:
    """What a line of the question is that is not in `prompts`, by why it is not."""
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
