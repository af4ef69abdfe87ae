"""A sample of a batch's responses, with the logprobs that are stored of their tokens.

Those whose ids hash lowest: a repeated check compares the same ones, and the sample is spread over the batch. Of each
its first tokens, up to the recipe's limit, and of the longest all, since a fault may lie far from the beginning.
`SEMI JOIN prompts` leaves out responses whose prompt was withdrawn.
"""

from collections.abc import Sequence

from dasd_assets.parity.comparison import StoredLogprobs
from dasd_assets.rules.candidates import AT_TEMPERATURE, OF_RECIPE
from dasd_assets.rules.instructions import AS_ASKED
from dasd_resources.inference.engines import PromptedModel
from dasd_resources.recipe import Parity
from dasd_resources.storage.warehouse import Row, Warehouse

_LOWEST = "ORDER BY md5(r.response_id) LIMIT $num_responses"
_DRAWN_OF_TEACHER = f"""SELECT r.response_id FROM responses r SEMI JOIN prompts USING (batch, prompt_id)
    WHERE r.batch = $batch AND {AT_TEMPERATURE} AND {OF_RECIPE} {_LOWEST}"""
_DRAWN_OF_STUDENT = f"""SELECT r.response_id FROM responses r SEMI JOIN prompts USING (batch, prompt_id)
        JOIN student_logprobs s USING (batch, response_id)
    WHERE r.batch = $batch AND s.student_fingerprint = $student {_LOWEST}"""
# Each table is read for the sample's ids by themselves: in a join, DuckDB may keep all tokens of the batch.
_ITS = "batch = $batch AND response_id IN (SELECT unnest($ids::VARCHAR[]))"
_TEACHER = f"""SELECT a.response_id, {AS_ASKED} AS question, p.system_prompt, a.text, a.token_ids, a.logprobs, a.offsets
    FROM (FROM responses WHERE {_ITS}) a JOIN (FROM prompts WHERE batch = $batch) p USING (prompt_id)"""
_STUDENT = f"""SELECT s.response_id, t.num_prompt_tokens, t.token_ids, s.logprobs
    FROM (FROM student_logprobs WHERE {_ITS} AND student_fingerprint = $student) s
        LEFT JOIN (FROM student_tokens WHERE {_ITS} AND student_fingerprint = $student) t USING (response_id)"""


def teacher_sample(warehouse: Warehouse, parity: Parity, params: Row) -> Sequence[Row]:
    """Responses of a batch at a temperature, with their prompts, by id; num_compared: of its tokens.

    params: the candidates', batch, temperature.
    """
    return _sample(warehouse, parity, _DRAWN_OF_TEACHER, _TEACHER, params)


def student_sample(warehouse: Warehouse, parity: Parity, params: Row) -> Sequence[Row]:
    """Responses of a batch that the student has scored, by id; num_compared: of its tokens. params: batch, student.

    token_ids: prompt and response; None if `student_tokens` lacks them.
    """
    return _sample(warehouse, parity, _DRAWN_OF_STUDENT, _STUDENT, params)


def _sample(warehouse: Warehouse, parity: Parity, drawn: str, query: str, params: Row) -> Sequence[Row]:
    with warehouse.reading() as reading:
        ids = reading.read(drawn, {**params, "num_responses": parity.num_responses})["response_id"].to_list()
        rows = reading.read(query, {**params, "ids": ids}).sort("response_id").to_dicts()
    longest = max(rows, key=lambda row: len(row["logprobs"]), default=None)
    return [{**row, "num_compared": len(row["logprobs"]) if row is longest else parity.max_tokens} for row in rows]


def stored_logprobs(row: Row, prompt_ids: list[int], token_ids: list[int], model: PromptedModel) -> StoredLogprobs:
    """The logprobs of a row of a sample that are compared."""
    kept = slice(row["num_compared"])
    pieces = model.chat.token_texts(token_ids[kept])
    return StoredLogprobs(row["response_id"], prompt_ids, token_ids[kept], row["logprobs"][kept], pieces)
