"""Chat: text to the token ids a model is given, and the ids it generates back to canonical text with offsets.

A Chat is a tokenizer with its template, system prompt and thinking format; everything else in the project sees ids,
canonical text (`canonical.py`) and code-point offsets. Left out: several turns, tools and images; a distillation prompt
is one question.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from dasd_resources.chat.canonical import (
    CLOSE,
    CLOSING,
    OPEN,
    OPENING,
    Aligned,
    Part,
    cut_points,
    decode,
    has_tool_call,
    split_thinking,
    without_empty_thinking,
)
from dasd_resources.chat.harmony import MARKERS, PROMPT_END, Harmony
from dasd_resources.chat.quoting import Quoting
from dasd_resources.chat.think_tags import ThinkTags
from dasd_resources.chat.token_bytes import Spec, TokenBytes, continuing_encoder, read_spec
from dasd_resources.chat.tokenizer_files import Origin, load_tokenizer
from dasd_resources.chat.tokenizer_probe import PLAIN, REMEDY, first_difference
from dasd_resources.content_hash import content_hash
from dasd_resources.recipe import Model, RecipeError

if TYPE_CHECKING:  # the import loads torch: seconds that reading a recipe need not cost
    from transformers import TokenizersBackend

__all__ = [
    "Aligned",
    "Chat",
    "Encoded",
    "UnsupportedQuestion",
    "cut_points",
    "has_tool_call",
    "split_thinking",
    "without_empty_thinking",
]

# What templates that print today's date (gpt-oss, Llama) print instead: a question has the same ids on every day.
PROMPT_DAY = datetime(2026, 1, 1)
PROBE, PROBE_ANSWER = "What is 1 + 1?", "It is 2."


GIVEN = Origin("class", "given, not loaded")


class UnsupportedQuestion(ValueError):
    """A question, or its own system prompt, that the chat template refuses; the message says what to do."""


@dataclass(frozen=True)
class Encoded:
    """Prompt and response ids; offsets of the response's tokens in its canonical text, the last, end of turn, -1."""

    token_ids: list[int]
    num_prompt_tokens: int
    offsets: list[int]


