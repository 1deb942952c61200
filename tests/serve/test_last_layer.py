"""The ends of packed segments, and an MLP that is computed there only."""

from typing import Any

import torch
from serve.experts import texts
from torch import nn

from tureen_serve.runtimes.contract import Row
from tureen_serve.runtimes.on_transformers.last_layer import ends_of, last_mlp
from tureen_serve.runtimes.on_transformers.packing import pack
from tureen_serve.runtimes.on_transformers.sharing import shared

KIND = (("kind", 1.0),)


def layer() -> Any:
    found: Any = nn.Module()
    found.mlp = nn.Linear(4, 4)
    return found


def test_the_ends_are_the_last_two_tokens_of_each_segment() -> None:
    prompt, first, second, single = texts([3, 4, 2, 1])
    rows = [Row(prompt + first, KIND, 3), Row(prompt + second, KIND, 3), Row(single, KIND)]
    packing = pack(rows, shared(rows))
    assert packing.lengths.tolist() == [3, 4, 2, 1]
    ends = ends_of(packing, 5)
    assert ends.places.tolist() == [1, 2, 5, 6, 7, 8, 9]
    assert ends.queries_at.tolist() == [0, 2, 4, 6, 7]
    assert ends.layer == 5


def test_an_mlp_leaves_out_what_is_not_read() -> None:
    layers = [layer(), layer()]
    x = torch.randn(1, 6, 4)
    whole = layers[1].mlp(x)
    found = last_mlp(layers, None)
    assert found is not None
    assert found.layer == 1
    assert torch.equal(layers[1].mlp(x), whole)
    found.places = torch.tensor([2, 5])
    some = layers[1].mlp(x)
    torch.testing.assert_close(some[:, [2, 5]], whole[:, [2, 5]])
    assert not some[:, [0, 1, 3, 4]].any()


def test_a_layer_without_such_an_mlp_stays_as_it_is() -> None:
    assert last_mlp([], None) is None
    assert last_mlp([layer(), nn.Linear(4, 4)], None) is None
