"""What a foreign ``model`` means here: a loaded reward, several, or a mix of them. Pure.

Spelled are ``helpful``, ``helpful,harmless`` (a column for each) and ``helpful=0.7,harmless=0.3`` (one weighted
reward). An alias stands for a spelling, and the one called ``default`` answers who names none. Loops send what their
configuration holds, often the path of a checkpoint: its last part is read where the whole is unknown, and where one
reward is loaded every name that says nothing of it means that.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from tureen.errors import NotFound, TureenError, Unprocessable
from tureen.wire import ScoreRequest
from tureen_serve.api.reward_query import RewardQuery, read_query
from tureen_serve.generation.weigh import weigh_rewards
from tureen_serve.inference.engine import Outcome, Reward
from tureen_serve.inference.rendering import relocate_error

DEFAULT = "default"
FIELD = "model"
NOTHING = ScoreRequest.model_construct(items=[])


@dataclass(frozen=True)
class RewardSelection:
    """The rewards that answer a request.

    Attributes:
        name: the model as the request spells it, or the reward's own name.
        columns: the name of each value.
        query: what the engine computes.
    """

    name: str
    columns: tuple[str, ...]
    query: RewardQuery

    def values(self, outcome: Outcome) -> list[float]:
        """Return one value for each column: raw rewards, or the one weighted reward.

        Raises:
            TureenError: the text has no reward.
        """
        if outcome.error is not None:
            raise outcome.error
        if self.query.weights is None:
            return [outcome.raw[name] for name in self.columns]
        return [weigh_rewards(outcome.raw, self.query.weights, self.query.scales)]

    def value(self, outcome: Outcome) -> float:
        """Return the only value.

        Raises:
            TureenError: the text has no reward.
            Unprocessable: several rewards are selected.
        """
        if len(self.columns) > 1:
            weighed = ",".join(f"{name}={1 / len(self.columns):.2g}" for name in self.columns)
            raise Unprocessable(f"this route returns one reward; weigh the rewards, for example {weighed}", param=FIELD)
        return self.values(outcome)[0]

    def standard(self, outcome: Outcome) -> float:
        """The one value on the scale of standard deviations; what is weighted is on it already."""
        value = self.value(outcome)
        return value if self.query.weights is not None else self.query.scales[self.columns[0]].standardise(value)


def select_rewards(model: str | None, rewards: Mapping[str, Reward], aliases: Mapping[str, str]) -> RewardSelection:
    """Select the rewards that ``model`` names.

    Raises:
        NotFound: it is nothing that is loaded, or is left out where several are.
        Unprocessable: its weights cannot be used.
    """
    spelled = _spelled(model, rewards, aliases)
    parts = [part.strip() for part in spelled.split(",")]
    if "=" not in spelled:
        return RewardSelection(spelled, tuple(parts), read_query(_body(rewards=parts), rewards))
    weights = _weights(parts)
    try:
        return RewardSelection(spelled, (spelled,), read_query(_body(preferences=weights), rewards))
    except TureenError as error:
        raise relocate_error(error, FIELD) from None


def check_aliases(aliases: Mapping[str, str], rewards: Mapping[str, Reward]) -> str | None:
    """None if each alias is a new name for something that is loaded, else the sentence that says which is not."""
    for alias, spelled in aliases.items():
        if alias in rewards:
            return f"aliases.{alias}: a loaded reward is called so; choose another name"
        try:
            if _unknown(spelled, rewards):
                return f"aliases.{alias}: {_absent(spelled, rewards, {}).message}"
            select_rewards(spelled, rewards, {})
        except TureenError as error:
            return f"aliases.{alias}: {error.message}"
    return None


def _spelled(model: str | None, rewards: Mapping[str, Reward], aliases: Mapping[str, str]) -> str:
    if not model and DEFAULT in aliases:
        return aliases[DEFAULT]
    for name in (model, _without_folders(model)) if model else ():
        if name in aliases:
            return aliases[name]
        if not _unknown(name, rewards):
            return name
    if len(rewards) == 1 and (not model or len(_unknown(model, rewards)) == len(model.split(","))):
        return next(iter(rewards))
    raise _absent(model, rewards, aliases)


def _without_folders(model: str) -> str:
    return ",".join(PurePosixPath(part).name for part in model.split(","))


def _unknown(spelled: str, rewards: Mapping[str, Reward]) -> list[str]:
    """List the parts that name no loaded reward."""
    return [part for part in spelled.split(",") if part.partition("=")[0].strip() not in rewards]


def _absent(model: str | None, rewards: Mapping[str, Reward], aliases: Mapping[str, str]) -> NotFound:
    if not rewards:
        return NotFound("this server has loaded no reward models", param=FIELD, code="unknown_reward")
    told = _strange(model, rewards) if model else f"{len(rewards)} rewards are loaded, and none is the default"
    known = ", ".join(sorted({*rewards, *aliases}))
    ways = f"name one of {known} as `model`, in the body or as ?model=, a mix as a=0.7,b=0.3, or configure an alias"
    return NotFound(f"{told}; {ways}", param=FIELD, code="unknown_reward")


def _strange(model: str, rewards: Mapping[str, Reward]) -> str:
    """Which part of ``model`` names nothing."""
    missing = [part.partition("=")[0].strip() for part in _unknown(model, rewards)]
    told = f"no reward is called {' or '.join(map(repr, dict.fromkeys(missing)))}"
    return told if [model] == missing else f"{told}, which stands in {model!r}"


def _weights(parts: list[str]) -> dict[str, float]:
    weights: dict[str, float] = {}
    for part in parts:
        name, _, number = (each.strip() for each in part.partition("="))
        try:
            weight = float(number)
        except ValueError:
            raise Unprocessable(f"{part!r} is no name=weight", param=FIELD) from None
        if name in weights:
            raise Unprocessable(f"{name!r} is weighed twice", param=FIELD)
        weights[name] = weight
    return weights


def _body(**fields: object) -> ScoreRequest:
    return NOTHING.model_copy(update=fields)
