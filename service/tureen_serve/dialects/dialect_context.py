"""What every dialect is given: the engine, the meters, and what its ``model`` means."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from pydantic import BaseModel, ConfigDict

from tureen.errors import TureenError
from tureen_serve.api.reward_plan import score_groups
from tureen_serve.api.server_state import EngineDep, ServerState, ServerStateDep
from tureen_serve.dialects.model_names import RewardSelection, select_rewards
from tureen_serve.inference.engine import Engine, Finished, Group, Outcome, Priority, Reward

Located = Callable[[int], str]
NOTHING_CUTS = "since this route has no field that cuts"
CUT_BY_QUERY = "or ask with ?truncate=true to have it cut"


class DialectBody(BaseModel):
    """Base of foreign bodies: what is not known is not read, as with the original."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


@dataclass(frozen=True)
class DialectContext:
    """One server, as a dialect sees it."""

    server: ServerState
    engine: Engine
    model: str | None

    def wanted(self, model: str | None = None) -> RewardSelection:
        """What the body's ``model`` asks for, or the query's ``?model=`` where the protocol has no such field.

        Raises:
            NotFound: nothing that is loaded.
        """
        return select_rewards(model or self.model, self.engine.scoring, self.server.aliases)

    def rewards(self, wanted: RewardSelection) -> list[Reward]:
        """The loaded rewards that take part."""
        return [self.engine.rewards[name] for name in wanted.query.objectives]

    def longest(self, wanted: RewardSelection) -> int:
        """How many tokens of a text all of them read."""
        return min(reward.renderer.reading.max_length for reward in self.rewards(wanted))

    async def outcomes(
        self,
        wanted: RewardSelection,
        groups: Sequence[Group | Finished],
        truncate: bool = False,
        priority: Priority = "default",
        remedy: str = NOTHING_CUTS,
    ) -> list[Outcome]:
        """What became of each text, in order; errors stay in their places, with the fields of their groups.

        Args:
            remedy: how the caller could have had a text cut that is too long, for that error.

        Raises:
            TureenError: it concerns the whole call.
        """
        metrics = self.server.metrics
        found = await score_groups(
            self.engine, groups, wanted.query, metrics, truncate=truncate, priority=priority, remedy=remedy
        )
        return [outcome for outcomes in found for outcome in outcomes]

    async def sound(
        self,
        wanted: RewardSelection,
        groups: Sequence[Group | Finished],
        truncate: bool = False,
        at: Located = "input[{}]".format,
        priority: Priority = "default",
        remedy: str = NOTHING_CUTS,
    ) -> list[Outcome]:
        """The same where one bad text fails all.

        Args:
            at: from a text's place to its field in the body.

        Raises:
            TureenError: the first text's error.
        """
        outcomes = await self.outcomes(wanted, groups, truncate, priority, remedy)
        for index, outcome in enumerate(outcomes):
            if outcome.error is not None:
                raise relocate_error(outcome.error, at(index))
        return outcomes

    async def one(
        self, wanted: RewardSelection, text: Group | Finished, truncate: bool = False, *, prompt: str, answer: str
    ) -> Outcome:
        """What became of one text, where an error is laid to its prompt's field in the body or to its answer's.

        Raises:
            TureenError: it has no reward.
        """
        (outcome,) = await self.outcomes(wanted, [text], truncate, remedy=CUT_BY_QUERY)
        if outcome.error is not None:
            raise relocate_error(outcome.error, prompt if outcome.error.param == "prompt" else answer)
        return outcome


def relocate_error(error: TureenError, param: str) -> TureenError:
    """The error, laid to a field of the foreign body."""
    return type(error)(error.message, param=param, code=error.code, retry_after=error.retry_after)


async def _context(server: ServerStateDep, engine: EngineDep, model: str | None = None) -> DialectContext:
    return DialectContext(server, engine, model)


ContextDep = Annotated[DialectContext, Depends(_context)]
