"""Turn a request for text into a plan: which policy writes, and how it is steered. Pure.

Only this file knows how policies are steered; each method has a file of its own, which nothing else calls.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tureen.errors import InvalidRequest, NotFound, Unprocessable
from tureen.mixes import check_sum
from tureen.wire import CandidateOptions, CompletionRequest
from tureen_core.preference import normalise_weights, parse_model
from tureen_core.steering import TagSteering
from tureen_core.turns import Messages
from tureen_serve.generation.judges import find_judges
from tureen_serve.generation.method import Method, Request, Variation, Weights
from tureen_serve.generation.soups import make_soup_method
from tureen_serve.generation.tags import make_tag_method
from tureen_serve.generation.words import make_prompt_method
from tureen_serve.inference.engine import Family, Reward

MOST_TEXTS = 256


@dataclass(frozen=True)
class Plan:
    """The texts that a request asks for, before its prompts are tokenised.

    Attributes:
        model: the policy's name as the request spells it.
        method: how the family is steered.
        variations: the soups or what the prompts say; each prompt is answered under each of them.
        sweep: whether the request has a list of preferences or of desired rewards.
        choices: the number of texts in the reply for each prompt and variation.
        candidates: if given, each choice is selected among so many candidates.
        best_of: if given, the choices are the likeliest of so many texts.
    """

    family: Family
    model: str
    method: Method
    variations: Sequence[Variation]
    sweep: bool
    choices: int
    candidates: CandidateOptions | None
    best_of: int | None = None

    @property
    def writes(self) -> int:
        """The number of texts that are written for each prompt and variation."""
        return self.best_of or self.choices * (self.candidates.n if self.candidates else 1)

    @property
    def steering(self) -> dict[str, Any]:
        """The method, its settings and what the prompts say, for the reply; for a sweep lists of what they say."""
        told = [variation.told for variation in self.variations]
        said = {name: [each[name] for each in told] if self.sweep else told[0][name] for name in told[0]}
        return {**self.method.settings, **said}

    @property
    def preferences(self) -> dict[str, float] | list[dict[str, float]]:
        """The applied weights: one map, or a list of maps for a sweep."""
        applied = [dict(variation.weights) for variation in self.variations]
        return applied if self.sweep else applied[0]

    @property
    def experts(self) -> dict[str, str]:
        """Name → version, of the experts in the soups, or of the policy that is steered in its prompt."""
        if self.family.policy is not None:
            return {self.family.policy.name: self.family.policy.manifest.version}
        used = sorted({name for variation in self.variations for name in variation.experts})
        return {name: self.family.experts[name].manifest.version for name in used}

    @property
    def fingerprint(self) -> str:
        """OpenAI's ``system_fingerprint``: equal if the models' files are equal, and what steers them."""
        digests = (self.method.compute_digest(variation) for variation in self.variations)
        return f"fp_{hashlib.sha256(':'.join((self.family.fingerprint, *digests)).encode()).hexdigest()[:16]}"

    def steer_messages(self, messages: Messages) -> list[Messages]:
        """Write what is wanted into a conversation: one for each variation, or one for all if they are equal.

        Raises:
            Unprocessable: there is no message to write it into.
        """
        return [self.method.change_messages(messages, each) for each in self._different]

    def steer_text(self, text: str) -> list[str]:
        """Write what is wanted into a bare prompt, as :meth:`steer_messages` does."""
        renderer = self.family.renderer
        border = "" if renderer is None else renderer.frame.turn_border
        return [self.method.change_text(text, each, border) for each in self._different]

    @property
    def _different(self) -> Sequence[Variation]:
        return self.variations if self.method.in_prompt else self.variations[:1]


def plan_generation(request: Request, families: Mapping[str, Family], rewards: Mapping[str, Reward]) -> Plan:
    """Plan the texts that a request asks for.

    Args:
        families: the loaded policy families; the first one is the default.
        rewards: the loaded rewards that score whole answers, by name.

    Raises:
        NotFound: the model or the preset does not exist.
        InvalidRequest: two fields contradict each other.
        Unprocessable: a weight or a reward cannot be used, or the request asks for something that is not supported.
    """
    family, suffix, preset = _family(request.model, families)
    _refuse_unsupported(request)
    method = _make_method(request, family)
    if request.desired_rewards is not None:
        variations = _ask_rewards(request, method, suffix is not None or preset is not None)
    else:
        weighed = _weigh(request, family, suffix, preset, method)
        variations = [method.steer(weights, param) for weights, param in weighed]
    planned = Plan(
        family=family,
        model=request.model or family.name,
        method=method,
        variations=[
            replace(each, judges=find_judges(request.candidates, each, rewards, method)) for each in variations
        ],
        sweep=isinstance(request.preferences, list) or isinstance(request.desired_rewards, list),
        choices=request.n,
        candidates=request.candidates,
        best_of=request.best_of if isinstance(request, CompletionRequest) else None,
    )
    _check_size(request, planned)
    return planned


def _make_method(request: Request, family: Family) -> Method:
    if family.steering is None:
        return make_soup_method(request, family)
    if isinstance(family.steering, TagSteering):
        return make_tag_method(request, family, family.steering)
    return make_prompt_method(request, family, family.steering)


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


def _refuse_unsupported(request: Request) -> None:
    """Refuse fields that contradict each other, and fields that no policy supports."""
    best_of = request.best_of if isinstance(request, CompletionRequest) else None
    if best_of is not None and (best_of < request.n or request.stream or request.candidates):
        message = (
            "`best_of` must be `n` at least, without `stream` and `candidates`; leave it out, or change the others"
        )
        raise InvalidRequest(message, param="best_of")
    if request.stream and request.candidates:
        message = "candidates are chosen when they are complete, so they cannot be streamed; drop one of the two fields"
        raise InvalidRequest(message, param="stream")
    if request.stream and request.prompt_logprobs is not None:
        message = "`prompt_logprobs` cannot be streamed; drop one of the two fields"
        raise InvalidRequest(message, param="prompt_logprobs")
    if request.stream_options is not None and not request.stream:
        raise InvalidRequest("`stream_options` needs `stream: true`", param="stream_options")


def _ask_rewards(request: Request, method: Method, named: bool) -> list[Variation]:
    """Make the variations of ``desired_rewards``. ``named`` says that the model's name has weights or a preset."""
    given = request.desired_rewards
    several = isinstance(given, list)
    asked = given if isinstance(given, list) else [given or {}]
    params = [f"desired_rewards[{index}]" if several else "desired_rewards" for index in range(len(asked))]
    variations = method.ask_rewards(asked, params)
    others = {"preferences": request.preferences, "preset": request.preset, "mapping": request.mapping}
    for other, value in {**others, "model": named or None}.items():
        if value is not None:
            message = f"`desired_rewards` says what `{other}` would choose; send only one of them"
            raise InvalidRequest(message, param=other, code="conflicting_preferences")
    return variations


