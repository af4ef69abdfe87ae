"""What is known of a question changes after its responses were made: they are judged again, and none is made again."""

from conftest import Project, change, prompt_rows
from tokenizers import Tokenizer

from dasd_assets.audit.outdated import explained
from dasd_assets.commands.run import register_batches

TO_VERDICTS = "teacher_model,student_model,prompts,teacher_generations_t060,student_tokens,response_verdicts"
VERDICTS = """SELECT p.source_line, count(*) FILTER (v.kind = 'no_verifier'), count(*) FROM response_verdicts v
    JOIN responses r USING (response_id) JOIN prompts p USING (prompt_id)
    WHERE v.filter = 'correctness' GROUP BY ALL ORDER BY ALL"""


def stale(project: Project) -> set[str]:
    """Assets of which a batch is out of date for a reason of its own."""
    with project.instance() as instance:
        found = explained(instance, project.definitions, project.recipe, project.engines, project.warehouse)["stale"]
    return {row["asset"] for row in found if row["reason"].startswith(("1 questions", "2 questions"))}


def test_a_reference_that_lands_later_is_judged_by_and_goes_with_its_file(project: Project) -> None:
    full = prompt_rows(0, 2)
    project.land("a.jsonl", [{"question": row["question"]} for row in full])
    project.materialize(TO_VERDICTS)
    assert project.read(VERDICTS).rows() == [(1, 2, 2), (2, 2, 2)]
    project.fake.generated.clear()
    project.land("b.jsonl", full[1:])
    project.materialize("held_out_questions,prompts")
    assert stale(project) == {"prompts"}
    project.materialize(TO_VERDICTS)
    assert stale(project) == set()
    assert project.read(VERDICTS).rows() == [(1, 2, 2), (2, 0, 2)]
    with project.instance() as instance:
        _, second = register_and_list(instance, project)
        instance.delete_dynamic_partition("prompt_batch", second)
    (project.home / "prompts" / "b.jsonl").unlink()
    assert stale(project) == {"prompts"}
    project.materialize(TO_VERDICTS)
    assert project.read(VERDICTS).rows() == [(1, 2, 2), (2, 2, 2)]
    assert project.fake.generated == []


def register_and_list(instance: object, project: Project) -> list[str]:
    from dasd_assets.records.partitions import batches

    register_batches(instance, project.recipe, project.home, project.said.append)
    return batches(instance)


def test_quotas_and_instructions_decide_what_is_asked_and_how(project: Project) -> None:
    project.recipe = change(project.recipe, "generation.instructions", {"math": "Put the answer last."})
    project.recipe = change(project.recipe, "generation.questions_per_domain", {"math": 2})
    project.land("a.jsonl", prompt_rows(0, 6))  # four of them are maths
    project.materialize(TO_VERDICTS)
    asked = (
        "SELECT p.domain, r.instruction, count(DISTINCT prompt_id) FROM responses r JOIN prompts p USING (prompt_id)"
    )
    assert project.read(f"{asked} GROUP BY ALL ORDER BY ALL").rows() == [
        ("math", "Put the answer last.", 2),
        ("sums", None, 2),
    ]
    tokenizer = Tokenizer.from_file(f"{project.recipe.student.model}/tokenizer.json")
    tokens = "SELECT r.instruction, t.token_ids FROM student_tokens t JOIN responses r USING (response_id)"
    for instruction, token_ids in project.read(tokens).iter_rows():
        assert ("Put the answer last." in tokenizer.decode(token_ids)) == (instruction is not None)
    project.fake.generated.clear()
    project.recipe = change(project.recipe, "generation.questions_per_domain", {"math": 3})
    project.materialize(TO_VERDICTS)
    assert len(project.fake.generated) == project.recipe.generation.num_candidates
