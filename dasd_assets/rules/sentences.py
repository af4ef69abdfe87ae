"""Sentences: the unit of divergence-aware sampling (report §4), because it needs no shared vocabulary.

Canonical text -> sentence spans; token logprobs and offsets -> a sum and a count per sentence. Pure: no tables.
Left out: any model of language. The report says only "segment each response into sentences"; these are rules for
reasoning text, and a change to any of them is a new SEGMENTER_VERSION. What is one sentence here:
- a newline ends it in prose, so a heading, list item or table row opens its own; full stops inside them still count;
- a fenced code block is one; display maths goes with the sentence around it, also across blank lines;
- a quotation of up to 200 characters is not split; a number or label goes with what it opens ("2.", "Step 1.", "A.");
- whitespace belongs to the sentence before it, leading whitespace of a body to the first one.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dasd_assets.rules.rule import Rule

SEGMENTER_VERSION = "1"
SEGMENTER = Rule("segmenter", SEGMENTER_VERSION)
THINK_OPEN = "<think>\n"
THINK_CLOSE = "\n</think>\n"

Span = tuple[int, int]  # half-open, code points
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Words whose full stop ends no sentence: ever, before a number, before a small letter.
NEVER = re.compile(
    r"(?:e\.g|i\.e|eg|ie|cf|vs|viz|al|[Aa]pprox|resp|ca|[Ee]qs?|[Ff]igs?|Dr|Mrs?|Ms|Prof|St|Mt|w\.r\.t|s\.t|a\.k\.a|w\.l\.o\.g"
    r"|Thm|Prop|Lem|Cor|Def|Sect?|Refs?|Apt)\Z"
)
BEFORE_NUMBER = re.compile(r"(?:[Nn]os?|pp?|[Vv]ol|[Cc]h|[Ee]x|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept|Oct|Nov|Dec)\Z")
BEFORE_SMALL = re.compile(r"(?:etc|esp|incl|excl|min|max|sec|hrs?|ft|lb|oz|est|Inc|Ltd|Co|Corp|Jr|Sr|Ave|Rd|Ph\.D)\Z")
STARTER = re.compile(  # what opens a sentence after an ambiguous "U.S." or "B."
    r"(?:The|Th[ie]se?|That|Those|There|Then|Thus|Therefore|Hence|So|Now|Next|But|And|Or|If|Its?|Is|In|I|We|You|Let|Since|As"
    r"|At|For|From|Because|However|Also|Actually|Wait|Hm+|OK|Okay|Yes|No|Not|Our|He|She|They|When|While|Which|What|Why|How"
    r"|Options?|Choices?|Answer|Given|Suppose|Consider|Note|First|Second|Third|Final(?:ly)?|After|By|On|With|To|All|Both|An?)\b"
)

OPENERS = "\"'“‘«([*_`「『（《【"
CLOSERS = "\"'”’»)\\]*_」』）》】"
QUOTED = "\"'”’»)]」』）》】"
HAN = "\u3040-\u30ff\u3400-\u9fff"
EMOJI = "(?:[ ]?[✓-✘✅❌☑\U0001f300-\U0001faff]\ufe0f?)*+"
ENV = "align|equation|gather|multline|eqnarray|cases"
DISPLAY = rf"""(?:\$\$[^$]++\$\$|\\\[(?:[^\\]++|\\[^\[\]])*+\\\]
    |\\begin\{{(?P<env>{ENV})(?:[^\\]++|\\(?!(?:begin|end)\{{(?P=env)).)*+\\end\{{(?P=env)\*?\}})"""
INLINE = r"(?:\$(?!\s)(?:[^$\\\n]++|\\.)++(?<!\s)\$(?!\d)|\\\((?:[^\\\n]++|\\[^()\n])*+\\\)|`[^`\n]++`|```[^`\n]++```)"
STATED = r"(?:(?<=[.!?]\$)|(?<=[.!?]\\\)))\s++(?=[A-Z])"  # inline maths that holds the full stop of its sentence
FENCE = r"(?P<tick>`{3,}+|~{3,}+)[^`\n]*+\n(?:(?![ \t]*(?P=tick))[^\n]*+\n)*+[^\n]*+\s*+"
QUOTE = "|".join(  # up to the punctuation before its end, which is judged like any other
    rf"{before}{a}(?=[^{a}{b}\n]{{1,200}}+{b})(?:[^{b}\n.!?…。！？]++|[.!?…。！？]++(?!{b}))++"
    for before, a, b in ((r"(?<![^\s(\[])", '"', '"'), ("", "“", "”"), ("", "「", "」"))
)
LABEL = r"""(?:(?:[-*+•>]|\#{1,6})[ ])*+[*_]{0,3}(?:(?:Step|Case|Part|Example|Problem|Question|Claim|Lemma|Rule)[ ])?
    \(?(?:\d{1,3}|[A-Za-z]|[ivx]{1,4})\.(?=[\s*_])"""
OPENING = re.compile(rf"\s*+(?:{LABEL})?", re.X)
# One match runs over text that ends nothing, then over one place that may: "cut" and "shown" end a sentence, _ends
# judges "stop". The last line makes it match anywhere, and nothing is scanned twice without bound: linear time.
SCAN = re.compile(
    rf"""
    (?: [^.!?…。！？\n`$\\~"“「]++
      | {QUOTE} | ["“「]
      | {INLINE}(?!{STATED})
      | \n\s*+(?=\$\$|\\\[|\\begin\{{(?:{ENV}))
      | \\(?![\[(]|begin\{{).
      | [.!?…]++(?![\s{CLOSERS}{HAN}✓-✘✅❌☑\U0001f300-\U0001faff])
    )*+
    (?: (?: (?P<cut> {FENCE}
            | (?:[.!?…]++[{CLOSERS}]*+{EMOJI}[ \t]*+)?\n\s*+
            | (?:(?<=[a-z]{{4}})(?<!approx)(?<!resp)|(?<=[\d)\]$`])(?<!:[ ]1))\.\s++(?=[A-Z\d]) | \?\s++(?=\w)
            | [。！？]++(?![.…{CLOSERS}])\s*+(?![，、；：,)）])
            | {INLINE}{STATED})
          | (?P<stop> (?P<mark>[.!?…。！？]++[{CLOSERS}]*+{EMOJI})(?:\s++|(?=[{HAN}])|(?<=[。！？”」』）》】])))
        )(?:(?<!\?[ ]){LABEL})?
      | {DISPLAY}(?:[,;]?\s*+(?=[a-z]|其中)|(?P<shown>[ \t]++(?=[A-Z][a-z])))?
      | \Z | `++ | ~++ | .
    )""",
    re.X | re.S,
)


def bodies(text: str) -> list[Span]:
    """Thinking body and answer body of a canonical text, in order; empty ones are left out."""
    if not text.startswith(THINK_OPEN):
        return [(0, len(text))] if text else []
    start = len(THINK_OPEN)
    close = text.find(THINK_CLOSE, start)
    found = [(start, len(text))] if close < 0 else [(start, close), (close + len(THINK_CLOSE), len(text))]
    return [(a, b) for a, b in found if a < b]


def split(text: str, start: int = 0, stop: int | None = None) -> list[Span]:
    """Sentence spans that tile [start, stop) of the text; what lies outside that range has no influence."""
    body = text[start:stop]
    cuts = [start, *(start + cut for cut in _cuts(body) if 0 < cut < len(body)), start + len(body)]
    return list(pairwise(cuts)) if body else []


def sentence_spans(text: str) -> list[Span]:
    """Sentences of a canonical text: the split of each body, in order."""
    return [span for body in bodies(text) for span in split(text, *body)]


def _cuts(body: str) -> Iterator[int]:
    """Where sentences after the first begin; the last value may be the end of the body."""
    opening = OPENING.match(body)
    at, cut = opening.end() if opening else 0, 0
    while at < len(body) and (found := SCAN.match(body, at)):
        at, kind = found.end(), found.lastgroup
        if kind == "stop" and not _ends(body, found, cut):
            at = found.end(kind)
        elif kind in ("cut", "shown", "stop"):
            cut = found.end(kind)
            yield cut


def _ends(body: str, found: re.Match[str], start: int) -> bool:
    """Whether a stop ends the sentence begun at `start`: judged by the words before it and the letter after it."""
    at, end, mark = found.start("stop"), found.end("stop"), found["mark"]
    after, glued = body[end : end + 16], end == found.end("mark")
    letter = after.lstrip(OPENERS)[:1]
    if letter in ",;:)=<>+×|，、；：）":
        return False
    subject = glued and body[start] in "“「" and body.find(mark[-1], start, at) < 0  # “对。”错
    if mark[-1] in QUOTED and (letter.islower() or subject):  # “Why?” he asks
        return False
    before, word = ["", "", *body[max(start, at - 24) : at].split()][-2:]
    word = word.lstrip(OPENERS)
    if mark[0] == "…" or mark.startswith(".."):
        return _trails_off(before, word, letter)
    if mark[0] == "!":  # not a factorial
        return letter.isupper() or letter >= HAN[0] or (len(word) > 1 and word[-2:].isalpha())
    return mark != "." or not (_abbreviates(before, word, after) or (glued and word[-1:].isdigit()))


def _trails_off(before: str, word: str, letter: str) -> bool:
    """An ellipsis ends a clause ("It fails... maybe not"), but not "Hmm… so", "1, 2, ... n" or "let me see… 42"."""
    if letter.isupper():
        return word[-1:] not in (*",+-*/=<>·×，、",)
    return letter >= HAN[0] or (before != "" and word[-1:].isalpha() and not letter.isdigit())


def _abbreviates(before: str, word: str, after: str) -> bool:
    letter = after.lstrip(OPENERS)[:1]
    if NEVER.match(word) or (word == "1" and before.endswith(":")):
        return True
    if BEFORE_NUMBER.match(word):
        return letter.isdigit()
    if BEFORE_SMALL.match(word):
        return letter.islower()
    if "." in word and all(len(part) == 1 and part.isalpha() for part in word.split(".")):  # a.m., U.S.
        return not letter.isupper() or (word.isupper() and not STARTER.match(after))
    return len(word) == 1 and word.isupper() and _is_initial(before, after)


def _is_initial(before: str, after: str) -> bool:
    """Whether a capital is of a name or a list of options ("George W. Bush", "A. red B. blue"), not "It is B. Next"."""
    if STARTER.match(after) or before in ("Answer", "Answer:", "Option", "Choice"):
        return False
    return not after[:1].isupper() or before in ("by", "and", "with") or before[:1].isupper()


SPACE = np.array([chr(i).isspace() for i in range(0x3002)])  # no whitespace above U+3000


@dataclass(frozen=True)
class Edges:
    """Where a text passes from one sentence to the next: made once per text, used for every model that scored it.

    at: (2S,) start and end of each sentence; ink_end: end of the last non-whitespace before that edge (the edge itself
    where only whitespace follows); next_ink: the first non-whitespace from it on.
    """

    num_chars: int
    at: Ints
    ink_end: Ints
    next_ink: Ints

    def attribute(self, offsets: ArrayLike) -> Ints:
        """`attribute` for these sentences."""
        starts, present = self._present(offsets)
        owners = np.full(len(self.at) + 1, -1)
        owners[1::2] = np.arange(len(self.at) // 2)
        owner = np.full(len(present), -1)
        owner[present] = np.repeat(owners, np.diff(self._ranges(starts).ravel(), prepend=0, append=len(starts)))
        return owner

    def sums(self, logprobs: ArrayLike, offsets: ArrayLike) -> tuple[Floats, Ints]:
        """`sentence_logprobs` for these sentences."""
        starts, present = self._present(offsets)
        values = np.asarray(logprobs, np.float64)
        if values.shape != present.shape or not np.isfinite(response := values.sum()):
            raise ValueError(f"{values.shape} logprobs for {present.shape} tokens; each token needs one finite value")
        ranges = self._ranges(starts)
        bounds = np.concatenate(([0], ranges.ravel(), [len(starts)]))  # of gap, sentence, gap, … gap
        counts = np.diff(bounds)
        parts = np.zeros(len(counts))
        holding = counts > 0  # reduceat would give an empty part the value after it
        parts[holding] = np.add.reduceat(values[present], bounds[:-1][holding]) if len(starts) else 0
        sums, unattributed = parts[1::2], parts[::2].sum() + values[~present].sum()
        if (counts < 0).any() or not abs(response - sums.sum() - unattributed) < 1e-6:
            raise ArithmeticError(
                f"sentences ({sums.sum()}) and unattributed tokens ({unattributed}) are not the response ({response}): "
                "a token is in two sentences or in none"
            )
        return sums, counts[1::2]

    def _present(self, offsets: ArrayLike) -> tuple[Ints, NDArray[np.bool_]]:
        every = np.asarray(offsets, np.int64)
        present = every >= 0
        starts = every[present]
        if len(every) and (every.min() < -1 or every.max() >= self.num_chars):
            raise ValueError(f"offsets {every.min()}..{every.max()} leave the text of {self.num_chars} characters")
        if (back := np.flatnonzero(starts[1:] < starts[:-1])).size:
            raise ValueError(f"offset {starts[back[0] + 1]} follows {starts[back[0]]}; only -1 may break the order")
        return starts, present

    def _ranges(self, starts: Ints) -> Ints:
        """(S, 2) half-open token range of each sentence among the tokens present, given their sorted offsets (T,).

        A token that starts in the whitespace before an edge crosses it if it reaches the ink beyond: only the last can.
        """
        if not len(starts):
            return np.zeros((len(self.at) // 2, 2), np.int64)
        reach = starts[np.searchsorted(starts, self.next_ink, side="right") - 1]
        first = np.where(reach >= self.ink_end, np.minimum(reach, self.at), self.at)
        return np.searchsorted(starts, first).reshape(-1, 2)


def edges(text: str, spans: list[Span]) -> Edges:
    """Edges of sentences in a text. Raises ValueError if the spans overlap, go back or leave the text."""
    at = np.fromiter(chain.from_iterable(spans), np.int64, 2 * len(spans))
    if len(at) and (at[0] < 0 or at[-1] > len(text) or (at[1:] < at[:-1]).any()):
        raise ValueError(f"spans not in order, disjoint and within {len(text)} characters: {spans[:5]} ...")
    points = np.frombuffer((text + ".").encode("utf-32-le", "surrogatepass"), np.uint32)  # "." is ink for the last edge
    ink = np.flatnonzero(~SPACE.take(points, mode="clip"))
    following = np.searchsorted(ink, at)
    next_ink, ink_end = ink[following], np.where(following > 0, ink[following - 1] + 1, 0)
    return Edges(len(text), at, np.where(next_ink < len(text), ink_end, at), next_ink)


def attribute(text: str, offsets: ArrayLike, spans: list[Span]) -> Ints:
    """Sentence of each token: wholly that of its first non-whitespace character, or of its first where it has no other.

    offsets: (T,) code-point starts, non-decreasing but for the -1 of tokens absent from the text; a token ends where
    the next larger one starts. Returns (T,), -1 for none. Raises ValueError if an offset leaves the text or goes back.
    """
    return edges(text, spans).attribute(offsets)


def sentence_logprobs(text: str, logprobs: ArrayLike, offsets: ArrayLike, spans: list[Span]) -> tuple[Floats, Ints]:
    """Sum of token logprobs and number of tokens per sentence, (S,) each; the rest of the response is unattributed.

    logprobs, offsets: (T,) nats, and starts as for `attribute`. Raises ValueError if a logprob is NaN or infinite.
    """
    return edges(text, spans).sums(logprobs, offsets)


def mean_probs(sums: Floats, num_tokens: Ints) -> Floats:
    """Geometric mean of token probabilities, exp(sum / num_tokens) (report §4); (S,), NaN for a sentence without."""
    means: Floats = np.exp(sums / np.where(num_tokens > 0, num_tokens, np.nan))
    return means
