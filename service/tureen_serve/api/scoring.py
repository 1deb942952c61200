"""What scores and labels share: which rewards a request asks for, and what they say of its items."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tureen.errors import Conflict, ServerFault, TureenError, Unprocessable
from tureen.wire import CandidateScore, ItemScore, PreferencesRequest, Score, ScoreRequest, StepSummary, Usage
from tureen_core.calibration import Calibration
from tureen_core.manifest import Input
from tureen_core.preference import normalise
from tureen_core.steps import AGGREGATES, aggregate
from tureen_serve.faults import describe_error
from tureen_serve.generation.weigh import SUBTRACT, blend
from tureen_serve.inference.engine import SOUP, Asked, Engine, Group, Outcome, Priority, Reward, Steps
from tureen_serve.telemetry import Metrics

Body = ScoreRequest | PreferencesRequest
CUT_IT = "or send `truncate: true` to have it cut"


@dataclass(frozen=True)
class Ask:
    """What is read of every answer.

    Attributes:
        objectives: rewards to compute; none when a soup of them is read.
        preferences: canonical weights over objectives, None if nothing is weighed.
        soup: read one reward from the souped models.
        scales: the scale of each score that comes back, the soup's too.
        fingerprints: of every reward that takes part.
        reads: what all of them read.
    """

    objectives: tuple[str, ...]
    preferences: Mapping[str, float] | None
    soup: bool
    scales: Mapping[str, Calibration]
    fingerprints: Mapping[str, str]
    reads: Input = "conversation"

    @property
    def weights(self) -> Mapping[str, float] | None:
        """Weights over the scores that come back."""
        return {SOUP: 1.0} if self.soup else self.preferences


WANTED: Mapping[Input, str] = {
    "conversation": "reads whole answers; send `candidates` or `messages`",
    "steps": "reads an answer step by step; send `prompt` with `steps`",
    "pair": "compares two answers; ask /v1/preferences, and for no other reward beside it",
}
CODES: Mapping[Input, str] = {"conversation": "answer_reward", "steps": "step_reward", "pair": "pair_reward"}
NONE_READS: Mapping[Input, str] = {
    "conversation": "no loaded reward reads whole answers",
    "steps": "no loaded reward reads steps; send `candidates`",
    "pair": "no loaded reward compares answers",
}


def ask(body: Body, loaded: Mapping[str, Reward], reads: Input = "conversation", weigh_all: bool = False) -> Ask:
    """Read a body's rewards, preferences and soup. With ``weigh_all``, rewards weigh the same if nothing is said.

    Args:
        loaded: all rewards.
        reads: what the body's items are; only rewards that read those are asked.

    Raises:
        Unprocessable: a reward or objective is not loaded or reads something else, or the three contradict each other.
        Conflict: a fingerprint is demanded and another is loaded.
    """
    if not loaded:
        raise Unprocessable("this server has loaded no reward models", param="rewards", code="unknown_reward")
    named_all = [(f"rewards[{index}]", name) for index, name in enumerate(body.rewards or ())]
    for param, name in [*named_all, *((f"preferences.{each}", each) for each in body.preferences or ())]:
        _check_reads(name, loaded, reads, param)
    rewards = {name: reward for name, reward in loaded.items() if reward.input == reads}
    if not rewards:
        param = "items[0].steps" if reads == "steps" else "rewards"
        raise Unprocessable(NONE_READS[reads], param=param, code=f"no_{CODES[reads]}")
    for param, name in named_all:
        _check_loaded(name, rewards, param)
    named = tuple(dict.fromkeys(body.rewards or ()))
    weights = normalise(body.preferences, rewards, remedy=SUBTRACT) if body.preferences is not None else None
    if weights is None and weigh_all:
        asked = named or tuple(rewards)
        weights = normalise(dict.fromkeys(asked, 1.0), rewards)
    if body.soup and weights is None:
        raise Unprocessable("a soup needs preferences: {objective: weight}", param="preferences")
    if body.soup and named and body.preferences is not None:
        raise Unprocessable("with `soup` one reward is read; leave `rewards` out", param="rewards")
    members = tuple(dict.fromkeys((*named, *(weights or ())))) or tuple(rewards)
    _check_fingerprint(body.fingerprint, members, loaded)
    scales = {name: rewards[name].calibration for name in members}
    if body.soup:
        scales = {SOUP: blend(weights or {}, scales)}
    fingerprints = {name: rewards[name].fingerprint for name in members}
    return Ask(() if body.soup else members, weights, body.soup, scales, fingerprints, reads)


def _check_reads(name: str, loaded: Mapping[str, Reward], reads: Input, param: str) -> None:
    """Refuse a loaded reward that reads something else than what is sent."""
    if name in loaded and loaded[name].input != reads:
        theirs = loaded[name].input
        told = "scores answers, and the others compare them; ask in two requests" if reads == "pair" else WANTED[theirs]
        raise Unprocessable(f"{name} {told}", param=param, code="wrong_input")


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
            raise Conflict(message, param=param)


@dataclass(frozen=True)
class Scored:
    """One item's outcomes, or the error that stands for all of it; errors name their field from the body on."""

    group: Group | Steps | None
    outcomes: Sequence[Outcome] = ()
    error: TureenError | None = None


