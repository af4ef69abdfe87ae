"""The closed set of codes in `rejected_responses.kind`: why a landed response, or its logprobs, were not taken."""

from dataclasses import dataclass
from typing import Literal, get_args

ResponseRejectionKind = Literal["missing_response", "invalid_response", "invalid_logprobs"]
RESPONSE_REJECTION_KINDS: dict[ResponseRejectionKind, str] = {
    "missing_response": "The row has a question, and no response to it.",
    "invalid_response": "The response, or what is said of it, has the wrong type, is empty, or cannot be stored.",
    "invalid_logprobs": "Token ids and logprobs are not one finite, non-positive number for each whole number.",
}
assert get_args(ResponseRejectionKind) == tuple(RESPONSE_REJECTION_KINDS), "each kind stands in both, in one order"


@dataclass(frozen=True)
class RejectedResponse:
    """A response, or logprobs, of a landed row that were not taken, and why; item: which of the row's, from 0."""

    source_file: str
    source_line: int
    item: int
    kind: ResponseRejectionKind
    reason: str


class InvalidResponse(ValueError):
    """A response that cannot be taken: the code of its rejection, and a message."""

    def __init__(self, kind: ResponseRejectionKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
