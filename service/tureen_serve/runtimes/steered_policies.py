"""Open policies that are steered in their prompt, by reward tags or by words, before any model is loaded.

A policy with a LoRA is its base and one adapter of weight 1. One with whole weights is a base itself. A base that is
only told what is wanted has no artifact: the settings have its sentences.
"""

from dataclasses import dataclass
from pathlib import Path

from tureen.errors import Unprocessable
from tureen_core.artifact import Artifact, open_artifact, read_weights
from tureen_core.lora import Adapter
from tureen_core.prompt_steering import choose_sentences
from tureen_core.reading import Reading
from tureen_core.reward_tags import write_tags
from tureen_core.soup import concatenate_adapters
from tureen_core.steering import InPromptSteering, PromptSteering, SoupSteering, TagSteering
from tureen_core.template import Renderer
from tureen_serve.runtimes.bases import Bases
from tureen_serve.runtimes.catalogue import Family
from tureen_serve.runtimes.opened_families import (
    OpenedFamily,
    check_stored_weights,
    compute_family_fingerprint,
    keep_prompt_reading,
)
from tureen_serve.runtimes.sources import LoadError
from tureen_serve.settings import FamilyEntry

OBSTACLE = "it is steered in its prompt"


@dataclass(frozen=True)
class _Policy:
    """What writes: the artifact, if there is one, its base's folder, its adapters by name, and its renderer."""

    artifact: Artifact | None
    folder: Path
    adapters: dict[str, Artifact]
    renderer: Renderer


def open_steered_policy(entry: FamilyEntry, bases: Bases, dtype: str) -> OpenedFamily:
    """Open a policy that is steered in its prompt.

    Raises:
        LoadError: the folder is no policy, nothing or two things say how it is steered, or a preset is invalid.
        ArtifactError: a file of the artifact is wrong.
        BaseError: its base is not on this machine.
    """
    where = f"families.{entry.name}"
    policy = _open_policy(entry, bases, where)
    steering = _find_steering(entry, policy.artifact, where)
    _check_marks(steering, policy.renderer, where)
    presets, default = check_told_weights(entry, steering, where)
    stack = concatenate_adapters(
        [Adapter(name, read_weights(each)[0].modules) for name, each in policy.adapters.items()]
    )
    artifacts = {policy.artifact.name: policy.artifact} if policy.artifact else {}
    family = Family(
        name=entry.name,
        base=policy.folder.name,
        experts=policy.adapters,
        renderer=policy.renderer,
        context=0,
        presets=presets,
        default=default,
        semantics="delta",
        normalize="simplex",
        factor_obstacle=OBSTACLE,
        fingerprint=compute_family_fingerprint(
            bases.compute_digest(policy.folder), dtype, artifacts, steering.model_dump()
        ),
        steering=steering,
        policy=policy.artifact,
    )
    return OpenedFamily(family, policy.folder, stack)


def check_told_weights(
    entry: FamilyEntry, steering: InPromptSteering, where: str
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Check and normalise the presets and the default weights of a family that is steered in its prompt.

    Raises:
        LoadError: one of them cannot be used, or chooses no sentence.
    """
    presets = {
        name: check_stored_weights(weights, steering.names, "simplex", f"{where}.presets.{name}")
        for name, weights in entry.presets.items()
    }
    default = _find_default(entry, steering, where)
    for name, weights in presets.items():
        _check_said(steering, weights, f"{where}.presets.{name}")
    _check_said(steering, default, f"{where}.default")
    return presets, default


def _open_policy(entry: FamilyEntry, bases: Bases, where: str) -> _Policy:
    if entry.policy is None:
        assert entry.base is not None  # the settings check it
        folder = bases.find_shared(bases.locate(entry.base))
        return _Policy(None, folder, {}, bases.make_renderer(folder, Reading()))
    artifact = open_artifact(entry.policy)
    if artifact.manifest.kind == "reward":
        raise LoadError(f"{where}.policy: {entry.policy} is a reward artifact; give it in `rewards`")
    whole = artifact.manifest.weights == "full"
    if whole and entry.base is not None:
        raise LoadError(f"{where}.base: {artifact.name} has whole weights, which stand on no base; leave it out")
    folder = bases.locate_for(artifact, entry.base)
    reading = bases.make_verified_renderer(folder, artifact).reading
    renderer = bases.make_renderer(folder, keep_prompt_reading(reading))
    return _Policy(artifact, folder, {} if whole else {artifact.name: artifact}, renderer)


def _find_steering(entry: FamilyEntry, artifact: Artifact | None, where: str) -> InPromptSteering:
    """Find how the prompt is steered: as the artifact says, or as the settings do where it says nothing of a prompt."""
    own = artifact.manifest.steering if artifact else None
    sealed = None if own is None or isinstance(own, SoupSteering) else own
    if sealed is not None and entry.steering is not None:
        raise LoadError(f"{where}.steering: the artifact says that it is steered by {sealed.method}; leave this out")
    steering = sealed or entry.steering
    if steering is None:
        raise LoadError(
            f"{where}.policy: {entry.policy} does not say how its prompt is steered: give `steering` with `sentences`; "
            "or, for a soup, give it in `experts`"
        )
    return steering


def _check_marks(steering: InPromptSteering, renderer: Renderer, where: str) -> None:
    """Refuse control marks in what is written into a message: they would be read as plain text."""
    if isinstance(steering, TagSteering):
        written = write_tags(dict.fromkeys(steering.names, 0.0), steering)
    else:
        written = "\n".join([steering.template, steering.joiner, *(each.text for each in steering.sentences)])
    if renderer.hide_marks(written) != written:
        raise LoadError(
            f"{where}: what it writes into a message holds a control mark of the tokenizer, which is read as plain "
            "text there; train with marks that are added tokens but no special ones"
        )


def _find_default(entry: FamilyEntry, steering: InPromptSteering, where: str) -> dict[str, float]:
    """Find the weights for requests without any. Tags always state rewards: of all objectives alike by default."""
    if entry.default:
        return check_stored_weights(entry.default, steering.names, "simplex", f"{where}.default")
    if isinstance(steering, TagSteering):
        return check_stored_weights(dict.fromkeys(steering.names, 1.0), steering.names, "simplex", where)
    return {}


def _check_said(steering: InPromptSteering, weights: dict[str, float], where: str) -> None:
    """Refuse stored weights that choose no sentence."""
    try:
        if weights and isinstance(steering, PromptSteering):
            choose_sentences(weights, steering, where)
    except Unprocessable as error:
        raise LoadError(f"{error.param}: {error.message}") from error
