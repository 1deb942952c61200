"""Pack padded batches for training. The texts of one prompt can share the prefix that they have in common."""

from collections.abc import Callable, Sequence
from functools import partial
from os.path import commonprefix
from typing import Any, Literal

from torch import Tensor

from tureen_core.packed.layout import PackedBatch, PlainText, Prompt, pack_texts

Collator = Callable[[Any], dict[str, Any]]


def make_packed_collator(collate: Collator, packing: Literal["prompts", "texts"]) -> Collator:
    """Make a collator that adds the packed form of a batch under the key ``packing``.

    A batch without ``input_ids`` is not changed.

    Args:
        packing: with ``prompts`` the rows of one ``group`` share their common prefix; ``texts`` shares nothing.
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

    The texts of a group share the longest prefix of tokens that all of them have. At least one token of each text is
    not shared.

    Args:
        ids: ``[M, W]``.
        mask: ``[M, W]``, 1 on tokens.
        groups: ``[M]``, equal for texts of one prompt; None shares nothing.
    """
    texts = [PlainText(tuple(row[present].tolist())) for row, present in zip(ids, mask.bool(), strict=True)]
    return pack_texts(texts, {} if groups is None else _find_prompts([text.ids for text in texts], groups.tolist()))


def _find_prompts(texts: Sequence[tuple[int, ...]], groups: Sequence[int]) -> dict[int, Prompt]:
    """Find the shared prefix of each text, by its index. A text that is alone in its group has none."""
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
    """Count the tokens of the common prefix, without the last token of the shortest text."""
    return max(0, min(len(commonprefix(texts)), min(map(len, texts)) - 1))


class PackedModel:
    """Wraps a model so that one batch runs packed. All attributes are the model's, so methods need no change."""

    def __init__(self, model: Any, packing: PackedBatch) -> None:
        self._model = model
        self._packing = packing

    def __call__(self, **inputs: Any) -> Any:
        """Run the model on the batch."""
        return self._model(**inputs, packing=self._packing)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)