def _weigh(
    request: Request, family: Family, suffix: Weights | None, preset: str | None, method: Method
) -> list[tuple[Weights, str]]:
    """Find the canonical weights of each variation, each with the field that they come from.

    They come from ``preferences``, from the name of the model or from a preset. Only if none of these is given, the
    family's default is used. If several are given, they must be equal.
    """

    def read(weights: Weights, param: str) -> Weights:
        return normalise_weights(weights, family.objectives, method.normalize, param, method.remedy)

    given: dict[str, list[Weights]] = {}
    if isinstance(request.preferences, list):
        given["preferences"] = [read(each, f"preferences[{at}]") for at, each in enumerate(request.preferences)]
    elif request.preferences is not None:
        given["preferences"] = [read(request.preferences, "preferences")]
    if suffix is not None:
        given["model"] = [read(suffix, "model")]
        if method.normalize == "simplex":
            check_sum(suffix, request.model or family.name)
    for param, name in (("model", preset), ("preset", request.preset)):
        if name is not None:
            given[param] = [_normalise_stored(_preset(name, family, param), family, method)]
    if not given:
        return [(_normalise_stored(family.default, family, method), "preferences")]
    (first, found), *others = given.items()
    for other, (weights,) in others:
        if any(weights != each for each in found):
            message = f"`{first}` and `{other}` give different weights; send only one of them"
            raise InvalidRequest(message, param=other, code="conflicting_preferences")
    several = isinstance(request.preferences, list)
    return [(each, f"preferences[{at}]" if several else first) for at, each in enumerate(found)]


def _preset(name: str, family: Family, param: str) -> Weights:
    if name not in family.presets:
        known = ", ".join(sorted(family.presets)) or "none"
        raise NotFound(f"{family.name} has no preset {name!r}; known: {known}", param=param, code="preset_not_found")
    return family.presets[name]


def _normalise_stored(weights: Weights, family: Family, method: Method) -> Weights:
    """Normalise weights from the settings. Empty weights mean the base, or a prompt that is not steered."""
    return normalise_weights(weights, family.objectives, method.normalize) if weights else {}


def _check_size(request: Request, planned: Plan) -> None:
    prompts = len(request.prompts()) if isinstance(request, CompletionRequest) else 1
    texts = prompts * len(planned.variations) * planned.writes
    if texts > MOST_TEXTS:
        message = f"the request asks for {texts} texts (prompts x preferences x n x candidates.n)"
        raise Unprocessable(f"{message} and the limit is {MOST_TEXTS}; lower one of them", param="n")
