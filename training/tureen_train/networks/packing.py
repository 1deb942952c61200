"""Pack padded batches for training. The texts of one prompt can share the prefix that they have in common."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from os.path import commonprefix
from typing import Any, Literal

from peft import PeftModel
from torch import Tensor

from tureen_core.packed.attention import NAME
from tureen_core.packed.exactness import find_packing_obstacle
from tureen_core.packed.layout import PackedBatch, PlainText, Prompt, pack_texts

Collator = Callable[[Any], dict[str, Any]]

log = logging.getLogger("tureen.train")


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
    texts = [tuple(row[present].tolist()) for row, present in zip(ids, mask.bool(), strict=True)]
    return pack_ids(texts, None if groups is None else groups.tolist())


def pack_ids(texts: Sequence[tuple[int, ...]], groups: Sequence[int] | None = None) -> PackedBatch:
    """Pack texts of ids as :func:`pack_padded` does; ``groups`` has a number for each text."""
    return pack_texts([PlainText(ids) for ids in texts], {} if groups is None else _find_prompts(texts, groups))


def switch_to_packed(model: Any, longest: int) -> bool:
    """Switch a causal model, or a PEFT model on one, to packed attention if that is exact. Logs why it is not.

    Args:
        longest: the number of tokens of the longest text.

    Returns:
        Whether it was switched.
    """
    causal = model.get_base_model() if isinstance(model, PeftModel) else model
    eager = causal.config.get_text_config()._attn_implementation == "eager"
    reason = "model.attention is eager" if eager else find_packing_obstacle(causal, longest)
    if reason is None:
        causal.base_model.set_attn_implementation(NAME)
    else:
        log.info("batches are padded, and no prompt is shared: %s", reason)
    return reason is None


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
