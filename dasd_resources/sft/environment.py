"""The environment that a training's libraries are imported in."""

CHILD_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_WAIT_POLICY": "PASSIVE",  # spinning threads halve the speed of a machine that has other work
    # transformers reads resume state with weights_only=True; this holds for whatever else calls torch.load, too.
    "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",
}
