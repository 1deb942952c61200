"""The divergence of an expert from its base, computed again token by token in float64."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor
from train.tiny_ppo import FUNCTION

from tureen_core.base import load_tokenizer
from tureen_core.soup import concatenate_adapters
from tureen_core.template import Renderer
from tureen_train.config import FunctionSource, Sampling
from tureen_train.families import measure
from tureen_train.families.measure import FamilyMeasurer
from tureen_train.families.souped_model import SoupedModel
from tureen_train.policies.encoding import encode_prompt
from tureen_train.policies.rollouts.contract import Prompt
from tureen_train.policies.rollouts.rewards import open_rewarder
from tureen_train.policies.rollouts.sampler import ProcessSampler

STACK = concatenate_adapters([tiny.adapter("a", 1), tiny.adapter("b", 2)])
PROMPTS = [Prompt(f"p{number}", ({"role": "user", "content": f"why {number}?"},)) for number in range(5)]
SAMPLING = Sampling(count=1, max_tokens=4, temperature=0)


def logprobs(model: Any, ids: Sequence[int]) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return found


@pytest.mark.parametrize("at_once", [2, 8])
def test_the_divergence_is_that_of_each_answer(
    at_once: int, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "HELD_AT_ONCE", at_once)
    souped, renderer = SoupedModel(base, STACK), Renderer(load_tokenizer(base), tiny.reading(base))
    rewarder = open_rewarder([FunctionSource.model_validate(FUNCTION)], tmp_path)
    found = FamilyMeasurer(souped, renderer, rewarder, {}, PROMPTS, SAMPLING, seed=0).measure({"a": 1.0})
    with souped.at({"a": 1.0}) as model:
        samples = ProcessSampler(model, renderer).sample(PROMPTS, SAMPLING, 0, lambda _: None)
    for prompt, (sample,), answer in zip(PROMPTS, samples, found, strict=True):
        head = encode_prompt(renderer, prompt.messages, {})
        bare = logprobs(souped.model, [*head, *sample.ids])
        with souped.at({"a": 1.0}) as model:
            own = logprobs(model, [*head, *sample.ids])
        gaps = [
            (own[at].exp() * (own[at] - bare[at])).sum() for at in range(len(head) - 1, len(head) + len(sample.ids) - 1)
        ]
        assert answer.kl == pytest.approx(float(sum(gaps)) / len(gaps), rel=1e-4)
        assert answer.kl is not None
        assert answer.kl > 1e-3
