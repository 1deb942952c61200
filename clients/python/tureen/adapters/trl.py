"""Reward functions for TRL's ``reward_funcs``: GRPO, and the trainers that call rewards as it does.

    GRPOTrainer(reward_funcs=RewardFunction("helpful"), ...)
    GRPOTrainer(reward_funcs=reward_functions(["helpful", "harmless"]), ...)  # weighed by TRL's reward_weights

A row that failed is None, which TRL leaves out: it takes no part in the group's baseline, and its advantage is 0. But
where several functions are given and one of them says None, TRL 1.16 sums the others, which is as if the missing reward
were 0. The functions that :func:`reward_functions` makes therefore ask once for all of them: a row fails in all of
them or in none.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Generic, TypeVar, Unpack

from tureen.adapters.grouped_rows import group_by_prompt
from tureen.adapters.options import Options, parse_options
from tureen.adapters.panels import AsynchronousPanel, BlockingPanel, OnFailure, Rows
from tureen.errors import InvalidRequest

Log = Callable[[str, Any], None]


P = TypeVar("P", BlockingPanel, AsynchronousPanel)


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


class RewardFunction(_Reward[BlockingPanel]):
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

    panel_type = BlockingPanel

    def __call__(
        self,
        prompts: Iterable[Any],
        completions: Iterable[Any],
        log_extra: Log | None = None,
        log_metric: Log | None = None,
        tools: Sequence[Any] | None = None,
        chat_template_kwargs: Sequence[Any] | None = None,
        **_columns: object,
    ) -> list[float | None]:
        """The rewards of a batch, None for a row that failed; the log names why, and how many rows.

        Args:
            prompts: for each row messages, or a text, which is the user's turn.
            completions: for each row messages, or a text, which is the assistant's turn.
            tools: for each row the tools of its dataset's column, which the reward's template must know.
            chat_template_kwargs: for each row the variables of the template.
            log_extra: given a column with the scores of each objective that ``preferences`` weigh.
            log_metric: given the share of rows that failed.
            _columns: not read; the token ids neither, since a reward model has a tokeniser of its own.

        Raises:
            InvalidRequest: there are not as many completions as prompts.
            TureenError: the call failed; see the class.
        """
        batch = group_by_prompt(prompts, completions, _list_columns(tools, chat_template_kwargs))
        rows = self._panel.rows(batch, self.__name__)
        return self._rewards(rows, log_extra, log_metric)


class AsyncRewardFunction(_Reward[AsynchronousPanel]):
    """As :class:`RewardFunction`; TRL awaits it at the same time as its other asynchronous functions."""

    panel_type = AsynchronousPanel

    async def __call__(
        self,
        prompts: Iterable[Any],
        completions: Iterable[Any],
        log_extra: Log | None = None,
        log_metric: Log | None = None,
        tools: Sequence[Any] | None = None,
        chat_template_kwargs: Sequence[Any] | None = None,
        **_columns: object,
    ) -> list[float | None]:
        """As :meth:`RewardFunction.__call__`."""
        batch = group_by_prompt(prompts, completions, _list_columns(tools, chat_template_kwargs))
        rows = await self._panel.rows(batch, self.__name__)
        return self._rewards(rows, log_extra, log_metric)


def _list_columns(tools: Sequence[Any] | None, variables: Sequence[Any] | None) -> dict[str, Sequence[Any]]:
    given = {"tools": tools, "chat_template_kwargs": variables}
    return {name: values for name, values in given.items() if values is not None}


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
