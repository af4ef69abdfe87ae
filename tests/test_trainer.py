"""Training for real: TRL children on a tiny random Qwen3, their loss and schedule against numbers computed here."""

import fcntl
import json
import math
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
import torch
from tensorboard_files import events_in
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.distributed.launcher.api import LaunchConfig
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    MambaConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl import pack_dataset

from dasd_resources.inference.model_files import count_weights
from dasd_resources.recipe import Training
from dasd_resources.sft import trainer
from dasd_resources.sft.checkpoint import (
    EVENTS,
    FAILURE,
    PUBLISHED_SUFFIXES,
    UNFINISHED,
    Pace,
    Progress,
    Trained,
    epoch_folder,
    published,
)
from dasd_resources.sft.child import (
    EpochOrder,
    Reporter,
    StageTrainer,
    accumulation_steps,
    holds_logits,
    sft_config,
)
from dasd_resources.sft.disk import KEPT_STATES, STATE_BYTES, arrow_bytes
from dasd_resources.sft.ending import SavesBeforeEnding
from dasd_resources.sft.events import CURVES
from dasd_resources.sft.forked import ForkedChild, start
from dasd_resources.sft.kept_epochs import KeepsEpochs
from dasd_resources.sft.packing import TOKENS_AT_ONCE, check_separation, load_rows, num_rows, rows_at_once
from dasd_resources.sft.states import complete, last_complete
from dasd_resources.sft.trackers import Run
from dasd_resources.sft.trainer import (
    SAVING_SECONDS,
    SftJob,
    TrainingError,
    _environment,
    _interrupt,
    _points,
    check_rows,
    train,
)

NUM_ROWS, PROMPT = 48, 8
TRAINING = Training(
    launcher=(),
    epochs=20,
    learning_rate=4e-3,
    min_learning_rate=4e-4,
    warmup_ratio=0.1,
    adam_beta1=0.9,
    adam_beta2=0.95,
    adam_epsilon=1e-8,
    weight_decay=0.1,
    max_grad_norm=1.0,
    global_batch_size=16,
    batch_counts="samples",
    per_device_batch_size=16,
    max_length=64,
    packing=False,
    group_by_length=True,
    gradient_checkpointing=False,
    dtype="float32",
    attn_implementation="sdpa",
    use_kernels=False,
    save_every_steps=5,
)


def row(index: int) -> tuple[list[int], list[int]]:
    """A prompt of 8 tokens without loss, then 20 to 43 tokens counting upwards."""
    length = 20 + index % 24
    response = [2 + (index + position) % 200 for position in range(length)]
    prompt = [2 + (7 * index + position) % 300 for position in range(PROMPT)]
    return prompt + response, [-100] * PROMPT + response


