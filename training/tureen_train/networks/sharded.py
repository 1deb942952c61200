"""Whole weights under ZeRO-3, where each rank keeps a shard."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn
from trl.models.utils import add_hooks, remove_hooks


def gather_weights(weights: Sequence[Tensor], sharded: bool) -> AbstractContextManager[object]:
    """Gather the weights while the block runs. Changes that the first rank makes to them reach all ranks."""
    if not sharded:
        return nullcontext()
    import deepspeed  # an optional dependency

    gathered: AbstractContextManager[object] = deepspeed.zero.GatheredParameters(list(weights), modifier_rank=0)
    return gathered


@contextmanager
def gather_for_generation(engine: Any, model: nn.Module, sharded: bool) -> Iterator[None]:
    """Let each rank run a part of a ZeRO-3 engine on its own, with weights that are whole while the block runs.

    DeepSpeed's hooks, which make all ranks run alike, are off meanwhile. Nothing may change the weights.

    Args:
        engine: DeepSpeed's.
        model: the part.
    """
    if not sharded:
        yield
        return
    with gather_weights(list(model.parameters()), sharded):
        remove_hooks(engine)
        try:
            yield
        finally:
            add_hooks(engine)
