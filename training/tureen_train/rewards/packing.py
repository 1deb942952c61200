"""Padded batches of training as packed ones, in which the texts of one prompt share what they all begin with."""

from collections.abc import Callable, Sequence
from functools import partial
from os.path import commonprefix
from typing import Any, Literal

from torch import Tensor

from tureen_core.packed.layout import PackedBatch, PlainText, Prompt, pack_texts

Collator = Callable[[Any], dict[str, Any]]


def make_packed_collator(collate: Collator, packing: Literal["prompts", "texts"]) -> Collator:
    """Make a collator whose batches are also packed, under ``packing``; one without ``input_ids`` stays as it is.

    Args:
        packing: ``prompts`` shares what the rows of one ``group`` begin with; ``texts`` shares nothing.
    """
    return partial(_add_packing, collate, packing == "prompts")


def _add_packing(collate: Collator, shares: bool, items: Any) -> dict[str, Any]:
    batch = collate(items)
    if "input_ids" in batch:
        groups = batch.get("group") if shares else None
        batch["packing"] = pack_padded(batch["input_ids"], batch["attention_mask"], groups)
    return batch


def pack_padded(ids: Tensor, mask: Tensor, groups: Tensor | None = None) -> PackedBatch:
    """Pack a padded batch.

    Only the longest token prefix that all texts of a group have in common is shared, whatever the template and
    however they were cut; each text keeps one token at least to itself.

    Args:
        ids: ``[M, W]``.
        mask: ``[M, W]``, 1 on tokens.
        groups: ``[M]``, equal for texts of one prompt; None shares nothing.
    """
    texts = [PlainText(tuple(row[present].tolist())) for row, present in zip(ids, mask.bool(), strict=True)]
    return pack_texts(texts, {} if groups is None else _find_prompts([text.ids for text in texts], groups.tolist()))


def _find_prompts(texts: Sequence[tuple[int, ...]], groups: Sequence[int]) -> dict[int, Prompt]:
    """What each text shares with the others of its group, by its index; a text alone shares nothing."""
    members: dict[int, list[tuple[int, ...]]] = {}
    for number, text in zip(groups, texts, strict=True):
        members.setdefault(number, []).append(text)
    lengths = {number: _count_common(own) if len(own) > 1 else 0 for number, own in members.items()}
    return {
        index: (text[: lengths[number]], ())
        for index, (number, text) in enumerate(zip(groups, texts, strict=True))
        if lengths[number]
    }


def _count_common(texts: Sequence[tuple[int, ...]]) -> int:
    """Tokens that all begin with, but for one token of the shortest."""
    return max(0, min(len(commonprefix(texts)), min(map(len, texts)) - 1))


class PackedModel:
    """A model that runs one batch packed; all else it is asked is the model's. A method need not know of it."""

    def __init__(self, model: Any, packing: PackedBatch) -> None:
        self._model = model
        self._packing = packing

    def __call__(self, **inputs: Any) -> Any:
        """The model's output for the batch."""
        return self._model(**inputs, packing=self._packing)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)