def write_rows(path: Path, rows: list[tuple[list[int], list[int]]]) -> Path:
    frame = pl.DataFrame(
        {
            "example_id": [f"e{i}" for i in range(len(rows))],
            "input_ids": [r[0] for r in rows],
            "labels": [r[1] for r in rows],
        },
        schema={"example_id": pl.String, "input_ids": pl.List(pl.Int32), "labels": pl.List(pl.Int32)},
    )
    frame.write_parquet(path)
    return path


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """So that sums computed here do not spin against the child for the machine's few cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("student")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe = trainers.BpeTrainer(vocab_size=320, special_tokens=["<|im_end|>", "<|pad|>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["one two three four five six seven eight nine ten"] * 2, bpe)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|pad|>")
    fast.chat_template = "{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}"
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=256,
        tie_word_embeddings=True,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.parquet", [row(i) for i in range(NUM_ROWS)])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


JobMaker = Callable[..., SftJob]


@pytest.fixture(scope="module")
def make_job(student: Path, rows: Path, home: Path) -> JobMaker:
    def make(name: str, model: Path = student, epochs: int = 20, run: Run | None = None, **changes: object) -> SftJob:
        training, record = TRAINING.model_copy(update=changes), {"recipe": "tiny", "dataset": "t060"}
        return SftJob(name, model, rows, training, epochs, 42, home / name, record, run=run)

    return make


Reading = Progress | Pace


def ignore(reading: Reading) -> None:
    pass


@pytest.fixture(scope="module")
def stage1(make_job: JobMaker) -> tuple[Trained, list[Progress]]:
    readings: list[Reading] = []
    trained = train(make_job("stage1"), readings.append)
    assert readings[0] == Pace(0, 60, 0)
    return trained, points_of(readings)


def points_of(readings: list[Reading]) -> list[Progress]:
    return [reading for reading in readings if isinstance(reading, Progress)]


def mean_loss(model_path: Path) -> float:
    """Mean over every token that carries loss, row by row, with a plain log_softmax."""
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()
    total, count = 0.0, 0
    for input_ids, labels in map(row, range(NUM_ROWS)):
        with torch.no_grad():
            logprobs = torch.log_softmax(model(torch.tensor([input_ids])).logits[0], dim=-1)
        for position in range(1, len(labels)):
            if labels[position] != -100:
                total -= logprobs[position - 1, labels[position]].item()
                count += 1
    return total / count


def learning_rate(step: int, num_steps: int, num_warmup: int) -> float:
    """The rate of a step counted from 1: linear from 0 to 4e-3, then a half cosine down to 4e-4."""
    done = step - 1
    if done < num_warmup:
        return 4e-3 * done / num_warmup
    return 4e-4 + 3.6e-3 * 0.5 * (1 + math.cos(math.pi * (done - num_warmup) / (num_steps - num_warmup)))


def test_a_stage_learns_and_streams_its_loss(stage1: tuple[Trained, list[Progress]], student: Path) -> None:
    trained, points = stage1
    assert points == trained.losses
    assert [point.step for point in points] == list(range(1, 61))
    assert (trained.num_steps, trained.num_samples, trained.num_bins) == (60, 48, 48)
    assert points[-1].tokens == 20 * sum(len(row(i)[0]) for i in range(NUM_ROWS))
    assert all(point.grad_norm and point.tokens_per_second and point.time for point in points)
    assert padding(points[:3]) == pytest.approx(grouped_padding(epoch=0))
    assert points[-1].loss < 0.5 * points[0].loss
    assert mean_loss(trained.path) < 0.5 * mean_loss(student)


def padding(points: list[Progress]) -> float:
    """Positions without a token, of a few first points of the same number of steps."""
    tokens = [points[0].tokens, *(b.tokens - a.tokens for a, b in pairwise(points))]
    return sum(n * p.padding_share / (1 - p.padding_share) for n, p in zip(tokens, points, strict=True))


def grouped_padding(epoch: int) -> int:
    """The same of an epoch of the rows in batches of 16, each padded to its longest row."""
    lengths = [len(row(i)[0]) for i in range(NUM_ROWS)]
    order = EpochOrder(NUM_ROWS, lengths, 16, 42)
    order.epoch = epoch
    batches = [[lengths[i] for i in list(order)[first : first + 16]] for first in range(0, NUM_ROWS, 16)]
    return sum(16 * max(batch) - sum(batch) for batch in batches)


def test_tensorboard_has_each_point_once(stage1: tuple[Trained, list[Progress]]) -> None:
    trained, points = stage1
    version, *events = events_in(trained.path / EVENTS)
    assert version.file_version == "brain.Event:2"
    assert [event.step for event in events] == [point.step for point in points]
    for event, point in zip(events, points, strict=True):
        curves = {value.tag: value.simple_value for value in event.summary.value}
        assert curves["train/loss"] == pytest.approx(point.loss)
        assert curves["train/grad_norm"] == pytest.approx(point.grad_norm)
        assert curves.keys() == {f"train/{curve}" for curve in CURVES}


class OneProcess:
    """As much of a trainer as its reporter asks."""

    num_tokens = 700

    def is_world_process_zero(self) -> bool:
        return True

    def gather_tokens(self) -> tuple[int, float]:
        return 800, 0.0


def test_between_two_points_the_pace_is_told_but_not_at_every_step(tmp_path: Path) -> None:
    progress, args = tmp_path / "progress.jsonl", TrainingArguments(tmp_path)
    progress.write_text(json.dumps(asdict(Progress(5, 90, 0.5, 1e-3, 3000))) + "\n")
    reporter = Reporter(progress, OneProcess())
    reporter.on_train_begin(args, TrainerState(global_step=5, max_steps=90), TrainerControl())
    reporter.on_step_end(args, TrainerState(global_step=6, max_steps=90), TrainerControl())
    reporter.last_written -= 11
    reporter.on_step_end(args, TrainerState(global_step=7, max_steps=90), TrainerControl(should_log=True))
    reporter.on_step_end(args, TrainerState(global_step=8, max_steps=90), TrainerControl())
    reporter.on_step_end(args, TrainerState(global_step=9, max_steps=90), TrainerControl())
    for step in (10, 11):
        logs = [{"loss": 0.5, "learning_rate": 0.3}]
        reporter.on_log(args, TrainerState(global_step=step, max_steps=90, log_history=logs), TrainerControl())
    told = [json.loads(line) for line in progress.read_text().splitlines()[1:]]
    assert told[:2] == [asdict(Pace(5, 90, 3000)), asdict(Pace(8, 90, 3700))]
    assert [(point["step"], point["tokens"]) for point in told[2:]] == [(10, 3800), (11, 4600)]


@pytest.mark.parametrize(
    ("logs", "told"),
    [
        ({"loss": math.nan, "grad_norm": math.nan}, r"loss is nan at step 7 of 90; lower training.learning_rate"),
        ({"loss": 0.5, "grad_norm": math.inf}, r"grad_norm is inf at step 7 of 90; .* which is 0\.3 here"),
    ],
)
def test_a_training_that_diverges_is_ended(tmp_path: Path, logs: dict[str, float], told: str) -> None:
    args = TrainingArguments(tmp_path, learning_rate=0.3)
    reporter = Reporter(tmp_path / "progress.jsonl", OneProcess())
    with pytest.raises(ValueError, match=told):
        reporter.on_log(args, TrainerState(global_step=7, max_steps=90, log_history=[logs]), TrainerControl())
    assert not reporter.progress.exists()


def test_a_point_without_a_gradient_norm_is_kept_and_what_is_no_point_is_not(tmp_path: Path) -> None:
    reporter = Reporter(tmp_path / "progress.jsonl", OneProcess())
    for logs in ({"loss": 0.5, "learning_rate": 0.3}, {"train_runtime": 3.0}):
        state = TrainerState(global_step=7, max_steps=90, log_history=[logs])
        reporter.on_log(TrainingArguments(tmp_path), state, TrainerControl())
    [point] = map(json.loads, reporter.progress.read_text().splitlines())
    assert (point["step"], point["loss"], point["grad_norm"]) == (7, 0.5, None)


def test_a_diverged_training_is_not_published(make_job: JobMaker) -> None:
    job = replace(make_job("diverged", learning_rate=1e30, warmup_ratio=0.0), num_threads=1)
    with pytest.raises(TrainingError, match=r"the training has diverged: (loss|grad_norm) is (nan|inf) at step"):
        train(job, ignore)
    assert not job.destination.exists()


def test_learning_rate_warms_up_and_ends_at_the_minimum(stage1: tuple[Trained, list[Progress]]) -> None:
    rates = [point.learning_rate for point in stage1[1]]
    assert rates == pytest.approx([learning_rate(step, 60, 6) for step in range(1, 61)])
    assert max(rates) == rates[6] == pytest.approx(4e-3)
    assert rates[-1] == pytest.approx(4.03e-4, abs=1e-6)


def test_only_weights_config_and_tokenizer_are_published(stage1: tuple[Trained, list[Progress]], home: Path) -> None:
    path = stage1[0].path
    assert {file.suffix for file in path.iterdir() if file.name != EVENTS} <= PUBLISHED_SUFFIXES
    wanted = {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja"}
    assert wanted | {"dasd.json", "losses.json"} <= {file.name for file in path.iterdir()}
    assert AutoModelForCausalLM.from_pretrained(path).config.use_cache
    assert not list(home.glob("stage1.partial"))
    assert Trained.load(path) == stage1[0]


def test_a_complete_checkpoint_is_not_trained_again(stage1: tuple[Trained, list[Progress]], make_job: JobMaker) -> None:
    readings: list[Reading] = []
    assert train(make_job("stage1", launcher=("false",)), readings.append) == stage1[0]
    assert readings == []


def test_stage_2_starts_from_stage_1_with_a_fresh_schedule(
    stage1: tuple[Trained, list[Progress]], make_job: JobMaker
) -> None:
    job = make_job("stage2", model=stage1[0].path, epochs=4, global_batch_size=48, warmup_ratio=0.5)
    points = train(replace(job, num_threads=1), ignore).losses
    assert [point.learning_rate for point in points] == pytest.approx([0, 2e-3, 4e-3, 2.2e-3])
    assert points[0].loss == pytest.approx(mean_loss(stage1[0].path), rel=1e-4)


def test_a_stage_of_one_step_learns_and_keeps_the_chat_template_it_was_trained_on(
    student: Path, make_job: JobMaker, tmp_path: Path
) -> None:
    shutil.copytree(student, tmp_path / "model")
    (tmp_path / "model" / "additional_chat_templates").mkdir()
    (tmp_path / "model" / "additional_chat_templates" / "tool_use.jinja").write_text("{{ tools }}")
    job = make_job("one-step", model=tmp_path / "model", epochs=1, global_batch_size=48)
    trained = train(replace(job, num_threads=1), ignore)
    assert [point.learning_rate for point in trained.losses] == [4e-3]
    assert mean_loss(trained.path) < mean_loss(student)
    template = AutoTokenizer.from_pretrained(trained.path).chat_template
    assert template == (student / "chat_template.jinja").read_text()


def test_a_killed_child_is_resumed_and_ends_as_if_undisturbed(
    stage1: tuple[Trained, list[Progress]], make_job: JobMaker
) -> None:
    job, resumed, killed = make_job("killed"), list[Reading](), set[int]()

    def kill(reading: Reading) -> None:
        if reading.step >= 12 and not killed:
            killed.add(child_of(os.getpid(), job))
            os.kill(min(killed), signal.SIGKILL)

    with pytest.raises(TrainingError, match="killed by SIGKILL"):
        train(job, kill)
    assert not job.destination.exists()
    for state in job.partial.glob("state/checkpoint-*/complete"):  # what dasd plan and dasd check reckon with
        kept = sum((state.parent / name).stat().st_size for name in ("model.safetensors", "optimizer.pt"))
        assert kept == pytest.approx(STATE_BYTES * count_weights(job.model), rel=0.1)
        os.utime(state.parent, (time.time() + 3600,) * 2)  # as if the clock had been set back since
    slow = [asdict(replace(point, tokens_per_second=0.5)) for point in _points(job.partial)]
    (job.partial / "progress.jsonl").write_text("".join(json.dumps(point) + "\n" for point in slow))
    saved = set[str]()

    def look(reading: Reading) -> None:
        resumed.append(reading)
        there = [state.name for state in job.partial.glob("state/checkpoint-*")]
        assert len(there) <= KEPT_STATES + 1
        saved.update(there)

    trained = train(make_job("killed", save_every_steps=4), look)
    begun, first = resumed[0], points_of(resumed)[0]
    assert isinstance(begun, Pace) and 10 <= begun.step < 60 and begun.step % 5 == 0
    assert first.step == begun.step + 1 and first.tokens > begun.tokens > 0
    assert "checkpoint-56" in saved and "checkpoint-55" not in saved
    assert 0 < trained.seconds - 2 * begun.tokens < 300
    assert trained.losses == stage1[0].losses
    assert trained.content_hash == stage1[0].content_hash
    assert [event.step for event in events_in(trained.path / EVENTS)] == [0, *range(1, 61)]


@pytest.mark.drill
def test_a_killed_training_with_dropout_ends_bit_for_bit_as_if_undisturbed_and_keeps_its_epochs(
    student: Path, make_job: JobMaker, tmp_path: Path
) -> None:
    shutil.copytree(student, tmp_path / "model")
    config = json.loads((student / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.2}))
    changes = {"model": tmp_path / "model", "epochs": 8, "keep_epochs": True}
    undisturbed, job, killed = train(make_job("dropout", **changes), ignore), make_job("dropout-killed", **changes), []

    def kill(reading: Reading) -> None:
        if reading.step >= 11 and not killed:
            killed.append(child_of(os.getpid(), job))
            os.kill(killed[0], signal.SIGKILL)

    with pytest.raises(TrainingError, match="killed by SIGKILL"):
        train(job, kill)
    assert list(job.partial.glob("epochs/[0-9]")) and not list(job.destination.parent.glob("dropout-killed-epoch-*"))
    resumed = list[Reading]()
    trained = train(job, resumed.append)
    assert resumed[0].step >= 10
    assert (trained.losses, trained.content_hash) == (undisturbed.losses, undisturbed.content_hash)
    for epoch in range(1, 8):
        folders = [epoch_folder(whole.path, epoch) for whole in (undisturbed, trained)]
        first, second = (published(folder, folder.name) for folder in folders)
        assert first and second and first.num_steps == 3 * epoch == first.losses[-1].step
        assert first.content_hash == second.content_hash != trained.content_hash
    assert not epoch_folder(trained.path, 8).exists()


def test_forked_trainings_are_as_those_of_a_process_each(
    stage1: tuple[Trained, list[Progress]], make_job: JobMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [replace(make_job(f"forked-{number}"), num_threads=1) for number in range(3)]
    with ThreadPoolExecutor(2) as pool:
        trained = list(pool.map(lambda job: train(job, ignore), jobs[:2]))
    children = list[ForkedChild]()
    monkeypatch.setattr(trainer, "fork", lambda *given: children.append(start(*given)) or children[-1])

    def kill(reading: Reading) -> None:
        if reading.step >= 12 and children:
            os.kill(children.pop().pid, signal.SIGKILL)

    with pytest.raises(TrainingError, match="killed by SIGKILL"):
        train(jobs[2], kill)
    for one in [*trained, train(jobs[2], ignore)]:
        assert (one.losses, one.content_hash) == (stage1[0].losses, stage1[0].content_hash)


def child_of(process: int, job: SftJob) -> int:
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    (child,) = (c for c in children if str(job.partial) in Path(f"/proc/{c}/cmdline").read_text())
    return int(child)


PARENT = """
import pickle, sys
from dasd_resources.sft.trainer import train
train(pickle.load(open(sys.argv[1], "rb")), lambda point: print(point, flush=True))
"""


@pytest.mark.parametrize("num_threads", [None, 1], ids=["alone", "forked"])
def test_the_child_ends_with_its_parent(make_job: JobMaker, tmp_path: Path, num_threads: int | None) -> None:
    job = replace(make_job("orphan", epochs=10_000), num_threads=num_threads)
    (tmp_path / "job").write_bytes(pickle.dumps(job))
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path / "job")], stdout=subprocess.PIPE) as parent:
        assert parent.stdout and parent.stdout.readline().startswith(b"Pace(step=0")
        parent.kill()
    assert ends_within(10, job.destination.parent / ".orphan.lock")


def ends_within(seconds: int, lock: Path) -> bool:
    """Whether whoever holds the lock ends in that time."""
    with lock.open() as file:
        for _ in range(10 * seconds):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                time.sleep(0.1)
    return False


def interrupted_child(code: str, *arguments: object) -> "subprocess.Popen[bytes]":
    """A process in place of the training's, once it has said a word."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    assert child.stdout is not None and child.stdout.readline()
    return child


