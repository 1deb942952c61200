"""Run a plan: write all texts concurrently, score the candidates, and choose among them by their weighted reward."""

import asyncio
import math
import random
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

from tureen.errors import ServerFault
from tureen.wire import CandidateOptions
from tureen_core.turns import Messages
from tureen_serve.generation.likeliest import keep_likeliest
from tureen_serve.generation.method import Variation
from tureen_serve.generation.plan import Plan
from tureen_serve.generation.texts import TextTask
from tureen_serve.generation.weigh import find_unusable_reward, rank_rewards, weigh_rewards
from tureen_serve.inference.engine import Engine, Group, Outcome, Priority
from tureen_serve.runtimes.contract import Finish, Origin, TextDelta, TokenLogprob

T = TypeVar("T")


@dataclass(frozen=True)
class Written:
    """A complete text.

    Attributes:
        tokens: their number.
        finish: why it ended.
        task: what was asked for.
        prompt: the log-probabilities of the prompt's tokens after the first, if they were asked for.
        origin: what an upstream that wrote it says of itself.
    """

    text: str
    tokens: int
    finish: Finish
    task: TextTask
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt: tuple[TokenLogprob, ...] | None = None
    origin: Origin | None = None


@dataclass(frozen=True)
class Choice:
    """A text of the reply, with its raw rewards and weighted reward if candidates were scored."""

    variation: Variation
    written: Written
    raw: Mapping[str, float] | None = None
    reward: float | None = None


@dataclass
class Spent:
    """The tokens of a request so far.

    Attributes:
        read: tokens of the prompts. An upstream counts them itself, once for each text.
        made: tokens of the texts.
        cached: how many of ``read`` an upstream had already computed, as it says.
    """

    read: int = 0
    made: int = 0
    cached: int = 0

    def add(self, delta: TextDelta) -> None:
        """Count a delta."""
        self.read += delta.read
        self.made += delta.tokens
        self.cached += delta.cached


Judged = Callable[[Sequence[str], Sequence[Outcome]], None]


async def write_choices(
    engine: Engine,
    planned: Plan,
    texts: Sequence[TextTask],
    prompts: Sequence[Messages],
    spent: Spent,
    count_judged: Judged,
    priority: Priority = "default",
) -> list[Choice]:
    """Write all texts, score the candidates, and choose among them.

    Args:
        texts: all candidates of a choice are neighbours.
        prompts: the prompts as messages, for the reward models.
        spent: counts each delta when it comes, unchosen candidates included.
        count_judged: called with the names of the rewards, and the outcomes of the candidates of one choice.
        priority: of the scores.

    Returns:
        The choices in the order of the texts.

    Raises:
        TureenError: a text could not be written, or no candidate of a choice could be scored.
    """
    written = await _gather([_write(engine, planned, text, spent) for text in texts])
    if planned.candidates is None:
        kept = keep_likeliest(written, planned.best_of, planned.choices) if planned.best_of else written
        return [Choice(each.task.variation, each) for each in kept]
    size = planned.candidates.n
    slates = [
        Slate(
            texts[start].variation,
            prompts[texts[start].number],
            written[start : start + size],
            texts[start].sampling.seed,
        )
        for start in range(0, len(texts), size)
    ]
    judges = sorted({name for variation in planned.variations for name in variation.judges})
    outcomes = await engine.score([slate.group() for slate in slates], judges, truncate=True, priority=priority)
    for each in outcomes:
        count_judged(judges, each)
    picked = [_pick(engine, planned.candidates, *pair) for pair in zip(slates, outcomes, strict=True)]
    return [choice for choices in picked for choice in choices]


@dataclass(frozen=True)
class Slate:
    """The candidates of one choice."""

    variation: Variation
    prompt: Messages
    written: Sequence[Written]
    seed: int | None

    def group(self) -> Group:
        """Return the candidates as the reward models read them."""
        return Group(
            [[{"role": "assistant", "content": each.task.begun + each.text}] for each in self.written], self.prompt
        )


