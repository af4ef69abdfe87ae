"""A strategy's settings are those of accelerate, by its own reader; and a recipe says clearly what it cannot mean."""

from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from pydantic import ValidationError

from dasd_resources.recipe import Training
from dasd_resources.recipe.parts import deciding
from dasd_resources.sft.launching import accelerate_config, config_text, gpus_seen, launch_command


@pytest.mark.parametrize(
    ("strategy", "kind"), [("ddp", "MULTI_GPU"), ("fsdp2", "FSDP"), ("zero3", "DEEPSPEED")], ids=lambda name: name
)
def test_accelerate_reads_what_is_generated(strategy: str, kind: str, tmp_path: Path) -> None:
    training = Training(strategy=strategy, gpus_per_node=8, global_batch_size=64)
    file = tmp_path / "accelerate.yaml"
    file.write_text(config_text(training))
    read = load_config_from_file(str(file))  # it refuses keys that it does not know
    assert (read.distributed_type, read.num_processes, read.num_machines) == (kind, 8, 1)
    assert read.mixed_precision == "bf16"
    command = launch_command(training, file)
    assert command == ["accelerate-launch", "--config_file", str(file)]
    known = launch_command_parser().parse_args([*command[1:], "child.py"])
    sections = accelerate_config(training)
    for section in ("fsdp_config", "deepspeed_config"):
        settings = sections.get(section, {})
        assert isinstance(settings, dict)
        assert [key for key in settings if key not in vars(known)] == []


def test_fsdp2_shards_layer_by_layer_and_its_state_too() -> None:
    settings = accelerate_config(Training(strategy="fsdp2", gpus_per_node=8))["fsdp_config"]
    assert isinstance(settings, dict)
    assert settings["fsdp_auto_wrap_policy"] == "TRANSFORMER_BASED_WRAP"
    assert settings["fsdp_state_dict_type"] == "SHARDED_STATE_DICT"


def test_several_nodes_meet_at_this_one(tmp_path: Path) -> None:
    training = Training(strategy="zero3", nodes=2, gpus_per_node=8, launcher=("srun", "--ntasks-per-node=1"))
    read = yaml.safe_load(config_text(training))
    assert (read["num_machines"], read["num_processes"], read["rdzv_backend"]) == (2, 16, "c10d")
    assert read["main_process_ip"] and read["main_process_port"]
    assert launch_command(training, tmp_path)[:3] == ["srun", "--ntasks-per-node=1", "accelerate-launch"]


@pytest.mark.parametrize(
    ("here", "seen"), [(None, "0"), ("3,5", "3"), ("MIG-a,MIG-b", "MIG-a"), ("", ""), ("-1", "-1")]
)
def test_one_process_that_nothing_launches_sees_one_gpu(
    monkeypatch: pytest.MonkeyPatch, here: str | None, seen: str
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if here is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", here)
    assert gpus_seen(Training()) == {"CUDA_VISIBLE_DEVICES": seen}
    assert gpus_seen(Training(strategy="ddp", gpus_per_node=8)) == {}
    assert gpus_seen(Training(launcher=("torchrun", "--nproc-per-node", "8"))) == {}


def test_without_a_strategy_all_is_as_it_was(tmp_path: Path) -> None:
    added = {"strategy", "nodes", "gpus_per_node"}
    document = deciding(Training())
    assert isinstance(document, dict) and not added & document.keys()
    of_sixteen = deciding(Training(strategy="fsdp2", nodes=2, gpus_per_node=8, launcher=("srun",)))
    assert isinstance(of_sixteen, dict) and added <= of_sixteen.keys()
    assert launch_command(Training(launcher=("torchrun", "--nproc-per-node", "8")), tmp_path)[0] == "torchrun"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gpus_per_node": 8}, "nodes and gpus_per_node are a strategy's"),
        ({"strategy": "fsdp2"}, "for how many GPUs is not said; set gpus_per_node"),
        ({"strategy": "fsdp2", "gpus_per_node": 8, "nodes": 2}, "nothing starts a process on each; set launcher"),
        ({"strategy": "ddp", "gpus_per_node": 2, "launcher": ("accelerate-launch",)}, "remove launcher, or strategy"),
        ({"strategy": "ddp", "gpus_per_node": 3}, "64 is no multiple of per_device_batch_size 1 x 3 processes"),
    ],
)
def test_what_a_strategy_cannot_mean(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Training(**changes)
