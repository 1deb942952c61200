"""The trained model's readings of its probes at several weights of the adapter, compared with the saved model's."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

from peft.helpers import rescale_adapter_scale
from peft.tuners.lora import LoraLayer

from tureen_core.probe_readings import Readings, Rows, select_column
from tureen_core.tolerance import BARE, SERVED, share_tolerance

PROVEN = (BARE, SERVED, 8.0)


def read_at_weights(model: Any, read: Callable[[], Rows], weights: Iterable[float] = PROVEN) -> Readings:
    """Read the probes at several weights of a model's LoRA adapter; a model without one is read once, at 1."""
    adapted = any(isinstance(module, LoraLayer) for module in model.modules())
    found = {}
    for weight in weights if adapted else (SERVED,):
        with rescale_adapter_scale(model, weight) if adapted else nullcontext():
            found[weight] = read()
    return found


def check_same(live: Readings, again: Readings, dtype: str) -> None:
    """Refuse a saved model whose readings differ from the trained one's beyond the tolerance of ``dtype``.

    Raises:
        ValueError: naming the first probe that does.
    """
    bare = live.get(BARE)
    for weight in sorted(live.keys() - {BARE}):
        for column in range(len(live[weight][0])):
            values, read = select_column(live[weight], column), select_column(again[weight], column)
            without = select_column(bare, column) if bare is not None and weight > SERVED else ()
            allowed = share_tolerance(values, without, dtype, weight)
            for number, (trained, found) in enumerate(zip(values, read, strict=True)):
                if not abs(trained - found) <= allowed:  # so that NaN is refused, too
                    place = f"probe {number}" if weight == SERVED else f"probe {number}, adapter at {weight:g} times"
                    raise ValueError(f"{place}: trained {trained:.5f}, read again {found:.5f}, allowed ±{allowed:.5f}")
