"""Find the rewards that the ``model`` of another protocol names. Pure.

A model is one reward (``helpful``), several (``helpful+harmless``, one column each) or a weighted mix
(``helpful=0.7+harmless=0.3``, one column). ``,`` and ``;`` separate too. The weights of a mix are scaled to sum to 1.
But a single weight must be 1, because some clients cut a mix at a comma and send only its first part. An alias stands
for such a model. ``none:`` before a mix means that the weights are used as written, negative ones too; then there are
two or more, for the same reason. A request without a model uses the alias ``default``.

Training loops often send the path of a checkpoint. So if a model is unknown, its last path component is tried. If only
one reward is loaded, every unknown name means that reward.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from tureen.errors import NotFound, TureenError, Unprocessable
from tureen.mixes import AS_WRITTEN, check_single, split_mix, split_normalize
from tureen.wire import ScoreRequest
from tureen_core.calibration import resolve_scale
from tureen_core.preference import normalise_reward_weights
from tureen_serve.api.reward_query import RewardQuery, read_query
from tureen_serve.generation.weigh import weigh_rewards
from tureen_serve.inference.engine import Outcome, Reward
from tureen_serve.inference.rendering import relocate_error

DEFAULT = "default"
FIELD = "model"
SUBTRACT = f"write `{AS_WRITTEN}` before the weights to subtract a reward, as {AS_WRITTEN}a=1+b=-0.5"
NOTHING = ScoreRequest.model_construct(items=[])


@dataclass(frozen=True)
class RewardSelection:
    """The rewards that a request selects.

    Attributes:
        name: the model as the request or its alias names it, or the name of the only reward.
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
            weighed = "+".join(f"{name}={1 / len(self.columns):.3g}" for name in self.columns)
            message = f"this route returns one reward; name one, or a weighted mix as {weighed}"
            raise Unprocessable(message, param=FIELD)
        return self.values(outcome)[0]

    def standard(self, outcome: Outcome) -> float:
        """Return the only value as calibrated reward, in standard deviations. A weighted reward already has this scale.

        A reward without a calibration stays raw.

        Raises:
            TureenError: as :meth:`value`.
        """
        value = self.value(outcome)
        scale = None if self.query.weights is not None else self.query.scales[self.columns[0]]
        return resolve_scale(scale).standardise(value)


def select_rewards(model: str | None, rewards: Mapping[str, Reward], aliases: Mapping[str, str]) -> RewardSelection:
    """Select the rewards that ``model`` names.

    Raises:
        NotFound: a name is not loaded, or the model is missing and several rewards are loaded.
        Unprocessable: its weights cannot be used.
    """
    return build_selection(resolve_model(model, rewards, aliases), rewards)


def build_selection(resolved: str, rewards: Mapping[str, Reward]) -> RewardSelection:
    """Build the selection of a model that :func:`resolve_model` returned.

    Args:
        rewards: loaded rewards; all that the model names are among them.

    Raises:
        Unprocessable: its weights cannot be used.
    """
    normalize, mix = split_normalize(resolved)
    parts = split_mix(mix)
    if "=" not in mix:
        if normalize == "none":
            raise Unprocessable(f"{resolved!r} has no weights: write them as {AS_WRITTEN}a=1+b=-0.5", param=FIELD)
        return RewardSelection(resolved, tuple(parts), read_query(_body(rewards=parts), rewards))
    weights = _weights(parts)
    try:
        query = read_query(_body(preferences=weights, normalize=normalize), rewards, remedy=SUBTRACT)
    except TureenError as error:
        raise relocate_error(error, FIELD) from None
    check_single(weights, normalize, resolved, FIELD)
    return RewardSelection(resolved, (resolved,), query)


