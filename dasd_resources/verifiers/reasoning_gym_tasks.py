"""`reasoning_gym:<dataset>`: the scorers of reasoning-gym that only compare."""

import json
from collections.abc import Callable
from functools import cache

from dasd_resources.verifiers.final_answer import compare_final_answer
from dasd_resources.verifiers.judgement import Asked, Judgement

# Several reasoning-gym scorers eval() or sympy-parse (which evals) the answer: string_insertion, spiral_matrix,
# binary_matrix, n_queens, puzzle24, countdown, polynomial_multiplication, the integrations. Those below were read
# (0.1.25) and only compare: most with ==, three as Decimals, spell_backward by letter. A test holds them to it.
REASONING_GYM_DATASETS = frozenset(
    {
        "base_conversion",
        "basic_arithmetic",
        "chain_sum",
        "count_bits",
        "count_primes",
        "decimal_chain_sum",
        "gcd",
        "lcm",
        "leg_counting",
        "letter_counting",
        "number_sequence",
        "products",
        "simple_equations",
        "simple_geometry",
        "spell_backward",
        "syllogism",
    }
)

# Their scorers eval(), or let sympy eval(), the answer or the row's metadata: they run in the sandbox or not at all.
EVALUATED_DATASETS = frozenset(
    {
        "binary_matrix",
        "bitwise_arithmetic",
        "countdown",
        "intermediate_integration",
        "n_queens",
        "polynomial_multiplication",
        "puzzle24",
        "simple_integration",
        "spiral_matrix",
        "string_insertion",
    }
)


def judge_reasoning_gym(answer: str, asked: Asked) -> Judgement:
    """Whether the dataset's own scorer gives the final answer its full score."""
    entry = {"question": asked.question, "answer": asked.reference_answer, "metadata": json.loads(asked.metadata)}
    return compare_final_answer(answer, asked, lambda found, _: _scorer(asked.parameter)(found, entry) == 1.0)


@cache
def _scorer(dataset: str) -> Callable[[str, dict[str, object]], float]:
    from reasoning_gym import get_score_answer_fn  # loads sympy: 0.8 s, which only judging should pay

    scorer: Callable[[str, dict[str, object]], float] = get_score_answer_fn(dataset)
    return scorer
