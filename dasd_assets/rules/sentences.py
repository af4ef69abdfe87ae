"""Sentences: the unit of divergence-aware sampling (report §4), because it needs no shared vocabulary.

Canonical text -> sentence spans; token logprobs and offsets -> a sum and a count per sentence. Pure: no tables.
Left out: any model of language. The report says only "segment each response into sentences"; these are rules for
reasoning text, and a change to any of them needs a new SEGMENTER_VERSION. What is one sentence here:
- a newline ends it in prose, so each heading, list item or table row begins one; full stops inside them still count;
- a fenced code block is one; display maths goes with the sentence around it, also across blank lines, and ends it where
  a capitalised word follows; so does inline maths where the word begins a sentence ("x = 1$ Hence");
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

SEGMENTER_VERSION = "2"
SEGMENTER = Rule("segmenter", SEGMENTER_VERSION)
THINK_OPEN = "<think>\n"
THINK_CLOSE = "\n</think>\n"

Span = tuple[int, int]  # half-open, code points
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# A full stop after one of these ends no sentence, whatever follows; after the second kind not if a number follows
# ("no. 5"), after the third not if a lowercase letter does ("etc. and so on").
ABBREVIATIONS = re.compile(
    r"(?:e\.g|i\.e|eg|ie|cf|vs|viz|al|[Aa]pprox|resp|ca|[Ee]qs?|[Ff]igs?|Dr|Mrs?|Ms|Prof|St|Mt|w\.r\.t|s\.t|a\.k\.a|w\.l\.o\.g"
    r"|Thm|Prop|Lem|Cor|Def|Sect?|Refs?|Apt)\Z"
)
ABBREVIATIONS_BEFORE_NUMBER = re.compile(
    r"(?:[Nn]os?|pp?|[Vv]ol|[Cc]h|[Ee]x|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept|Oct|Nov|Dec)\Z"
)
ABBREVIATIONS_BEFORE_LOWERCASE = re.compile(
    r"(?:etc|esp|incl|excl|min|max|sec|hrs?|ft|lb|oz|est|Inc|Ltd|Co|Corp|Jr|Sr|Ave|Rd|Ph\.D)\Z"
)
SENTENCE_STARTER = re.compile(  # decides after an ambiguous "U.S." or "B.", which may end a sentence or not
    r"(?:The|Th[ie]se?|That|Those|There|Then|Thus|Therefore|Hence|So|Now|Next|But|And|Or|If|Its?|Is|In|I|We|You|Let|Since|As"
    r"|At|For|From|Because|However|Also|Actually|Wait|Hm+|OK|Okay|Yes|No|Not|Our|He|She|They|When|While|Which|What|Why|How"
    r"|Options?|Choices?|Answer|Given|Suppose|Consider|Note|First|Second|Third|Final(?:ly)?|After|By|On|With|To|All|Both|An?)\b"
)

OPENERS = "\"'“‘«([*_`「『（《【"
CLOSERS = "\"'”’»)\\]*_」』）》】"
QUOTED = "\"'”’»)]」』）》】"
CJK = "\u3040-\u30ff\u3400-\u9fff"
EMOJI = "(?:[ ]?[✓-✘✅❌☑\U0001f300-\U0001faff]\ufe0f?)*+"
ENV = "align|equation|gather|multline|eqnarray|cases"
DISPLAY = rf"""(?:\$\$[^$]++\$\$|\\\[(?:[^\\]++|\\[^\[\]])*+\\\]
    |\\begin\{{(?P<env>{ENV})(?:[^\\]++|\\(?!(?:begin|end)\{{(?P=env)).)*+\\end\{{(?P=env)\*?\}})"""
INLINE = r"(?:\$(?!\s)(?:[^$\\\n]++|\\.)++(?<!\s)\$(?!\d)|\\\((?:[^\\\n]++|\\[^()\n])*+\\\)|`[^`\n]++`|```[^`\n]++```)"
STARTS_AFTER_MATHS = (  # "x = 1\\) Simplifying": what begins a sentence after maths without a full stop; no name does
    r"(?:Simplifying|Substituting|Dividing|Multiplying|Adding|Subtracting|Summing|Solving|Expanding|Factoring|Taking|Using"
    r"|Setting|Plugging|Rearranging|Squaring|Differentiating|Integrating|Applying|Combining|Comparing|Evaluating|Computing"
    r"|Th(?:e|is|at|ese|ose|ere|en|us|erefore)|Hence|So|Now|Next|Finally|But|Since|Because|However|Similarly|Also|Note|Let"
    r"|We|It|Its|In|If|For|From|By|Wait)\b"
)
CJK_STARTS_AFTER_MATHS = r"(?<![,，]\$\$)(?<![,，]\\\])(?:所以|因此|于是|从而|由此|综上|接下来|然后|现在|代入)"
NO_FULL_STOP_AFTER_MATHS = rf"(?:(?<=\$)|(?<=\\\)))[ ]++(?={STARTS_AFTER_MATHS})"
FULL_STOP_IN_MATHS = r"(?:(?<=[.!?]\$)|(?<=[.!?]\\\)))\s++(?=[A-Z])"  # "$x = 1.$ Now": the maths holds the full stop
FENCE = r"(?P<tick>`{3,}+|~{3,}+)[^`\n]*+\n(?:(?![ \t]*(?P=tick))[^\n]*+\n)*+[^\n]*+\s*+"
QUOTE = "|".join(  # at most 200 characters, up to the punctuation before its end, which is judged like any other
    rf"{before}{a}(?=[^{a}{b}\n]{{1,200}}+{b})(?:[^{b}\n.!?…。！？]++|[.!?…。！？]++(?!{b}))++"
    for before, a, b in ((r"(?<![^\s(\[])", '"', '"'), ("", "“", "”"), ("", "「", "」"))
)
LABEL = r"""(?:(?:[-*+•>]|\#{1,6})[ ])*+[*_]{0,3}(?:(?:Step|Case|Part|Example|Problem|Question|Claim|Lemma|Rule)[ ])?
    \(?(?:\d{1,3}|[A-Za-z]|[ivx]{1,4})\.(?=[\s*_])"""
FIRST_LABEL = re.compile(rf"\s*+(?:{LABEL})?", re.X)
# The scanner. One match takes all text that ends no sentence, then one place that may end one. The last group that
# matched says which: after "cut" and "shown" a sentence ends, after "stop" _ends_sentence decides. Two traps: every
# repetition must be possessive (++, *+), or text is scanned twice and the time is no longer linear; and the last
# line must match any character, or the scanner halts before the end.
SCAN = re.compile(
    rf"""
    # 1. Text that ends no sentence: plain characters, quotations, inline maths and code, escapes, stops inside words.
    (?: [^.!?…。！？\n`$\\~"“「]++
      | {QUOTE} | ["“「]
      | {INLINE}(?!{FULL_STOP_IN_MATHS}|{NO_FULL_STOP_AFTER_MATHS})
      | \n\s*+(?=\$\$|\\\[|\\begin\{{(?:{ENV}))
      | \\(?![\[(]|begin\{{).
      | [.!?…]++(?![\s{CLOSERS}{CJK}✓-✘✅❌☑\U0001f300-\U0001faff])
    )*+
    # 2. A place where one ends for certain: a code block, a newline, a full stop between a word of four letters and a
    #    capital (the common case, decided without a call), a question mark before a word, CJK punctuation.
    (?: (?: (?P<cut> {FENCE}
            | (?:[.!?…]++[{CLOSERS}]*+{EMOJI}[ \t]*+)?\n\s*+
            | (?:(?<=[a-z]{{4}})(?<!approx)(?<!resp)|(?<=[\d)\]$`])(?<!:[ ]1))\.\s++(?=[A-Z\d]) | \?\s++(?=\w)
            | [。！？]++(?![.…{CLOSERS}])\s*+(?![，、；：,)）])
            | {INLINE}(?:{FULL_STOP_IN_MATHS}|{NO_FULL_STOP_AFTER_MATHS}))
    # 3. Or other punctuation before whitespace; then, in both cases, the label that the next sentence opens with.
          | (?P<stop> (?P<mark>[.!?…。！？]++[{CLOSERS}]*+{EMOJI})(?:\s++|(?=[{CJK}])|(?<=[。！？”」』）》】])))
        )(?:(?<!\?[ ]){LABEL})?
    # 4. Display maths, which ends its sentence only before a capitalised word, glued to it or not; or any character.
      | {DISPLAY}(?:[,;]?\s*+(?=[a-z]|其中)|(?P<shown>[ \t]*+(?=[A-Z][a-z]|{CJK_STARTS_AFTER_MATHS})))?
      | \Z | `++ | ~++ | .
    )""",
    re.X | re.S,
)


if not re.fullmatch("(?:ab?c)*+a", "aca"):  # CPython issue 106052: sentences would hardly be split, without an error
    raise ImportError("this Python's `re` matches possessive repetitions wrongly: Python 3.11.5 or newer is needed")


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
    opening = FIRST_LABEL.match(body)
    at, cut = opening.end() if opening else 0, 0
    while at < len(body) and (found := SCAN.match(body, at)):
        at, kind = found.end(), found.lastgroup
        if kind == "stop" and not _ends_sentence(body, found, cut):
            at = found.end(kind)
        elif kind in ("cut", "shown", "stop"):
            cut = found.end(kind)
            yield cut


def _ends_sentence(body: str, found: re.Match[str], start: int) -> bool:
    """Whether a stop ends the sentence begun at `start`: judged by the words before it and the character after it."""
    at, end, mark = found.start("stop"), found.end("stop"), found["mark"]
    after, no_space_after = body[end : end + 16], end == found.end("mark")
    # What follows goes on with the sentence: punctuation, an operator, or the clause around a quotation.
    letter = after.lstrip(OPENERS)[:1]
    if letter in ",;:)=<>+×|，、；：）":
        return False
    is_subject = no_space_after and body[start] in "“「" and body.find(mark[-1], start, at) < 0  # “对。”错
    if mark[-1] in QUOTED and (letter.islower() or is_subject):  # “Why?” he asks
        return False
    # Else the last word and the one before it decide; 24 characters are enough for both.
    before, word = ["", "", *body[max(start, at - 24) : at].split()][-2:]
    word = word.lstrip(OPENERS)
    if mark[0] == "…" or mark.startswith(".."):
        return _trails_off(before, word, letter)
    if mark[0] == "!":  # not a factorial
        return letter.isupper() or letter >= CJK[0] or (len(word) > 1 and word[-2:].isalpha())
    return mark != "." or not (_is_abbreviation(before, word, after) or (no_space_after and word[-1:].isdigit()))


def _trails_off(before: str, word: str, letter: str) -> bool:
    """An ellipsis ends a clause ("It fails... maybe not"), but not "Hmm… so", "1, 2, ... n" or "let me see… 42"."""
    if letter.isupper():
        return word[-1:] not in (*",+-*/=<>·×，、",)
    return letter >= CJK[0] or (before != "" and word[-1:].isalpha() and not letter.isdigit())


def _is_abbreviation(before: str, word: str, after: str) -> bool:
    """Whether the full stop after `word` belongs to it; before: the word before, after: the text that follows."""
    letter = after.lstrip(OPENERS)[:1]
    if ABBREVIATIONS.match(word) or (word == "1" and before.endswith(":")):
        return True
    if ABBREVIATIONS_BEFORE_NUMBER.match(word):
        return letter.isdigit()
    if ABBREVIATIONS_BEFORE_LOWERCASE.match(word):
        return letter.islower()
    if "." in word and all(len(part) == 1 and part.isalpha() for part in word.split(".")):  # a.m., U.S.
        return not letter.isupper() or (word.isupper() and not SENTENCE_STARTER.match(after))
    return len(word) == 1 and word.isupper() and _is_initial(before, after)


def _is_initial(before: str, after: str) -> bool:
    """Whether a capital is of a name or a list of options ("George W. Bush", "A. red B. blue"), not "It is B. Next"."""
    if SENTENCE_STARTER.match(after) or before in ("Answer", "Answer:", "Option", "Choice"):
        return False
    return not after[:1].isupper() or before in ("by", "and", "with") or before[:1].isupper()


IS_WHITESPACE = np.array(
    [chr(i).isspace() for i in range(0x3002)]
)  # U+3000 is the last; take(mode="clip") does the rest


@dataclass(frozen=True)
class Edges:
    """Start and end of every sentence of a text, made once per text and used for every model that scored it.

    positions: (2S,) start and end of each sentence; non_whitespace_end: end of the last non-whitespace character before
    that edge (the edge itself where only whitespace follows); next_non_whitespace: the first one from it on.
    """

    num_chars: int
    positions: Ints
    non_whitespace_end: Ints
    next_non_whitespace: Ints

    def attribute(self, offsets: ArrayLike) -> Ints:
        """`attribute` for these sentences."""
        starts, present = self._present(offsets)
        # Tokens alternate between gaps (owner -1) and sentences: gap, sentence 0, gap, sentence 1, … gap.
        owners = np.full(len(self.positions) + 1, -1)
        owners[1::2] = np.arange(len(self.positions) // 2)
        owner = np.full(len(present), -1)
        owner[present] = np.repeat(owners, np.diff(self._ranges(starts).ravel(), prepend=0, append=len(starts)))
        return owner

    def sums(self, logprobs: ArrayLike, offsets: ArrayLike) -> tuple[Floats, Ints]:
        """Sum of token logprobs and number of tokens per sentence, (S,) each; the rest of the response is unattributed.

        logprobs, offsets: (T,) nats, and starts as for `attribute`. Raises ValueError if a logprob is NaN or infinite.
        """
        starts, present = self._present(offsets)
        values = np.asarray(logprobs, np.float64)
        if values.shape != present.shape or not np.isfinite(response := values.sum()):
            raise ValueError(f"{values.shape} logprobs for {present.shape} tokens; each token needs one finite value")
        # Token ranges of gap, sentence, gap, … gap; one reduceat sums them all (80 M tokens/s; a Python loop 6 M).
        ranges = self._ranges(starts)
        bounds = np.concatenate(([0], ranges.ravel(), [len(starts)]))
        counts = np.diff(bounds)
        parts = np.zeros(len(counts))
        filled = counts > 0  # for an empty part, reduceat would return the value after it
        parts[filled] = np.add.reduceat(values[present], bounds[:-1][filled]) if len(starts) else 0
        # Sentences and gaps must add up to the response, or a token was counted twice or not at all.
        sums, unattributed = parts[1::2], parts[::2].sum() + values[~present].sum()
        if (counts < 0).any() or not abs(response - sums.sum() - unattributed) < 1e-6:
            raise ArithmeticError(
                f"sentences ({sums.sum()}) and unattributed tokens ({unattributed}) are not the response ({response}): "
                "a token is in two sentences or in none"
            )
        return sums, counts[1::2]

    def _present(self, offsets: ArrayLike) -> tuple[Ints, NDArray[np.bool_]]:
        """Sorted offsets of the tokens that are in the text, and which tokens those are, (T,)."""
        all_starts = np.asarray(offsets, np.int64)
        present = all_starts >= 0
        starts = all_starts[present]
        if len(all_starts) and (all_starts.min() < -1 or all_starts.max() >= self.num_chars):
            raise ValueError(
                f"offsets {all_starts.min()}..{all_starts.max()} leave the text of {self.num_chars} characters"
            )
        if (descents := np.flatnonzero(starts[1:] < starts[:-1])).size:
            first = descents[0]
            raise ValueError(f"offset {starts[first + 1]} follows {starts[first]}; only -1 may break the order")
        return starts, present

    def _ranges(self, starts: Ints) -> Ints:
        """(S, 2) half-open token range of each sentence among the tokens present; starts: their sorted offsets (T,).

        A token belongs to the sentence of its first non-whitespace character. So one that starts in the whitespace
        before an edge (" The" does) lies beyond it; only the last token before `next_non_whitespace` can be such a one.
        """
        if not len(starts):
            return np.zeros((len(self.positions) // 2, 2), np.int64)
        last = starts[np.searchsorted(starts, self.next_non_whitespace, side="right") - 1]
        first = np.where(last >= self.non_whitespace_end, np.minimum(last, self.positions), self.positions)
        return np.searchsorted(starts, first).reshape(-1, 2)


def edges(text: str, spans: list[Span]) -> Edges:
    """Edges of sentences in a text. Raises ValueError if the spans overlap, go back or leave the text."""
    positions = np.fromiter(chain.from_iterable(spans), np.int64, 2 * len(spans))
    if len(positions) and (positions[0] < 0 or positions[-1] > len(text) or (positions[1:] < positions[:-1]).any()):
        raise ValueError(f"spans not in order, disjoint and within {len(text)} characters: {spans[:5]} ...")
    # All code points at once, as 32-bit numbers; the full stop at the end is what follows the last edge.
    points = np.frombuffer((text + ".").encode("utf-32-le", "surrogatepass"), np.uint32)
    non_whitespace = np.flatnonzero(~IS_WHITESPACE.take(points, mode="clip"))
    following = np.searchsorted(non_whitespace, positions)
    next_non_whitespace = non_whitespace[following]
    end_before = np.where(following > 0, non_whitespace[following - 1] + 1, 0)
    # Trailing whitespace has no character after it to belong to: it stays with the last sentence.
    non_whitespace_end = np.where(next_non_whitespace < len(text), end_before, positions)
    return Edges(len(text), positions, non_whitespace_end, next_non_whitespace)


def attribute(text: str, offsets: ArrayLike, spans: list[Span]) -> Ints:
    """Sentence of each token: wholly that of its first non-whitespace character, or of its first where it has no other.

    offsets: (T,) code-point starts, non-decreasing but for the -1 of tokens absent from the text; a token ends where
    the next larger one starts. So a token of a space and the first bytes of a character, where the next one has its
    other bytes, counts by the space: offsets cannot tell it from a lone space.
    Returns (T,), -1 for none. Raises ValueError if an offset leaves the text or goes back.
    """
    return edges(text, spans).attribute(offsets)


def mean_probs(sums: Floats, num_tokens: Ints) -> Floats:
    """Geometric mean of token probabilities, exp(sum / num_tokens) (report §4); (S,), NaN for one without tokens."""
    means: Floats = np.exp(sums / np.where(num_tokens > 0, num_tokens, np.nan))
    return means
