"""Tokenizers that lie: each kind under each wrong class gives tokenizer.json's ids and keeps text, or is refused."""

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from small_tokenizers import byte_level, llama_of_transformers_5, sentencepiece_bpe, tekken_like, unigram
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from transformers import AutoTokenizer, LlamaTokenizer, TokenizersBackend

from dasd_resources.chat import Chat
from dasd_resources.chat.tokenizer_files import load_tokenizer
from dasd_resources.chat.tokenizer_probe import PLAIN, TAGS, WORLD
from dasd_resources.recipe import Model, RecipeError

CHATML = (
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
KINDS: dict[str, Callable[[], Tokenizer]] = {
    "byte_level": byte_level,
    "tekken_like": tekken_like,
    "metaspace": llama_of_transformers_5,
    "legacy_metaspace": lambda: sentencepiece_bpe(prefix=True),
    "gemma": lambda: sentencepiece_bpe(prefix=False),
    "unigram": lambda: unigram(byte_fallback=True),
}
CLASSES = [
    "LlamaTokenizer",
    "LlamaTokenizerFast",
    "Qwen2TokenizerFast",
    "GPT2TokenizerFast",
    "GemmaTokenizerFast",
    "PreTrainedTokenizerFast",
    "MistralCommonBackend",
    "TokenizerOfNoOne",
    None,
]
MODEL_TYPES = ["llama", "qwen3", "gemma2", "gpt2", "mistral", "deepseek_v3", None]
LIE = "The answer is 42, 你好 world.\n\tx"
TEXTS = [LIE, *PLAIN, *WORLD, TAGS, " a space", "  two", "\n\nx ", "e\u0301"]
MODEL = Model.model_validate(
    {"model": "m", "engine": "transformers", "dtype": "float32", "thinking_format": "think_tags"}
)


def folder(path: Path, tokenizer: Tokenizer, name: str | None, model_type: str | None, **config: object) -> Path:
    """A model folder that names a class and a type of model."""
    path.mkdir(exist_ok=True)
    tokenizer.save(str(path / "tokenizer.json"))
    settings = {"tokenizer_class": name} if name else {}
    settings |= {"eos_token": "<|im_end|>", "chat_template": CHATML, **config}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    if model_type:
        (path / "config.json").write_text(json.dumps({"model_type": model_type}))
    return path


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("kind", KINDS)
def test_under_any_class_ids_are_those_of_the_file_and_text_comes_back(tmp_path: Path, kind: str, name: str) -> None:
    own = KINDS[kind]()
    for model_type in MODEL_TYPES:
        path = folder(tmp_path / str(model_type), own, name, model_type)
        chat, tokenizer = Chat.load(path, MODEL), load_tokenizer(path).tokenizer
        for text in TEXTS:
            assert (
                tokenizer(text, add_special_tokens=False)["input_ids"] == own.encode(text, add_special_tokens=False).ids
            )
        prompt = chat.prompt(LIE)
        assert chat.prompt_ids(LIE) == own.encode(prompt, add_special_tokens=False).ids
        for text in (LIE, f"<think>\n{LIE}\n</think>\n{LIE}", *WORLD, " a space", *PLAIN):
            encoded = chat.encode_response(LIE, text)
            assert chat.read_response(encoded.token_ids[encoded.num_prompt_tokens :]).text == text


def test_a_wrong_class_is_replaced_and_said_so(tmp_path: Path) -> None:
    """As DeepSeek-R1-Distill-Llama is published: a byte-level vocabulary under the class of a metaspace one."""
    path = folder(tmp_path, byte_level(), "LlamaTokenizerFast", "llama")
    assert AutoTokenizer.from_pretrained(path).decode(AutoTokenizer.from_pretrained(path)(LIE)["input_ids"]) != LIE
    origin = load_tokenizer(path).origin
    assert origin.replaces_class and origin.source == "tokenizer.json"
    assert origin.reason.startswith("LlamaTokenizer cuts ")
    assert load_tokenizer(folder(tmp_path, llama_of_transformers_5(), "LlamaTokenizer", "llama")).origin.reason == (
        "made by LlamaTokenizer, as tokenizer.json says"
    )


def test_a_class_that_cuts_words_otherwise_is_replaced(tmp_path: Path) -> None:
    """It loses nothing, yet its ids are not those that the model was trained with."""
    origin = load_tokenizer(folder(tmp_path, tekken_like(), "GPT2Tokenizer", "llama")).origin
    assert origin.replaces_class and origin.reason.startswith("GPT2Tokenizer cuts ")


def test_what_a_wrong_class_saved_is_refused(tmp_path: Path) -> None:
    """A checkpoint saved by it has the loss in its tokenizer.json: nothing is left to repair it from."""
    path = folder(tmp_path / "model", byte_level(), "LlamaTokenizer", "llama")
    LlamaTokenizer.from_pretrained(path).save_pretrained(tmp_path / "saved")
    with pytest.raises(RecipeError) as refused:
        Chat.load(tmp_path / "saved", MODEL)
    assert str(refused.value).startswith("model m: its tokenizer reads 'The answer is 42, and DO' as \"Theansweris42")
    assert str(refused.value).endswith("or choose a model whose tokenizer keeps text as it is")
    assert "; put the tokenizer.json that the model was published with into its folder" in str(refused.value)


@pytest.mark.parametrize(
    "normalizer", [normalizers.Lowercase(), normalizers.Strip(), normalizers.Replace("  ", " ")], ids=repr
)
def test_a_normalizer_that_rewrites_ascii_is_refused(tmp_path: Path, normalizer: normalizers.Normalizer) -> None:
    tokenizer = byte_level()
    tokenizer.normalizer = normalizer
    if isinstance(normalizer, normalizers.Strip):
        tokenizer.normalizer = normalizers.Sequence([normalizer, normalizers.Replace("\r", "")])
    with pytest.raises(RecipeError, match="its tokenizer reads"):
        load_tokenizer(folder(tmp_path, tokenizer, None, None))


def test_forms_of_one_character_are_no_loss_and_other_rewriting_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = byte_level()
    tokenizer.normalizer = normalizers.NFC()
    assert load_tokenizer(folder(tmp_path, tokenizer, None, None)).origin.doubts == ()
    assert caplog.records == []
    tokenizer.normalizer = normalizers.NFKC()
    doubts = load_tokenizer(folder(tmp_path, tokenizer, None, None)).origin.doubts
    assert doubts[1].startswith("its normalizer rewrites ") and "x² x₁ ≤' as " in doubts[1]
    assert [record.getMessage() for record in caplog.records] == [f"the tokenizer of {tmp_path}: {d}" for d in doubts]


def test_a_file_that_begins_texts_with_a_space_loses_nothing(tmp_path: Path) -> None:
    tokenizer = byte_level()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    assert not load_tokenizer(folder(tmp_path, tokenizer, None, None)).origin.doubts


def test_a_decoder_of_another_kind_is_refused(tmp_path: Path) -> None:
    tokenizer = byte_level()
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    with pytest.raises(RecipeError, match="its tokenizer reads 'The answer is 42, and DO' as 'TheĠanswerĠis"):
        load_tokenizer(folder(tmp_path, tokenizer, None, None))


def test_a_file_may_switch_on_truncation_and_padding(tmp_path: Path) -> None:
    tokenizer = byte_level()
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=300)
    loaded = load_tokenizer(folder(tmp_path, tokenizer, "Qwen2Tokenizer", "qwen3")).tokenizer.backend_tokenizer
    assert loaded.truncation is not None and loaded.padding is not None  # it is saved as it came


