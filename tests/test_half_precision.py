"""Emulated half precision against float32 rounded once, and against torch's own products."""

import pytest
import torch
from torch.nn.functional import linear

from dasd_resources.inference.half_precision import MIN_ROWS, ROWS_AT_ONCE, emulate, is_missing, rounded_linear

CPU = torch.device("cpu")


def test_float32_and_gpus_have_their_products() -> None:
    assert not is_missing(CPU, torch.float32)
    assert not is_missing(torch.device("cuda"), torch.bfloat16)


@pytest.mark.parametrize("rows", [1, MIN_ROWS, ROWS_AT_ONCE + 3])
@pytest.mark.parametrize("biased", [False, True])
def test_products_are_summed_in_float32_and_rounded_once(rows: int, biased: bool) -> None:
    torch.manual_seed(rows)
    inputs, weight, bias = (torch.randn(*size).bfloat16() for size in ((2, rows, 24), (16, 24), (16,)))
    result = rounded_linear(inputs, weight, bias if biased else None)
    exact = inputs.double() @ weight.double().t() + (bias.double() if biased else 0)
    assert result.shape == (2, rows, 16) and result.dtype == torch.bfloat16
    assert ((result.double() - exact).abs() <= exact.abs() * 2**-8 + 1e-5).all()


@torch.inference_mode()
def test_a_models_layers_say_what_torchs_say() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(24, 32), torch.nn.Linear(32, 8, bias=False)).bfloat16()
    inputs = torch.randn(50, 24).bfloat16()
    first = linear(inputs, model[0].weight, model[0].bias)
    plain = model(inputs)
    emulate(model)
    assert torch.allclose(model[0](inputs).float(), first.float(), rtol=2**-7)
    assert (model(inputs).float() - plain.float()).abs().mean() < 2**-9
