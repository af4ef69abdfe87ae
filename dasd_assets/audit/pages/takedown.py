"""What a takedown withdrew, and who had learned from it."""

from dasd_assets.audit.pages.layout import section
from dasd_assets.audit.pages.rows import touched_lines
from dasd_assets.audit.prompt import Record


def takedown_page(record: Record) -> str:
    """What a takedown withdrew, and the checkpoints that had learned from it."""
    verb = "Brought back" if record["undone"] else "Withdrawn"
    already = f"{record['num_already']} were {'not withdrawn' if record['undone'] else 'withdrawn'} already"
    prompts = [
        f"{r['prompt_id']}" + (f"  {r['source_file']}, line {r['source_line']}" if "source_file" in r else "")
        for r in record["prompts"]
    ]
    sections = [section(f"{verb}: {len(prompts)} prompts; {already}", prompts)]
    if record["unlanded"]:
        sections.append(section("Not landed yet; refused when they land", map(str, record["unlanded"])))
    sections.append(section("Checkpoints trained on them, or descended from one", touched_lines(record["checkpoints"])))
    sections.append(
        "The next `dasd run`, or the service, rebuilds everything accordingly; old checkpoints stay on disk."
    )
    if again := [f"dasd experiment {row['experiment']} --recipe {row['recipe']}" for row in record["experiments"]]:
        sections.append(section("But for experiments, which are run again by", again))
    return "\n\n".join(sections)
