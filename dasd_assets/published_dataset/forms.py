"""From an example to a row of a form: what trainers read, and beside it where the row comes from."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from dasd_resources.recipe.export_settings import Form as FormName
from dasd_resources.storage.lake import Row

MESSAGES = pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))
TURNS = pa.list_(pa.struct({"from": pa.string(), "value": pa.string()}))
SHAREGPT_ROLES = {"user": "human", "assistant": "gpt"}

# Column, type, and what it holds. The card has this table.
LINEAGE: dict[str, tuple[pa.DataType, str]] = {
    "id": (pa.string(), "the response's or continuation's id: what the engine's audits explain"),
    "prompt_id": (pa.string(), "id of the question"),
    "origin": (
        pa.string(),
        "`response`: the teacher's alone; `continuation`: begun by the student, continued by it",
    ),
    "num_prefix_characters": (pa.int32(), "of a continuation: how much of the text is the student's"),
    "domain": (pa.string(), "domain of the question"),
    "source": (pa.string(), "where the question comes from"),
    "question_system_prompt": (pa.string(), "the question's own system prompt; null: the model's"),
    "reference_answer": (pa.string(), "the answer that a verifier compares with; null where there is none"),
    "verifier": (pa.string(), "name of the verifier"),
    "temperature": (pa.float64(), "at which the teacher was sampled"),
    "top_p": (pa.float64(), "at which the teacher was sampled"),
    "sample_index": (pa.int32(), "which of the question's candidates at this temperature it is, from 0"),
    "finish_reason": (pa.string(), "how the teacher's text ended"),
    "correct": (pa.bool_(), "the verifier's verdict; null where there is none, or it could not decide"),
    "score_name": (pa.string(), "the score by which it was selected"),
    "score": (pa.float64(), "its value"),
    "rank": (pa.int64(), "its place in the domain, from 1"),
    "num_tokens": (pa.int32(), "prompt, response and end of turn in the student's tokens"),
    "metadata": (pa.string(), "JSON: what of the question's metadata is published"),
}


@dataclass(frozen=True)
class Form:
    """columns: of the text, with what they hold. fill: those columns of an example. lineage: whether LINEAGE follows.

    files: name -> content of further files, given the names of the configs.
    """

    columns: Mapping[str, tuple[pa.DataType, str]]
    fill: Callable[[Row], dict[str, object]]
    lineage: bool = True
    files: Callable[[list[str]], dict[str, str]] = field(default=lambda configs: {})

    @property
    def schema(self) -> pa.Schema:
        return pa.schema({name: kind for name, (kind, _) in self.described.items()})

    @property
    def described(self) -> Mapping[str, tuple[pa.DataType, str]]:
        """Every column with its type and what it holds."""
        return {**self.columns, **(LINEAGE if self.lineage else {})}

    def row(self, example: Row) -> dict[str, object]:
        """The row of an example of `examples.examples`."""
        return {**self.fill(example), **(_lineage(example) if self.lineage else {})}


def _lineage(example: Row) -> dict[str, object]:
    named = {
        "origin": "continuation" if example["continuation_id"] else "response",
        "question_system_prompt": example["system_prompt"],
    }
    return {name: named[name] if name in named else example[name] for name in LINEAGE}


def _sharegpt(example: Row) -> dict[str, object]:
    system = [turn["content"] for turn in example["messages"] if turn["role"] == "system"]
    turns = [
        {"from": SHAREGPT_ROLES[turn["role"]], "value": turn["content"]}
        for turn in example["messages"]
        if turn["role"] in SHAREGPT_ROLES
    ]
    return {"conversations": turns, "system": system[0] if system else None}


def _dataset_info(configs: list[str]) -> dict[str, str]:
    """LLaMA-Factory's list of datasets: each config is a folder of Parquet files."""
    columns = {"messages": "conversations", "system": "system"}
    entries = {
        name: {"file_name": f"data/{name}", "formatting": "sharegpt", "columns": columns} for name in sorted(configs)
    }
    return {"dataset_info.json": json.dumps(entries, indent=2) + "\n"}


def _report(example: Row) -> dict[str, object]:
    return {
        "uuid": example["id"],
        "input": example["question"],
        "output": example["text"],
        "domain": example["domain"],
        "meta": json.dumps(_lineage(example), ensure_ascii=False, sort_keys=True),
    }


FORMS: dict[FormName, Form] = {
    "messages": Form(
        {"messages": (MESSAGES, "system prompt, question and response, as chat messages")},
        lambda example: {"messages": example["messages"]},
    ),
    "prompt_completion": Form(
        {
            "prompt": (MESSAGES, "system prompt and question, as chat messages"),
            "completion": (MESSAGES, "the response, as a chat message"),
        },
        lambda example: {"prompt": example["messages"][:-1], "completion": example["messages"][-1:]},
    ),
    "sharegpt": Form(
        {
            "conversations": (TURNS, "question and response, as turns of `human` and `gpt`"),
            "system": (pa.string(), "the system prompt; null: none"),
        },
        _sharegpt,
        files=_dataset_info,
    ),
    "report": Form(
        {
            "uuid": (pa.string(), "id of the row; `sample_uuid` of the log-probabilities"),
            "input": (pa.string(), "the question"),
            "output": (pa.string(), "the response"),
            "domain": (pa.string(), "domain of the question"),
            "meta": (pa.string(), "JSON: where the row comes from"),
        },
        _report,
        lineage=False,
    ),
}

LOGPROBS = Form(
    {
        "sample_uuid": (pa.string(), "`id` (`uuid`) of the row"),
        "token_ids": (pa.list_(pa.int32()), "token ids of the response, end of turn included"),
        "logprobs": (pa.list_(pa.float32()), "natural log-probability of each of them at temperature 1"),
    },
    lambda example: {
        "sample_uuid": example["id"],
        "token_ids": example["token_ids"],
        "logprobs": example["logprobs"],
    },
    lineage=False,
)
