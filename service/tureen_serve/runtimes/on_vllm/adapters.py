"""Write soups as LoRA adapters on disk, from where vLLM reads them. There are two ways to give vLLM the weights:

* :class:`GatedAdapters`: the concatenated experts are written once. All requests have the same adapter id, and each has
  its weights in the adapter's *name*. The prefix cache distinguishes names; the scheduler and the slots distinguish
  ids. :mod:`tureen_serve.runtimes.on_vllm.internals` reads the weights from the names when a step begins.
* :class:`MergedAdapters`: one ordinary LoRA for each weight vector, by vLLM's public API alone. This suits presets and
  a few weight vectors, since the engine stops while it loads a new one.
"""

import asyncio
import threading
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Protocol

import torch

from tureen.errors import ServerFault
from tureen_core.adapter_files import write_adapter
from tureen_core.lora import Adapter, LoraPair
from tureen_core.preference import digest_soup, format_weights
from tureen_core.soup import Semantics, Stack, merge_adapter, pad_ranks
from tureen_serve.runtimes.contract import Weights

GATE = "gate"
GATE_NUMBER = 1
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # the ranks to which vLLM pads adapters


@dataclass(frozen=True, slots=True)
class AdapterReference:
    """An adapter of a request: ``name`` is a key of the prefix cache, and ``number`` is vLLM's adapter id."""

    name: str
    number: int
    folder: Path


class Adapters(Protocol):
    """The adapters of an engine.

    Attributes:
        rank: the largest rank of an adapter.
        targets: the last names of the adapted modules. vLLM puts no LoRA on other modules, such as the output head.
        slots: how many adapters one batch may use.
        gated: whether the engine needs the gate.
    """

    rank: int
    targets: tuple[str, ...]
    slots: int
    gated: bool

    def make_reference(self, weights: Weights, semantics: Semantics) -> AdapterReference | None:
        """Make the reference for canonical weights; None for the bare base. It may write files."""


class GatedAdapters:
    """One adapter for all soups.

    Args:
        stack: the experts, for which :func:`find_gate_obstacle` is None.
        base: the base's name in the adapter's configuration.
        dtype: the dtype of the file.
        folder: the folder for the adapter.
    """

    slots = 1
    gated = True

    def __init__(self, stack: Stack, base: str, dtype: torch.dtype, folder: Path) -> None:
        flat = pad_ranks(stack)
        pairs = {path: LoraPair(stacked.a, stacked.b, 1.0) for path, stacked in flat.modules.items()}
        self.names, self.ranks = stack.names, stack.largest_ranks
        self.supports_factor = stack.find_factor_obstacle() is None
        self.rank, self.targets = sum(self.ranks), _list_targets(stack)
        self._folder = folder / GATE
        write_adapter(Adapter(GATE, pairs), self._folder, base, dtype)

    def make_reference(self, weights: Weights, semantics: Semantics) -> AdapterReference | None:
        """Make a reference to the one adapter, with the weights in its name."""
        return AdapterReference(format_gate_name(weights, semantics), GATE_NUMBER, self._folder) if weights else None


