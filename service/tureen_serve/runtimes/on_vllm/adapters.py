"""Soups as LoRA adapters on disk, which is the form that vLLM takes them in: two ways to bring weights to an engine.

* :class:`GatedAdapters`: the experts concatenated, written once. All requests name the same adapter id, and each has
  its weights in the adapter's *name*: the prefix cache keys on the name, the scheduler and the slots on the id, and
  :mod:`tureen_serve.runtimes.on_vllm.internals` reads the name back where a step begins.
* :class:`MergedAdapters`: one ordinary LoRA per weight vector, on vLLM's public API alone. Right for presets and few
  live vectors; every new one stops the engine while it is loaded.
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
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM pads an adapter to


@dataclass(frozen=True, slots=True)
class AdapterReference:
    """An adapter as a request names it: ``name`` is what is cached under, ``number`` the slot's key."""

    name: str
    number: int
    folder: Path


class Adapters(Protocol):
    """How weights reach an engine.

    Attributes:
        rank: the largest rank of what it writes.
        targets: last names of the adapted modules; vLLM leaves all others, above all the output head, as they are.
        slots: how many adapters the engine keeps for one batch.
        gated: whether the engine has to run under the gate.
    """

    rank: int
    targets: tuple[str, ...]
    slots: int
    gated: bool

    def make_reference(self, weights: Weights, semantics: Semantics) -> AdapterReference | None:
        """What a request with these canonical weights names; None for the bare base. May write files."""


class GatedAdapters:
    """One adapter for all soups.

    Args:
        stack: the experts; it may not adapt what :func:`find_gate_obstacle` names.
        base: what the adapter's configuration calls the base.
        dtype: of the file.
        folder: where to write.
    """

    slots = 1
    gated = True

    def __init__(self, stack: Stack, base: str, dtype: torch.dtype, folder: Path) -> None:
        flat = pad_ranks(stack)
        pairs = {path: LoraPair(stacked.a, stacked.b, 1.0) for path, stacked in flat.modules.items()}
        self.names, self.ranks = stack.names, stack.largest_ranks
        self.supports_factor = stack.find_factor_obstacle() is None
        self.rank, self.targets = sum(self.ranks), _targets(stack)
        self._folder = folder / GATE
        write_adapter(Adapter(GATE, pairs), self._folder, base, dtype)

    def make_reference(self, weights: Weights, semantics: Semantics) -> AdapterReference | None:
        """The one adapter under a name that carries the weights."""
        return AdapterReference(format_gate_name(weights, semantics), GATE_NUMBER, self._folder) if weights else None


class MergedAdapters:
    """One adapter for each weight vector, written when it is first asked for; the least recently used are unlinked.

    Args:
        stack: the experts.
        base: what the adapters' configurations call the base.
        dtype: of the files.
        folder: where to write; folders are named by the digest of semantics and weights.
        slots: how many vectors a batch may hold.
        kept: how many folders stay; at least as many as vLLM may want to read again.
        bare: whether a request may come without an adapter; else the bare base is an adapter of zeros. (On a CPU, up to
            0.32, tokens without one are given the last slot's.)
    """

    gated = False

    def __init__(
        self, stack: Stack, base: str, dtype: torch.dtype, folder: Path, slots: int, kept: int, bare: bool = True
    ) -> None:
        self.slots, self.kept = slots, max(kept, slots)
        self.rank, self.targets = max(sum(stacked.ranks) for stacked in stack.modules.values()), _targets(stack)
        self._stack, self._base, self._dtype, self._folder, self._bare = stack, base, dtype, folder, bare
        self._known: OrderedDict[str, AdapterReference] = OrderedDict()
        self._count = GATE_NUMBER
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()

    @contextmanager
    def hold_folder(self, weights: Weights, semantics: Semantics) -> Iterator[None]:
        """Keep a soup's folder while this is open: a request that waits in vLLM has it read later. From one thread."""
        name = digest_soup(dict(weights), semantics)
        self._held[name] += 1
        try:
            yield
        finally:
            self._held[name] -= 1

    def make_reference(self, weights: Weights, semantics: Semantics) -> AdapterReference | None:
        """The soup's own adapter. A number is never used twice, since vLLM keeps what it once loaded under one."""
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
        soup = merge_adapter(self._stack, dict(weights), name, semantics) if weights else _nothing(self._stack)
        write_adapter(soup, folder, self._base, self._dtype)
        return AdapterReference(name, self._count, folder)


@asynccontextmanager
async def borrow_adapter(
    adapters: Adapters | None, weights: Weights, semantics: Semantics
) -> AsyncIterator[AdapterReference | None]:
    """What a request names, for as long as it is open. Files are written off the loop, and the gate writes none."""
    if isinstance(adapters, MergedAdapters):
        with adapters.hold_folder(weights, semantics):
            yield await asyncio.to_thread(adapters.make_reference, weights, semantics)
    else:
        yield adapters.make_reference(weights, semantics) if adapters else None


def format_gate_name(weights: Weights, semantics: Semantics) -> str:
    """Canonical weights as an adapter's name: ``gate:delta:academy=0.6,business=0.4``."""
    return f"{GATE}:{semantics}:{format_weights(dict(weights))}"


def parse_gate_name(name: str) -> tuple[dict[str, float], Semantics] | None:
    """What :func:`format_gate_name` wrote; None for any other adapter's name.

    Raises:
        ServerFault: it begins as a gate's name and does not go on as one.
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
        raise ServerFault(f"{name!r} is no gate's name", code="runtime_failed")
    return weights, "factor" if semantics == "factor" else "delta"


def round_up_rank(rank: int) -> int | None:
    """What vLLM pads an adapter of this rank to; None if it is beyond all that it takes."""
    return next((wide for wide in RANKS if wide >= rank), None)


def find_gate_obstacle(stack: Stack) -> str | None:
    """None if the gate can weigh these experts in vLLM, else the reason why it cannot."""
    expert = next((path for path in stack.modules if ".experts." in path), None)
    if expert is not None:
        return f"{expert} is an expert of a mixture, whose kernel keeps its rank activations to itself"
    rank = sum(stack.largest_ranks)
    if round_up_rank(rank) is None:
        return f"the experts have rank {rank} together, and vLLM's largest is {RANKS[-1]}"
    return None


def _nothing(stack: Stack) -> Adapter:
    """An adapter that changes nothing."""
    zeros = {
        path: LoraPair(stacked.a.new_zeros(1, stacked.a.shape[1]), stacked.b.new_zeros(stacked.b.shape[0], 1), 1.0)
        for path, stacked in stack.modules.items()
    }
    return Adapter("nothing", zeros)


def _targets(stack: Stack) -> tuple[str, ...]:
    return tuple(sorted({path.rpartition(".")[2] for path in stack.modules}))