class Chat:
    """A tokenizer with its chat template, system prompt and thinking format."""

    def __init__(
        self,
        tokenizer: "TokenizersBackend",
        model: Model,
        generation_stops: Sequence[int] = (),
        origin: Origin = GIVEN,
    ) -> None:
        """generation_stops: eos ids of generation_config.json. Raises RecipeError naming what the tokenizer lacks."""
        spec = read_spec(tokenizer.backend_tokenizer)
        self.origin = origin
        self._tokenizer = tokenizer
        self._model = model
        self._encoder = continuing_encoder(spec)
        self._token_bytes = TokenBytes(tokenizer.backend_tokenizer, spec)
        self.template_version = _template_version(tokenizer, model)
        self.tokenizer_hash = content_hash(spec)[:12]
        self.end_of_turn_id = _end_of_turn_id(tokenizer, spec, model, generation_stops)
        self._markers = _markers(tokenizer) if model.thinking_format == "harmony" else {}
        calls = (self._markers[name] for name in ("<|return|>", "<|call|>") if self._markers)
        self.stop_token_ids = tuple(sorted({*generation_stops, self.end_of_turn_id, *calls}))
        self._format = self._thinking_format(spec)
        self._quoting = Quoting(spec, self._controls(spec))

    @classmethod
    def load(cls, path: Path, spec: Model) -> "Chat":
        """The chat of a model folder; RecipeError if tokenizer or template is missing, cannot serve or loses text."""
        try:
            loaded = load_tokenizer(path)
            chat = cls(loaded.tokenizer, spec, _generation_stops(path), loaded.origin)
            chat._check_texts()
        except RecipeError as error:
            raise RecipeError(f"model {spec.model}: {error}") from error.__cause__
        return chat

    def prompt(self, question: str, system_prompt: str | None = None) -> str:
        """The text that `prompt_ids` encodes, special tokens written out. Raises UnsupportedQuestion."""
        messages = [{"role": "user", "content": question}]
        system = self._model.system_prompt if system_prompt is None else system_prompt
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        variables: dict[str, Any] = {"strftime_now": PROMPT_DAY.strftime, **self._model.chat_template_options}
        try:
            prompt = self._tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=False, **variables
            )
        except (TemplateError, TypeError, ValueError) as error:
            of_question = " with a system prompt of its own: land it without one" if system_prompt is not None else ""
            raise UnsupportedQuestion(
                f"the model's chat template refuses the question{of_question} ({error})"
            ) from error
        assert isinstance(prompt, str)
        return prompt

    def prompt_ids(self, question: str, system_prompt: str | None = None) -> list[int]:
        """System prompt (the question's own, else the recipe's, if any), question and generation prompt.

        A control token quoted in either is spelled out, as text: only the template speaks for the conversation.
        Raises UnsupportedQuestion.
        """
        system = self._model.system_prompt if system_prompt is None else system_prompt
        return self._quoting.prompt_ids(question, system, self.prompt, self._encode_markers)

    def continuation_ids(self, question: str, prefix_text: str, system_prompt: str | None = None) -> list[int]:
        """Prompt ids and the start of a response to go on from, thinking present exactly once."""
        return self.prompt_ids(question, system_prompt) + self._encode(self._format.parts(prefix_text))[0]

    def read_response(self, token_ids: Sequence[int]) -> Aligned:
        """Canonical text of the ids generated after a prompt, with an offset per id."""
        return self._format.read_response(token_ids, self._token_bytes.pieces(token_ids))

    def read_landed(self, token_ids: Sequence[int]) -> Aligned:
        """`read_response` of ids that came with a landed response.

        Of a harmony model they may spell `<think>` tags as text, if the text was tokenised after it was rewritten.
        """
        if not self._markers or self._markers["<|message|>"] in token_ids:
            return self.read_response(token_ids)
        tags = ThinkTags("", frozenset(self.stop_token_ids))
        return tags.read_response(token_ids, self._token_bytes.pieces(token_ids))

    def read_continuation(self, prefix_text: str, token_ids: Sequence[int]) -> Aligned:
        """Canonical text of a prefix and the ids generated after it, with an offset per id."""
        if not prefix_text:
            return self.read_response(token_ids)
        return self._format.read_continuation(prefix_text, token_ids, self._token_bytes.pieces(token_ids))

    def encode_response(self, question: str, text: str, system_prompt: str | None = None) -> Encoded:
        """Prompt, canonical text and end of turn as the model generates them: the text is tokenised on its own."""
        prompt = self.prompt_ids(question, system_prompt)
        token_ids, offsets = self._encode(self._format.parts(text))
        return Encoded([*prompt, *token_ids, self.end_of_turn_id], len(prompt), [*offsets, -1])

    def num_tokens(self, text: str) -> int:
        """Tokens of a canonical text alone, without end of turn."""
        return len(self._encoder.encode(text, add_special_tokens=False))

    def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        """What each token says, for a person to read; bytes that are not a whole character read as U+FFFD."""
        return [piece.decode("utf-8", errors="replace") for piece in self._token_bytes.pieces(token_ids)]

    def _encode_markers(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def _encode(self, parts: Sequence[Part]) -> tuple[list[int], list[int]]:
        token_ids: list[int] = []
        offsets: list[int] = []
        for text, begin in parts:
            ids, starts = self._encode_text(text) if begin is not None else (self._encode_markers(text), [])
            token_ids += ids
            offsets += [-1 if begin is None or start < 0 else begin + start for start in starts or [-1] * len(ids)]
        return token_ids, offsets

    def _encode_text(self, text: str) -> tuple[list[int], list[int]]:
        """Token ids and where each starts in the text.

        From the tokens' bytes where these say the text; where a normalizer rewrote it (NFC), from the encoder, which
        knows the original characters but gives a whole run of Unigram byte tokens one offset.
        """
        encoding = self._encoder.encode(text, add_special_tokens=False)
        raw = decode(self._token_bytes.pieces(encoding.ids))
        if raw.text == text:
            return encoding.ids, raw.starts()
        return encoding.ids, [start if start < end else -1 for start, end in encoding.offsets]

    def _check_texts(self) -> None:
        """Raise RecipeError unless a question is asked, and a response encoded and read again, without loss."""
        question, answer = "\n".join(PLAIN), f" {PLAIN[1]}"
        response = f"{OPENING}{question}{CLOSING}{PLAIN[1]}"
        prompt, asked = self.prompt(question), self.said(self.prompt_ids(question))
        tries = [
            (answer, self.said(self._encode_text(answer)[0])),
            (response, self.read_response(self._encode(self._format.parts(response))[0]).text),
        ]
        if question in prompt and question not in asked:  # some templates change it, and some tokenizers add spaces
            tries.append((prompt, asked))
        for text, again in tries:
            if text != again:
                raise RecipeError(
                    f"its tokenizer, under its chat template, reads {first_difference(text, again)}; {REMEDY}"
                )

    def said(self, token_ids: Sequence[int]) -> str:
        """What token ids say, control tokens written out: no canonical text."""
        return decode(self._token_bytes.pieces(token_ids)).text

    def _thinking_format(self, spec: Spec) -> ThinkTags | Harmony:
        prompt = self._probe()
        if self._model.thinking_format == "think_tags":
            _check_no_harmony(self._tokenizer, prompt)
            special = (t["id"] for t in spec["added_tokens"] if t["special"] and t["content"] not in (OPEN, CLOSE))
            return ThinkTags.after(prompt, frozenset((*special, *self.stop_token_ids)), self._model.thinking)
        if not prompt.endswith(PROMPT_END):
            raise RecipeError(
                f"thinking_format: harmony needs a template whose generation prompt ends with {PROMPT_END!r}, not "
                f"{prompt[-30:]!r}; use the template of the original model"
            )
        return Harmony(self._markers, frozenset(self.stop_token_ids))

    def _controls(self, spec: Spec) -> dict[str, int]:
        """Id by text of the tokens that structure a conversation: special ones, stops, and those the template writes.

        Some tokenizers (DeepSeek's) mark theirs as plain added tokens.
        """
        prompt = self._probe()
        return {
            token["content"]: token["id"]
            for token in spec["added_tokens"]
            if (token["special"] or token["id"] in self.stop_token_ids or token["content"] in prompt)
            and token["content"].strip()
        }

    def _probe(self) -> str:
        try:
            return self.prompt(PROBE)
        except UnsupportedQuestion as error:
            raise RecipeError(
                f"its chat template cannot render system_prompt {self._model.system_prompt!r} with "
                f"chat_template_options {self._model.chat_template_options}: {error.__cause__}; change one of the two"
            ) from error


def _generation_stops(path: Path) -> list[int]:
    config = path / "generation_config.json"
    eos = json.loads(config.read_text(encoding="utf-8")).get("eos_token_id") if config.is_file() else None
    return [] if eos is None else [eos] if isinstance(eos, int) else list(eos)


def _template_version(tokenizer: "TokenizersBackend", model: Model) -> str:
    try:
        template = tokenizer.get_chat_template()
    except ValueError as error:
        raise RecipeError("it has no chat template; add its instruct version's chat_template.jinja") from error
    version = [template, model.chat_template_options, model.system_prompt, model.thinking_format]
    return content_hash(version)[:12]


def _check_no_harmony(tokenizer: "TokenizersBackend", prompt: str) -> None:
    """Raise RecipeError if model and template speak harmony, where no `<think>` would ever be found in a response."""
    if any(name in prompt for name in MARKERS) and all(name in tokenizer.get_vocab() for name in MARKERS):
        raise RecipeError(
            "its tokenizer and chat template speak harmony, in which no response has <think> tags; "
            "set thinking_format: harmony"
        )


def _markers(tokenizer: "TokenizersBackend") -> dict[str, int]:
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    missing = [name for name in MARKERS if name not in vocabulary]
    if missing:
        raise RecipeError(
            f"thinking_format: harmony needs the tokens {', '.join(missing)}, which its tokenizer has not; "
            "set thinking_format: think_tags"
        )
    return {name: vocabulary[name] for name in MARKERS}


def _end_of_turn_id(tokenizer: "TokenizersBackend", spec: Spec, model: Model, stops: Sequence[int]) -> int:
    """The token that the template writes after an answer, if it ends a response, else the tokenizer's own last one.

    Gemma's and Phi's templates end a turn with another token than their tokenizers end a text.
    """
    eos = tokenizer.eos_token_id
    if not isinstance(eos, int):
        raise RecipeError("its tokenizer has no end-of-turn token; set eos_token in tokenizer_config.json")
    turns = [{"role": "user", "content": PROBE}, {"role": "assistant", "content": PROBE_ANSWER}]
    variables: dict[str, Any] = {"strftime_now": PROMPT_DAY.strftime, **model.chat_template_options}
    try:
        rendered = tokenizer.apply_chat_template(turns, tokenize=False, **variables)
    except (TemplateError, TypeError, ValueError):  # it takes no answers, or only with a system prompt
        return eos
    after = str(rendered).rpartition(PROBE_ANSWER)[2].lstrip()
    written = (t["id"] for t in spec["added_tokens"] if t["id"] in stops and after.startswith(t["content"]))
    return next(written, eos)
