"""Load the rewards that bodies name, if they are loaded on demand. Routes and batches call this before they plan."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from tureen.errors import NotFound, TureenError, Unprocessable
from tureen.wire import ChatRequest, CompletionRequest
from tureen_serve.api.reward_query import RewardBody
from tureen_serve.inference.engine import Engine
from tureen_serve.inference.pooled_model import list_some

B = TypeVar("B", bound=RewardBody)
R = TypeVar("R")


async def want_rewards(engine: Engine, body: RewardBody) -> None:
    """Load the rewards that a body names. ``engine``, which is held, keeps them.

    Raises:
        Unprocessable, Unavailable: as :meth:`Engine.want`; or the body names no reward and none is loaded at the start.
    """
    fields = _list_fields(body)
    if engine.pool is not None and not fields and not engine.rewards:
        known = list_some(engine.pool.offered)
        message = f"this server loads rewards when they are named; send `rewards` with names of: {known}"
        raise Unprocessable(message, param="rewards", code="unknown_reward")
    await engine.want(fields)


async def want_judges(engine: Engine, body: ChatRequest | CompletionRequest) -> None:
    """Load the rewards that choose among a body's candidates. ``engine``, which is held, keeps them.

    Raises:
        Unprocessable, Unavailable: as :meth:`Engine.want`.
    """
    named = body.candidates.preferences if body.candidates is not None else None
    await engine.want(dict.fromkeys(named or (), "candidates.preferences"))


def refuse_reward(engine: Engine, model: str | None) -> None:
    """Refuse a reward's name where a policy's is needed.

    Raises:
        NotFound: ``model`` is a reward, loaded or loaded on demand, and no policy.
    """
    rewards = {*engine.rewards, *(engine.pool.offered if engine.pool else ())}
    if model not in rewards or model in engine.families:
        return
    policies = f"send a policy as `model` ({list_some(engine.families)})"
    advice = policies if engine.families else "this server has loaded no policies"
    message = f"{model} is a reward, which writes no text; {advice}, or score answers by /v1/score"
    raise NotFound(message, param="model", code="model_not_found")


async def answer_by_models(
    engine: Engine, bodies: Sequence[B], answer: Callable[[Engine, Sequence[B]], Awaitable[Sequence[R | TureenError]]]
) -> list[R | TureenError]:
    """Answer bodies; those that name the same rewards on demand together, and one such group after another.

    So a chunk of a batch may name more models than fit into the memory at once, and which bodies share a call depends
    only on the bodies.

    Args:
        answer: answers bodies whose rewards are loaded.

    Returns:
        An answer or an error for each body, in order.
    """
    if engine.pool is None:
        return list(await answer(engine, bodies))
    groups: dict[frozenset[str], list[int]] = {}
    for number, body in enumerate(bodies):
        groups.setdefault(frozenset(set(_list_fields(body)) - set(engine.rewards)), []).append(number)
    replies: dict[int, R | TureenError] = {}
    for numbers in groups.values():
        with engine.hold() as held:
            ready = []
            for number in numbers:
                try:
                    await want_rewards(held, bodies[number])
                    ready.append(number)
                except TureenError as error:
                    replies[number] = error
            if ready:
                replies |= zip(ready, await answer(held, [bodies[each] for each in ready]), strict=True)
    return [replies[number] for number in range(len(bodies))]


def _list_fields(body: RewardBody) -> dict[str, str]:
    """Name of each reward that a body names → the field that names it."""
    named = {name: f"rewards[{index}]" for index, name in reversed(list(enumerate(body.rewards or ())))}
    return {**{name: f"preferences.{name}" for name in body.preferences or ()}, **named}
