"""FlashAttention over a packed row, with its backward pass, against the padded batch; only on a GPU."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from tureen_core.packed.attention import NAME
from tureen_train.config import Model
from tureen_train.networks.packing import pack_padded
from tureen_train.networks.reward_model import load_reward_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="FlashAttention runs on a GPU"),
]
TEXTS = torch.randint(3, 300, (6, 200), generator=torch.Generator().manual_seed(0))
TEXTS[:5, :120] = TEXTS[0, :120]  # one prompt of five answers
GROUPS = torch.tensor([0, 0, 0, 0, 0, 1])


def gradients(model: Any, packing: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    ids = TEXTS.cuda()
    rewards = model(input_ids=ids, attention_mask=torch.ones_like(ids), packing=packing).rewards
    (rewards[0] - rewards[1:]).sum().backward()
    return rewards.detach(), {name: weight.grad.float() for name, weight in model.named_parameters()}


def test_rewards_and_gradients_are_those_of_the_padded_batch(tmp_path: Path) -> None:
    base = tiny.base(tmp_path, hidden=64)
    model = load_reward_model(base, Model(lora=None), tiny.reading(base), zero=2).cuda()  # bfloat16
    model.base_model.set_attn_implementation(NAME)
    rewards, expected = gradients(model, None)
    again, found = gradients(model, pack_padded(TEXTS, torch.ones_like(TEXTS), GROUPS))
    assert torch.allclose(rewards, again, atol=0.05)
    for name, gradient in expected.items():
        apart = (found[name] - gradient).norm() / gradient.norm().clamp(min=1e-6)
        assert apart < 0.05, name
