"""Which rows of the pool compete for a domain's budget, and what each takes of it: shared by selection and audits.

SQL alone: an audit answers before pydantic or Dagster would have loaded, so this module imports neither.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from dasd_resources.storage.tables import measured

# A mean over few sentences lies far from its expectation by chance alone. With a pseudo-count, a response of n
# sentences ranks by the mean that it would have with that many more, all average for its domain's pool.
SHRUNK = "(num_sentences * score + $pseudo_count * $mean) / (num_sentences + $pseudo_count)"
NUM_TOKENS = f"""(SELECT response_id, num_tokens
    FROM {measured("student_tokens", "num_tokens", "response_id", "student_fingerprint")}
    WHERE student_fingerprint = $student AND num_tokens IS NOT NULL)"""


@dataclass(frozen=True)
class Competition:
    """Which rows of a table compete. The table: response_id, prompt_id, domain, score, key, accepted, cost.

    key: what ranks a row, a DOUBLE; none without it. cost: what the row takes of its domain's budget.
    max_per_question: None for no limit.
    """

    policy: str
    max_per_question: int | None

    @classmethod
    def of_rule(cls, rule: Mapping[str, Any]) -> Self:
        """That of a rule in `selection_rules`; an earlier release's names the policy alone."""
        return cls(rule["policy"], rule.get("max_per_question"))

    @property
    def is_plain(self) -> bool:
        """Whether a question's rows do not compete with one another."""
        return self.policy == "top_k" and self.max_per_question is None

    def rows(self, table: str) -> str:
        """SQL for the rows of a table that compete.

        `best_per_question`: the best of each question, where that one is accepted. `top_k`: all accepted ones; of a
        question, the best `max_per_question`.
        """
        if self.policy == "best_per_question":
            return f"SELECT * FROM ({best_of_each_question(table)}) WHERE accepted"
        competing = f"SELECT * FROM {table} WHERE accepted AND key IS NOT NULL"
        if self.is_plain:
            return competing
        place = "row_number() OVER (PARTITION BY prompt_id ORDER BY key DESC, response_id)"
        return f"{competing} QUALIFY {place} <= {self.max_per_question}"


def best_of_each_question(table: str) -> str:
    """SQL for one row a question: that of greatest key; ties go to the smaller response_id."""
    # One aggregate over structs; `row_number` takes four times as long over 7.7 M rows.
    return f"""SELECT best.response_id, prompt_id, domain, best.score, -best.minus_key AS key, best.accepted, best.cost
        FROM (SELECT prompt_id, any_value(domain) AS domain, min({{minus_key: -key, response_id: response_id,
                score: score, accepted: accepted, cost: cost}}) AS best
            FROM {table} WHERE key IS NOT NULL GROUP BY prompt_id)"""