def check_aliases(
    aliases: Mapping[str, str], rewards: Mapping[str, Reward], on_demand: Collection[str] = ()
) -> str | None:
    """Check that each alias is a new name for rewards that are loaded, or can be loaded on demand.

    Args:
        on_demand: names of the rewards that can be loaded on demand.

    Returns:
        None, or the message for the first alias that is wrong.
    """
    known = {*rewards, *on_demand}
    for alias, target in aliases.items():
        if alias in known:
            return f"aliases.{alias}: a loaded reward has this name; choose another name for the alias"
        try:
            if _unknown(target, known):
                return f"aliases.{alias}: {_name_missing(target, known)}; loaded: {', '.join(sorted(known)) or 'none'}"
            if not _unknown(target, rewards):
                select_rewards(target, rewards, {})
            elif "=" in target:
                normalize, mix = split_normalize(target)
                normalise_reward_weights(_weights(split_mix(mix)), known, normalize, FIELD, SUBTRACT)
        except TureenError as error:
            return f"aliases.{alias}: {error.message}"
    return None


def list_names(resolved: str) -> list[str]:
    """List the rewards that a model names."""
    return [part.partition("=")[0].strip() for part in _split(resolved)]


def resolve_model(
    model: str | None, rewards: Collection[str], aliases: Mapping[str, str], *, guess: bool = True
) -> str:
    """Replace an alias, a path or a missing model by names of rewards.

    Args:
        rewards: names of the rewards that can be meant.
        guess: whether an unknown name means the only reward.

    Raises:
        NotFound: a name is unknown, or the model is missing and there are several rewards.
    """
    if not model and DEFAULT in aliases:
        return aliases[DEFAULT]
    for name in (model, _without_folders(model)) if model else ():
        if name in aliases:
            return aliases[name]
        if not _unknown(name, rewards):
            return name
    if len(rewards) == 1 and (not model or (guess and len(_unknown(model, rewards)) == len(_split(model)))):
        return next(iter(rewards))
    raise _not_found(model, rewards, aliases)


def _without_folders(model: str) -> str:
    normalize, mix = split_normalize(model)
    names = ",".join(PurePosixPath(part).name for part in split_mix(mix))
    return names if normalize == "simplex" else AS_WRITTEN + names


def _split(model: str) -> list[str]:
    """Split a model into its parts, without the mark before them."""
    return split_mix(split_normalize(model)[1])


def _unknown(model: str, rewards: Collection[str]) -> list[str]:
    """List the parts that do not name a loaded reward."""
    return [part for part in _split(model) if part.partition("=")[0].strip() not in rewards]


def _not_found(model: str | None, rewards: Collection[str], aliases: Mapping[str, str]) -> NotFound:
    if not rewards:
        return NotFound("this server has loaded no reward models", param=FIELD, code="unknown_reward")
    problem = _name_missing(model, rewards) if model else f"{len(rewards)} rewards are loaded and `model` is missing"
    known = ", ".join(sorted({*rewards, *aliases}))
    advice = f"send one of {known} as `model`, in the body or as ?model=, or a mix as a=0.7+b=0.3"
    return NotFound(f"{problem}; {advice}; or set `aliases` on the server", param=FIELD, code="unknown_reward")


def _name_missing(model: str, rewards: Collection[str]) -> str:
    """Say which parts of ``model`` are not loaded."""
    missing = [part.partition("=")[0].strip() for part in _unknown(model, rewards)]
    problem = f"no reward is called {' or '.join(map(repr, dict.fromkeys(missing)))}"
    return problem if [model] == missing else f"{problem} (in {model!r})"


def _weights(parts: list[str]) -> dict[str, float]:
    weights: dict[str, float] = {}
    for part in parts:
        name, _, number = (each.strip() for each in part.partition("="))
        try:
            weight = float(number)
        except ValueError:
            raise Unprocessable(f"{part!r} is not a weight; write it as name=0.7", param=FIELD) from None
        if name in weights:
            raise Unprocessable(f"{name!r} has two weights; send one", param=FIELD)
        weights[name] = weight
    return weights


def _body(**fields: object) -> ScoreRequest:
    return NOTHING.model_copy(update=fields)
