"""Which stored answers of a model count: those to the prompt that it was asked with last.

The ids of answers hold the version of the prompt (template, its options, system prompt); a checkpoint's id need not, so
one that is asked again with another system prompt has answers to both. What was asked last is what stands last in
`evaluation_requests`, and `ask_missing` sees to it that this is so where nothing was left to ask. Homes of earlier
releases, which lack rows of that table, have the order of `evaluations`. All is SQL, for whoever reads these tables.
"""

SAMPLING = "checkpoint_id, benchmark, temperature, top_p, max_tokens"
ANSWER = f"{SAMPLING}, question_id, sample_index"
OF_CHECKPOINTS = "checkpoint_id IN (SELECT unnest($ids::VARCHAR[]))"
# The benchmarks that a recipe names, for a statement's WITH.
ASKED = "asked AS (SELECT unnest($names::VARCHAR[]) AS benchmark, unnest($limits::INTEGER[]) AS max_tokens)"


def last_prompts(where: str) -> str:
    """A query: the columns of `SAMPLING`, and `prompt`, the template_version asked last; NULL if none is known.

    where: a condition on the rows of `evaluation_requests` and `evaluations` alike.
    """
    return f"""SELECT {SAMPLING}, coalesce(arg_max(template_version, place) FILTER (is_request),
            arg_max(template_version, place) FILTER (NOT is_request)) AS prompt
        FROM ({_asked(where)}) GROUP BY ALL"""


def asked_with_several(where: str) -> str:
    """A query: the columns of `SAMPLING` of what was asked with more than one prompt. where: as in `last_prompts`."""
    return f"SELECT {SAMPLING} FROM ({_asked(where)}) GROUP BY ALL HAVING count(DISTINCT template_version) > 1"


def newest_answers(where: str, answer: str = ANSWER) -> str:
    """A query: the rows of `evaluations` to the last prompt, of each `answer` the one judged last; `place`: the order.

    It reads `asked_last`, which the statement has to have: `WITH asked_last AS (last_prompts(…))`. An answer of a
    release that did not store the prompt's version counts until the same is answered to the last prompt. A verdict by
    what judges the question now (`judged_by`) comes before later ones.
    """
    return f"""SELECT evaluations.*, evaluations.rowid AS place FROM evaluations JOIN asked_last USING ({SAMPLING})
            LEFT JOIN (SELECT benchmark, question_id, judged_by AS judged_now FROM benchmark_questions)
                USING (benchmark, question_id)
        WHERE {where} AND coalesce(template_version, prompt) IS NOT DISTINCT FROM prompt
        QUALIFY row_number() OVER (PARTITION BY {answer} ORDER BY
            template_version IS NULL, judged_by IS DISTINCT FROM judged_now, evaluations.rowid DESC) = 1"""


def failed_answers(where: str, answer: str = ANSWER) -> str:
    """A query: each `answer` to the last prompt of which a request failed; one that no server took was not asked yet.

    It reads `asked_last`, as `newest_answers` does. Some may have been answered since.
    """
    return f"""SELECT DISTINCT {answer} FROM evaluation_requests JOIN asked_last USING ({SAMPLING})
            SEMI JOIN (FROM failed_requests WHERE asset = 'evaluations' AND coalesce(num_attempts, 1) > 0) AS f
                ON f.request_id = evaluation_id
        WHERE {where} AND template_version = prompt"""


def missing_answers(where: str, answer: str = ANSWER) -> str:
    """A query: each `answer` that was asked for with the last prompt, and is neither there nor failed, as after a kill.

    It reads `asked_last` and, of the two queries above, `answers` and `failed`, which the statement has to have.
    """
    return f"""SELECT DISTINCT {answer} FROM (
            SELECT {answer} FROM evaluation_requests JOIN asked_last USING ({SAMPLING})
            WHERE {where} AND template_version = prompt)
        ANTI JOIN answers USING ({ANSWER}) ANTI JOIN failed USING ({ANSWER})"""


def _asked(where: str) -> str:
    columns = f"{SAMPLING}, template_version, rowid AS place"
    return f"""SELECT {columns}, TRUE AS is_request FROM evaluation_requests WHERE {where}
            UNION ALL SELECT {columns}, FALSE FROM evaluations WHERE {where}"""
