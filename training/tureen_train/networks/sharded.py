"""Weights as whole tensors: under ZeRO-3 each rank keeps a piece."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor


def gather_weights(weights: Sequence[Tensor], sharded: bool) -> AbstractContextManager[object]:
    """The weights in one piece while the block runs; what the first rank writes to them is then everybody's."""
    if not sharded:
        return nullcontext()
    from deepspeed.zero import GatheredParameters  # an extra that only sharded runs need

    gathered: AbstractContextManager[object] = GatheredParameters(list(weights), modifier_rank=0)
    return gathered
