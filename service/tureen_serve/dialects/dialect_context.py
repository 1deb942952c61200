"""The context of a dialect's routes: selects the rewards that a ``model`` names, and scores texts with them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from pydantic import BaseModel, ConfigDict

from tureen.errors import NotFound, Unprocessable
from tureen_core.manifest import Manifest
from tureen_serve.api.reading_headers import ReadingNotes
from tureen_serve.api.reward_plan import score_groups
from tureen_serve.api.server_state import EngineDep, ServerState, ServerStateDep
from tureen_serve.dialects.model_names import FIELD, RewardSelection, build_selection, list_names, resolve_model
from tureen_serve.inference.engine import Engine, FinishedText, Group, Outcome, Priority, Reward
from tureen_serve.inference.rendering import relocate_error
from tureen_serve.inference.text_limits import take_inputs

FieldOfText = Callable[[int], str]
NO_CUT = "because this route cannot cut texts"
CUT_BY_QUERY = "or add ?truncate=true to the URL to have it cut"


class DialectBody(BaseModel):
    """Base of the request bodies of other protocols. Unknown fields are ignored, as the other servers do."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


@dataclass(frozen=True)
class DialectContext:
    """The server as a dialect's route uses it.

    Attributes:
        model: that of the URL's query, or of its path (:mod:`tureen_serve.dialects.path_models`).
        notes: how the request's texts were read; the reply's headers tell it.
    """

    server: ServerState
    engine: Engine
    model: str | None
    notes: ReadingNotes

    async def select(self, model: str | None = None) -> RewardSelection:
        """Select the rewards of the body's ``model``, or of the URL where the body has none.

        Rewards that are loaded on demand are loaded, and kept until the reply is sent.

        Raises:
            NotFound: no reward has this name.
            Unprocessable, Unavailable: a reward cannot be loaded.
        """
        resolved = await self._resolve(model or self.model)
        await self.engine.want(dict.fromkeys(list_names(resolved), FIELD))
        return build_selection(resolved, self.engine.scoring)

    async def _resolve(self, model: str | None) -> str:
        """Find the names that a model means. With models on demand an unknown name is an error: it may come later."""
        pool, aliases = self.engine.pool, self.server.aliases
        if pool is None:
            return resolve_model(model, self.engine.scoring, aliases)
        try:
            return resolve_model(model, self._list_known(model), aliases, guess=False)
        except NotFound:
            await pool.refresh()
        refused = next((pool.refused[name] for name in list_names(model or "") if name in pool.refused), None)
        if refused is not None:
            raise Unprocessable(refused, param=FIELD, code="unknown_reward")
        return resolve_model(model, self._list_known(model), aliases, guess=False)

    def _list_known(self, model: str | None) -> list[str]:
        """List the names that a model can mean. A missing model means the rewards of the start, if there are any."""
        started = list(self.engine.scoring)
        return started if started and not model else [*started, *self._offered]

    @property
    def _offered(self) -> dict[str, Manifest]:
        """The rewards on demand that read whole answers."""
        sources = self.engine.pool.offered if self.engine.pool else {}
        return {name: each.manifest for name, each in sources.items() if each.manifest.input == "conversation"}

    def list_models(self) -> dict[str, int]:
        """List every name that ``model`` can have, with the largest number of tokens that it can read."""
        found = {name: reward.renderer.reading.max_length for name, reward in self.engine.scoring.items()}
        found |= {name: manifest.reading.max_length for name, manifest in self._offered.items()}
        lengths = {alias: [found.get(name) for name in list_names(to)] for alias, to in self.server.aliases.items()}
        return found | {alias: min(known) for alias, each in lengths.items() if (known := [n for n in each if n])}

    def list_rewards(self, selection: RewardSelection) -> list[Reward]:
        """List the loaded rewards of a selection."""
        return [self.engine.rewards[name] for name in selection.query.objectives]

    def find_max_length(self, selection: RewardSelection) -> int:
        """Find the largest number of tokens that all selected rewards can read."""
        return min(reward.renderer.reading.max_length for reward in self.list_rewards(selection))

    async def score_texts(
        self,
        selection: RewardSelection,
        groups: Iterable[Group | FinishedText],
        truncate: bool = False,
        priority: Priority = "default",
        remedy: str = NO_CUT,
    ) -> list[Outcome]:
        """Score texts. Returns one outcome for each text, in order; the ``param`` of an error is relative to its text.

        Args:
            remedy: the end of the error message for a text that is too long: how to have it cut.

        Raises:
            TureenError: the whole call failed.
        """
        metrics = self.server.metrics
        taken = take_inputs(groups, self.engine.limits)
        found = await score_groups(
            self.engine, taken, selection.query, metrics, truncate=truncate, priority=priority, remedy=remedy
        )
        outcomes = [outcome for each in found for outcome in each]
        for outcome in outcomes:
            self.notes.add_outcome(outcome)
        return outcomes

    async def score_all(
        self,
        selection: RewardSelection,
        groups: Iterable[Group | FinishedText],
        truncate: bool = False,
        at: FieldOfText = "input[{}]".format,
        priority: Priority = "default",
        remedy: str = NO_CUT,
    ) -> list[Outcome]:
        """Score texts for a protocol in which one bad text fails the whole request.

        Args:
            at: returns the field of the body that holds the text with this index.

        Raises:
            TureenError: the first text's error.
        """
        outcomes = await self.score_texts(selection, groups, truncate, priority, remedy)
        for index, outcome in enumerate(outcomes):
            if outcome.error is not None:
                raise relocate_error(outcome.error, at(index))
        return outcomes

    async def score_one(
        self,
        selection: RewardSelection,
        text: Group | FinishedText,
        truncate: bool = False,
        *,
        prompt: str,
        answer: str,
    ) -> Outcome:
        """Score one text.

        Args:
            prompt: the field of the body that an error of the prompt names.
            answer: the field of the body that any other error names.

        Raises:
            TureenError: the text has no reward.
        """
        (outcome,) = await self.score_texts(selection, [text], truncate, remedy=CUT_BY_QUERY)
        if outcome.error is not None:
            raise relocate_error(outcome.error, prompt if outcome.error.param == "prompt" else answer)
        return outcome


async def _context(
    request: Request, server: ServerStateDep, engine: EngineDep, model: str | None = None
) -> DialectContext:
    return DialectContext(server, engine, model, request.state.notes)


ContextDep = Annotated[DialectContext, Depends(_context)]
