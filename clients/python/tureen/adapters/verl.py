"""Reward functions for verl's ``custom_reward_function``, written for verl 0.9.

    reward.custom_reward_function.path=pkg://tureen.adapters.verl
    +reward.custom_reward_function.reward_kwargs.base_url=http://rewards:8900
    +reward.custom_reward_function.reward_kwargs.preferences.helpful=0.7
    +reward.custom_reward_function.reward_kwargs.preferences.harmless=0.3

``compute_score`` is a coroutine, which verl's managers await for all rows of a batch at once;
``compute_score_blocking`` is for those that take none (``remote``). A file of your own may wrap either.

verl gives a reward function the answer and not the prompt, so the dataset must carry it in ``extra_info``: as
``prompt``, or as ``question``, which verl's own preparation scripts write, or under the name that ``prompt_key`` says.
Prompt and answer go to the server as messages, which it puts into its own reward model's template.

A row that fails raises. verl's ``rate_limited`` manager makes 0.0 of that, as of every error: take another.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from tureen.adapters.connections import share_async_client, share_client
from tureen.adapters.grouped_rows import GroupedRows, group_by_prompt
from tureen.adapters.options import Options, RewardQuery, Server, parse_options_with_environment
from tureen.errors import InvalidRequest
from tureen.wire import ScoreReply

PROMPT_KEYS = ("prompt", "question")


class VerlOptions(Options, total=False):
    """``prompt_key``: the prompt's name in ``extra_info``. The others are what verl adds for its own reward models."""

    prompt_key: str | None
    reward_router_address: str | None
    reward_model_tokenizer: object


async def compute_score(
    data_source: object,  # noqa: ARG001  verl passes it by name
    solution_str: str,
    ground_truth: object,  # noqa: ARG001
    extra_info: Mapping[str, Any] | None = None,
    *,
    objective: str | None = None,
    **options: Unpack[VerlOptions],
) -> dict[str, float]:
    """The reward of one answer.

    Args:
        data_source: not read.
        solution_str: the answer.
        ground_truth: not read.
        extra_info: holds the prompt, a text or messages.
        objective: whose score is the reward. Without it and ``preferences`` it is as ``TUREEN_PREFERENCES`` weighs, or
            the only reward loaded.
        options: the fields of :class:`tureen.adapters.options.Ask`, such as ``preferences`` in place of an objective,
            and of :class:`tureen.adapters.options.Server`, and ``prompt_key``.

    Returns:
        ``score``, and the score of each objective by name, which verl logs and its GDPO estimator can read.

    Raises:
        InvalidRequest: ``extra_info`` holds no prompt, or the options contradict each other.
        TureenError: there is no score.
    """
    server, ask, batch = _asked(solution_str, extra_info, objective, options)
    async with share_async_client(server) as client:
        return _score(ask, batch, await client.score(batch.items, **ask.options()) if batch.items else None)


def compute_score_blocking(
    data_source: object,  # noqa: ARG001  verl passes it by name
    solution_str: str,
    ground_truth: object,  # noqa: ARG001
    extra_info: Mapping[str, Any] | None = None,
    *,
    objective: str | None = None,
    **options: Unpack[VerlOptions],
) -> dict[str, float]:
    """As :func:`compute_score`, for verl's threads and processes."""
    server, ask, batch = _asked(solution_str, extra_info, objective, options)
    with share_client(server) as client:
        return _score(ask, batch, client.score(batch.items, **ask.options()) if batch.items else None)


def _asked(
    answer: str, extra_info: Mapping[str, Any] | None, objective: str | None, options: VerlOptions
) -> tuple[Server, RewardQuery, GroupedRows]:
    key = options.pop("prompt_key", None)
    options.pop("reward_router_address", None)
    options.pop("reward_model_tokenizer", None)
    prompt = _prompt(extra_info or {}, PROMPT_KEYS if key is None else (key,))
    return *parse_options_with_environment(objective, options), group_by_prompt([prompt], [answer])


def _prompt(extra_info: Mapping[str, Any], keys: Sequence[str]) -> Any:
    for key in keys:
        if extra_info.get(key) is not None:
            return extra_info[key]
    said = " or ".join(f"`{key}`" for key in keys)
    message = f"extra_info holds no {said}: put the prompt there in the dataset, or say where it is by `prompt_key`"
    raise InvalidRequest(message, param=f"extra_info.{keys[0]}")


def _score(ask: RewardQuery, batch: GroupedRows, reply: ScoreReply | None) -> dict[str, float]:
    [row] = batch.read_reply(reply)
    return {**ask.objective_scores(row), "score": ask.require_reward(row)}
