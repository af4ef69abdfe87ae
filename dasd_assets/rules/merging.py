"""One prompt of several lines: what each landed line of a question says, merged field by field.

The first line that says something wins, in the order of the batches and, within a file, of its lines; whichever of
them was read first, the outcome is the same. What a later line says otherwise is refused with a kind and a reason.
Metadata values that differ under one key are no conflict: every source numbers its rows.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Literal, get_args

from dasd_resources.content_hash import content_hash
from dasd_resources.landing.prompt_files import NO_DOMAIN, InvalidRow, check_verifier
from dasd_resources.landing.question_identity import normalised
from dasd_resources.visible_text import excerpt

MERGING_VERSION = "1"

MergeKind = Literal[
    "conflicting_reference",
    "conflicting_verifier",
    "conflicting_domain",
    "conflicting_metadata",
]
MERGE_KINDS: dict[MergeKind, str] = {
    "conflicting_reference": "Another line, which counts first, gives another reference answer.",
    "conflicting_verifier": "Another line names another verifier, or this one does not accept the reference answer.",
    "conflicting_domain": "Another line, which counts first, names another domain.",
    "conflicting_metadata": "With this line's metadata, the reference answer would fail its verifier.",
}
assert get_args(MergeKind) == tuple(MERGE_KINDS), "each kind stands in both, in one order"


@dataclass(frozen=True)
class Known:
    """What is known of a question besides its text; metadata is a JSON object."""

    domain: str
    reference_answer: str | None
    verifier: str | None
    metadata: str

    @property
    def says(self) -> str:
        """Hash of all of it, by which a change is noticed."""
        return content_hash(asdict(self))[:16]

    def adds_to(self, other: "Known") -> bool:
        """Whether it says something that the other does not: a field, another value of one, a key of the metadata."""
        own = replace(self, domain="" if self.domain == NO_DOMAIN else self.domain)
        fields = (
            (own.domain, other.domain),
            (own.verifier, other.verifier),
            (own.reference_answer and normalised(own.reference_answer), normalised(other.reference_answer or "")),
        )
        if any(mine and mine != theirs for mine, theirs in fields):
            return True
        return self.metadata != other.metadata and bool(_object(self.metadata).keys() - _object(other.metadata).keys())


@dataclass(frozen=True)
class Outcome:
    """Which fields of a line were taken; and where not all were, the first one's kind, and a reason that lists all."""

    brought: tuple[str, ...]
    kind: MergeKind | None
    reason: str | None


@dataclass
class _Merging:
    """The fields so far."""

    question: str
    domain: str | None = None
    reference_answer: str | None = None
    verifier: str | None = None
    metadata: dict[str, object] = field(default_factory=dict)

    @property
    def known(self) -> Known:
        text = json.dumps(self.metadata, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return Known(self.domain or NO_DOMAIN, self.reference_answer, self.verifier, text)


def merge(question: str, lines: Sequence[Known]) -> tuple[Known, list[Outcome]]:
    """What is known of a question by all of its lines, and what became of each line.

    lines: in the order in which they count; each is sound by itself.
    """
    first, merging = lines[0], _Merging(question)
    merging.domain = None if first.domain == NO_DOMAIN else first.domain
    merging.reference_answer, merging.verifier = first.reference_answer, first.verifier
    merging.metadata = _object(first.metadata)
    return_first = Outcome(tuple(_fields(first)), None, None)
    outcomes = [return_first, *(_add(merging, line) for line in lines[1:])]
    return merging.known, outcomes


def _fields(known: Known) -> Iterator[str]:
    if known.domain != NO_DOMAIN:
        yield "domain"
    yield from (name for name in ("reference_answer", "verifier") if getattr(known, name) is not None)
    if known.metadata != "{}":
        yield "metadata"


def _add(merging: _Merging, line: Known) -> Outcome:
    """Take of a line what is not known yet and is consistent with what is."""
    brought: list[str] = []
    refused: list[tuple[MergeKind, str]] = []
    for name, fault in (
        ("domain", _domain(merging, line)),
        ("reference_answer", _reference(merging, line)),
        ("verifier", _verifier(merging, line)),
        ("metadata", _metadata(merging, line)),
    ):
        if fault is True:
            brought.append(name)
        elif fault is not None:
            refused.append(fault)
    return Outcome(tuple(brought), refused[0][0] if refused else None, "; ".join(text for _, text in refused) or None)


_Taken = Literal[True] | tuple[MergeKind, str] | None  # taken; refused, and why; nothing new


def _domain(merging: _Merging, line: Known) -> _Taken:
    if line.domain in (NO_DOMAIN, merging.domain):
        return None
    if merging.domain is not None:
        return "conflicting_domain", f"domain {excerpt(line.domain)} is not the {excerpt(merging.domain)} of before"
    merging.domain = line.domain
    return True


def _reference(merging: _Merging, line: Known) -> _Taken:
    new, known = line.reference_answer, merging.reference_answer
    if new is None or (known is not None and normalised(new) == normalised(known)):
        return None
    if known is not None:
        return "conflicting_reference", f"reference_answer {excerpt(new)} is not the {excerpt(known)} of before"
    if fault := _fault(merging, reference_answer=new):
        return "conflicting_reference", fault
    merging.reference_answer = new
    return True


def _verifier(merging: _Merging, line: Known) -> _Taken:
    new, known = line.verifier, merging.verifier
    if new is None or new == known:
        return None
    if known is not None:
        return "conflicting_verifier", f"verifier {excerpt(new)} is not the {excerpt(known)} of before"
    # The line's metadata, which its verifier may need, comes along or the verifier does not.
    both = _object(line.metadata) | merging.metadata
    if fault := _fault(merging, verifier=new, metadata=both):
        return "conflicting_verifier", fault
    merging.verifier = new
    return True


def _metadata(merging: _Merging, line: Known) -> _Taken:
    both = _object(line.metadata) | merging.metadata
    if both.keys() == merging.metadata.keys():
        return None
    if fault := _fault(merging, metadata=both):
        return "conflicting_metadata", fault
    merging.metadata = both
    return True


def _fault(merging: _Merging, **changed: object) -> str | None:
    """Why the verifier, if there is one, could judge no answer with these fields changed."""
    known = _Merging(**{**vars(merging), **changed}).known  # type: ignore[arg-type]
    if known.verifier is None:
        return None
    try:
        check_verifier(known.verifier, merging.question, known.reference_answer, known.metadata)
    except InvalidRow as error:
        return str(error)
    return None


def _object(metadata: str) -> dict[str, object]:
    return dict(json.loads(metadata))
