"""Models over one base share their lowest layers: they give the numbers that they give alone, and run those once."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from tureen_train.networks.shared_base import share_equal_weights
from tureen_train.networks.shared_layers import RememberedLayers, share_lower_layers

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
WHOLE = torch.ones_like(IDS)
PADDED = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])


def opened(base: Path, changed: int | None = None, seed: int = 1) -> Any:
    """A model of two layers, of which one may have other weights, as an adapter makes them."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    if changed is not None:
        rng = torch.Generator().manual_seed(seed)
        weight = model.base_model.layers[changed].mlp.down_proj.weight
        weight.data += torch.randn(weight.shape, generator=rng)
    return model


def shared(first: Any, *others: Any) -> int:
    for each in others:
        share_equal_weights(first, each)
    return share_lower_layers([first, *others])


@torch.inference_mode()
def read(model: Any, ids: Tensor = IDS, mask: Tensor | None = WHOLE) -> Tensor:
    states: Tensor = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)[0]
    return states


def count_runs(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count how often the model's lowest layer runs."""
    runs: list[int] = []
    lowest = model.base_model.layers[0].layers[0]
    whole = lowest.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        runs.append(1)
        return whole(*args, **kwargs)

    monkeypatch.setattr(lowest, "forward", forward)
    return runs


def test_the_layers_below_the_adapted_ones_run_once_for_equal_texts(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [opened(base, changed=1, seed=seed) for seed in range(3)]
    alone = [[read(each), read(each, mask=PADDED)] for each in models]
    assert shared(*models) == 1
    runs = count_runs(models[0], monkeypatch)
    together = [[read(each), read(each, mask=PADDED)] for each in models]
    assert len(runs) == 2
    assert all(torch.equal(*both) for both in zip(sum(alone, []), sum(together, []), strict=True))


def test_other_texts_and_other_masks_are_computed(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = opened(base), opened(base, changed=1)
    own = read(second, IDS + 1), read(second, mask=PADDED)
    assert shared(first, second) == 1
    runs = count_runs(first, monkeypatch)
    read(first)
    found = read(second, IDS + 1), read(second, mask=PADDED)
    assert len(runs) == 3
    assert all(torch.equal(*both) for both in zip(own, found, strict=True))


def test_other_positions_are_computed(base: Path) -> None:
    first, second = opened(base), opened(base, changed=1)
    places = torch.tensor([[0, 1, 0, 1]])

    def read_at(model: Any) -> Tensor:
        with torch.inference_mode():
            states: Tensor = model.base_model(input_ids=IDS[:1], position_ids=places, use_cache=False)[0]
        return states

    own = read_at(second)
    assert shared(first, second) == 1
    read(first, IDS[:1], None)
    assert torch.equal(read_at(second), own)


def test_equal_models_share_all_layers(base: Path) -> None:
    first, second = opened(base), opened(base)
    assert shared(first, second) == 2
    assert torch.equal(read(first), read(second))


def test_as_many_layers_are_shared_as_all_have_in_common(base: Path) -> None:
    models = [opened(base), opened(base), opened(base, changed=1)]
    own = [read(each) for each in models]
    assert shared(*models) == 1
    assert all(torch.equal(*both) for both in zip(own, map(read, models), strict=True))


def test_a_model_that_differs_at_the_lowest_layer_stays_alone(base: Path) -> None:
    models = [opened(base), opened(base, changed=0), opened(base, changed=1)]
    own = [read(each) for each in models]
    assert shared(*models) == 1
    held = [isinstance(each.base_model.layers[0], RememberedLayers) for each in models]
    assert held == [True, False, True]
    assert all(torch.equal(*both) for both in zip(own, map(read, models), strict=True))


def test_one_model_shares_nothing(base: Path) -> None:
    assert shared(opened(base)) == 0


def test_layers_of_several_types_are_not_shared(base: Path) -> None:
    first, second = opened(base), opened(base)
    first.config.layer_types = ["full_attention", "sliding_attention"]
    assert shared(first, second) == 0


def test_the_oldest_states_are_forgotten(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = opened(base), opened(base, changed=1)
    shared(first, second)
    first.base_model.layers[0].room = 2 * IDS.numel() * first.config.hidden_size * 4
    runs = count_runs(first, monkeypatch)
    for offset in (0, 1, 2, 2, 1, 0):
        read(first, IDS + offset)
    assert len(runs) == 4  # the last of them for offset 0, which was forgotten
