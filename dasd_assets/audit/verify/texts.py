"""Texts again, from the token ids that were sampled, by the tokenizer of the model that said them."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dasd_assets.audit.files import AGAIN, Fault
from dasd_assets.audit.prompt import Record
from dasd_assets.audit.verify.chats import Chats, NoChat
from dasd_assets.audit.verify.sampling import CHUNK, drawn
from dasd_assets.mixed_policy.continuations import prefix_end
from dasd_resources.chat import Aligned, Chat
from dasd_resources.storage.lake import Reading


@dataclass(frozen=True)
class Said:
    """A table of texts: its key, the column that names the model, and the columns that its tokens give."""

    table: str
    key: str
    model: str
    columns: tuple[str, ...]


SAID = (
    Said("responses", "response_id", "teacher_fingerprint", ("text", "offsets", "tool_call", "landed_id")),
    Said("student_rollouts", "rollout_id", "checkpoint_id", ("text", "offsets")),
    Said(
        "teacher_continuations",
        "continuation_id",
        "teacher_fingerprint",
        ("text", "offsets", "tool_call", "continuation_text", "prefix_text"),
    ),
)


def texts(
    reading: Reading, chats: Chats, said: Said, sample: int | None, say: Callable[[str], None]
) -> Iterator[Fault]:
    """Rows whose text is not what their token ids say; those whose model is not here are counted."""
    columns = ", ".join((said.key, said.model, "token_ids", *said.columns))
    unread: Counter[str] = Counter()
    for chunk in reading.stream(f"SELECT {columns} FROM {drawn(said.table, said.key, sample)}", {}, CHUNK):
        for row in chunk.iter_rows(named=True):
            try:
                changed = _changed(row, chats.find(row[said.model]))
            except NoChat as error:
                unread[str(error)] += 1
                changed = _changed(row, None)
            for column in changed:
                yield Fault(said.table, row[said.key], f"its {column} is not what its tokens say", AGAIN)
    for why, number in unread.items():
        say(f"  the text of {number:,} {said.table} could not be compared with its tokens: {why}")


def _changed(row: Record, chat: Chat | None) -> list[str]:
    """The columns that come out otherwise; without a chat, only of a continuation's parts can anything be said."""
    changed = [] if chat is None else _differences(row, _read(row, chat))
    if "prefix_text" in row and row["continuation_text"] != row["text"][prefix_end(row["text"], row["prefix_text"]) :]:
        changed.append("continuation_text")
    return changed


def _read(row: Record, chat: Chat) -> Aligned:
    if "prefix_text" in row:
        return chat.read_continuation(row["prefix_text"], row["token_ids"])
    if row.get("landed_id") is not None:
        return chat.read_landed(row["token_ids"])
    return chat.read_response(row["token_ids"])


def _differences(row: Record, again: Aligned) -> list[str]:
    said = {"text": again.text, "offsets": list(again.offsets), "tool_call": again.tool_call}
    if row.get("landed_id") is not None:
        del said["tool_call"]  # a landed text may have called a tool where its tokens do not
    return [column for column, value in said.items() if column in row and row[column] != value]
