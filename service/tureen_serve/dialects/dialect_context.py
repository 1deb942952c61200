"""What all dialects share: the engine, the metrics, and the rewards that a ``model`` names."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from pydantic import BaseModel, ConfigDict

from tureen.errors import TureenError
from tureen_serve.api.reward_plan import score_groups
from tureen_serve.api.server_state import EngineDep, ServerState, ServerStateDep
from tureen_serve.dialects.model_names import RewardSelection, select_rewards
from tureen_serve.inference.engine import Engine, FinishedText, Group, Outcome, Priority, Reward

Located = Callable[[int], str]
NOTHING_CUTS = "since this route has no field that cuts"
CUT_BY_QUERY = "or ask with ?truncate=true to have it cut"


class DialectBody(BaseModel):
    """Base of the bodies of other protocols. Unknown fields are ignored, as in the originals."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


@dataclass(frozen=True)
class DialectContext:
    """One server, as the routes of a dialect use it."""

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
        """Find how many tokens of a text every selected reward reads."""
        return min(reward.renderer.reading.max_length for reward in self.list_rewards(selection))

    async def score_texts(
        self,
        selection: RewardSelection,
        groups: Sequence[Group | FinishedText],
        truncate: bool = False,
        priority: Priority = "default",
        remedy: str = NOTHING_CUTS,
    ) -> list[Outcome]:
        """Score texts and return one outcome for each, in order. An error names a field of its group.

        Args:
            remedy: how a caller can have a text cut that is too long; it ends the message of that error.

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
        at: Located = "input[{}]".format,
        priority: Priority = "default",
        remedy: str = NOTHING_CUTS,
    ) -> list[Outcome]:
        """Score texts where one bad text fails the whole request.

        Args:
            at: gives the field in the body for a text's index.

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
        """Score one text. Its error names the field of the prompt or of the answer in the body.

        Raises:
            TureenError: the text has no reward.
        """
        (outcome,) = await self.score_texts(selection, [text], truncate, remedy=CUT_BY_QUERY)
        if outcome.error is not None:
            raise relocate_error(outcome.error, prompt if outcome.error.param == "prompt" else answer)
        return outcome


def relocate_error(error: TureenError, param: str) -> TureenError:
    """Return the same error for a field of the dialect's body."""
    return type(error)(error.message, param=param, code=error.code, retry_after=error.retry_after)


async def _context(server: ServerStateDep, engine: EngineDep, model: str | None = None) -> DialectContext:
    return DialectContext(server, engine, model)


ContextDep = Annotated[DialectContext, Depends(_context)]
