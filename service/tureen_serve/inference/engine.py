"""The engine: everything that is loaded, and the two things that one can ask of it."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from copy import copy

from tureen.errors import NotFound, TureenError, Unavailable, Unprocessable
from tureen_core.soup import Semantics
from tureen_serve.inference.batcher import Priority
from tureen_serve.inference.generator_lane import GeneratorLane
from tureen_serve.inference.lane import Observer, ignore_run
from tureen_serve.inference.readers import SOUP, Outcome, list_names, make_readers, make_soup_reader, read_answers
from tureen_serve.inference.registry import (
    Models,
    Registry,
    Served,
    ServedBackbone,
    ServedFamily,
    TextLane,
)
from tureen_serve.inference.rendering import AnswerPair, FinishedText, Group, ScoreInput, Steps
from tureen_serve.inference.scorer_lane import Future, ScorerLane
from tureen_serve.inference.stepper_lane import StepperLane
from tureen_serve.runtimes.catalogue import Family, LoadedModels, Policy, Reward
from tureen_serve.runtimes.contract import GenerationJob, Generator, Rewards, Row, Sampling, TextDelta

__all__ = [
    "SOUP",
    "ScoreInput",
    "AnswerPair",
    "Engine",
    "Family",
    "FinishedText",
    "Group",
    "Outcome",
    "Priority",
    "Reward",
    "Steps",
]

NOTHING = LoadedModels("none", (), ())


class Engine:
    """Scores and texts of the models in a registry.

    Args:
        loaded: what :func:`tureen_serve.runtimes.load.load_models` made.
        queue_tokens: how many tokens may wait for one backbone.
        queue_jobs: how many texts may wait for one family.
        kept: how many scores of each backbone are kept for those who ask again.
        observe: told what every lane runs, on the lane's thread.

    Attributes:
        registry: the models; they may change while requests run.
        runtime: ``transformers`` or ``vllm``, and why it was chosen.
    """

    registry: Registry
    runtime: str

    def __init__(
        self,
        loaded: LoadedModels = NOTHING,
        *,
        queue_tokens: int = 2**20,
        queue_jobs: int = 256,
        kept: int = 0,
        observe: Observer = ignore_run,
    ) -> None:
        self.runtime = loaded.runtime
        self.registry = Registry(open_lanes(loaded, queue_tokens, queue_jobs, kept, observe))
        self._held: Models | None = None
        self._unproven = loaded.failure

    @property
    def models(self) -> Models:
        """What a call gets that starts now."""
        return self._held or self.registry.current

    @property
    def rewards(self) -> Mapping[str, Reward]:
        """Objective name → :class:`Reward`."""
        return self.models.rewards

    @property
    def families(self) -> Mapping[str, Family]:
        """Family name → :class:`Family`; the first one answers a request that names none."""
        return self.models.families

    @property
    def scoring(self) -> dict[str, Reward]:
        """The rewards that read whole answers, and not pairs or steps."""
        return {name: reward for name, reward in self.rewards.items() if reward.input == "conversation"}

    @property
    def ways(self) -> dict[str, str]:
        """How each backbone and family computes, by its lane's name."""
        return {each.lane.name: each.description for each in self.models.served}

    @property
    def scorers(self) -> list[ScorerLane]:
        """The lanes that score, those too that only finish their last requests."""
        return [lane for lane in self.registry.lanes if isinstance(lane, ScorerLane)]

    @property
    def generators(self) -> list[TextLane]:
        """The lanes that generate, those too that only finish their last requests."""
        return [lane for lane in self.registry.lanes if not isinstance(lane, ScorerLane)]

    @property
    def failure(self) -> str | None:
        """None when ready, else the sentence that says why not: a probe that differs, a dead runtime."""
        return self._unproven or next((lane.failure for lane in self.models.lanes if lane.failure), None)

    @contextmanager
    def hold(self) -> Iterator["Engine"]:
        """This engine for one request, which sees the models that are served now until it ends."""
        with self.registry.hold(self._held) as models:
            held = copy(self)
            held._held = models
            yield held

    async def close(self) -> None:
        """Finish queued scores, end running texts, free the weights."""
        await self.registry.close()

    async def score(
        self,
        groups: Sequence[ScoreInput],
        objectives: Sequence[str],
        *,
        soup: Mapping[str, float] | None = None,
        truncate: bool = False,
        priority: Priority = "default",
    ) -> list[list[Outcome]]:
        """Raw rewards of every answer, or finished text, for every objective.

        A bad answer carries its error (``param`` relative to the group: ``candidates[1]``, ``prompt``, or
        ``messages[0].role``) and the others are untouched. With ``soup`` (canonical weights over objectives) one
        reward named ``soup`` is read from the souped adapters and heads instead, and ``objectives`` is not read.

        Raises:
            Unprocessable: an unknown objective, or objectives that cannot be souped.
            Unavailable: the queue is full, nothing of the call was queued; or the runtime is dead.
        """
        with self.registry.hold(self._held) as models:
            readers = make_readers(models, objectives) if soup is None else [make_soup_reader(models, soup)]
            texts, asked = await asyncio.to_thread(read_answers, readers, groups, truncate)
            results = iter(await _run(asked, priority))
        outcomes = iter(
            [text.outcome(readers, [[next(results) for _ in rows] for rows in text.rows]) for text in texts]
        )
        return [[next(outcomes) for _ in range(len(group))] for group in groups]

    def generate(
        self,
        family: str,
        ids: Sequence[int],
        sampling: Sampling,
        weights: Mapping[str, float],
        semantics: Semantics = "delta",
    ) -> AsyncGenerator[TextDelta]:
        """Stream one text. ``weights`` are canonical expert weights, empty for the bare base.

        Raises:
            NotFound: no such family.
            Unprocessable: an unknown expert, or semantics that are not defined for these experts. The iterator raises
                it for a prompt or sampling that the model cannot take, and ``Unavailable`` where there is no room.
        """
        models = self.models
        if family not in models.families:
            message = f"no policy family is called {family!r}; there is {list_names(models.families)}"
            raise NotFound(message, param="model")
        known = models.families[family]
        unknown = set(weights) - set(known.experts)
        if unknown:
            name = min(unknown)
            message = f"no expert of {family} is called {name!r}; there is {list_names(known.experts)}"
            raise Unprocessable(message, param=f"preferences.{name}", code="unknown_objective")
        if semantics == "factor" and known.factor_obstacle:
            raise Unprocessable(known.factor_obstacle, param="soup.semantics")
        job = GenerationJob(tuple(ids), sampling, tuple(sorted(weights.items())), semantics)
        return self._stream(models, models.generators[family], job)

    async def _stream(self, models: Models, lane: TextLane, job: GenerationJob) -> AsyncGenerator[TextDelta]:
        with self.registry.hold(models):
            async with aclosing(lane.stream(job)) as deltas:
                async for delta in deltas:
                    yield delta


