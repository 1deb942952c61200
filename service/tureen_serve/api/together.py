"""Bodies of one route answered together, in as few calls of the engine as they need: one body or a batch's chunk."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from tureen.errors import TureenError
from tureen_serve.api.reward_items import build_group
from tureen_serve.api.scoring import Ask, Body, Scored, run
from tureen_serve.inference.engine import Engine, Group, Outcome, Priority, Steps
from tureen_serve.telemetry import Metrics

B = TypeVar("B", bound=Body)
R = TypeVar("R")


async def answer(
    engine: Engine,
    metrics: Metrics,
    bodies: Sequence[B],
    asks: Callable[[B], Ask],
    tells: Callable[[B, Sequence[Scored], Ask], R],
    least: int = 1,
) -> list[R | TureenError]:
    """The reply to each body, or the error that stands for it.

    Calls of the engine follow each other, so that which rows share a batch depends on the bodies alone.

    Args:
        asks: what is read of a body's answers; may refuse the body.
        tells: the reply; it runs in a thread.
        least: how many answers each item must have.
    """
    replies: dict[int, R | TureenError] = {}
    calls: dict[Call, dict[int, Part]] = {}
    for number, body in enumerate(bodies):
        try:
            wanted = asks(body)
            part = Part(body, wanted, [_attempt(body, index, least, wanted) for index in range(len(body.items))])
            calls.setdefault(Call.of(body, wanted), {})[number] = part
        except TureenError as error:
            replies[number] = error
    for call, parts in calls.items():
        scored = await _score(engine, metrics, call, list(parts.values()))
        for (number, part), found in zip(parts.items(), scored, strict=True):
            if isinstance(found, TureenError):
                replies[number] = found
            else:
                replies[number] = await asyncio.to_thread(tells, bodies[number], found, part.wanted)
    return [replies[number] for number in range(len(bodies))]


def only(replies: Sequence[R | TureenError]) -> R:
    """The reply to the one body there was.

    Raises:
        TureenError: the one that stands in its place.
    """
    (reply,) = replies
    if isinstance(reply, TureenError):
        raise reply
    return reply


@dataclass(frozen=True)
class Call:
    """What bodies have in common that go into one call of the engine."""

    objectives: tuple[str, ...]
    soup: tuple[tuple[str, float], ...]
    truncate: bool
    priority: Priority

    @classmethod
    def of(cls, body: Body, wanted: Ask) -> "Call":
        """The call that answers a body."""
        soup = tuple(sorted((wanted.preferences or {}).items())) if wanted.soup else ()
        return cls(wanted.objectives, soup, body.truncate, body.priority)


@dataclass(frozen=True)
class Part:
    """One body of a call: what it asks, and its items as groups of answers, or what is wrong with them."""

    body: Body
    wanted: Ask
    groups: Sequence[Group | Steps | TureenError]

    def settle(self, outcomes: Sequence[Sequence[Outcome]]) -> list[Scored] | TureenError:
        """Every item's outcomes, those of the good groups given; the first error instead, under ``on_error: fail``."""
        answered = iter(outcomes)
        scored = []
        for index, each in enumerate(self.groups):
            if isinstance(each, TureenError):
                scored.append(Scored(None, error=each))
                continue
            found = [_located(outcome, index) for outcome in next(answered)]
            failed = next((outcome.error for outcome in found if outcome.error), None)
            if failed and self.body.on_error == "fail":
                return failed
            scored.append(Scored(each, found))
        return scored


async def _score(
    engine: Engine, metrics: Metrics, call: Call, parts: Sequence[Part]
) -> list[list[Scored] | TureenError]:
    good = [[each for each in part.groups if not isinstance(each, TureenError)] for part in parts]
    together = [each for groups in good for each in groups]
    wanted = parts[0].wanted
    try:
        found = await run(engine, together, wanted, metrics, truncate=call.truncate, priority=call.priority)
    except TureenError as error:
        return [error] * len(parts)
    answered = iter(found)
    return [part.settle([next(answered) for _ in groups]) for part, groups in zip(parts, good, strict=True)]


def _attempt(body: Body, index: int, least: int, wanted: Ask) -> Group | Steps | TureenError:
    try:
        return build_group(body.items[index], least, wanted.reads)
    except TureenError as error:
        located = error.at(f"items[{index}]")
        if body.on_error == "fail":
            raise located from None
        return located


def _located(outcome: Outcome, index: int) -> Outcome:
    """The outcome with its error's field told from the body on."""
    return outcome if outcome.error is None else replace(outcome, error=outcome.error.at(f"items[{index}]"))
