"""Compute the log-probabilities of prompts' tokens, with the keys and values for the texts that follow them.

What several prompts under equal gates begin with is their stem (:mod:`shared_stems`). All stems of the batch run at
once; then all tails run, each after the keys and values of its stem. Stems are padded on the left and tails on the
right, so that the tokens of a row are neighbours, as a sliding window counts them. The logits of all tokens would not
fit into memory, so the tokens run in chunks, and of each chunk only what is reported is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from tureen_serve.runtimes.on_transformers.padding import compute_positions, pad_sequences
from tureen_serve.runtimes.on_transformers.rank_gate import Mixture, RankGate
from tureen_serve.runtimes.on_transformers.shared_stems import find_stems

CHUNK_BYTES = 2**27  # of float32 logits


@dataclass(frozen=True, slots=True)
class Readings:
    """What is reported of T tokens of each of B texts.

    Attributes:
        logprobs, ranks: ``[B, T]``, of the token. The rank of the likeliest is 1.
        top_logprobs, top_ids: ``[B, T, k]``, of the likeliest tokens in its place, the likeliest first.
        sound: ``[B, T]``, whether all logits were finite.
    """

    logprobs: Tensor
    ranks: Tensor
    top_logprobs: Tensor
    top_ids: Tensor
    sound: Tensor

    def select(self, row: int, places: slice) -> "Readings":
        """Return some tokens of one text."""
        return Readings(*(getattr(self, each.name)[row, places] for each in fields(self)))


@dataclass(frozen=True, slots=True)
class ReadPrompts:
    """Prompts that have run: a row for each, with its padding on the left.

    Attributes:
        logits: ``[N, V]`` float32, of the next tokens.
        cache, mask: keys and values, and the mask ``[N, T]`` of the tokens that they are of.
        readings: of each prompt's tokens after the first, without the dimension of texts.
    """

    logits: Tensor
    cache: DynamicCache
    mask: Tensor
    readings: list[Readings]


def read_prompts(
    model: Any, gate: RankGate, prompts: Sequence[tuple[tuple[int, ...], Mixture]], top: int
) -> ReadPrompts:
    """Run different prompts, none of them empty.

    Args:
        top: how many of the likeliest tokens are reported in the place of each token.
    """
    stems, owners = find_stems(prompts)
    tails = [ids[len(stems[owner][0]) :] for (ids, _), owner in zip(prompts, owners, strict=True)]
    gate.set_rows([mixture for _, mixture in stems])
    ids, mask = pad_sequences([ids for ids, _ in stems], "left", model.device)
    cache = DynamicCache()
    opened, logits = _run_chunks(model, cache, ids, mask, mask.new_full((len(stems),), ids.shape[1] - 1), top)
    chosen = torch.tensor(owners, device=model.device)
    cache.batch_select_indices(chosen)
    logits, mask = logits[chosen], mask[chosen]
    readings = [[opened.select(owner, slice(ids.shape[1] - len(stems[owner][0]), None))] for owner in owners]
    if any(tails):
        gate.set_rows([mixture for _, mixture in prompts])
        ids, tail_mask = pad_sequences(tails, "right", model.device)
        first = _report(logits[:, None], ids[:, :1], top)
        mask = torch.cat([mask, tail_mask], 1)
        lengths = tail_mask.sum(1)
        closed, after = _run_chunks(model, cache, ids, mask, lengths - 1, top)
        logits = torch.where((lengths > 0)[:, None], after, logits)
        mask = _align_right(cache, mask)
        for row, (parts, tail) in enumerate(zip(readings, tails, strict=True)):
            if tail:
                parts += [first.select(row, slice(None)), closed.select(row, slice(len(tail) - 1))]
    return ReadPrompts(logits, cache, mask, [_join(parts, 0) for parts in readings])


def _run_chunks(
    model: Any, cache: DynamicCache, ids: Tensor, mask: Tensor, ends: Tensor, top: int
) -> tuple[Readings, Tensor]:
    """Run tokens ``[B, T]`` after those of a cache.

    Args:
        mask: ``[B, W + T]``, of the cache's W places too.
        ends: ``[B]``, the last place of each row, from 0 to T - 1.

    Returns:
        The readings of the tokens after the first of each row, and the logits ``[B, V]`` after each row's last place.
    """
    rows, width = ids.shape
    offset = mask.shape[1] - width
    places = compute_positions(mask)
    size = max(1, CHUNK_BYTES // (4 * rows * model.config.get_text_config().vocab_size))
    parts: list[Readings] = []
    last: Tensor | None = None
    for start in range(0, width, size):
        stop = min(start + size, width)
        out = model(
            input_ids=ids[:, start:stop],
            attention_mask=mask[:, : offset + stop],
            position_ids=places[:, offset + start : offset + stop],
            past_key_values=cache,
            use_cache=True,
        )
        logits = out.logits.float()
        ended = (ends >= start) & (ends < stop)
        here = logits[torch.arange(rows, device=ids.device), (ends - start).clamp(0, stop - start - 1)]
        last = here if last is None else torch.where(ended[:, None], here, last)
        targets = ids[:, start + 1 : stop + 1]
        parts.append(_report(logits[:, : targets.shape[1]], targets, top))
    if last is None:
        raise ValueError("there is no token to run")
    return _join(parts, 1), last


def _report(logits: Tensor, targets: Tensor, top: int) -> Readings:
    """Read the logits ``[B, T, V]`` of the tokens ``[B, T]``."""
    scale = logits.logsumexp(-1, keepdim=True)
    chosen = logits.gather(-1, targets.unsqueeze(-1))
    likeliest = logits.topk(top)
    least, most = logits.aminmax(dim=-1)
    return Readings(
        (chosen - scale).squeeze(-1),
        (logits >= chosen).sum(-1),
        likeliest.values - scale,
        likeliest.indices,
        least.isfinite() & most.isfinite(),
    )


def _join(parts: Sequence[Readings], dim: int) -> Readings:
    return Readings(*(torch.cat([getattr(part, each.name) for part in parts], dim) for each in fields(Readings)))


def _align_right(cache: DynamicCache, mask: Tensor) -> Tensor:
    """Move the padding of every row to its left, and return the mask. Positions are in the keys, so they may move."""
    order = mask.argsort(dim=1, stable=True)
    for layer in cache.layers:
        moved = order[:, None, :, None].expand_as(layer.keys)
        layer.keys = layer.keys.gather(2, moved)
        layer.values = layer.values.gather(2, order[:, None, :, None].expand_as(layer.values))
    return mask.gather(1, order)