def test_an_interrupted_child_saves_first_what_it_is_saving(tmp_path: Path) -> None:
    code = """
import signal, sys
from pathlib import Path
from transformers import TrainerControl, TrainerState
from dasd_resources.sft.ending import SavesBeforeEnding
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
ending = SavesBeforeEnding(Path(sys.argv[1]))
ending.on_step_end(None, TrainerState(), TrainerControl(should_save=True))
print("saves", flush=True)
signal.sigwait({signal.SIGUSR1})
print("has saved", flush=True)
ending.on_save(None, TrainerState(), TrainerControl())
print("trains on", flush=True)
"""
    child = interrupted_child(code, tmp_path / "saving")
    saved = threading.Timer(0.5, child.send_signal, (signal.SIGUSR1,))
    saved.start()
    _interrupt(child, tmp_path / "saving", seconds=0.1)
    assert child.stdout is not None
    assert (child.wait(10), child.stdout.read()) == (1, b"has saved\n")
    assert not (tmp_path / "saving").exists()


def test_of_several_processes_the_first_alone_marks_a_save(tmp_path: Path) -> None:
    mark, args, state = tmp_path / "saving", TrainingArguments(tmp_path), TrainerState(is_world_process_zero=False)
    before, ending = signal.getsignal(signal.SIGTERM), SavesBeforeEnding(mark)
    try:
        ending.on_step_end(args, state, TrainerControl(should_save=True))
        assert ending.saving and not mark.exists()
        mark.touch()
        ending.on_save(args, state, TrainerControl())
        assert not ending.saving and mark.exists()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_launcher_gives_a_save_as_long_as_the_trainer_does(
    make_job: JobMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", raising=False)
    given = _environment(make_job("waits"))["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", given)
    assert LaunchConfig(1, 1, 1).shutdown_timeout == SAVING_SECONDS


def test_an_interrupted_child_that_does_not_end_is_killed(tmp_path: Path) -> None:
    child = interrupted_child("import signal; signal.signal(15, signal.SIG_IGN); print(flush=True); signal.pause()")
    _interrupt(child, tmp_path / "saving", seconds=0.1)
    assert child.wait(10) == -signal.SIGKILL


def test_a_failing_child_shows_its_log(make_job: JobMaker, student: Path, tmp_path: Path) -> None:
    shutil.copytree(student, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_text("damaged")
    job = replace(make_job("failing", model=tmp_path / "model"), num_threads=1)
    with pytest.raises(TrainingError, match=r"training failing failed \(exit code 1\)") as error:
        train(job, ignore)
    assert "SafetensorError" in str(error.value).partition(f"The end of {job.partial / 'log.txt'}:\n")[2]
    assert f"(exit code 1): {(job.partial / FAILURE).read_text()}. Fix the cause" in str(error.value)
    assert not job.destination.exists()


def test_the_first_process_to_fail_says_why_whatever_its_launcher_says_after_it(make_job: JobMaker) -> None:
    said = f'printf "ValueError: diverged" > "$(dirname "$3")/{FAILURE}"; seq 100; exit 3'
    job = make_job("launched", launcher=("bash", "-c", said, "child"))
    with pytest.raises(TrainingError, match=r"launched failed \(exit code 3\): ValueError: diverged\. Fix the cause"):
        train(job, ignore)
    job = make_job("launched", launcher=("bash", "-c", "exit 3", "child"))
    with pytest.raises(TrainingError, match=r"launched failed \(exit code 3\)\. Fix the cause"):
        train(job, ignore)


def test_a_training_goes_on_in_a_home_that_was_moved(make_job: JobMaker) -> None:
    job = make_job("begun", launcher=("bash", "-c", 'echo "arguments: $*"; exit 3', "child"))
    with pytest.raises(TrainingError):
        train(job, ignore)
    description = job.partial / "job.json"
    document = description.read_text()
    description.write_text(document.replace(str(job.rows.parent), "/old/home").replace(str(job.model), "/old/model"))
    state = job.partial / "state" / "checkpoint-5"
    state.mkdir(parents=True)
    (state / "complete").touch()
    with pytest.raises(TrainingError, match=rf"arguments: .*job.json {state}"):
        train(job, ignore)
    assert description.read_text() == document
    description.write_text(document[:-9])  # as a kill may leave it
    with pytest.raises(TrainingError):
        train(job, ignore)
    assert not state.exists()


def test_state_of_another_job_is_never_resumed(make_job: JobMaker) -> None:
    job = make_job("foreign", launcher=("bash", "-c", 'echo "arguments: $*"; exit 3', "child"))
    state = job.partial / "state" / "checkpoint-5"
    state.mkdir(parents=True)
    (state / "complete").touch()
    (job.partial / "job.json").write_text('{"seed": 1}')
    with pytest.raises(TrainingError, match=r"exit code 3") as error:
        train(job, ignore)
    assert f"arguments: -m dasd_resources.sft.child {job.partial}/job.json\n" in f"{error.value}\n"
    assert not state.exists()


def test_a_save_that_was_interrupted_is_passed_over(make_job: JobMaker) -> None:
    job = make_job("half-saved", launcher=("bash", "-c", 'echo "resume: $4" >&2; exit 3', "child"))
    with pytest.raises(TrainingError, match=r"resume: $"):
        train(job, ignore)
    for step in (5, 10, 15):
        (job.partial / "state" / f"checkpoint-{step}").mkdir(parents=True)
    (job.partial / "state" / "checkpoint-5" / "complete").touch()
    (job.partial / "state" / "checkpoint-10" / "complete").touch()
    with pytest.raises(TrainingError, match=r"resume: .*checkpoint-10$"):
        train(job, ignore)
    assert not (job.partial / "state" / "checkpoint-15").exists()


def test_an_epoch_counts_as_saved_once_it_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = list[tuple[str, bool]]()
    monkeypatch.setattr(
        "dasd_resources.sft.checkpoint._fsync", lambda path: synced.append((path.name, (tmp_path / "1").exists()))
    )
    state = TrainerState(global_step=3, max_steps=6, num_train_epochs=2)
    KeepsEpochs(tmp_path, Path.mkdir).on_step_end(TrainingArguments(tmp_path), state, TrainerControl())
    assert synced == [(f"1{UNFINISHED}", False), (tmp_path.name, True)]


def test_a_state_that_was_deleted_in_part_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    early, *later = (tmp_path / f"checkpoint-{step}" for step in (9, 10, 11))
    for state in (early, *later):
        state.mkdir()
        with monkeypatch.context() as killed:
            killed.setattr("dasd_resources.sft.states.shutil.rmtree", lambda *_, **__: None)
            complete(state)
    assert early.is_dir() and not list(early.iterdir())
    assert (last_complete(tmp_path), sorted(tmp_path.iterdir())) == (later[-1], later)


@pytest.mark.parametrize(
    ("input_ids", "labels", "message"),
    [
        ([5] * 65, [5] * 65, r"example_id e1 \(65 tokens\) has more tokens than max_length 64"),
        ([5] * 4, [-100] * 4, r"example_id e1 \(4 tokens\) has no token that carries loss"),
        ([5] * 4, [5, -100, -100, -100], "has no token that carries loss"),
        ([5], [5], "has no token that carries loss"),
        ([5] * 4, [5] * 3, "has not one label per token"),
    ],
)
def test_rows_that_cannot_be_trained_on(tmp_path: Path, input_ids: list[int], labels: list[int], message: str) -> None:
    path = write_rows(tmp_path / "rows.parquet", [([5] * 64, [-100] * 63 + [5]), (input_ids, labels)])
    with pytest.raises(ValueError, match=message):
        check_rows(path, 64)


def test_rows_that_are_fine_are_counted_and_none_is_an_error(tmp_path: Path) -> None:
    assert check_rows(write_rows(tmp_path / "rows.parquet", [row(i) for i in range(3)]), 64) == 3
    with pytest.raises(ValueError, match="has no rows"):
        check_rows(write_rows(tmp_path / "none.parquet", []), 64)


@pytest.mark.parametrize("packing", [False, True])
def test_rows_in_arrow_are_as_large_as_is_reckoned(tmp_path: Path, packing: bool) -> None:
    rows = write_rows(tmp_path / "rows.parquet", [([5] * 512, [5] * 512)] * 100)
    training = TRAINING.model_copy(update={"packing": packing, "max_length": 512})
    load_rows(rows, training, tmp_path / "cache")
    files = [file.stat().st_size for file in (tmp_path / "cache").rglob("*.arrow")]
    assert sum(files) == pytest.approx(arrow_bytes(100 * 512, training), rel=0.05)


def test_other_processes_wait_for_the_first_to_pack_for_hours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[timedelta]()

    class Joined:
        def __init__(self, timeout: timedelta) -> None:
            asked.append(timeout)
            self.main_process_first = nullcontext

    monkeypatch.setattr("dasd_resources.sft.packing.PartialState", Joined)
    training = TRAINING.model_copy(update={"packing": True})
    load_rows(write_rows(tmp_path / "rows.parquet", [([5] * 4, [5] * 4)]), training, tmp_path / "cache")
    assert len(asked) == 1 and asked[0] > timedelta(hours=1)


@pytest.mark.parametrize(("at_once", "in_memory"), [(16_000_000, 1_000_000), (16_000_000, 64), (2_000, 640)])
def test_bins_are_those_of_trl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int, in_memory: int) -> None:
    monkeypatch.setattr("dasd_resources.sft.packing.TOKENS_AT_ONCE", at_once)
    monkeypatch.setattr("dasd_resources.sft.packing.TOKENS_IN_MEMORY", in_memory)
    lengths = [random.Random(index).randrange(2, 65) for index in range(300)]
    rows = write_rows(tmp_path / "rows.parquet", [([i] * n, [-100, *[i] * (n - 1)]) for i, n in enumerate(lengths)])
    training = TRAINING.model_copy(update={"packing": True, "max_length": 64})
    found = load_rows(rows, training, tmp_path / "cache")
    plain = load_rows(rows, TRAINING, tmp_path / "plain")
    together = pack_dataset(plain, 64, "bfd_split", {"batch_size": rows_at_once(lengths)})
    assert found.to_dict() == together.to_dict()


@pytest.mark.parametrize("packing", [False, True])
def test_rows_reach_the_model_unchanged(student: Path, rows: Path, tmp_path: Path, packing: bool) -> None:
    training = TRAINING.model_copy(update={"packing": packing, "per_device_batch_size": 4, "group_by_length": False})
    dataset = load_rows(rows, training, tmp_path / "cache")
    assert num_rows(dataset) == NUM_ROWS
    trainer = StageTrainer(str(student), sft_config(training, 1, 42, 1, tmp_path / "state"), train_dataset=dataset)
    trainer.order = EpochOrder(len(dataset), None, 4, 42)
    seen = []
    for batch in trainer.get_train_dataloader():
        kept = batch["attention_mask"].bool() if not packing else torch.ones_like(batch["input_ids"]).bool()
        position_ids = kept.cumsum(dim=1) - 1 if not packing else batch["position_ids"]
        ends = (position_ids[kept] == 0).nonzero().flatten().tolist()[1:]
        tokens, labels = batch["input_ids"][kept].tensor_split(ends), batch["labels"][kept].tensor_split(ends)
        seen += [(part.tolist(), loss.tolist()) for part, loss in zip(tokens, labels, strict=True)]
    assert sorted(seen) == sorted(row(i) for i in range(NUM_ROWS))


@pytest.mark.parametrize(("length", "num_rows"), [(5, 10_000), (1_600, 10_000), (17_600, 909)])
def test_fewer_rows_are_packed_at_once_where_they_are_long(length: int, num_rows: int) -> None:
    assert rows_at_once([length - 1, length + 1]) == num_rows
    assert num_rows * length <= TOKENS_AT_ONCE


Packer = Callable[..., StageTrainer]


@pytest.fixture
def make_trainer(student: Path, rows: Path, tmp_path: Path) -> Packer:
    def make(packing: bool, model: object = str(student), attn_implementation: str = "sdpa") -> StageTrainer:
        changes = {"packing": packing, "group_by_length": False, "attn_implementation": attn_implementation}
        training = TRAINING.model_copy(update={**changes, "per_device_batch_size": 2})
        dataset = load_rows(rows, training, tmp_path / "cache")
        config = sft_config(training, 1, 42, 1, tmp_path / "state")
        tokenizer = AutoTokenizer.from_pretrained(student)
        trainer = StageTrainer(model, config, train_dataset=dataset, processing_class=tokenizer)
        trainer.order, trainer.unproven = EpochOrder(len(dataset), None, 2, 42), training if packing else None
        return trainer

    return make


def loss_and_gradient(trainer: StageTrainer) -> tuple[float, torch.Tensor]:
    """Mean loss of all rows, and its gradient over all weights, by the trainer's own steps."""
    batches = list(trainer.get_train_dataloader())
    num_targets = torch.tensor(sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in batches))
    loss = sum(trainer.training_step(trainer.model, batch, num_targets).item() for batch in batches)
    return loss, torch.cat([weight.grad.flatten() for weight in trainer.model.parameters()])


