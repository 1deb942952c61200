"""Failures of an accelerator: what no retry heals, and what is one text's fault."""

from collections.abc import Iterator, Sized
from contextlib import contextmanager

import torch

from tureen.errors import Unavailable, Unprocessable


@contextmanager
def translate_device_failure() -> Iterator[None]:
    """Say that the runtime is dead when the accelerator's context is: every later call would fail as well.

    Running out of memory is no such failure.

    Raises:
        Unavailable: with the code ``engine_dead``.
    """
    try:
        yield
    except torch.AcceleratorError as error:
        raise Unavailable("the accelerator has failed; restart the server", code="engine_dead") from error


@contextmanager
def translate_out_of_memory(rows: Sized) -> Iterator[None]:
    """Say that a text which alone exceeds the device's memory is at fault; of several, each may fit by itself.

    Raises:
        Unprocessable: with the code ``input_exceeds_device_memory``.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        if len(rows) > 1:
            raise
        raise Unprocessable("the text does not fit the device", code="input_exceeds_device_memory") from None
