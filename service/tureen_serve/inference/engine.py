"""The engine: scores and generates texts with the loaded models."""

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
from tureen_serve.inference.registry import Models, Registry, Served, ServedBackbone, ServedFamily, TextLane
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
    """Scores texts and generates texts with the models of a registry.

    Args:
        loaded: the loaded models.
        queue_tokens: the largest number of tokens that may wait for one backbone.
        queue_jobs: the largest number of texts that may wait for one family.
        kept: how many scores of each backbone are cached for repeated requests.
        observe: called with every run of a lane, on the lane's thread.

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
        """The models that a call uses that starts now."""
        return self._held or self.registry.current

    @property
    def rewards(self) -> Mapping[str, Reward]:
        """Objective name → :class:`Reward`."""
        return self.models.rewards

    @property
    def families(self) -> Mapping[str, Family]:
        """Family name → :class:`Family`. The first one answers requests without a model."""
        return self.models.families

    @property
    def scoring(self) -> dict[str, Reward]:
        """The rewards that read whole answers; those that read pairs or steps are left out."""
        return {name: reward for name, reward in self.rewards.items() if reward.input == "conversation"}

    @property
    def ways(self) -> dict[str, str]:
        """Lane name → how its backbone or family computes, for the log."""
        return {each.lane.name: each.description for each in self.models.served}

    @property
    def scorers(self) -> list[ScorerLane]:
        """The lanes that score, those included that only finish their last requests."""
        return [lane for lane in self.registry.lanes if isinstance(lane, ScorerLane)]

    @property
    def generators(self) -> list[TextLane]:
        """The lanes that generate, those included that only finish their last requests."""
        return [lane for lane in self.registry.lanes if not isinstance(lane, ScorerLane)]

    @property
    def failure(self) -> str | None:
        """Why the engine is not ready (a probe that differs, a dead runtime), or None if it is."""
        return self._unproven or next((lane.failure for lane in self.models.lanes if lane.failure), None)

    @contextmanager
    def hold(self) -> Iterator["Engine"]:
        """Yield this engine for one request. It keeps the models that are served now until the request ends."""
        with self.registry.hold(self._held) as models:
            held = copy(self)
            held._held = models
            yield held

    async def close(self) -> None:
        """Finish queued scores, stop running texts, and free the weights."""
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
        """Compute the raw reward of every answer for every objective.

        Args:
            groups: the answers or texts.
            soup: canonical weights of objectives. If given, ``objectives`` is ignored, and the souped adapters and
                heads compute one reward named ``soup``.
            truncate: cut texts that are too long, unless a group says how to cut.

        Returns:
            For each group the outcomes of its answers. An answer that cannot be scored has an error; its ``param`` is
            relative to the group, as ``candidates[1]``, ``prompt`` or ``messages[0].role``.

        Raises:
            Unprocessable: an objective is unknown, or the objectives cannot be souped.
            Unavailable: the queue has no room for the whole call, so none of it was queued; or the runtime is dead.
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
        """Stream one text.

        Args:
            ids: token ids of the prompt.
            weights: canonical weights of experts; empty for the base without experts.

        Raises:
            NotFound: the family is not loaded.
            Unprocessable: an expert is unknown, or the semantics are not defined for these experts. The iterator also
                raises it, for a prompt or sampling that the model cannot take.
            Unavailable: raised by the iterator if the queue is full or the runtime is dead.
        """
        models = self.models
        if family not in models.families:
            message = f"no policy family is called {family!r}; loaded: {list_names(models.families)}"
            raise NotFound(message, param="model")
        known = models.families[family]
        unknown = set(weights) - set(known.experts)
        if unknown:
            name = min(unknown)
            message = f"no expert of {family} is called {name!r}; loaded: {list_names(known.experts)}"
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
    """Return the results in order. If this call is cancelled, its rows leave the queues."""
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


def open_lanes(
    loaded: LoadedModels,
    queue_tokens: int = 2**20,
    queue_jobs: int = 256,
    kept: int = 0,
    observe: Observer = ignore_run,
) -> list[Served]:
    """Start a lane for each backbone and family. The arguments are those of :class:`Engine`."""
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
