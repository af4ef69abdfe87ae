"""The canonical text of a response that was landed as text, in whichever way it marks its thinking.

`<think>` tags with any white space around them, or harmony messages written out (`<|channel|>analysis<|message|>…`),
which begin with a marker: a text that only mentions them is none. No tokenizer is asked: what the tokens of such a text
are is up to the model that scores it (`Chat.encode_response`), and given ids are read by `Chat.read_landed`.
"""

from dasd_resources.chat.canonical import Aligned, canonical, decode, has_tool_call
from dasd_resources.chat.harmony import MARKER, MARKERS, PLAIN, Harmony
from dasd_resources.chat.think_tags import find_tags

# Ids that no tokenizer has: harmony is parsed on ids, so that a marker quoted in a text is never taken for one. Of
# messages written out there is only text, and what is spelled as a marker is one.
_IDS = {name: PLAIN - 1 - number for number, name in enumerate(MARKERS)}
_HARMONY = Harmony(_IDS, frozenset({_IDS["<|return|>"], _IDS["<|call|>"]}))
_WRITTEN_BY_HARMONY = ("<|channel|>", "<|message|>")


def canonical_response(text: str) -> Aligned:
    """The canonical form of a landed text, and whether it calls a tool; its offsets mean nothing."""
    if text.lstrip().startswith(MARKERS) and all(marker in text for marker in _WRITTEN_BY_HARMONY):
        chunks = [chunk for chunk in MARKER.split(text) if chunk]
        return _HARMONY.read_response([_IDS.get(chunk, PLAIN) for chunk in chunks], [c.encode() for c in chunks])
    raw = decode([text.encode()])
    said, offsets = canonical(raw, find_tags(raw.text))
    return Aligned(said, offsets, has_tool_call(text))
