"""Linears by oneDNN: the same numbers, in any shape, over the same memory; taken where MKL is slow and nowhere else."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from serve.experts import causal
from torch import nn

from tureen_serve.runtimes.on_transformers import onednn
from tureen_serve.runtimes.on_transformers.models import copy_module_tree
from tureen_serve.runtimes.on_transformers.onednn import OneDnnLinear, is_onednn_faster, replace_linears

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.base(tmp_path_factory.mktemp("onednn") / "base")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 24), (5, 24), (3, 7, 24), (1, 1, 24), (2, 3, 4, 24)])
@torch.inference_mode()
def test_it_is_a_linear(bias: bool, shape: tuple[int, ...]) -> None:
    rng = torch.Generator().manual_seed(1)
    linear = nn.Linear(24, 40, bias=bias)
    x = torch.randn(shape, generator=rng)
    exact = nn.functional.linear(
        x.double(), linear.weight.double(), None if linear.bias is None else linear.bias.double()
    )
    found = OneDnnLinear(linear)(x)
    assert found.shape == exact.shape
    torch.testing.assert_close(found.double(), exact, atol=1e-6, rtol=1e-5)


@torch.inference_mode()
def test_what_is_not_contiguous_is_read_as_it_is() -> None:
    linear, x = nn.Linear(8, 4), torch.randn(3, 5, 8).transpose(0, 1)
    torch.testing.assert_close(OneDnnLinear(linear)(x), linear(x), atol=1e-6, rtol=1e-5)


@torch.inference_mode()
def test_a_model_says_the_same_by_it(base: Path) -> None:
    ids = torch.tensor([[5, 6, 7, 8, 9, 200, 11]])
    plain, ours = causal(base), causal(base)
    replace_linears(ours)
    assert not [module for module in ours.modules() if type(module) is nn.Linear]
    torch.testing.assert_close(ours(ids).logits, plain(ids).logits, atol=1e-4, rtol=1e-5)


def test_a_second_tree_shares_its_weights(base: Path) -> None:
    model = causal(base)
    replace_linears(model)
    other = copy_module_tree(model)
    pairs = list(zip(model.modules(), other.modules(), strict=True))
    packed = [(a, b) for a, b in pairs if isinstance(a, OneDnnLinear) and isinstance(b, OneDnnLinear)]
    assert packed
    assert all(a.packed is b.packed and a is not b for a, b in packed)


@pytest.mark.parametrize(
    ("vendor", "dtype", "expected"),
    [
        ("AuthenticAMD", torch.float32, True),
        ("GenuineIntel", torch.float32, False),
        ("AuthenticAMD", torch.bfloat16, False),
        (None, torch.float32, False),
    ],
)
def test_it_is_taken_on_amd_in_float32(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vendor: str | None, dtype: Any, expected: bool
) -> None:
    info = tmp_path / "cpuinfo"
    if vendor:
        info.write_text(f"processor\t: 0\nvendor_id\t: {vendor}\n")
    monkeypatch.setattr(onednn, "CPU_INFO", info)
    assert is_onednn_faster(causal(base).to(dtype)) is expected