@pytest.mark.parametrize("attn_implementation", ["sdpa", "eager"])
def test_packed_rows_give_the_loss_and_gradient_of_separate_ones(
    make_trainer: Packer, attn_implementation: str
) -> None:
    loss, gradient = loss_and_gradient(make_trainer(False, attn_implementation=attn_implementation))
    packed_loss, packed_gradient = loss_and_gradient(make_trainer(True, attn_implementation=attn_implementation))
    assert packed_loss == pytest.approx(loss, abs=1e-5)
    assert torch.allclose(packed_gradient, gradient, rtol=0, atol=1e-5)
    assert gradient.abs().max() > 0.01


@pytest.mark.parametrize("packing", [False, True])
def test_all_logits_at_once_give_the_loss_gradient_and_count_of_tiles(make_trainer: Packer, packing: bool) -> None:
    tiles, whole = make_trainer(packing), make_trainer(packing)
    whole.holds_logits = True
    (loss, gradient), (whole_loss, whole_gradient) = loss_and_gradient(tiles), loss_and_gradient(whole)
    assert whole_loss == pytest.approx(loss, abs=1e-6)
    torch.testing.assert_close(whole_gradient, gradient, rtol=0, atol=1e-6)
    assert whole._total_train_tokens == tiles._total_train_tokens == whole.gather_tokens()[0] > 0


