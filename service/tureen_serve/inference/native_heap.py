"""Return memory to the system that the C library keeps after it was freed.

glibc returns only the free memory at the end of its heap. Small objects that live on keep the rest of it resident, so a
server that computes batches of many sizes grows though nothing in it does.
"""

import ctypes
import logging
import threading

LOG = logging.getLogger(__name__)
PERIOD = 2.0  # seconds between two looks
KEPT_BYTES = 256 * 2**20


class HeapState(ctypes.Structure):
    """glibc's ``struct mallinfo2``, in bytes where not a number of blocks."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


class NativeHeap:
    """glibc's heap. With another C library nothing is measured or returned."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self._measure = getattr(library, "mallinfo2", None)
        self._trim = getattr(library, "malloc_trim", None)
        if self._measure is not None:
            self._measure.restype = HeapState

    @property
    def free_bytes(self) -> int:
        """The memory that is free inside the heap. The system still counts the used pages of it to this process."""
        return 0 if self._measure is None else int(self._measure().fordblks)

    def trim(self) -> None:
        """Return all free pages to the system."""
        if self._trim is not None:
            self._trim(0)


class HeapTrimmer:
    """A thread that returns free memory whenever there is more than ``kept_bytes`` of it.

    Args:
        heap: the heap.
        kept_bytes: free memory that stays for the next batches, since pages that come back must be cleared first.
        period: seconds between two looks.
    """

    def __init__(self, heap: NativeHeap, kept_bytes: int = KEPT_BYTES, period: float = PERIOD) -> None:
        self._heap, self._kept_bytes, self._period = heap, kept_bytes, period
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="heap trimmer", daemon=True)
        self._freed = 0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._ends.set()
        self._thread.join()

    def look(self) -> bool:
        """Look once. Returns whether memory was returned.

        Free memory that the system has back already is still counted as free, so only what has become free since the
        last time counts.
        """
        free = self._heap.free_bytes
        self._freed = min(self._freed, free)
        if free - self._freed <= self._kept_bytes:
            return False
        self._heap.trim()
        self._freed = self._heap.free_bytes
        return True

    def _watch(self) -> None:
        while not self._ends.wait(self._period):
            self.look()
