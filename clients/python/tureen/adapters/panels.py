"""One call for all the reward functions of a training loop that share it, and what a failed call is to them."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from tureen.adapters.connections import share_async_client, share_client
from tureen.adapters.grouped_rows import GroupedRows
from tureen.adapters.options import RewardQuery, Server
from tureen.errors import Conflict, InvalidRequest, TureenError
from tureen.wire import CandidateScore, ScoreReply

logger = logging.getLogger(__name__)

MOST_REASONS = 3
Rows = list[CandidateScore]
OnFailure = Literal["none", "raise"]
R = TypeVar("R")


@dataclass
class _Round(Generic[R]):
    """One batch's rows, and which functions have had them."""

    batch: GroupedRows
    rows: R
    takers: set[str] = field(default_factory=set)


class Panel(Generic[R]):
    """Asks once for all the functions that share it, and decides what a failure is to them."""

    def __init__(self, server: Server, ask: RewardQuery, on_failure: OnFailure) -> None:
        if on_failure not in ("none", "raise"):
            raise InvalidRequest(f"on_failure is {on_failure!r}: give 'none' or 'raise'", param="on_failure")
        self.server, self.ask, self.on_failure = server, ask, on_failure
        self._round: _Round[R] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_round": None}

    def _taken(self, batch: GroupedRows, taker: str, ask: Callable[[GroupedRows], R]) -> R:
        """The batch's rows, asked for if this function has had them already, or no other asked before it."""
        if self._round is None or self._round.batch != batch or taker in self._round.takers:
            self._round = _Round(batch, ask(batch))
        self._round.takers.add(taker)
        return self._round.rows

    def _told(self, batch: GroupedRows, reply: ScoreReply | None) -> Rows:
        rows = batch.read_reply(reply)
        reasons = Counter(row.error.message for row in rows if row.error)
        if reasons:
            first, *others = [f"{reason} ({count} rows)" for reason, count in reasons.most_common(MOST_REASONS)]
            told = "no reward for %d of %d rows, the first because: %s"
            logger.error(told, reasons.total(), len(rows), "; then ".join((first, *others)))
        return rows

    def _lost(self, batch: GroupedRows, error: TureenError) -> Rows:
        """What is left of a call that failed.

        Raises:
            TureenError: the error itself, where the caller wants to know or no later batch would fare better.
        """
        if self.on_failure == "raise" or not (error.retryable or self._swapped(error)):
            raise error
        logger.warning("no reward for any of %d rows: %s", len(batch.places), error.message)
        return batch.fail_rows(error)

    def _swapped(self, error: TureenError) -> bool:
        """Whether the reward model was replaced by a newer one in the middle of the batch, which nothing forbids."""
        return isinstance(error, Conflict) and self.ask.fingerprint is None


class BlockingPanel(Panel[Rows]):
    def rows(self, batch: GroupedRows, taker: str) -> Rows:
        return self._taken(batch, taker, self._score)

    def _score(self, batch: GroupedRows) -> Rows:
        if not batch.items:
            return self._told(batch, None)
        try:
            with share_client(self.server) as client:
                return self._told(batch, client.score(batch.items, **self.ask.options()))
        except TureenError as error:
            return self._lost(batch, error)


class AsynchronousPanel(Panel["asyncio.Future[Rows]"]):
    async def rows(self, batch: GroupedRows, taker: str) -> Rows:
        return await self._taken(batch, taker, lambda batch: asyncio.ensure_future(self._score(batch)))

    async def _score(self, batch: GroupedRows) -> Rows:
        if not batch.items:
            return self._told(batch, None)
        try:
            async with share_async_client(self.server) as client:
                return self._told(batch, await client.score(batch.items, **self.ask.options()))
        except TureenError as error:
            return self._lost(batch, error)
