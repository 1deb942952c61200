"""An MLP of the last layer that is computed only where a reward is read."""

from typing import Any

import torch
from torch import nn

from tureen_serve.runtimes.on_transformers.last_layer import wrap_last_mlp


def layer() -> Any:
    found: Any = nn.Module()
    found.mlp = nn.Linear(4, 4)
    return found


def test_an_mlp_leaves_out_what_is_not_read() -> None:
    layers = [layer(), layer()]
    x = torch.randn(1, 6, 4)
    whole = layers[1].mlp(x)
    found = wrap_last_mlp(layers, None)
    assert found is not None
    assert found.layer == 1
    assert torch.equal(layers[1].mlp(x), whole)
    found.places = torch.tensor([2, 5])
    some = layers[1].mlp(x)
    torch.testing.assert_close(some[:, [2, 5]], whole[:, [2, 5]])
    assert not some[:, [0, 1, 3, 4]].any()


def test_a_layer_without_such_an_mlp_stays_as_it_is() -> None:
    assert wrap_last_mlp([], None) is None
    assert wrap_last_mlp([layer(), nn.Linear(4, 4)], None) is None
