"""Isolate what fails in a batch: the batch is halved until each bad item is alone."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")


def run_halved(
    items: Sequence[I], run: Callable[[Sequence[I]], R], is_fatal: Callable[[Exception], bool]
) -> Iterator[tuple[Sequence[I], R | Exception]]:
    """Run items together. If that fails, run each half in the same way.

    One bad item of n costs at most 2·log₂(n) + 1 runs, of which log₂(n) + 1 fail.

    Args:
        run: returns what is yielded with the items. It is called again after the caller has taken the last result.
        is_fatal: whether an error is raised again, because no item is to blame.

    Yields:
        The items in order: those that ran together with their result, and a bad one with its error.
    """
    found = _try(items, run, is_fatal)
    if not isinstance(found, Exception) or len(items) == 1:
        yield items, found
        return
    del found  # its traceback keeps the tensors of the run
    half = len(items) // 2
    for part in (items[:half], items[half:]):
        yield from run_halved(part, run, is_fatal)


def _try(items: Sequence[I], run: Callable[[Sequence[I]], R], is_fatal: Callable[[Exception], bool]) -> R | Exception:
    try:
        return run(items)
    except Exception as error:
        if is_fatal(error):
            raise
        return error
