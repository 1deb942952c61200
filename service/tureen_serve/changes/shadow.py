"""A shadow: the next version of a reward scores a share of the traffic, and nobody waits for it.

A call is answered first. Then some of its inputs are copied into a short queue. They are scored one after another, a
few texts at a time, and only while no lane of the server has work: below all bands of priority. What finds no room in
the queue, or no idle moment in time, is dropped and counted. No error of a shadow reaches a caller.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass

from tureen_core.calibration import resolve_scale
from tureen_serve.inference.engine import Engine
from tureen_serve.inference.pieces import run_pieces
from tureen_serve.inference.readers import Outcome, make_readers, read_answers
from tureen_serve.inference.registry import Models, ServedBackbone
from tureen_serve.inference.rendering import ScoreInput
from tureen_serve.inference.row_calls import run_rows
from tureen_serve.inference.text_limits import measure_input
from tureen_serve.runtimes.catalogue import OpenedReward, Reward
from tureen_serve.watching.agreement import Agreement
from tureen_serve.watching.shadow_watch import ShadowOutcome, ShadowWatch

LOG = logging.getLogger(__name__)
QUEUE_INPUTS = 64
QUEUE_BYTES = 4 * 2**20
ROWS_AT_ONCE = 8  # a request that arrives meanwhile waits for these at most
LOOK_SECONDS = 0.01  # between two looks whether the server is idle
QUIET_SECONDS = 0.05  # without work, so that callers who ask again at once find the server free
IDLE_SECONDS = 5.0  # after which an input that found no idle moment is dropped


@dataclass(frozen=True)
class ShadowInput:
    """One input of a call with the live scores of its texts.

    Attributes:
        live: the live rewards that the shadow has too.
        raw: the raw live rewards of each text.
        size: the bytes of its texts.
    """

    given: ScoreInput
    truncate: bool
    live: Mapping[str, Reward]
    raw: Sequence[Mapping[str, float]]
    size: int


class Shadow:
    """The next version of a reward model beside the live one. It runs until it is closed.

    Args:
        opened: what it was loaded from.
        served: its lane and rewards, which the registry does not have.
        share: of the inputs, from 0 to 1.
        engine: the server's lanes.
        watch: where the numbers go.
        choose: returns numbers from 0 to 1, for the share.

    Attributes:
        opened, served, share: as the arguments.
        counts: texts by what became of them.
    """

    def __init__(
        self,
        opened: OpenedReward,
        served: ServedBackbone,
        share: float,
        engine: Engine,
        watch: ShadowWatch,
        choose: Callable[[], float] = random.random,
    ) -> None:
        self.opened, self.served, self.share = opened, served, share
        self.counts: dict[ShadowOutcome, int] = {"compared": 0, "dropped": 0, "failed": 0}
        self._engine, self._watch, self._choose = engine, watch, choose
        self._models = Models([served])
        self._queue: deque[ShadowInput] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        # in a context of its own: the request that began the shadow has a deadline, a tenant and a trace
        self._running = asyncio.get_running_loop().create_task(self._run(), context=Context())

    @property
    def waiting(self) -> int:
        """The number of inputs that wait."""
        return len(self._queue)

    def take(
        self,
        models: Models,
        given: Sequence[ScoreInput],
        objectives: Sequence[str],
        truncate: bool,
        outcomes: Sequence[Sequence[Outcome]],
    ) -> None:
        """Take a share of the inputs of a call that was answered. It does not wait."""
        live = {name: models.rewards[name] for name in objectives if name in self._models.rewards}
        if not live:
            return
        for each, found in zip(given, outcomes, strict=True):
            if all(outcome.error is None for outcome in found) and self._choose() < self.share:
                self._enter(each, truncate, live, found)

    async def close(self) -> None:
        """Stop. The lane is not closed."""
        self._running.cancel()
        await asyncio.wait([self._running])
        for name in self._models.rewards:
            self._watch.agreements.pop(name, None)

    def find_agreement(self, name: str) -> Agreement | None:
        """Find what is known of one reward; None before its first text."""
        return self._watch.agreements.get(name)

    def _enter(
        self, given: ScoreInput, truncate: bool, live: Mapping[str, Reward], outcomes: Sequence[Outcome]
    ) -> None:
        size = sum(measure_input(given))
        entry = ShadowInput(given, truncate, live, [outcome.raw for outcome in outcomes], size)
        if len(self._queue) >= QUEUE_INPUTS or self._bytes + size > QUEUE_BYTES:
            self._count(entry, "dropped")
            return
        self._queue.append(entry)
        self._bytes += size
        self._filled.set()

    async def _run(self) -> None:
        while True:
            await self._filled.wait()
            entry = self._queue.popleft()
            self._bytes -= entry.size
            if not self._queue:
                self._filled.clear()
            try:
                self._count(entry, await self._compare(entry))
            except Exception as error:  # whatever it is, the callers have their answers
                LOG.warning("a shadow of %s failed on a text: %s", ", ".join(entry.live), error)
                self._count(entry, "failed")

    async def _compare(self, entry: ShadowInput) -> ShadowOutcome:
        readers = make_readers(self._models, list(entry.live))
        limits = self._engine.limits
        if not await self._wait_until_idle():
            return "dropped"
        texts, asked = await run_pieces(
            lambda go_on: read_answers(readers, [entry.given], entry.truncate, limits, go_on), large=True
        )
        results = []
        for start in range(0, len(asked), ROWS_AT_ONCE):
            if not await self._wait_until_idle():
                return "dropped"
            results += await run_rows(asked[start : start + ROWS_AT_ONCE], "batch")
        following = iter(results)
        outcomes = [text.outcome(readers, [[next(following) for _ in rows] for rows in text.rows]) for text in texts]
        if any(outcome.error for outcome in outcomes):
            return "failed"
        for name, live in entry.live.items():
            self._note(name, live, [raw[name] for raw in entry.raw], [outcome.raw[name] for outcome in outcomes])
        return "compared"

    def _note(self, name: str, live: Reward, ours: Sequence[float], theirs: Sequence[float]) -> None:
        """Compare the scores of one input. Another live version begins anew."""
        scale, other = live.calibration, self._models.rewards[name].calibration
        known = self._watch.agreements.get(name)
        if known is None or known.live != live.fingerprint:
            fitted = scale is not None and other is not None
            known = self._watch.agreements[name] = Agreement(live.fingerprint, fitted)
        if known.fitted:
            ours = [resolve_scale(scale).standardise(value) for value in ours]
            theirs = [resolve_scale(other).standardise(value) for value in theirs]
        known.take_group(ours, theirs)

    async def _wait_until_idle(self) -> bool:
        """Wait until no lane has had work for a moment, but not for ever. Returns whether there was such a moment."""
        clock = asyncio.get_running_loop().time
        began = worked = clock()
        while clock() - worked < QUIET_SECONDS:
            if clock() - began > IDLE_SECONDS:
                return False
            await asyncio.sleep(LOOK_SECONDS)
            if any(lane.has_work for lane in (*self._engine.scorers, *self._engine.generators)):
                worked = clock()
        return True

    def _count(self, entry: ShadowInput, outcome: ShadowOutcome) -> None:
        texts = len(entry.raw)
        self.counts[outcome] += texts
        for name in entry.live:
            self._watch.count_texts(name, outcome, texts)
