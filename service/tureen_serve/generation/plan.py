"""Turn a request for text into a plan: which policy writes, and how it is steered. Pure.

Only this file knows how policies are steered. The only method is a soup of experts.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tureen.errors import InvalidRequest, NotFound, Unprocessable
from tureen.mixes import check_sum
from tureen.wire import CandidateOptions, ChatRequest, CompletionRequest
from tureen_core.calibration import check_common_scale
from tureen_core.preference import Normalize, digest_soup, normalise_weights, parse_model
from tureen_core.soup import Semantics
from tureen_serve.generation.weigh import SUBTRACT
from tureen_serve.inference.engine import Family, Reward

Request = ChatRequest | CompletionRequest
Weights = Mapping[str, float]

MOST_TEXTS = 256
JUDGES = "candidates.preferences"
SUBTRACT_EXPERTS = 'send `soup: {"normalize": "none"}` to subtract'


@dataclass(frozen=True)
class Variation:
    """One soup: the canonical weights of its experts, and of the rewards that choose among its candidates."""

    weights: Weights
    judges: Weights


@dataclass(frozen=True)
class Plan:
    """The texts that a request asks for, before its prompts are tokenised.

    Attributes:
        model: the policy's name as the request spells it.
        variations: the soups; each prompt is answered under each of them.
        sweep: whether the request has a list of preferences.
        choices: the number of texts in the reply for each prompt and variation.
        candidates: if given, each choice is selected among so many candidates.
    """

    family: Family
    model: str
    variations: Sequence[Variation]
    sweep: bool
    semantics: Semantics
    normalize: Normalize
    choices: int
    candidates: CandidateOptions | None

    @property
    def steering(self) -> dict[str, str]:
        """The method and its settings, for the reply."""
        return {"method": "soup", "semantics": self.semantics, "normalize": self.normalize}

    @property
    def preferences(self) -> dict[str, float] | list[dict[str, float]]:
        """The applied weights: one map, or a list of maps for a sweep."""
        applied = [dict(variation.weights) for variation in self.variations]
        return applied if self.sweep else applied[0]

    @property
    def experts(self) -> dict[str, str]:
        """Expert → version, of the experts in the soups."""
        used = sorted({name for variation in self.variations for name in variation.weights})
        return {name: self.family.experts[name].manifest.version for name in used}

    @property
    def fingerprint(self) -> str:
        """OpenAI's ``system_fingerprint``: equal if the files of the models, the soups and the semantics are equal."""
        soups = (digest_soup(variation.weights, self.semantics) for variation in self.variations)
        return f"fp_{hashlib.sha256(':'.join((self.family.fingerprint, *soups)).encode()).hexdigest()[:16]}"


def plan_generation(request: Request, families: Mapping[str, Family], rewards: Mapping[str, Reward]) -> Plan:
    """Plan the texts that a request asks for.

    Args:
        families: the loaded policy families; the first one is the default.
        rewards: the loaded rewards that score whole answers, by name.

    Raises:
        NotFound: the model or the preset does not exist.
        InvalidRequest: two fields contradict each other.
        Unprocessable: a weight cannot be used, or the request asks for something that is not supported.
    """
    family, suffix, preset = _family(request.model, families)
    _refuse_unsupported(request, family)
    given = request.soup.model_fields_set
    semantics = request.soup.semantics if "semantics" in given else family.semantics
    normalize = request.soup.normalize if "normalize" in given else family.normalize
    if semantics == "factor" and family.factor_obstacle:
        message = f"{family.name} cannot be souped by factors: {family.factor_obstacle}; send `delta`"
        raise Unprocessable(message, param="soup.semantics")
    soups = _soups(request, family, suffix, preset, normalize)
    planned = Plan(
        family=family,
        model=request.model or family.name,
        variations=[Variation(soup, _judges(request.candidates, soup, rewards, normalize)) for soup in soups],
        sweep=isinstance(request.preferences, list),
        semantics=semantics,
        normalize=normalize,
        choices=request.n,
        candidates=request.candidates,
    )
    _check_size(request, planned)
    return planned


def _family(model: str | None, families: Mapping[str, Family]) -> tuple[Family, Weights | None, str | None]:
    """Find the family, and the weights or the preset after the family's name in ``model``."""
    if not families:
        message = "this server has loaded no policies, so it cannot generate text; start it with experts"
        raise NotFound(message, param="model", code="model_not_found")
    if model is None:
        return next(iter(families.values())), None, None
    name, weights = parse_model(model)
    preset = None
    if weights is None and name not in families:
        name, _, suffix = model.partition(":")
        preset = suffix or None
    if name not in families:
        raise NotFound(
            f"no policy is called {name!r}; loaded: {', '.join(families)}", param="model", code="model_not_found"
        )
    return families[name], weights, preset


