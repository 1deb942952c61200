"""A base at any weights of its experts equals the merged checkpoint, and is itself again afterwards."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from tureen_core.checkpoint_merge import merge_checkpoint
from tureen_core.lora import SoupError
from tureen_core.soup import concatenate_adapters
from tureen_train.families.souped_model import SoupedModel

STACK = concatenate_adapters([tiny.adapter("a", 1), tiny.adapter("b", 2)])


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(torch.arange(3, 19).view(2, 8)).logits
    return found


def test_a_soup_is_the_merged_checkpoint(base: Path, tmp_path: Path) -> None:
    souped = SoupedModel(base, STACK)
    before = logits(souped.model)
    weights = {"a": 0.3, "b": 0.7}
    merge_checkpoint(base, STACK, weights, tmp_path / "merged")
    with souped.at(weights) as model:
        found = logits(model)
    torch.testing.assert_close(found, logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()))
    assert not torch.allclose(found, before, atol=1e-3)
    assert torch.equal(logits(souped.model), before)


def test_the_base_is_back_after_an_error(base: Path) -> None:
    souped = SoupedModel(base, STACK)
    before = logits(souped.model)
    with pytest.raises(ZeroDivisionError), souped.at({"a": 1.0}):
        raise ZeroDivisionError
    assert torch.equal(logits(souped.model), before)
    with pytest.raises(SoupError, match="no expert is called 'c'"), souped.at({"c": 1.0}):
        pass
