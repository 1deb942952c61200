"""Failures of an accelerator that no retry heals."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tureen.errors import Unavailable


@contextmanager
def mortal() -> Iterator[None]:
    """Say that the runtime is dead when the accelerator's context is: every later call would fail as well.

    Running out of memory is no such failure.

    Raises:
        Unavailable: with the code ``engine_dead``.
    """
    try:
        yield
    except torch.AcceleratorError as error:
        raise Unavailable("the accelerator has failed; restart the server", code="engine_dead") from error
