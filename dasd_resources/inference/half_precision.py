"""Half-precision matrix products on a CPU whose instructions lack them.

There torch multiplies element by element, six times slower than in float32. A product of bfloat16 values summed in
float32 and rounded once is what the instructions would compute, so that is what we do. Measured on an EPYC with AVX2, a
product of 256 x 576 by 1,536: torch's own 46.7 ms, this with both conversions 7.4 ms; out of a million results, a
hundred differ from torch's own, in the last bit.
"""

from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import linear

MIN_ROWS = 8  # below, converting the weight costs more than it saves (measured: it does below 4)
ROWS_AT_ONCE = 2048  # bounds the float32 copies


def is_missing(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether torch has no fast product of this type here; float32 is never missing."""
    if device.type != "cpu" or dtype == torch.float32:
        return False
    supported = {
        torch.bfloat16: torch.ops.mkldnn._is_mkldnn_bf16_supported,
        torch.float16: torch.ops.mkldnn._is_mkldnn_fp16_supported,
    }
    return not (torch.backends.mkldnn.is_available() and supported[dtype]())


def emulate(model: torch.nn.Module) -> None:
    """Let the model's linear layers multiply in float32 and round the result."""
    # Exactly nn.Linear: a subclass (a quantised layer, say) multiplies in a way of its own.
    for layer in model.modules():
        if type(layer) is torch.nn.Linear:
            layer.forward = partial(rounded_linear, weight=layer.weight, bias=layer.bias)  # type: ignore[method-assign]


def rounded_linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(…, I) inputs and (O, I) weight in half precision -> (…, O), summed in float32, rounded once."""
    rows = inputs.flatten(0, -2)
    if len(rows) < MIN_ROWS:
        return linear(inputs, weight, bias)
    # Half precision values are exact in float32, so only the result is rounded, when it is copied into `result`. The
    # weight is converted at every call: kept in float32 too, it would take three times the memory.
    weight, bias = weight.float(), None if bias is None else bias.float()
    result = inputs.new_empty(len(rows), len(weight))
    for part, to in zip(rows.split(ROWS_AT_ONCE), result.split(ROWS_AT_ONCE), strict=True):
        to.copy_(linear(part.float(), weight, bias))
    return result.view(*inputs.shape[:-1], -1)
