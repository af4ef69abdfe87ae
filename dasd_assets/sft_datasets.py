"""Selected responses -> `sft_examples`: the student's own token ids, with a label for every token that carries loss.

`sft_dataset_…`, one asset per temperature, for the selection and for its random control. Loss is on the whole response
and its end of turn, never on the prompt (report §6.4.1).
"""

import dagster as dg
import polars as pl

from dasd_assets.plots import histogram, inline
from dasd_assets.provenance import content_version, origin
from dasd_assets.table_metadata import table
from dasd_resources.chat import Chat
from dasd_resources.engines import Engines
from dasd_resources.recipe import Recipe, content_hash
from dasd_resources.warehouse import Row, Warehouse

SFT_VERSION = "1"
NO_LOSS = -100


def example(chat: Chat, source: Row, loss_from: int = 0) -> dict[str, list[int]]:
    """input_ids and labels (T,) of a canonical text: loss on each response token that starts at or after `loss_from`.

    source: question, text, system_prompt (or None).
    loss_from: code point in the text; the end of turn always carries loss.
    """
    encoded = chat.encode_response(source["question"], source["text"], source["system_prompt"])
    response = encoded.token_ids[encoded.num_prompt_tokens :]
    targets = [
        token if offset < 0 or offset >= loss_from else NO_LOSS
        for token, offset in zip(response, encoded.offsets, strict=True)
    ]
    return {"input_ids": encoded.token_ids, "labels": [NO_LOSS] * encoded.num_prompt_tokens + targets}


def example_row(chat: Chat, source: Row, loss_from: int = 0) -> Row:
    """The `sft_examples` row of a response or continuation; its id names its source and every token and label.

    source: response_id or continuation_id (the other absent or None), question, text, system_prompt.
    """
    tokens = example(chat, source, loss_from)
    ids = {"response_id": source.get("response_id"), "continuation_id": source.get("continuation_id")}
    return {"example_id": content_hash([ids, tokens])[:32], **ids, **tokens}


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`sft_dataset_…` per temperature; the mixed-policy dataset is made in mixed_policy."""
    return [_sft_dataset(recipe, dataset) for dataset in recipe.datasets]


def _sft_dataset(recipe: Recipe, dataset: str) -> dg.AssetsDefinition:
    examples_table = table(
        "sft_examples",
        selected_responses=[f"selected_responses_{dataset}", "random_responses"],
        responses=f"teacher_generations_{dataset}",
        prompts="prompts",
    )

    @dg.asset(
        name=f"sft_dataset_{dataset}",
        deps=[f"selected_responses_{dataset}", "random_responses", "student_model"],
        group_name="sft_datasets",
        kinds={"ducklake"},
        metadata=examples_table.definition,
        code_version=SFT_VERSION,
        description=f"One row per training example of {dataset}: token ids and labels, for selection and control.",
    )
    def sft_dataset(context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines) -> dg.MaterializeResult:
        chat = engines.find(recipe.student, "student.model").chat
        made = {}
        for policy in ("das", "random"):
            rows = selected_texts(warehouse, recipe, dataset, policy)
            made[policy] = [example_row(chat, row) for row in rows.iter_rows(named=True)]
            write_examples(context, warehouse, recipe, dataset, policy, made[policy])
        lengths = [len(row["input_ids"]) for row in made["das"]]
        return dg.MaterializeResult(
            data_version=content_version(row["example_id"] for row in made["das"]),
            metadata=examples_table.result(
                warehouse,
                len(made["das"]),
                {"recipe": recipe.name, "dataset": dataset, "policy": "das"},
                num_random=len(made["random"]),
                num_tokens=sum(lengths),
                lengths=inline(histogram({dataset: lengths}, "tokens per example")),
            ),
        )

    return sft_dataset


def selected_texts(warehouse: Warehouse, recipe: Recipe, dataset: str, policy: str) -> pl.DataFrame:
    """(response_id, prompt_id, question, system_prompt, text) of a selected dataset, in the order of response_id."""
    query = """SELECT s.response_id, s.prompt_id, p.question, p.system_prompt, r.text
        FROM selected_responses s JOIN responses r USING (response_id) JOIN prompts p ON p.prompt_id = s.prompt_id
        WHERE s.recipe = $recipe AND s.dataset = $dataset AND s.policy = $policy ORDER BY s.response_id"""
    return warehouse.read(query, {"recipe": recipe.name, "dataset": dataset, "policy": policy})


def write_examples(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    recipe: Recipe,
    dataset: str,
    policy: str,
    examples: list[Row],
) -> None:
    """Replace this recipe's examples of a dataset and policy; unchanged ones make no commit."""
    key = {"recipe": recipe.name, "dataset": dataset, "policy": policy}
    ids = sorted(str(row["example_id"]) for row in examples)
    query = "SELECT example_id FROM sft_examples WHERE recipe = $recipe AND dataset = $dataset AND policy = $policy"
    if ids == sorted(warehouse.read(query, key)["example_id"]):
        return
    named = [{**row, **key, "dataset_id": content_hash([key, ids])[:16]} for row in examples]
    with warehouse.commit(origin(context)) as transaction:
        transaction.replace("sft_examples", key, pl.DataFrame(named, infer_schema_length=None))
