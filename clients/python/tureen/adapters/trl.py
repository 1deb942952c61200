"""Reward functions for TRL's ``reward_funcs``: GRPO, and the trainers that call rewards as it does.

    GRPOTrainer(reward_funcs=RewardFunction("helpful"), ...)
    GRPOTrainer(reward_funcs=reward_functions(["helpful", "harmless"]), ...)  # weighed by TRL's reward_weights

A row that failed is None, which TRL leaves out: it takes no part in the group's baseline, and its advantage is 0. But
where several functions are given and one of them says None, TRL 1.16 sums the others, which is as if the missing reward
were 0. The functions that :func:`reward_functions` makes therefore ask once for all of them: a row fails in all of
them or in none.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, Literal, TypeVar, Unpack

from tureen.adapters.connections import share_async_client, share_client
from tureen.adapters.grouped_rows import GroupedRows, group_by_prompt
from tureen.adapters.options import Options, RewardQuery, Server, parse_options
from tureen.errors import Conflict, InvalidRequest, TureenError
from tureen.wire import CandidateScore, ScoreReply

logger = logging.getLogger(__name__)

Rows = list[CandidateScore]
OnFailure = Literal["none", "raise"]
Log = Callable[[str, Any], None]
R = TypeVar("R")


@dataclass
class _Round(Generic[R]):
    """One batch's rows, and which functions have had them."""

    batch: GroupedRows
    rows: R
    takers: set[str] = field(default_factory=set)


class _Panel(Generic[R]):
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
        reasons = [row.error.message for row in rows if row.error]
        if reasons:
            logger.warning("no reward for %d of %d rows, the first because: %s", len(reasons), len(rows), reasons[0])
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


class _BlockingPanel(_Panel[Rows]):
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


class _AsynchronousPanel(_Panel["asyncio.Future[Rows]"]):
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


P = TypeVar("P", _BlockingPanel, _AsynchronousPanel)


class _Reward(Generic[P]):
    """All of a reward function but its call."""

    panel_type: ClassVar[type]
    __name__: str

    def __init__(
        self,
        objective: str | None = None,
        *,
        name: str | None = None,
        on_failure: OnFailure = "none",
        **options: Unpack[Options],
    ) -> None:
        self._panel: P = self.panel_type(*parse_options(objective, options), on_failure)
        self._objective = objective
        self.__name__ = name or objective or "+".join(sorted(self._panel.ask.preferences or ())) or "reward"

    def _rewards(self, rows: Rows, log_extra: Log | None, log_metric: Log | None) -> list[float | None]:
        ask = self._panel.ask
        if log_metric is not None and rows:
            log_metric(f"{self.__name__}/failed", sum(row.scores is None for row in rows) / len(rows))
        if log_extra is not None and not ask.soup:
            for each in sorted(ask.preferences or ()):
                log_extra(f"{self.__name__}/{each}", [ask.objective_score(row, each) for row in rows])
        if self._objective is not None:
            return [ask.objective_score(row, self._objective) for row in rows]
        return [ask.reward(row) for row in rows]


class RewardFunction(_Reward[_BlockingPanel]):
    """A reward for TRL, computed by a Tureen server.

    Rows with equal prompts go out together, each prompt once, in as many requests as they need. It holds no connection
    and can be pickled and copied.

    Where a whole call fails although it was tried again for about two minutes, ``on_failure="none"`` (the default)
    logs a warning and gives None for every row: that batch teaches nothing, the training goes on, and TRL's metric
    ``<name>/failed`` shows it. ``"raise"`` ends the training. Either way an error that no later batch would be spared
    is raised: an unknown objective, a wrong key, a fingerprint that is not the one loaded.

    Args:
        objective: whose score is the reward; the only one loaded by default.
        name: in TRL's logs; what the reward is made of by default.
        on_failure: what a failed call gives, None for each row or the error.
        options: the fields of :class:`tureen.adapters.options.Ask`, such as ``preferences`` in place of an objective,
            and of :class:`tureen.adapters.options.Server`.

    Raises:
        InvalidRequest: the options contradict each other.
    """

    panel_type = _BlockingPanel

    def __call__(
        self,
        prompts: Iterable[Any],
        completions: Iterable[Any],
        log_extra: Log | None = None,
        log_metric: Log | None = None,
        **_columns: object,
    ) -> list[float | None]:
        """The rewards of a batch, None for a row that failed.

        Args:
            prompts: for each row messages, or a text, which is the user's turn.
            completions: for each row messages, or a text, which is the assistant's turn.
            log_extra: given a column with the scores of each objective that ``preferences`` weigh.
            log_metric: given the share of rows that failed.
            _columns: not read; the token ids neither, since a reward model has a tokeniser of its own.

        Raises:
            InvalidRequest: there are not as many completions as prompts.
            TureenError: the call failed; see the class.
        """
        rows = self._panel.rows(group_by_prompt(prompts, completions), self.__name__)
        return self._rewards(rows, log_extra, log_metric)


class AsyncRewardFunction(_Reward[_AsynchronousPanel]):
    """As :class:`RewardFunction`; TRL awaits it at the same time as its other asynchronous functions."""

    panel_type = _AsynchronousPanel

    async def __call__(
        self,
        prompts: Iterable[Any],
        completions: Iterable[Any],
        log_extra: Log | None = None,
        log_metric: Log | None = None,
        **_columns: object,
    ) -> list[float | None]:
        """As :meth:`RewardFunction.__call__`."""
        rows = await self._panel.rows(group_by_prompt(prompts, completions), self.__name__)
        return self._rewards(rows, log_extra, log_metric)


F = TypeVar("F", RewardFunction, AsyncRewardFunction)


def reward_functions(
    objectives: Sequence[str], *, on_failure: OnFailure = "none", **options: Unpack[Options]
) -> list[RewardFunction]:
    """One function for each objective, for TRL's ``reward_weights``. They ask once for all, and fail together.

    Args:
        objectives: in the order of the weights.
        on_failure: as for :class:`RewardFunction`, and ``options`` too.

    Raises:
        InvalidRequest: there is no objective, or one is named twice, or the options contradict each other.
    """
    return _together([RewardFunction(each, on_failure=on_failure, **options) for each in objectives])


def async_reward_functions(
    objectives: Sequence[str], *, on_failure: OnFailure = "none", **options: Unpack[Options]
) -> list[AsyncRewardFunction]:
    """As :func:`reward_functions`, to be awaited."""
    return _together([AsyncRewardFunction(each, on_failure=on_failure, **options) for each in objectives])


def _together(functions: list[F]) -> list[F]:
    names = tuple(each.__name__ for each in functions)
    if not names or len(set(names)) < len(names):
        raise InvalidRequest("give one or more objectives, each once", param="objectives")
    panel = functions[0]._panel
    panel.ask = replace(panel.ask, objectives=names)
    for each in functions:
        each._panel = panel
    return functions
