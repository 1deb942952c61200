"""What attention sees of known prompts, and what is kept of new ones."""

import torch
from torch import Tensor

from tureen_core.packed.layout import Prompt
from tureen_serve.runtimes.on_transformers.prompt_memory import ComputedPrompt
from tureen_serve.runtimes.on_transformers.prompt_states import PackedPromptStates

PROMPT: Prompt = (1, 2), (("kind", 1.0),)


def layers(tokens: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Keys and values ``[T, 2, 3]`` of two layers."""
    rng = torch.Generator().manual_seed(seed)
    return [(torch.randn(tokens, 2, 3, generator=rng), torch.randn(tokens, 2, 3, generator=rng)) for _ in range(2)]


def test_what_was_kept_stands_behind_a_later_sequence() -> None:
    first, second = layers(5, seed=0), layers(4, seed=1)
    hidden = torch.randn(5, 7)
    keeping = PackedPromptStates(new={PROMPT: slice(1, 3)})
    for key, value in first:
        assert all(map(torch.equal, keeping.extend(key, value), (key, value)))
    past = keeping.collect_prompts(hidden)[PROMPT]
    assert torch.equal(past.hidden, hidden[1:3])
    recalling = PackedPromptStates([past, past])
    for (key, value), before in zip(second, first, strict=True):
        keys, values = recalling.extend(key, value)
        assert torch.equal(keys, torch.cat([key, before[0][1:3], before[0][1:3]]))
        assert torch.equal(values, torch.cat([value, before[1][1:3], before[1][1:3]]))


def test_what_is_kept_is_a_copy() -> None:
    ((key, value), _) = layers(2, seed=0)
    keeping = PackedPromptStates(new={PROMPT: slice(2)})
    keeping.extend(key, value)
    before = key.clone()
    key.zero_()
    past: ComputedPrompt = keeping.collect_prompts(torch.zeros(2, 7))[PROMPT]
    assert torch.equal(past.states[0][0], before.transpose(0, 1))