def test_tokens_are_those_of_all_processes_whatever_trl_counts_where_an_epoch_ends(
    make_trainer: Packer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_two(counts: torch.Tensor) -> torch.Tensor:
        return torch.stack([counts, counts]).reshape(-1, *counts.shape[1:])

    trainer = make_trainer(False)
    monkeypatch.setattr(trainer.accelerator, "gather", of_two)
    batch = next(iter(trainer.get_train_dataloader()))
    num_tokens = int(batch["attention_mask"].sum())
    monkeypatch.setattr(type(trainer.accelerator.gradient_state), "end_of_dataloader", True)
    monkeypatch.setattr(type(trainer.accelerator.gradient_state), "remainder", 1)
    trainer.training_step(trainer.model, batch, torch.tensor(1))
    assert trainer._total_train_tokens == num_tokens
    assert trainer.gather_tokens()[0] == 2 * num_tokens
    assert trainer.gather_tokens()[0] == 0


def test_all_logits_are_held_where_they_are_few() -> None:
    assert holds_logits(TRAINING.model_copy(update={"per_device_batch_size": 16, "max_length": 512}), 416)
    assert not holds_logits(TRAINING.model_copy(update={"per_device_batch_size": 1, "max_length": 512}), 151_936)


def test_a_model_that_lets_packed_samples_see_one_another_is_refused(make_trainer: Packer) -> None:
    config = MambaConfig(vocab_size=320, hidden_size=32, num_hidden_layers=2, state_size=8, bos_token_id=0)
    torch.manual_seed(0)
    trainer = make_trainer(True, model=AutoModelForCausalLM.from_config(config))
    batch = next(iter(trainer.get_train_dataloader()))
    with pytest.raises(ValueError, match=r"this model does not keep packed samples apart: .* set packing: false"):
        trainer.training_step(trainer.model, batch)


def test_separation_is_a_matter_of_what_precedes_the_same_sample() -> None:
    packing = TRAINING.model_copy(update={"packing": True})
    check_separation(lambda samples: torch.tensor([-1.0 * len(samples[-1])]), list(range(200)), packing)
    leak = {0: 0.0, 64: 2e-4}
    with pytest.raises(ValueError, match=r"changes its logprobs by 0\.0002 nats"):
        check_separation(lambda samples: torch.tensor([leak[samples[0][0]]]), list(range(200)), packing)
    bfloat16 = packing.model_copy(update={"dtype": "bfloat16"})
    check_separation(lambda samples: torch.tensor([leak[samples[0][0]]]), list(range(200)), bfloat16)


def test_epoch_order_is_decided_by_seed_and_epoch() -> None:
    lengths = [index % 10 for index in range(40)]
    order = EpochOrder(40, lengths, 4, seed=7)
    first, again = list(order), list(EpochOrder(40, lengths, 4, seed=7))
    order.epoch = 1
    assert first == again != list(order)
    assert sorted(first) == sorted(order) == list(range(40))
    grouped = sum(
        max(batch) - min(batch) for batch in ([lengths[i] for i in first[s : s + 4]] for s in range(0, 40, 4))
    )
    assert grouped < 40


def test_groups_in_random_order_are_the_same_groups() -> None:
    lengths = [(7 * index) % 41 for index in range(42)]
    in_order, shuffled = (list(EpochOrder(42, lengths, 4, 7, order)) for order in ("descending", "random"))
    groups, mixed = ([tuple(rows[i : i + 4]) for i in range(0, 42, 4)] for rows in (in_order, shuffled))
    assert set(groups) == set(mixed) and groups != mixed
    assert len(groups[-1]) == 2 and groups[-1] == mixed[-1]
    assert list(EpochOrder(42, lengths, 4, 7, "random")) == shuffled


def test_accumulation_steps_hold_the_global_batch() -> None:
    def steps(num_samples: int, num_bins: int, world_size: int, **changes: object) -> int:
        return accumulation_steps(TRAINING.model_copy(update=changes), num_samples, num_bins, world_size)

    assert steps(100, 100, 2, per_device_batch_size=2) == 4
    packed = {"packing": True, "global_batch_size": 64, "per_device_batch_size": 1}
    assert steps(1000, 100, 2, **packed, batch_counts="bins") == 32
    assert steps(1000, 100, 2, **packed, batch_counts="samples") == 3  # 10 samples a bin: 6.4 bins, on 2 processes
    with pytest.raises(
        ValueError, match="global_batch_size 16 is no multiple of per_device_batch_size 2 x 3 processes"
    ):
        steps(100, 100, 3, per_device_batch_size=2)
