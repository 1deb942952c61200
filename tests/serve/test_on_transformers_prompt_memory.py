"""Prompts that are kept: found by ids and blend, the oldest let go, laid out as a batch that goes on."""

import pytest
import torch
from transformers import DynamicCache

from tureen_core.packed.layout import Prompt
from tureen_serve.runtimes.on_transformers.prompt_memory import (
    ComputedPrompt,
    PromptMemory,
    PromptStore,
    copy_prompt,
    join_prompts,
)

LAYERS, HEADS, DEPTH, HIDDEN = 3, 2, 4, 5


def made(tokens: int, seed: int = 0) -> ComputedPrompt:
    rng = torch.Generator().manual_seed(seed)
    states = torch.randn(LAYERS, 2, HEADS, tokens, DEPTH, generator=rng)
    return ComputedPrompt(torch.randn(tokens, HIDDEN, generator=rng), tuple((keys, values) for keys, values in states))


def prompt(*ids: int) -> Prompt:
    return ids, (("helpful", 1.0),)


def test_prompts_are_laid_out_to_the_left_of_what_follows() -> None:
    pasts = [made(2, 1), made(4, 2)]
    hidden, mask, cache = join_prompts(pasts)
    assert mask.tolist() == [[0, 0, 1, 1], [1, 1, 1, 1]]
    assert cache.get_seq_length() == 4
    for row, each in enumerate(pasts):
        start = 4 - len(each.hidden)
        torch.testing.assert_close(hidden[row, start:], each.hidden)
        for number, layer in enumerate(cache.layers):
            torch.testing.assert_close(layer.keys[row, :, start:], each.states[number][0])
            torch.testing.assert_close(layer.values[row, :, start:], each.states[number][1])


def test_a_row_is_copied_out_of_its_batch() -> None:
    pasts = [made(3, 1), made(3, 2)]
    hidden, _, cache = join_prompts(pasts)
    found = copy_prompt(hidden, cache, 1, slice(2))
    for layer, expected in zip(found.states, pasts[1].states, strict=True):
        torch.testing.assert_close(layer, tuple(each[:, :2] for each in expected))
    torch.testing.assert_close(found.hidden, pasts[1].hidden[:2])
    before = found.states[0][0].clone()
    cache.layers[0].keys.zero_()
    assert torch.equal(found.states[0][0], before)


def test_what_was_not_used_for_longest_goes_first() -> None:
    memory = PromptMemory(PromptStore(2 * made(4).size))
    memory.put(prompt(1), made(4))
    memory.put(prompt(2), made(4))
    assert memory.get(prompt(1)) is not None
    memory.put(prompt(3), made(4))
    assert [memory.get(prompt(each)) is None for each in (1, 2, 3)] == [False, True, False]
    memory.put(prompt(4), made(8))
    assert len(memory) == 1


@pytest.mark.parametrize("room", [0, made(4).size - 1])
def test_what_has_no_room_is_not_kept(room: int) -> None:
    memory = PromptMemory(PromptStore(room))
    memory.put(prompt(1), made(4))
    assert len(memory) == 0
    assert memory.get(prompt(1)) is None


def test_a_prompt_kept_twice_counts_once() -> None:
    memory = PromptMemory(PromptStore(2 * made(4).size))
    for _ in range(5):
        memory.put(prompt(1), made(4))
    memory.put(prompt(2), made(4))
    assert len(memory) == 2


def test_an_empty_cache_is_what_is_gone_on_from() -> None:
    assert isinstance(join_prompts([made(1)])[2], DynamicCache)


def test_scorers_share_one_bound_and_not_their_prompts() -> None:
    store = PromptStore(2 * made(4).size)
    first, second = PromptMemory(store), PromptMemory(store)
    first.put(prompt(1), made(4))
    assert second.get(prompt(1)) is None
    second.put(prompt(1), made(4, seed=1))
    second.put(prompt(2), made(4))
    assert (len(first), len(second)) == (0, 2)
    assert store.used == 2 * made(4).size


def test_a_scorer_that_closes_frees_its_prompts_only() -> None:
    store = PromptStore(4 * made(4).size)
    first, second = PromptMemory(store), PromptMemory(store)
    for memory in (first, second):
        memory.put(prompt(1), made(4))
    first.close()
    assert (len(first), len(second), store.used) == (0, 1, made(4).size)


def test_a_smaller_bound_drops_what_has_no_room() -> None:
    store = PromptStore(3 * made(4).size)
    memory = PromptMemory(store)
    for number in (1, 2, 3):
        memory.put(prompt(number), made(4))
    store.limit(made(4).size)
    assert [memory.get(prompt(each)) is None for each in (1, 2, 3)] == [True, True, False]
