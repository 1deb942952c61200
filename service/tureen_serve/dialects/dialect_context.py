"""The context of a dialect's routes: selects the rewards that a ``model`` names, and scores texts with them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from pydantic import BaseModel, ConfigDict

from tureen_serve.api.reward_plan import score_groups
from tureen_serve.api.server_state import EngineDep, ServerState, ServerStateDep
from tureen_serve.dialects.model_names import RewardSelection, select_rewards
from tureen_serve.inference.engine import Engine, FinishedText, Group, Outcome, Priority, Reward
from tureen_serve.inference.rendering import relocate_error

FieldOfText = Callable[[int], str]
NO_CUT = "because this route cannot cut texts"
CUT_BY_QUERY = "or add ?truncate=true to the URL to have it cut"


class DialectBody(BaseModel):
    """Base of the request bodies of other protocols. Unknown fields are ignored, as the other servers do."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


@dataclass(frozen=True)
class DialectContext:
    """The server as a dialect's route uses it, and the ``model`` of the URL's query."""

    server: ServerState
    engine: Engine
    model: str | None

    def select(self, model: str | None = None) -> RewardSelection:
        """Select the rewards of the body's ``model``, or of ``?model=`` where the protocol has no such field.

        Raises:
            NotFound: no loaded reward has this name.
        """
        return select_rewards(model or self.model, self.engine.scoring, self.server.aliases)

    def list_rewards(self, selection: RewardSelection) -> list[Reward]:
        """List the loaded rewards of a selection."""
        return [self.engine.rewards[name] for name in selection.query.objectives]

    def find_max_length(self, selection: RewardSelection) -> int:
        """Find the largest number of tokens that all selected rewards can read."""
        return min(reward.renderer.reading.max_length for reward in self.list_rewards(selection))

    async def score_texts(
        self,
        selection: RewardSelection,
        groups: Sequence[Group | FinishedText],
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
        found = await score_groups(
            self.engine, groups, selection.query, metrics, truncate=truncate, priority=priority, remedy=remedy
        )
        return [outcome for outcomes in found for outcome in outcomes]

    async def score_all(
        self,
        selection: RewardSelection,
        groups: Sequence[Group | FinishedText],
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


async def _context(server: ServerStateDep, engine: EngineDep, model: str | None = None) -> DialectContext:
    return DialectContext(server, engine, model)


ContextDep = Annotated[DialectContext, Depends(_context)]