async def run(
    engine: Engine,
    groups: Sequence[Asked],
    wanted: Ask,
    metrics: Metrics,
    *,
    truncate: bool = False,
    priority: Priority = "default",
    remedy: str = CUT_IT,
) -> list[list[Outcome]]:
    """Every group's outcomes, metered. A reward that JSON cannot carry is an error; fields are the group's own.

    Args:
        remedy: what the route offers for a text that is too long, which ends that error's sentence.

    Raises:
        TureenError: it concerns the whole call.
    """
    if not groups:
        return []
    soup = wanted.preferences if wanted.soup else None
    found = await engine.score(groups, wanted.objectives, soup=soup, truncate=truncate, priority=priority)
    checked = [
        [_checked(outcome, group.param(place), remedy) for place, outcome in enumerate(outcomes)]
        for group, outcomes in zip(groups, found, strict=True)
    ]
    for outcomes in checked:
        _meter(metrics, outcomes, wanted)
    return checked


def _checked(outcome: Outcome, param: str, remedy: str) -> Outcome:
    for name, value in outcome.raw.items():
        if not math.isfinite(value):
            message = f"the reward {name} of this text is not finite"
            return replace(outcome, raw={}, error=ServerFault(message, param=param, code="non_finite_score"))
    error = outcome.error
    if error is not None and error.code == "context_length_exceeded":
        error = type(error)(f"{error.message}, {remedy}", param=error.param, code=error.code)
    return outcome if error is None else replace(outcome, raw={}, error=error)


def _meter(metrics: Metrics, outcomes: Sequence[Outcome], wanted: Ask) -> None:
    for outcome in outcomes:
        metrics.truncated.inc(outcome.truncated)
        for name, scale in wanted.scales.items():
            metrics.texts.labels(name, "failed" if outcome.error else "scored").inc()
            metrics.tokens.labels(name, "in").inc(outcome.tokens - outcome.cached)
            if outcome.error is None:
                metrics.score.labels(name).observe(scale.standardise(outcome.raw[name]))
            elif outcome.error.code == "non_finite_score":
                metrics.nonfinite.labels(name).inc()


def items(scored: Sequence[Scored], wanted: Ask) -> list[ItemScore]:
    """Every item's scores as they cross the wire."""
    return [
        ItemScore(
            index=index,
            candidates=candidates(each, wanted),
            summary=_summary(each, wanted),
            error=describe_error(each.error) if each.error else None,
        )
        for index, each in enumerate(scored)
    ]


def _summary(scored: Scored, wanted: Ask) -> dict[str, StepSummary] | None:
    """What an answer's steps say of the whole; None where one of them failed, or there are none."""
    if not isinstance(scored.group, Steps) or any(outcome.error for outcome in scored.outcomes):
        return None
    found = {}
    for name, scale in wanted.scales.items():
        right = [scale.probability(outcome.raw[name]) for outcome in scored.outcomes]
        found[name] = StepSummary(**{how: aggregate(right, how) for how in AGGREGATES})
    return found


def candidates(scored: Scored, wanted: Ask) -> list[CandidateScore]:
    """One item's candidates as they cross the wire."""
    stepped = isinstance(scored.group, Steps)
    return [_candidate(index, outcome, wanted, stepped) for index, outcome in enumerate(scored.outcomes)]


def _candidate(index: int, outcome: Outcome, wanted: Ask, stepped: bool) -> CandidateScore:
    failed = outcome.error is not None
    found = {} if failed else scores(outcome.raw, wanted.scales, stepped)
    weights = wanted.weights
    return CandidateScore(
        index=index,
        scores=None if failed else found,
        reward=None
        if failed or weights is None
        else math.fsum(w * found[name].calibrated for name, w in weights.items()),
        tokens=outcome.tokens,
        cached_tokens=outcome.cached,
        truncated=outcome.truncated,
        error=describe_error(outcome.error) if outcome.error else None,
    )


def scores(raw: Mapping[str, float], scales: Mapping[str, Calibration], stepped: bool = False) -> dict[str, Score]:
    """Raw and calibrated rewards, in the order of ``scales``; a step's are log-odds and a probability."""
    return {
        name: Score(raw=raw[name], calibrated=scale.probability(raw[name]) if stepped else scale.standardise(raw[name]))
        for name, scale in scales.items()
    }


def usage(scored: Sequence[Scored]) -> Usage:
    """Tokens read, whoever computed them."""
    read = sum(outcome.tokens for each in scored for outcome in each.outcomes)
    return Usage(prompt_tokens=read, total_tokens=read)