class MergedAdapters:
    """One adapter for each weight vector. It is written for the first request; the least recently used are deleted.

    Args:
        stack: the experts.
        base: the base's name in the adapters' configurations.
        dtype: the dtype of the files.
        folder: the folder for the adapters, whose names begin with the digest of semantics and weights.
        slots: how many weight vectors a batch may use.
        kept: how many adapters to keep on disk; at least as many as vLLM may read again.
        bare: whether a request for the bare base has no adapter. Otherwise it has an adapter of zeros, since on a CPU
            vLLM up to 0.32 gives tokens without an adapter the last slot's.
    """

    gated = False

    def __init__(
        self, stack: Stack, base: str, dtype: torch.dtype, folder: Path, slots: int, kept: int, bare: bool = True
    ) -> None:
        self.slots, self.kept = slots, max(kept, slots)
        self.rank, self.targets = max(sum(stacked.ranks) for stacked in stack.modules.values()), _list_targets(stack)
        self._stack, self._base, self._dtype, self._folder, self._bare = stack, base, dtype, folder, bare
        self._known: OrderedDict[str, AdapterReference] = OrderedDict()
        self._count = GATE_NUMBER
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()

    @contextmanager
    def hold_folder(self, weights: Weights, semantics: Semantics) -> Iterator[None]:
        """Keep a soup's folder within the block, since vLLM reads it when the request starts. Call it in one thread."""
        name = digest_soup(dict(weights), semantics)
        self._held[name] += 1
        try:
            yield
        finally:
            self._held[name] -= 1

    def make_reference(self, weights: Weights, semantics: Semantics) -> AdapterReference | None:
        """Make a reference to the soup's own adapter. Each adapter has a new number, since vLLM caches by number."""
        if not weights and self._bare:
            return None
        name = digest_soup(dict(weights), semantics)
        with self._lock:
            if name not in self._known:
                self._known[name] = self._write(name, weights, semantics)
            self._known.move_to_end(name)
            found = self._known[name]
            idle = [each for each in self._known if not self._held[each]]
            for each in idle[: max(len(self._known) - self.kept, 0)]:
                rmtree(self._known.pop(each).folder, ignore_errors=True)
        return found

    def _write(self, name: str, weights: Weights, semantics: Semantics) -> AdapterReference:
        self._count += 1
        folder = self._folder / f"{name}-{self._count}"
        soup = (
            merge_adapter(self._stack, dict(weights), name, semantics) if weights else _make_zero_adapter(self._stack)
        )
        write_adapter(soup, folder, self._base, self._dtype)
        return AdapterReference(name, self._count, folder)


@asynccontextmanager
async def borrow_adapter(
    adapters: Adapters | None, weights: Weights, semantics: Semantics
) -> AsyncIterator[AdapterReference | None]:
    """Borrow the adapter of a request for the time of the block; None for the bare base.

    A merged adapter's files are written in a thread. The gate writes no files.
    """
    if isinstance(adapters, MergedAdapters):
        with adapters.hold_folder(weights, semantics):
            yield await asyncio.to_thread(adapters.make_reference, weights, semantics)
    else:
        yield adapters.make_reference(weights, semantics) if adapters else None


def format_gate_name(weights: Weights, semantics: Semantics) -> str:
    """Write canonical weights as an adapter's name: ``gate:delta:academy=0.6,business=0.4``."""
    return f"{GATE}:{semantics}:{format_weights(dict(weights))}"


def parse_gate_name(name: str) -> tuple[dict[str, float], Semantics] | None:
    """Read the weights and semantics from a name of :func:`format_gate_name`; None for another adapter's name.

    Raises:
        ServerFault: the name begins with ``gate:`` but its rest is malformed.
    """
    kind, _, rest = name.partition(":")
    if kind != GATE:
        return None
    semantics, _, text = rest.partition(":")
    try:
        weights = {expert: float(weight) for expert, weight in (part.split("=") for part in text.split(",") if part)}
    except ValueError:
        weights = None
    if weights is None or semantics not in ("delta", "factor"):
        raise ServerFault(f"{name!r} is not a valid name of a gate", code="runtime_failed")
    return weights, "factor" if semantics == "factor" else "delta"


def round_up_rank(rank: int) -> int | None:
    """Round a rank up to one that vLLM supports; None if it is larger than all of them."""
    return next((wide for wide in RANKS if wide >= rank), None)


def find_gate_obstacle(stack: Stack) -> str | None:
    """Say why vLLM cannot run these experts under the gate; None if it can."""
    expert = next((path for path in stack.modules if ".experts." in path), None)
    if expert is not None:
        return f"{expert} is an expert of a mixture, whose kernel does not expose its rank activations"
    rank = sum(stack.largest_ranks)
    if round_up_rank(rank) is None:
        return f"the experts have rank {rank} together, and vLLM's largest is {RANKS[-1]}"
    return None


def _make_zero_adapter(stack: Stack) -> Adapter:
    """Make an adapter of zeros."""
    zeros = {
        path: LoraPair(stacked.a.new_zeros(1, stacked.a.shape[1]), stacked.b.new_zeros(stacked.b.shape[0], 1), 1.0)
        for path, stacked in stack.modules.items()
    }
    return Adapter("nothing", zeros)


def _list_targets(stack: Stack) -> tuple[str, ...]:
    return tuple(sorted({path.rpartition(".")[2] for path in stack.modules}))