def test_tokens_that_only_the_settings_add_are_compared_with_them(tmp_path: Path) -> None:
    tokens = {id: token.content for id, token in byte_level().get_added_tokens_decoder().items()}
    added = {str(id): {"content": content, "special": True} for id, content in {**tokens, 422: "<extra>"}.items()}
    settings = {"added_tokens_decoder": added, "chat_template": "<extra> hi"}
    path = folder(tmp_path, byte_level(), "GPT2Tokenizer", "llama", **settings)
    assert not load_tokenizer(path).origin.replaces_class


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = folder(tmp_path, byte_level(), "Qwen2Tokenizer", "qwen3")
    (path / "tokenizer.json").write_text("{}")
    with pytest.raises(RecipeError, match=r"its tokenizer\.json cannot be read .*; copy or download it again"):
        load_tokenizer(path)


# The split pattern of some Mistral models


def wide(tokenizer: Tokenizer) -> Tokenizer:
    """With more than 100,000 tokens, without which transformers does not look at the pattern."""
    spec = json.loads(tokenizer.to_str())
    vocabulary = spec["model"]["vocab"]
    taken = {*vocabulary.values(), *(token["id"] for token in spec["added_tokens"])}
    free = (id for id in range(100_600) if id not in taken)
    spec["model"]["vocab"] = {**vocabulary, **{f"Ā{id}Ā": id for id in free}}
    return Tokenizer.from_str(json.dumps(spec))


