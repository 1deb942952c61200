"""The engine: scores and generates texts with the loaded models."""

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import ExitStack, aclosing, contextmanager
from copy import copy
from dataclasses import replace
from math import inf

from tureen.errors import NotFound, Unavailable, Unprocessable
from tureen_core.soup import Semantics
from tureen_serve.inference.batcher import Priority
from tureen_serve.inference.grammar_desk import GrammarDesk
from tureen_serve.inference.lane import Observer, ignore_run
from tureen_serve.inference.lane_deaths import find_death
from tureen_serve.inference.model_pool import ModelPool
from tureen_serve.inference.opened_lanes import open_lanes
from tureen_serve.inference.pieces import LARGE_BYTES, run_pieces
from tureen_serve.inference.readers import SOUP, Outcome, list_names, make_readers, make_soup_reader, read_answers
from tureen_serve.inference.registry import Models, Registry, TextLane
from tureen_serve.inference.rendering import LIMITS, AnswerPair, FinishedText, Group, ScoreInput, Steps
from tureen_serve.inference.row_calls import run_rows
from tureen_serve.inference.scorer_lane import ScorerLane
from tureen_serve.inference.text_jobs import start_text
from tureen_serve.inference.text_limits import TextLimits, exceed_bytes
from tureen_serve.inference.timed_lock import TimedLock
from tureen_serve.inference.upstream_lane import UpstreamLane
from tureen_serve.inference.witness import Witness, ignore_call
from tureen_serve.runtimes.catalogue import NO_MODELS, Family, LoadedModels, Reward
from tureen_serve.runtimes.contract import TextDelta
from tureen_serve.runtimes.sampling_fields import Sampling
from tureen_serve.runtimes.upstream_contract import Prompt

__all__ = ["SOUP", "AnswerPair", "Engine", "Family", "FinishedText", "Group", "Outcome", "Priority", "Reward"]
__all__ += ["ScoreInput", "Steps"]


