"""Run the rows of one call in the lanes of its models."""

import asyncio
from collections.abc import Sequence

from tureen.errors import TureenError, Unavailable
from tureen_serve.inference.batcher import Priority
from tureen_serve.inference.scorer_lane import Future, ScorerLane
from tureen_serve.runtimes.contract import Rewards, Row


async def run_rows(asked: Sequence[tuple[ScorerLane, Row]], priority: Priority) -> list[Rewards | TureenError]:
    """Run rows in their lanes, and return the results in order. If this call is cancelled, its rows leave the queues.

    Raises:
        Unavailable: a queue is full, so no row was queued; or a runtime is dead.
    """
    futures = _submit(asked, priority)
    results: list[Rewards | TureenError] = []
    for result in await asyncio.gather(*futures, return_exceptions=True):
        if isinstance(result, Unavailable) or not isinstance(result, Rewards | TureenError):
            raise result
        results.append(result)
    return results


def _submit(asked: Sequence[tuple[ScorerLane, Row]], priority: Priority) -> list[Future]:
    """Queue all rows in their lanes, or none."""
    futures: dict[int, Future] = {}
    try:
        for lane in dict.fromkeys(lane for lane, _ in asked):
            picks = [index for index, (its, _) in enumerate(asked) if its is lane]
            futures |= zip(picks, lane.submit([asked[index][1] for index in picks], priority), strict=True)
    except Unavailable:
        for future in futures.values():
            future.cancel()
        raise
    return [futures[index] for index in range(len(asked))]
