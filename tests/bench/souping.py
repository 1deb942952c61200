"""What souped text costs in vLLM, with the rank gate and with an ordinary LoRA for each weight vector.

Engines run one after the other with the product's settings; all get the same prompts of random tokens, write greedily
and to the full length, and never find a prompt in a cache. Speeds are new tokens a second, prompts computed within.
"""

import asyncio
import random
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from bench.shapes import ids, table
from vllm import SamplingParams
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind

from tureen_core.preference import normalise_weights
from tureen_core.soup import Stack
from tureen_serve.runtimes.contract import BatchLimits, Weights
from tureen_serve.runtimes.on_vllm.adapters import AdapterReference, Adapters, GatedAdapters, MergedAdapters
from tureen_serve.runtimes.on_vllm.engine import VllmEngine
from tureen_serve.runtimes.on_vllm.engine_arguments import make_lora_arguments
from tureen_serve.runtimes.on_vllm.models import GENERATING, VllmRuntime
from tureen_serve.vllm_settings import VllmSettings

WARM_UP = 4  # tokens
BARE: Weights = ()
Texts = list[tuple[int, ...]]


@dataclass(frozen=True)
class Work:
    """So many requests at once, each a prompt and new tokens of these lengths."""

    requests: int
    prompt: int
    tokens: int

    def __str__(self) -> str:
        return f"{self.requests} requests of {self.prompt} + {self.tokens} tokens"


@dataclass(frozen=True)
class Line:
    """A measured speed: in which engine, by what adapters, and what was written."""

    engine: str
    by: str
    speed: float
    texts: Texts = field(repr=False, default_factory=list)


@dataclass(frozen=True)
class Model:
    """What is served: a base's folder, its experts, and where adapters may be written."""

    folder: Path
    stack: Stack
    scratch: Path
    extra: Mapping[str, Any] = field(default_factory=dict)


class Lookalikes(MergedAdapters):
    """An adapter of its own name and number for each vector, but one vector's files for all.

    The files of 256 vectors of an 8B model are 86 GB. vLLM cannot tell, and reads as fast as a disk ever does.
    """

    def _write(self, name: str, weights: Weights, semantics: Any) -> AdapterReference:
        first = next(iter(self._known.values()), None)
        if first is None:
            return super()._write(name, weights, semantics)
        self._count += 1
        return AdapterReference(name, self._count, first.folder)


