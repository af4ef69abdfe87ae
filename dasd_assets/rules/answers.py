"""The answers whose provenance is looked at: which of a checkpoint's own, and each in the tokens of a model.

A score depends on question, text and model alone: an answer that is judged anew, or that two checkpoints give in the
same words, is scored once by each model. The ids of the tokens that a checkpoint sampled are not stored; the canonical
text is, and all models read that, each in its own tokens.
"""

import polars as pl

from dasd_assets.rules.checkpoints import CHAIN, current_checkpoints
from dasd_assets.rules.instructions import asked_as
from dasd_assets.rules.last_prompts import ANSWER, ASKED, OF_CHECKPOINTS, last_prompts, newest_answers
from dasd_assets.rules.rule import Rule
from dasd_assets.rules.verdict import VERIFYING, VERIFYING_LIMITS, verifier_version
from dasd_resources.chat import Chat, Encoded, UnsupportedQuestion
from dasd_resources.chat.tokenizer_probe import first_difference
from dasd_resources.content_hash import content_hash
from dasd_resources.inference.engine import Failure
from dasd_resources.recipe import Recipe
from dasd_resources.storage.lake import Lake, Row

ANSWERS_VERSION = "1"  # log-probabilities belong to their tokens: what is stored is not made again when it is raised
ANSWERS = Rule("answers", ANSWERS_VERSION, ("provenance", "evaluation", *VERIFYING_LIMITS), (CHAIN, VERIFYING))
_ANSWER = f"{ANSWER}, instruction, verifier_version"
# In SQL, of a row of `evaluations`: how it ended decides whether the end of turn is scored.
# An instruction is of the text that it answers; NULL, it is left out.
ANSWER_ID = "left(sha256(concat_ws(chr(10), question_id, finish_reason, response_text, evaluations.instruction)), 32)"


def answer_logprobs_id(answer_id: str, checkpoint_id: str) -> str:
    """Hash of an answer and of the model that scores it."""
    return content_hash([answer_id, checkpoint_id])[:32]


def sampled_answers(lake: Lake, recipe: Recipe) -> pl.DataFrame:
    """The answers of the recipe's sample, by the student and by each current checkpoint, in order.

    Returns answer_id, checkpoint_id, checkpoint (its name), benchmark, temperature, question_id, sample_index, correct,
    kind, finish_reason, text, question (as it was asked), system_prompt. Empty where the recipe has no `provenance`.
    """
    query = f"""WITH {ASKED},
            questions AS (SELECT q.*, max_tokens FROM benchmark_questions q JOIN asked USING (benchmark)
                QUALIFY row_number() OVER (PARTITION BY benchmark ORDER BY question_id) <= $questions),
            asked_last AS ({last_prompts(OF_CHECKPOINTS)})
        SELECT {ANSWER_ID} AS answer_id, checkpoint_id, benchmark, temperature, question_id, sample_index, correct,
            kind, finish_reason, response_text AS text, question, questions.instruction, questions.system_prompt
        FROM ({newest_answers(OF_CHECKPOINTS, _ANSWER)}) AS evaluations
            JOIN questions USING (benchmark, question_id, max_tokens)
        WHERE questions.instruction IS NOT DISTINCT FROM evaluations.instruction
          AND top_p = $top_p AND sample_index < $samples
          AND list_contains($temperatures, temperature) AND verifier_version = $verifier
        ORDER BY checkpoint_id, benchmark, temperature, question_id, sample_index"""
    students = current_checkpoints(lake, recipe).filter(pl.col("name") != "teacher")
    chain = students.select("checkpoint_id", pl.col("name").cast(pl.Enum(students["name"])).alias("checkpoint"))
    answers = lake.read(query, {**_sample(recipe), "ids": chain["checkpoint_id"].to_list()})
    asked = [asked_as(*row) for row in answers.select("question", "instruction").iter_rows()]
    answers = answers.drop("instruction").with_columns(question=pl.Series(asked, dtype=pl.String))
    return answers.join(chain, on="checkpoint_id", maintain_order="left").sort("checkpoint", maintain_order=True)


def _sample(recipe: Recipe) -> dict[str, object]:
    """Parameters of the query."""
    chosen, evaluation = recipe.provenance, recipe.evaluation
    names = () if chosen is None else chosen.benchmarks or tuple(b.name for b in evaluation.benchmarks)
    benchmarks = [b for b in evaluation.benchmarks if b.name in names]
    return {
        "names": [b.name for b in benchmarks],
        "limits": [b.max_tokens for b in benchmarks],
        "questions": (chosen and chosen.num_questions) or 2**31 - 1,
        "samples": min(evaluation.samples_per_question, (chosen and chosen.samples_per_question) or 2**31 - 1),
        "temperatures": [t for t in evaluation.temperatures if t in ((chosen and chosen.temperatures) or (t,))],
        "top_p": evaluation.top_p,
        "verifier": verifier_version(recipe),
    }


def answer_tokens(chat: Chat, answer: Row, request_id: str) -> Encoded | Failure:
    """An answer in a model's own tokens, with the end of turn if it ended by itself; a Failure if they do not say it.

    answer: question, system_prompt, text, finish_reason.
    """
    try:
        encoded = chat.encode_response(answer["question"], answer["text"], answer["system_prompt"])
    except UnsupportedQuestion as error:
        return Failure(request_id, str(error), "unsupported_question")
    kept = None if answer["finish_reason"] == "stop" else -1
    token_ids, num_prompt = encoded.token_ids[:kept], encoded.num_prompt_tokens
    said = chat.read_response(token_ids[num_prompt:])  # with the offsets that sampled tokens have
    if said.text != answer["text"]:
        reason = f"the model's tokens of it read {first_difference(answer['text'], said.text)}"
        return Failure(request_id, reason, "tokens_differ")
    return Encoded(token_ids, num_prompt, list(said.offsets))