def _refuse_unsupported(request: Request, family: Family) -> None:
    """Refuse fields that contradict each other, and fields that no policy supports."""
    if request.desired_rewards is not None:
        message = f"{family.name} is steered by a soup, not by rewards in its prompt; send `preferences`"
        raise Unprocessable(message, param="desired_rewards")
    if request.stream and request.candidates:
        message = "candidates are chosen when they are complete, so they cannot be streamed; drop one of the two fields"
        raise InvalidRequest(message, param="stream")
    if request.stream_options is not None and not request.stream:
        raise InvalidRequest("`stream_options` needs `stream: true`", param="stream_options")
    if request.stream_options is not None and request.stream_options.include_obfuscation:
        message = "obfuscation of streams is not supported; leave it out"
        raise Unprocessable(message, param="stream_options.include_obfuscation", code="unsupported_parameter")


def _soups(
    request: Request, family: Family, suffix: Weights | None, preset: str | None, normalize: Normalize
) -> list[Weights]:
    """Find the canonical weights of each soup.

    They come from ``preferences``, from the name of the model or from a preset. Only if none of these is given, the
    family's default is used. If several are given, they must be equal.
    """
    given: dict[str, list[Weights]] = {}
    if isinstance(request.preferences, list):
        given["preferences"] = [
            normalise_weights(weights, family.experts, normalize, f"preferences[{index}]", SUBTRACT_EXPERTS)
            for index, weights in enumerate(request.preferences)
        ]
    elif request.preferences is not None:
        given["preferences"] = [
            normalise_weights(request.preferences, family.experts, normalize, remedy=SUBTRACT_EXPERTS)
        ]
    if suffix is not None:
        given["model"] = [normalise_weights(suffix, family.experts, normalize, "model", SUBTRACT_EXPERTS)]
        if normalize == "simplex":
            check_sum(suffix, request.model or family.name)
    for param, name in (("model", preset), ("preset", request.preset)):
        if name is not None:
            given[param] = [_normalise_stored(_preset(name, family, param), family, normalize)]
    if not given:
        return [_normalise_stored(family.default, family, normalize)]
    (first, soups), *others = given.items()
    for other, (soup,) in others:
        if any(soup != each for each in soups):
            message = f"`{first}` and `{other}` give different weights; send only one of them"
            raise InvalidRequest(message, param=other, code="conflicting_preferences")
    return soups


def _preset(name: str, family: Family, param: str) -> Weights:
    if name not in family.presets:
        known = ", ".join(sorted(family.presets)) or "none"
        raise NotFound(f"{family.name} has no preset {name!r}; known: {known}", param=param, code="preset_not_found")
    return family.presets[name]


def _normalise_stored(weights: Weights, family: Family, normalize: Normalize) -> Weights:
    """Normalise weights from the settings. Empty weights mean the base without experts."""
    return normalise_weights(weights, family.experts, normalize) if weights else {}


def _judges(
    options: CandidateOptions | None, soup: Weights, rewards: Mapping[str, Reward], normalize: Normalize
) -> Weights:
    """Find the weights of the rewards that choose among candidates; empty if there are no candidates."""
    if options is None:
        return {}
    judges = _judge_weights(options, soup, rewards, normalize)
    check_common_scale(judges, {name: rewards[name].calibration for name in judges}, JUDGES)
    return judges


def _judge_weights(
    options: CandidateOptions, soup: Weights, rewards: Mapping[str, Reward], normalize: Normalize
) -> Weights:
    if options.preferences is not None:
        return normalise_weights(options.preferences, rewards, field=JUDGES, remedy=SUBTRACT)
    shared = {name: weight for name, weight in soup.items() if name in rewards}
    if not shared:
        known = ", ".join(sorted(rewards)) or "none"
        message = f"no loaded reward has the name of an expert in this soup; send weights of rewards, loaded: {known}"
        raise Unprocessable(message, param=JUDGES)
    return normalise_weights(shared, rewards, normalize, JUDGES)


def _check_size(request: Request, planned: Plan) -> None:
    prompts = len(request.prompt) if isinstance(request, CompletionRequest) and isinstance(request.prompt, list) else 1
    each = planned.candidates.n if planned.candidates else 1
    texts = prompts * len(planned.variations) * planned.choices * each
    if texts > MOST_TEXTS:
        message = f"the request asks for {texts} texts (prompts x preferences x n x candidates.n)"
        raise Unprocessable(f"{message} and the limit is {MOST_TEXTS}; lower one of them", param="n")