def _pick(engine: Engine, options: CandidateOptions, slate: Slate, outcomes: Sequence[Outcome]) -> list[Choice]:
    candidates = [
        _judge(engine, slate.variation, written, outcome)
        for written, outcome in zip(slate.written, outcomes, strict=True)
    ]
    picks = pick_candidates([candidate.reward for candidate in candidates], options, slate.seed)
    if not picks:
        errors = (outcome.error for outcome in outcomes if outcome.error)
        raise next(errors, ServerFault("no candidate got a finite reward; try again", code="non_finite_score"))
    return [candidates[pick] for pick in picks]


def _judge(engine: Engine, variation: Variation, written: Written, outcome: Outcome) -> Choice:
    scales = {name: engine.rewards[name].calibration for name in outcome.raw}
    if outcome.error or find_unusable_reward(outcome.raw, scales):
        return Choice(variation, written)
    return Choice(variation, written, outcome.raw, weigh_rewards(outcome.raw, variation.judges, scales))


def pick_candidates(rewards: Sequence[float | None], options: CandidateOptions, seed: int | None) -> list[int]:
    """Choose candidates as ``options.select`` says.

    ``all`` returns every candidate, and ``best`` the one with the highest reward. ``soft`` draws one with the
    probabilities softmax(reward / temperature); the temperature is 1 by default, and 0 means ``best``.

    Args:
        rewards: the weighted reward of each candidate, None if it has none.
        seed: of the draw.

    Returns:
        Indices of the chosen candidates; empty if ``best`` or ``soft`` has no rewards.
    """
    if options.select == "all":
        return list(range(len(rewards)))
    known = [(index, reward) for index, reward in enumerate(rewards) if reward is not None]
    if not known:
        return []
    best = rank_rewards([reward for _, reward in known])[0]
    temperature = 1.0 if options.temperature is None else options.temperature
    if options.select == "best" or temperature == 0:
        return [known[best][0]]
    shares = [math.exp((reward - known[best][1]) / temperature) for _, reward in known]
    return random.Random(seed).choices([index for index, _ in known], shares)


async def stream_texts(
    engine: Engine, planned: Plan, texts: Sequence[TextTask]
) -> AsyncGenerator[tuple[int, TextDelta]]:
    """Yield the deltas of all texts when they arrive, each with the index of its text. Closing it stops every text.

    Raises:
        TureenError: one text could not be written; the others are stopped.
    """
    ready: asyncio.Queue[tuple[int, TextDelta | Exception | None]] = asyncio.Queue(maxsize=4 * len(texts))

    async def pump(number: int) -> None:
        try:
            async with aclosing(_deltas(engine, planned, texts[number])) as deltas:
                async for delta in deltas:
                    await ready.put((number, delta))
            await ready.put((number, None))
        except Exception as error:  # raised again by the generator below
            await ready.put((number, error))

    pumps = [asyncio.create_task(pump(number)) for number in range(len(texts))]
    running = len(pumps)
    try:
        while running:
            number, found = await ready.get()
            if isinstance(found, Exception):
                raise found
            if found is None:
                running -= 1
            else:
                yield number, found
    finally:
        for each in pumps:
            each.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _write(engine: Engine, planned: Plan, text: TextTask, spent: Spent) -> Written:
    parts: list[TextDelta] = []
    async with aclosing(_deltas(engine, planned, text)) as deltas:
        async for delta in deltas:
            spent.add(delta)
            parts.append(delta)
    finish: Finish = next((part.finish for part in reversed(parts) if part.finish), "length")
    logprobs = tuple(each for part in parts for each in part.logprobs)
    prompt = next((part.prompt for part in parts if part.prompt is not None), None)
    origin = next((part.origin for part in parts if part.origin), None)
    made = sum(part.tokens for part in parts)
    return Written("".join(part.text for part in parts), made, finish, text, logprobs, prompt, origin)


def _deltas(engine: Engine, planned: Plan, text: TextTask) -> AsyncGenerator[TextDelta]:
    family = planned.family.name
    return engine.generate(family, text.prompt, text.sampling, text.variation.experts, planned.method.semantics)


async def _gather(jobs: Sequence[Coroutine[None, None, T]]) -> list[T]:
    """Return all results, or raise the first error after the other jobs were cancelled."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
