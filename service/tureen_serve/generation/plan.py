"""From a request for text to a plan: which policy, steered how. Pure.

Only this file knows how policies are steered. Today that is by soups of experts.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from tureen.errors import InvalidRequest, NotFound, Unprocessable
from tureen.wire import CandidateOptions, ChatRequest, CompletionRequest
from tureen_core.preference import Normalize, digest_soup, normalise_weights, parse_model
from tureen_core.soup import Semantics
from tureen_serve.generation.weigh import SUBTRACT
from tureen_serve.inference.engine import Family

Request = ChatRequest | CompletionRequest
Weights = Mapping[str, float]

MOST_TEXTS = 256
SUBTRACT_EXPERTS = 'send `soup: {"normalize": "none"}` to subtract'


@dataclass(frozen=True)
class Variation:
    """One soup: canonical weights of experts, and those of the rewards that choose among its candidates."""

    weights: Weights
    judges: Weights


@dataclass(frozen=True)
class Plan:
    """What is to be written, before any prompt is tokenised.

    Attributes:
        model: what the request called it.
        sweep: whether the variations came as a list.
        choices: texts for each prompt and variation, each the pick of ``candidates`` if that is given.
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
        """The method and its settings, as the reply tells them."""
        return {"method": "soup", "semantics": self.semantics, "normalize": self.normalize}

    @property
    def preferences(self) -> dict[str, float] | list[dict[str, float]]:
        """The weights as applied: one map, or a list of them for a sweep."""
        applied = [dict(variation.weights) for variation in self.variations]
        return applied if self.sweep else applied[0]

    @property
    def experts(self) -> dict[str, str]:
        """Versions of the experts that take part."""
        used = sorted({name for variation in self.variations for name in variation.weights})
        return {name: self.family.experts[name].manifest.version for name in used}

    @property
    def fingerprint(self) -> str:
        """OpenAI's ``system_fingerprint``: equal for the same weights on disk, soups and semantics."""
        soups = (digest_soup(variation.weights, self.semantics) for variation in self.variations)
        return f"fp_{hashlib.sha256(':'.join((self.family.fingerprint, *soups)).encode()).hexdigest()[:16]}"


def plan_generation(request: Request, families: Mapping[str, Family], rewards: Collection[str]) -> Plan:
    """Decide what a request asks for.

    Raises:
        NotFound: no such model or preset.
        InvalidRequest: two of its fields disagree.
        Unprocessable: a weight, or a way of steering or choosing, that cannot be had.
    """
    family, suffix, preset = _family(request.model, families)
    _refuse(request, family)
    told = request.soup.model_fields_set
    semantics = request.soup.semantics if "semantics" in told else family.semantics
    normalize = request.soup.normalize if "normalize" in told else family.normalize
    if semantics == "factor" and family.factor_obstacle:
        raise Unprocessable(
            f"{family.name} cannot be souped by factors: {family.factor_obstacle}", param="soup.semantics"
        )
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
    _bound(request, planned)
    return planned


def _family(model: str | None, families: Mapping[str, Family]) -> tuple[Family, Weights | None, str | None]:
    """The family, the weights in the model's name, and the preset in it."""
    if not families:
        raise NotFound("this server has loaded no policies; it only scores", param="model", code="model_not_found")
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


def _refuse(request: Request, family: Family) -> None:
    """What contradicts itself, and what no loaded policy does."""
    if request.desired_rewards is not None:
        message = f"{family.name} is steered by a soup and not by rewards in its prompt; send `preferences`"
        raise Unprocessable(message, param="desired_rewards")
    if request.stream and request.candidates:
        message = "a choice among candidates is known at the end only; drop `stream` or `candidates`"
        raise InvalidRequest(message, param="stream")
    if request.stream_options is not None and not request.stream:
        raise InvalidRequest("`stream_options` needs `stream: true`", param="stream_options")
    if request.stream_options is not None and request.stream_options.include_obfuscation:
        message = "streams are not padded; leave it out"
        raise Unprocessable(message, param="stream_options.include_obfuscation", code="unsupported_parameter")


def _soups(
    request: Request, family: Family, suffix: Weights | None, preset: str | None, normalize: Normalize
) -> list[Weights]:
    """Canonical weights: the field's, else the model suffix's, else the preset's, else the family's default."""
    told: dict[str, list[Weights]] = {}
    if isinstance(request.preferences, list):
        told["preferences"] = [
            normalise_weights(weights, family.experts, normalize, f"preferences[{index}]", SUBTRACT_EXPERTS)
            for index, weights in enumerate(request.preferences)
        ]
    elif request.preferences is not None:
        told["preferences"] = [
            normalise_weights(request.preferences, family.experts, normalize, remedy=SUBTRACT_EXPERTS)
        ]
    if suffix is not None:
        told["model"] = [normalise_weights(suffix, family.experts, normalize, "model", SUBTRACT_EXPERTS)]
    for param, name in (("model", preset), ("preset", request.preset)):
        if name is not None:
            told[param] = [_stored(_preset(name, family, param), family, normalize)]
    if not told:
        return [_stored(family.default, family, normalize)]
    (first, soups), *others = told.items()
    for other, (soup,) in others:
        if any(soup != each for each in soups):
            raise InvalidRequest(
                f"`{first}` and `{other}` disagree; send one of them", param=other, code="conflicting_preferences"
            )
    return soups


def _preset(name: str, family: Family, param: str) -> Weights:
    if name not in family.presets:
        known = ", ".join(sorted(family.presets)) or "none"
        raise NotFound(f"{family.name} has no preset {name!r}; it has {known}", param=param, code="preset_not_found")
    return family.presets[name]


def _stored(weights: Weights, family: Family, normalize: Normalize) -> Weights:
    """Weights from the settings; none at all is the bare base."""
    return normalise_weights(weights, family.experts, normalize) if weights else {}


def _judges(options: CandidateOptions | None, soup: Weights, rewards: Collection[str], normalize: Normalize) -> Weights:
    if options is None:
        return {}
    if options.preferences is not None:
        return normalise_weights(options.preferences, rewards, field="candidates.preferences", remedy=SUBTRACT)
    shared = {name: weight for name, weight in soup.items() if name in rewards}
    if not shared:
        known = ", ".join(sorted(rewards)) or "none"
        message = f"no loaded reward judges by the preferences of this request; name some of: {known}"
        raise Unprocessable(message, param="candidates.preferences")
    return normalise_weights(shared, rewards, normalize, "candidates.preferences")


def _bound(request: Request, planned: Plan) -> None:
    prompts = len(request.prompt) if isinstance(request, CompletionRequest) and isinstance(request.prompt, list) else 1
    each = planned.candidates.n if planned.candidates else 1
    texts = prompts * len(planned.variations) * planned.choices * each
    if texts > MOST_TEXTS:
        message = f"this asks for {texts} texts (prompts x sweep x n x candidates) and the limit is {MOST_TEXTS}"
        raise Unprocessable(message, param="n")