async def _run(asked: Sequence[tuple[ScorerLane, Row]], priority: Priority) -> list[Rewards | TureenError]:
    """Results in order; those of a call that is cancelled leave the queues."""
    futures = _submit(asked, priority)
    results: list[Rewards | TureenError] = []
    for result in await asyncio.gather(*futures, return_exceptions=True):
        if isinstance(result, Unavailable) or not isinstance(result, Rewards | TureenError):
            raise result
        results.append(result)
    return results


def _submit(asked: Sequence[tuple[ScorerLane, Row]], priority: Priority) -> list[Future]:
    """All into their lanes, or none."""
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


def open_lanes(
    loaded: LoadedModels,
    queue_tokens: int = 2**20,
    queue_jobs: int = 256,
    kept: int = 0,
    observe: Observer = ignore_run,
) -> list[Served]:
    """Start a lane for each backbone and family, for a registry. The arguments are those of :class:`Engine`."""
    served: list[Served] = []
    for backbone in loaded.backbones:
        lane = ScorerLane(backbone.name, backbone.scorer, queue_tokens, observe, kept)
        served.append(ServedBackbone(lane, backbone.rewards, backbone.scorer.description))
    for policy in loaded.policies:
        served.append(
            ServedFamily(_generator_lane(policy, queue_jobs, observe), policy.family, policy.runtime.description)
        )
    return served


def _generator_lane(policy: Policy, queue_jobs: int, observe: Observer) -> TextLane:
    name, runtime = policy.family.name, policy.runtime
    if isinstance(runtime, Generator):
        return GeneratorLane(name, runtime, queue_jobs, observe)
    return StepperLane(name, runtime, queue_jobs, observe)
