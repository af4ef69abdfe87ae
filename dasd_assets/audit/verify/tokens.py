"""The student's tokens again, from question and text, by the tokenizer that made them, where it is here."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dasd_assets.audit.files import AGAIN, REMEDIES, Fault
from dasd_assets.audit.verify.chats import Chats, NoChat
from dasd_assets.audit.verify.sampling import CHUNK, drawn
from dasd_assets.rules.instructions import AS_ASKED, REFERENCE
from dasd_assets.rules.tokens import tokens_of
from dasd_resources.storage.lake import Reading


@dataclass(frozen=True)
class Tokenised:
    """A table of tokens, the table of their texts, and the key of both.

    response: joins, to a text r, the response a that was asked its question.
    """

    tokens: str
    table: str
    key: str
    response: str


TOKENISED = (
    Tokenised("student_tokens", "responses", "response_id", "JOIN responses a USING (response_id)"),
    Tokenised("continuation_tokens", "teacher_continuations", "continuation_id", REFERENCE.format(continuation="r")),
)


def tokens(
    reading: Reading, chats: Chats, made: Tokenised, sample: int | None, say: Callable[[str], None]
) -> Iterator[Fault]:
    """Rows whose tokens are not those of their text; those whose student is not here are counted."""
    query = f"""SELECT t.*, r.text, {AS_ASKED} AS question, p.system_prompt
        FROM {drawn(made.tokens, made.key, sample)} t JOIN {made.table} r USING ({made.key})
            JOIN prompts p USING (prompt_id) {made.response}"""
    unread: Counter[str] = Counter()
    for chunk in reading.stream(query, {}, CHUNK):
        for row in chunk.iter_rows(named=True):
            try:
                again = tokens_of(chats.find(row["student_fingerprint"]), row)
            except NoChat as error:
                unread[str(error)] += 1
                continue
            changed = [column for column, value in again.items() if row[column] != value]
            if changed:
                what = f"its {', '.join(changed)} {'is' if len(changed) == 1 else 'are'} not what its text encodes to"
                yield Fault(made.tokens, row[made.key], what, AGAIN)
    for why, number in unread.items():
        say(f"  the tokens of {number:,} {made.table} could not be compared with their text: {why}")


def lengths(reading: Reading) -> Iterator[Fault]:
    """Scored responses with another number of logprobs than tokens."""
    query = """SELECT response_id
        FROM (SELECT response_id, batch, student_fingerprint, len(logprobs) AS num_logprobs FROM student_logprobs)
            JOIN (SELECT response_id, batch, student_fingerprint, len(offsets) AS num_tokens FROM student_tokens)
                USING (response_id, batch, student_fingerprint)
        WHERE num_logprobs IS DISTINCT FROM num_tokens ORDER BY ALL"""
    for response in reading.read(query)["response_id"]:
        what = "its logprobs and student_tokens differ in number"
        yield Fault("student_logprobs", response, what, REMEDIES["student_logprobs"])
