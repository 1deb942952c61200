"""Read from a request's body which rewards it asks for, and how they are weighed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tureen.errors import Conflict, Unprocessable
from tureen.wire import PreferencesRequest, ScoreRequest
from tureen_core.calibration import check_common_scale
from tureen_core.manifest import Input
from tureen_core.preference import normalise_reward_weights
from tureen_serve.generation.weigh import Scales, blend_scales
from tureen_serve.inference.engine import SOUP, Reward

RewardBody = ScoreRequest | PreferencesRequest

READS: Mapping[Input, str] = {
    "conversation": "scores whole answers; send `candidates` or `messages`",
    "steps": "scores an answer step by step; send `prompt` with `steps`",
    "pair": "compares two answers; send it to /v1/preferences, without rewards of another kind",
}
CODES: Mapping[Input, str] = {"conversation": "answer_reward", "steps": "step_reward", "pair": "pair_reward"}
NONE_READS: Mapping[Input, str] = {
    "conversation": "none of the loaded rewards scores whole answers; see GET /v1/models",
    "steps": "none of the loaded rewards scores steps; send `candidates`",
    "pair": "none of the loaded rewards compares two answers; see GET /v1/models",
}
SUBTRACT = 'send `normalize: "none"` to subtract a reward'
SOUPED = "a souped reward takes weights of 0 or more; send `soup: false` to subtract a reward"


@dataclass(frozen=True)
class RewardQuery:
    """The rewards that a request asks for.

    Attributes:
        objectives: the rewards to compute; empty for a soup.
        preferences: canonical weight of each objective; None if the request has no weights.
        soup: whether the engine computes one reward from the souped models.
        scales: calibration of each score in the reply, or None; for a soup, that of the soup.
        fingerprints: fingerprint of each reward that takes part.
        reads: the kind of input that all these rewards read.
    """

    objectives: tuple[str, ...]
    preferences: Mapping[str, float] | None
    soup: bool
    scales: Scales
    fingerprints: Mapping[str, str]
    reads: Input = "conversation"

    @property
    def weights(self) -> Mapping[str, float] | None:
        """The weight of each score in the reply; None if the request has no weights."""
        return {SOUP: 1.0} if self.soup else self.preferences

    @property
    def calibrated(self) -> bool:
        """Whether all rewards that are weighed have a calibration."""
        return all(self.scales[name] is not None for name in self.weights or self.scales)


def read_query(
    body: RewardBody,
    loaded: Mapping[str, Reward],
    reads: Input = "conversation",
    weigh_all: bool = False,
    remedy: str = SUBTRACT,
) -> RewardQuery:
    """Read ``rewards``, ``preferences``, ``normalize``, ``soup`` and ``fingerprint`` of a body.

    Args:
        loaded: every loaded reward by its name.
        reads: the kind of the body's items. Only rewards that read this kind are used.
        weigh_all: give the rewards equal weights if the body has no ``preferences``.
        remedy: the advice in the error for a negative weight.

    Raises:
        Unprocessable: a reward is not loaded or reads another kind of input, the fields contradict each other, or a
            reward without a calibration would be added to others.
        Conflict: a loaded reward has another fingerprint than the body demands.
    """
    rewards = _select_readers(body, loaded, reads)
    named = tuple(dict.fromkeys(body.rewards or ()))
    weights = _weigh(body, rewards, SOUPED if body.soup else remedy)
    if weights is None and weigh_all:
        weights = normalise_reward_weights(dict.fromkeys(named or tuple(rewards), 1.0), rewards)
    if body.soup and weights is None:
        raise Unprocessable("a soup needs weights; send `preferences: {objective: weight}`", param="preferences")
    if body.soup and named and body.preferences is not None:
        raise Unprocessable("`soup` returns one souped reward; leave `rewards` out", param="rewards")
    members = tuple(dict.fromkeys((*named, *(weights or ())))) or tuple(rewards)
    _check_fingerprint(body.fingerprint, members, loaded)
    scales = {name: rewards[name].calibration for name in members}
    if weights is not None and not body.soup:
        check_common_scale(weights, scales, "rewards" if body.preferences is None else "preferences")
    if body.soup:
        scales = {SOUP: blend_scales(weights or {}, scales)}
    fingerprints = {name: rewards[name].fingerprint for name in members}
    return RewardQuery(() if body.soup else members, weights, body.soup, scales, fingerprints, reads)


def _weigh(body: RewardBody, rewards: Mapping[str, Reward], remedy: str) -> dict[str, float] | None:
    """Read the weights of a body; None if it has none.

    Raises:
        Unprocessable: they cannot be used, or ``normalize: none`` stands where no weights are used as given.
    """
    if body.normalize == "none" and body.soup:
        message = "the weights of a souped reward add up to 1, since its calibration is a mean; leave `normalize` out"
        raise Unprocessable(message, param="normalize")
    if body.preferences is not None:
        return normalise_reward_weights(body.preferences, rewards, body.normalize, remedy=remedy)
    if body.normalize == "none":
        raise Unprocessable("`normalize` says how `preferences` are read; send them too", param="normalize")
    return None


def _select_readers(body: RewardBody, loaded: Mapping[str, Reward], reads: Input) -> dict[str, Reward]:
    """Select the loaded rewards that read this kind of input.

    Raises:
        Unprocessable: a reward that the body names is not among them, or there is none.
    """
    if not loaded:
        raise Unprocessable("this server has loaded no reward models", param="rewards", code="unknown_reward")
    named = [(f"rewards[{index}]", name) for index, name in enumerate(body.rewards or ())]
    for param, name in [*named, *((f"preferences.{each}", each) for each in body.preferences or ())]:
        _check_reads(name, loaded, reads, param)
    rewards = {name: reward for name, reward in loaded.items() if reward.input == reads}
    if not rewards:
        param = "items[0].steps" if reads == "steps" else "rewards"
        raise Unprocessable(NONE_READS[reads], param=param, code=f"no_{CODES[reads]}")
    for param, name in named:
        _check_loaded(name, rewards, param)
    return rewards


def _check_reads(name: str, loaded: Mapping[str, Reward], reads: Input, param: str) -> None:
    """Refuse a loaded reward that reads another kind of input than the request sends."""
    if name not in loaded or loaded[name].input == reads:
        return
    if reads == "pair":
        message = f"{name} scores answers, and other rewards here compare them; send one request for each kind"
    else:
        message = f"{name} {READS[loaded[name].input]}"
    raise Unprocessable(message, param=param, code="wrong_input")


def _check_loaded(name: str, rewards: Mapping[str, Reward], param: str) -> None:
    if name not in rewards:
        known = ", ".join(sorted(rewards))
        raise Unprocessable(f"unknown reward {name!r}; loaded: {known}", param=param, code="unknown_reward")


def _check_fingerprint(
    demanded: str | dict[str, str] | None, members: Sequence[str], rewards: Mapping[str, Reward]
) -> None:
    single = isinstance(demanded, str)
    wanted = dict.fromkeys(members, demanded) if isinstance(demanded, str) else demanded or {}
    for name, fingerprint in wanted.items():
        param = "fingerprint" if single else f"fingerprint.{name}"
        _check_loaded(name, rewards, param)
        if rewards[name].fingerprint != fingerprint:
            message = f"{name} is loaded with the fingerprint {rewards[name].fingerprint}, not {fingerprint}"
            raise Conflict(f"{message}; send the loaded one, or load the other version", param=param)
