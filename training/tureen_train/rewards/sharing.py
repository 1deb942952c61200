"""A batch of texts as one row without padding, in which a prompt that texts share stands once. Layout only: no model.

A prompt is a segment, what each text adds to it is another, and a text that shares nothing is one by itself. Segments
stand end to end. A token sees its own segment up to itself and the segment's stem, so each text's hidden states are
those that it has alone: same positions, same visible tokens.
"""

from collections.abc import Callable, Sequence
from functools import partial
from os.path import commonprefix
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor

Collator = Callable[[Any], dict[str, Any]]


class Packing(TypedDict):
    """T tokens of M texts in S segments; a mapping, as what the trainer moves to a device must be.

    Attributes:
        ids: ``[1, T]``.
        positions: ``[1, T]``, of each token in its own text.
        lengths: ``[S]`` tokens of each segment.
        stems: ``[S]``, the segment of each one's prompt, or itself.
        texts: ``[M, W]`` places of each text's tokens, laid out as its batch's ``attention_mask``; 0 on padding.
    """

    ids: Tensor
    positions: Tensor
    lengths: Tensor
    stems: Tensor
    texts: Tensor


def packed(collate: Collator, packing: Literal["prompts", "texts"]) -> Collator:
    """A collator whose batches also stand packed, under ``packing``; a batch without ``input_ids`` is left as it is.

    Args:
        packing: ``prompts`` shares what the rows of one ``group`` begin with; ``texts`` shares nothing.
    """
    return partial(_add_packing, collate, packing == "prompts")


def _add_packing(collate: Collator, shares: bool, items: Any) -> dict[str, Any]:
    batch = collate(items)
    if "input_ids" in batch:
        groups = batch.get("group") if shares else None
        batch["packing"] = pack(batch["input_ids"], batch["attention_mask"], groups)
    return batch


def pack(ids: Tensor, mask: Tensor, groups: Tensor | None = None) -> Packing:
    """Lay texts out, each shared prompt before the first text that continues it.

    Only the longest token prefix that all texts of a group have in common is shared, whatever the template and
    however they were cut; each text keeps one token at least to itself.

    Args:
        ids: ``[M, W]``.
        mask: ``[M, W]``, 1 on tokens.
        groups: ``[M]``, equal for texts of one prompt; None shares nothing.
    """
    texts = [row[present].tolist() for row, present in zip(ids, mask.bool(), strict=True)]
    shared = _shared(texts, list(range(len(texts))) if groups is None else groups.tolist())
    pieces: list[list[int]] = []
    stems: list[int] = []
    ends: list[int] = []
    placed: dict[int, int] = {}
    for text, (number, length) in zip(texts, shared, strict=True):
        if length and number not in placed:
            placed[number] = len(pieces)
            stems.append(len(pieces))
            pieces.append(text[:length])
        stems.append(placed.get(number, len(pieces)))
        ends.append(len(pieces))
        pieces.append(text[length:])
    return _lay(pieces, stems, ends, mask)


def _shared(texts: Sequence[list[int]], groups: Sequence[int]) -> list[tuple[int, int]]:
    """For each text its group, and how many of its first tokens it shares; a text alone shares none."""
    members: dict[int, list[list[int]]] = {}
    for number, text in zip(groups, texts, strict=True):
        members.setdefault(number, []).append(text)
    lengths = {number: _common(own) if len(own) > 1 else 0 for number, own in members.items()}
    return [(number, lengths[number]) for number in groups]


def _common(texts: list[list[int]]) -> int:
    """Tokens that all begin with, but for one token of the shortest."""
    return max(0, min(len(commonprefix(texts)), min(map(len, texts)) - 1))


def _lay(pieces: Sequence[list[int]], stems: Sequence[int], ends: Sequence[int], mask: Tensor) -> Packing:
    """``ends`` ``[M]`` is each text's last segment."""
    first = [0]
    for piece in pieces:
        first.append(first[-1] + len(piece))
    own = [list(range(first[number], first[number + 1])) for number in range(len(pieces))]
    before = [0 if stem == number else len(pieces[stem]) for number, stem in enumerate(stems)]
    places = [[*(own[stems[end]] if stems[end] != end else []), *own[end]] for end in ends]
    texts = torch.zeros(mask.shape, dtype=torch.long)
    texts[mask.bool()] = torch.tensor([place for text in places for place in text])
    return Packing(
        ids=torch.tensor([[each for piece in pieces for each in piece]]),
        positions=torch.tensor([[b + n for b, piece in zip(before, pieces, strict=True) for n in range(len(piece))]]),
        lengths=torch.tensor([len(piece) for piece in pieces]),
        stems=torch.tensor(stems),
        texts=texts,
    )


class PackedModel:
    """A model that runs one batch packed; all else it is asked is the model's. A method need not know of it."""

    def __init__(self, model: Any, packing: Packing) -> None:
        self._model = model
        self._packing = packing

    def __call__(self, **inputs: Any) -> Any:
        """The model's output for the batch."""
        return self._model(**inputs, packing=self._packing)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)