class Kitchen:
    """Starts engines that differ in their adapters alone, and measures.

    Args:
        model: what they serve.
        work: what each run asks.
        settings: of all engines.
        rounds: how often a speed is measured; the best is taken.
    """

    def __init__(self, model: Model, work: Work, settings: VllmSettings, rounds: int) -> None:
        self.work = work
        self._model, self._settings, self._rounds = model, settings, rounds
        self._runtime = VllmRuntime("auto", "auto", BatchLimits(), settings)
        self._dtype = getattr(torch, self._runtime.dtype)
        self._salts = count()
        self._spare = vectors(model.stack.names, 1, seed=1)[0]

    def measure(self, gate: Sequence[int], stock: Sequence[int], alike: bool) -> Iterator[Line]:
        """Lines as they are measured: no adapter, a LoRA for each vector, the gate.

        Args:
            gate: numbers of distinct vectors under the gate.
            stock: numbers of distinct vectors as LoRAs, each number in an engine with so many slots.
            alike: whether those are read from one vector's files.
        """
        with self._engine("plain", None) as engine:
            yield from self._best("plain", engine, None, {"no adapter": [BARE]})
        for slots in stock:
            yield from self._stock(slots, alike)
        yield from self._gate(gate)

    def _gate(self, sizes: Sequence[int]) -> Iterator[Line]:
        adapters = GatedAdapters(self._model.stack, "base", self._dtype, self._model.scratch)
        cases = {"no adapter": [BARE]} | {_distinct(size): self._vectors(size) for size in sizes}
        with self._engine("gate", adapters) as engine:
            yield from self._best("gate", engine, adapters, cases)

    def _stock(self, slots: int, alike: bool) -> Iterator[Line]:
        """Vectors that the engine sees for the first time; again; and no adapter, where stock vLLM can do without."""
        kind, name = Lookalikes if alike else MergedAdapters, f"LoRA, {slots} slot{'s' * (slots > 1)}"
        adapters = kind(self._model.stack, "base", self._dtype, self._model.scratch / str(slots), slots, 2 * slots + 1)
        soups = self._vectors(slots)
        bare = {} if current_platform.is_cpu() else {"no adapter": [BARE]}  # 0.32 would apply the last slot's there
        with self._engine(f"LoRA-{slots}", adapters) as engine:
            yield self._run(name, f"{_distinct(slots)}, cold", engine, adapters, soups)
            yield from self._best(name, engine, adapters, {f"{_distinct(slots)}, warm": soups} | bare)

    def _best(
        self, name: str, engine: VllmEngine, adapters: Adapters | None, cases: Mapping[str, Sequence[Weights]]
    ) -> Iterator[Line]:
        """Each case's best round; they take turns, so that a machine that slows down slows all alike."""
        best: dict[str, Line] = {}
        for by, soups in list(cases.items()) * self._rounds:
            line = self._run(name, by, engine, adapters, soups)
            best[by] = max(best.get(by, line), line, key=lambda each: each.speed)
        yield from best.values()

    def _run(self, name: str, by: str, engine: VllmEngine, adapters: Adapters | None, soups: Sequence[Weights]) -> Line:
        # files are written here
        references = [adapters.make_reference(soup, "delta") if adapters else None for soup in soups]
        began = time.perf_counter()
        texts = engine.wait(self._write(engine, self.work, references))
        return Line(name, by, self.work.requests * self.work.tokens / (time.perf_counter() - began), texts)

    @contextmanager
    def _engine(self, name: str, adapters: Adapters | None) -> Iterator[VllmEngine]:
        """A warm engine, for as long as the block runs."""
        arguments = {**self._runtime._make_arguments(name, self._model.folder), **GENERATING}
        arguments |= {**(make_lora_arguments(adapters) if adapters else {}), **self._model.extra}
        engine = VllmEngine(name, arguments, adapters is not None and adapters.gated, 0)
        try:
            spare = adapters.make_reference(self._spare, "delta") if adapters else None
            engine.wait(self._write(engine, replace(self.work, tokens=WARM_UP), [spare]))
            yield engine
        finally:
            engine.close()

    async def _write(self, engine: VllmEngine, work: Work, adapters: Sequence[AdapterReference | None]) -> Texts:
        """All requests at once; they take the adapters in turn."""
        salt, rng = f"run {next(self._salts)}", random.Random(0)
        sampling = SamplingParams(
            max_tokens=work.tokens,
            temperature=0.0,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

        async def one(number: int, prompt: Sequence[int]) -> tuple[int, ...]:
            adapter = adapters[number % len(adapters)]
            (output,) = [each async for each in engine.generate(prompt, sampling, adapter, salt)]
            return tuple(output.outputs[0].token_ids)

        return await asyncio.gather(*(one(number, ids(rng, work.prompt)) for number in range(work.requests)))

    def _vectors(self, size: int) -> list[Weights]:
        return vectors(self._model.stack.names, size)


def vectors(names: Sequence[str], size: int, seed: int = 0) -> list[Weights]:
    """Distinct canonical weights, all experts in each."""
    rng = random.Random(seed)
    drawn = (normalise_weights({name: 0.05 + rng.random() for name in names}, names) for _ in range(size))
    return [tuple(each.items()) for each in drawn]


def summary(lines: Sequence[Line], figures: Mapping[tuple[str, str], float]) -> str:
    """A table: each speed, its ratios to engines without adapters, and beside it a figure measured elsewhere."""
    plain, rows = lines[0].speed, []
    for line in lines:
        bare = [each.speed for each in lines if each.engine == line.engine and each.by == "no adapter"]
        own = f"{line.speed / bare[0]:.2f}" if bare else "–"
        known = figures.get((line.engine, line.by))
        rows.append([line.engine, line.by, f"{line.speed:,.1f}", own, f"{line.speed / plain:.2f}"])
        rows[-1] += [f"{known:,.0f}" if known else "–"] if figures else []
    heads = ["engine", "requests by", "tokens/s", "of no adapter in it", "of the plain engine"]
    return table([*heads, "measured before"] if figures else heads, rows)


def against(lines: Sequence[Line], size: int) -> str:
    """The gate beside a LoRA for each of as many vectors: how much faster, and whether they write the same."""
    gate = next(line for line in lines if (line.engine, line.by) == ("gate", _distinct(size)))
    bare = next(line for line in lines if (line.engine, line.by) == ("gate", "no adapter"))
    stock = [line for line in lines if line.by.startswith(f"{_distinct(size)}, ")]
    said = f"{_distinct(size)} by the gate: {gate.speed / bare.speed:.2f} of no adapter in that engine"
    for line in stock:
        said += f"; {gate.speed / line.speed:.1f} times a LoRA each, {line.by.rpartition(', ')[2]}"
    if not stock:
        return said
    same = sum(one == other for one, other in zip(gate.texts, stock[-1].texts, strict=True))
    return f"{said}; {same} of {len(gate.texts)} texts the same"


def told(lines: Iterable[Line]) -> list[Line]:
    """The lines, each said as soon as it is measured."""
    found = []
    for line in lines:
        print(f"{line.engine}: {line.by}: {line.speed:,.1f} tokens/s", file=sys.stderr, flush=True)
        found.append(line)
    return found


def _distinct(size: int) -> str:
    return f"{size} vector{'s' * (size > 1)}"
