"""What a training takes of the home's disk while it runs, and the weights that it leaves there. Left out: logs."""

from dasd_resources.recipe import Training

STATE_BYTES = 12  # of a weight: itself and AdamW's two moments, in float32 whatever `training.dtype` is
KEPT_STATES = 2  # the mark of the last may be lost with the power
WEIGHT_BYTES = {"float32": 4, "bfloat16": 2}  # of what is published
ROW_BYTES = 8  # of a token in Arrow, which does not compress: its id and its label


def state_bytes(num_weights: float) -> float:
    """Private checkpoints, at most: a new one is whole before the oldest is deleted."""
    return num_weights * STATE_BYTES * (KEPT_STATES + 1)


def published_bytes(num_weights: float, training: Training, epochs: int) -> float:
    """The checkpoint of a stage, with those of its epochs if they are kept."""
    return num_weights * WEIGHT_BYTES[training.dtype] * (epochs if training.keep_epochs else 1)


def arrow_bytes(num_tokens: float, training: Training) -> float:
    """The rows as they are read while training: memory-mapped, and once more in bins where they are packed."""
    return num_tokens * ROW_BYTES * (2 if training.packing else 1)


def rows_bytes(num_tokens: float, training: Training, file_token: float) -> float:
    """The same and the rows' file, a token of which takes `file_token`; what is spilled for it is deleted by then."""
    return num_tokens * file_token + arrow_bytes(num_tokens, training)