class Engine:
    """Scores texts and generates texts with the models of a registry.

    Args:
        loaded: the loaded models.
        queue_tokens, queue_jobs: the most tokens that may wait for one backbone, and texts for one family.
        kept: how many scores of each backbone are cached for repeated requests.
        observe: called with every run of a lane, on the lane's thread.
        pool, limits: the models that are loaded on demand; the largest texts.
        stuck_seconds: how long a forward pass or a load of a model may take.

    Attributes:
        registry, runtime: the models, which may change while requests run; its name, and why it was chosen.
        limits, pool, grammars: as the arguments; what compiles grammars.
        start, turn: what the start knew, without its models; a lock that is held while a model loads.
        witness: called with the models, the arguments and the result of each call of :meth:`score` without a soup.
    """

    def __init__(
        self,
        loaded: LoadedModels = NO_MODELS,
        *,
        queue_tokens: int = 2**20,
        queue_jobs: int = 256,
        kept: int = 0,
        observe: Observer = ignore_run,
        pool: ModelPool | None = None,
        limits: TextLimits = LIMITS,
        stuck_seconds: float = inf,
    ) -> None:
        self.pool, self.limits = pool, limits
        self.turn = pool.turn if pool else TimedLock()
        self.runtime = loaded.runtime
        self.start = replace(loaded, backbones=(), policies=())
        self.witness: Witness = ignore_call
        self.grammars = GrammarDesk()
        self.registry = Registry(open_lanes(loaded, queue_tokens, queue_jobs, kept, observe))
        self._held: Models | None = None
        self._leases: ExitStack | None = None
        self._unproven = loaded.failure
        self._stuck_seconds = stuck_seconds

    @property
    def models(self) -> Models:
        """The models that a call uses that starts now."""
        return self._held or self.registry.current

    @property
    def rewards(self) -> Mapping[str, Reward]:
        """Objective name → :class:`Reward`: the rewards of the start, and those of :meth:`want`."""
        return self.models.rewards

    @property
    def loaded_rewards(self) -> dict[str, Reward]:
        """Objective name → :class:`Reward`, with all that are loaded on demand now."""
        added = self.pool.loaded if self.pool else []
        return {**{reward.name: reward for each in added for reward in each.rewards}, **self.rewards}

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
        added = [each.lane for each in self.pool.loaded] if self.pool else []
        return [*(lane for lane in self.registry.lanes if isinstance(lane, ScorerLane)), *added]

    @property
    def generators(self) -> list[TextLane]:
        """The lanes that generate, those included that only finish their last requests."""
        return [lane for lane in self.registry.lanes if not isinstance(lane, ScorerLane)]

    @property
    def upstreams(self) -> list[UpstreamLane]:
        """The lanes whose texts other servers write."""
        return [lane for lane in self.generators if isinstance(lane, UpstreamLane)]

    @property
    def failure(self) -> str | None:
        """Why the engine is not ready (a probe that differs, a dead runtime), or None if it is."""
        failures = (lane.failure for lane in self.models.lanes if lane.failure)
        return self._unproven or self.death or next(failures, None)

    @property
    def death(self) -> str | None:
        """Why the process must end: a runtime cannot be started again, or a pass or load is stuck; None if none is."""
        return find_death((*self.scorers, *self.generators), self._stuck_seconds, self.turn.held_seconds)

    def abandon(self, error: Unavailable) -> None:
        """Answer all that waits or runs with an error, and refuse what comes: the process ends."""
        for lane in (*self.scorers, *self.generators):
            lane.abandon(error)

    @contextmanager
    def hold(self) -> Iterator["Engine"]:
        """Yield this engine for one request. It keeps the models that are served now until the request ends."""
        with ExitStack() as leases:
            held = copy(self)
            held._held = leases.enter_context(self.registry.hold(self._held))
            held._leases = leases
            yield held

    async def want(self, fields: Mapping[str, str]) -> None:
        """Load rewards that are loaded on demand. This engine, which must be held, keeps them until the request ends.

        Args:
            fields: name of a reward → the field of the request that names it, for errors.

        Raises:
            Unprocessable: a reward is unknown or cannot be served. Without models on demand this is not checked here.
            Unavailable: a model cannot be loaded now.
        """
        missing = {name: param for name, param in fields.items() if name not in self.rewards}
        if self.pool is None or not missing:
            return
        if self._leases is None:
            raise RuntimeError("only an engine that is held can load models")
        self._held = Models([*self.models.served, *await self.pool.take(missing, self._leases)])

    async def close(self) -> None:
        """Finish queued scores, stop running texts, and free the weights."""
        if self.pool is not None:
            await self.pool.close()
        await self.registry.close()
        await self.grammars.close()

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
            large = exceed_bytes(groups, LARGE_BYTES)
            texts, asked = await run_pieces(lambda go: read_answers(readers, groups, truncate, self.limits, go), large)
            results = iter(await run_rows(asked, priority))
        outcomes = iter(
            [text.outcome(readers, [[next(results) for _ in rows] for rows in text.rows]) for text in texts]
        )
        found = [[next(outcomes) for _ in range(len(group))] for group in groups]
        if soup is None:
            self.witness(models, groups, objectives, truncate, found)
        return found

    def generate(
        self,
        family: str,
        prompt: Prompt,
        sampling: Sampling,
        weights: Mapping[str, float],
        semantics: Semantics = "delta",
    ) -> AsyncGenerator[TextDelta]:
        """Stream one text.

        Args:
            prompt: its token ids; for an upstream, as it is spoken.
            weights: canonical weights of experts; empty for the base without experts.

        Raises:
            NotFound: the family is not loaded.
            Unprocessable: an expert is unknown, or the semantics are not defined for these experts; or, by the
                iterator, the model cannot take the prompt or the sampling.
            Unavailable: raised by the iterator if the queue is full or the runtime is dead.
        """
        models = self.models
        if family not in models.families:
            raise NotFound(f"no family is called {family!r}; loaded: {list_names(models.families)}", param="model")
        known = models.families[family]
        unknown = set(weights) - set(known.experts)
        if unknown:
            name = min(unknown)
            message = f"no expert of {family} is called {name!r}; loaded: {list_names(known.experts)}"
            raise Unprocessable(message, param=f"preferences.{name}", code="unknown_objective")
        if semantics == "factor" and known.factor_obstacle:
            raise Unprocessable(known.factor_obstacle, param="soup.semantics")
        return self._stream(models, start_text(models.generators[family], prompt, sampling, weights, semantics))

    async def _stream(self, models: Models, text: AsyncGenerator[TextDelta]) -> AsyncGenerator[TextDelta]:
        with self.registry.hold(models):
            async with aclosing(text) as deltas:
                async for delta in deltas:
                    yield delta
