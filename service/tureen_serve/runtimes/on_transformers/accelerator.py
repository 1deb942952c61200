"""Translate failures of an accelerator into the errors of the server."""

from collections.abc import Iterator, Sized
from contextlib import contextmanager

import torch

from tureen.errors import Unavailable, Unprocessable

EXHAUSTED = (
    "can't allocate memory",  # torch's allocator on a CPU
    "not enough memory",
    "std::bad_alloc",
    "could not create a primitive",  # oneDNN; seen for each shape that it had no kernel for yet
    "could not create a memory object",
)


@contextmanager
def translate_device_failure() -> Iterator[None]:
    """Turn a permanent failure of the accelerator, after which every call fails, into ``Unavailable``.

    Running out of memory is not permanent and is not translated here.

    Raises:
        Unavailable: with the code ``engine_dead``.
    """
    try:
        yield
    except torch.AcceleratorError as error:
        raise Unavailable("the accelerator has failed; restart the server", code="engine_dead") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether a device or this machine has no memory left. On a CPU torch raises a plain ``RuntimeError``."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in EXHAUSTED)


def make_memory_error() -> Unprocessable:
    """Make the error of a text that does not fit into the memory alone."""
    message = "the text needs more memory than the device has: send a shorter text, or ask for fewer tokens"
    return Unprocessable(message, code="input_exceeds_device_memory")


class DeviceRuntime:
    """What the runtimes of this process have in common: they cannot die alone, and memory can run out.

    Attributes:
        memory_failures: how often memory has run out.
    """

    failure = None
    dead = False

    def __init__(self) -> None:
        self.memory_failures = 0

    def _is_out_of_memory(self, error: BaseException) -> bool:
        """Tell whether memory has run out, and count it."""
        found = is_out_of_memory(error)
        self.memory_failures += found
        return found

    @contextmanager
    def _translate_failures(self, rows: Sized) -> Iterator[None]:
        """Translate the failures of a batch of rows.

        Out of memory in a batch of one text is an error of that text. In a larger batch the original error is raised
        again, since each text may fit alone.

        Raises:
            Unprocessable: with the code ``input_exceeds_device_memory``.
            Unavailable: the accelerator has failed permanently.
        """
        with translate_device_failure():
            try:
                yield
            except Exception as error:
                if not self._is_out_of_memory(error) or len(rows) > 1:
                    raise
                raise make_memory_error() from None
