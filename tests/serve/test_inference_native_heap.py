"""Free memory is returned when there is much of it, and what is in use is not counted."""

import subprocess
import sys

from tureen_serve.inference.native_heap import HeapTrimmer, NativeHeap


class Heap(NativeHeap):
    """A heap whose free memory a test sets. As in glibc, pages that were returned still count as free."""

    def __init__(self) -> None:
        self.free = 0
        self.trims = 0

    @property
    def free_bytes(self) -> int:
        return self.free

    def trim(self) -> None:
        self.trims += 1


def test_memory_is_returned_once_for_each_time_that_it_becomes_free() -> None:
    heap = Heap()
    trimmer = HeapTrimmer(heap, kept_bytes=100)
    asked = []
    for heap.free in (0, 100, 101, 101, 180, 202, 50, 140, 151):
        asked.append(trimmer.look())
    assert asked == [False, False, True, False, False, True, False, False, True]
    assert heap.trims == 3


def test_a_watched_heap_is_looked_at_until_it_closes() -> None:
    heap = Heap()
    heap.free = 2
    trimmer = HeapTrimmer(heap, kept_bytes=1, period=0.001)
    trimmer.start()
    while not heap.trims:
        pass
    trimmer.close()
    assert heap.trims == 1


FRAGMENTS = """
import sys
from tureen_serve.inference.native_heap import HeapTrimmer, NativeHeap
from tureen_serve.memory_plan import read_resident_bytes

blocks = [bytes(2_000) for _ in range(100_000)]
kept = blocks[::100]
del blocks
trimmer = HeapTrimmer(NativeHeap(), kept_bytes=100 * 2**20)
before = read_resident_bytes()
print(trimmer.look(), (before - read_resident_bytes()) // 2**20, trimmer.look())
"""


def test_the_free_memory_between_objects_that_live_is_returned_to_the_system() -> None:
    ran = subprocess.run([sys.executable, "-c", FRAGMENTS], capture_output=True, text=True, check=True)
    returned, mebibytes, again = ran.stdout.split()
    assert (returned, again) == ("True", "False")
    assert int(mebibytes) > 90  # of the 190 MiB: pages with an object that lives stay
