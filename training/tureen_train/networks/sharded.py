"""Whole weights under ZeRO-3, where each rank keeps a shard."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor


def gather_weights(weights: Sequence[Tensor], sharded: bool) -> AbstractContextManager[object]:
    """Gather the weights while the block runs. Changes that the first rank makes to them reach all ranks."""
    if not sharded:
        return nullcontext()
    from deepspeed.zero import GatheredParameters  # an optional dependency

    gathered: AbstractContextManager[object] = GatheredParameters(list(weights), modifier_rank=0)
    return gathered