def test_a_warning_of_a_wrong_pattern_is_looked_into(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for model_type, warned in (("llama", False), ("mistral", True)):
        caplog.clear()
        path = folder(tmp_path / model_type, wide(byte_level()), "PreTrainedTokenizerFast", model_type)
        doubts = load_tokenizer(path).origin.doubts
        assert [record.name for record in caplog.records] == ["dasd_resources.chat.tokenizer_files"] * warned
        assert "fix_mistral_regex=True" not in capfd.readouterr().err
        assert bool(doubts) == warned
    assert 'set "fix_mistral_regex" in tokenizer_config.json to true' in doubts[0]
    path = folder(path, wide(byte_level()), "PreTrainedTokenizerFast", "mistral", fix_mistral_regex=False)
    assert load_tokenizer(path).origin.doubts == ()  # whoever says which it is hears no more of it


def test_a_pattern_that_is_not_the_one_of_tekken_is_refused(tmp_path: Path) -> None:
    path = folder(tmp_path, byte_level(), "PreTrainedTokenizerFast", "mistral3")
    (path / "tekken.json").write_text(json.dumps({"config": {"pattern": r"\p{L}+|\s+|[^\s\p{L}]+"}, "vocab": []}))
    with pytest.raises(RecipeError, match=r"splits .* otherwise than its tekken\.json; set .fix_mistral_regex"):
        load_tokenizer(path)


def test_loading_leaves_the_logger_as_it_was(tmp_path: Path) -> None:
    logger = logging.getLogger("transformers.tokenization_utils_tokenizers")
    before = (logger.level, list(logger.filters))
    load_tokenizer(folder(tmp_path, byte_level(), None, None))
    assert (logger.level, logger.filters) == before


def test_the_file_alone_is_saved_so_that_any_loader_reads_it_right(tmp_path: Path) -> None:
    """What the training child writes beside a checkpoint."""
    load_tokenizer(folder(tmp_path / "model", byte_level(), "LlamaTokenizer", "llama")).tokenizer.save_pretrained(
        tmp_path / "saved"
    )
    (tmp_path / "saved" / "config.json").write_text('{"model_type": "llama"}')
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert type(again) is TokenizersBackend
    assert again(LIE)["input_ids"] == byte_level().encode(LIE).ids


def test_no_other_module_loads_a_tokenizer() -> None:
    """Training and export too: a checkpoint must be saved with the tokenizer that made its rows."""
    loads = re.compile(r"AutoTokenizer\b|(Tokenizer\w*|TokenizersBackend)\.from_(pretrained|file)")
    modules = [file for package in ("dasd_assets", "dasd_resources") for file in Path(package).rglob("*.py")]
    assert {file.name for file in modules if loads.search(file.read_text())} == {
        "tokenizer_files.py",
        "split_pattern.py",
    }
