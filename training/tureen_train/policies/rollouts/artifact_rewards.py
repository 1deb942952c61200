"""Rewards by artifacts that are read in this process, as evaluation reads them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tureen.records.dialogue import assistant_turn
from tureen.records.schema import BadRecord
from tureen_core.artifact import Artifact, Manifest
from tureen_core.calibration import CALIBRATE, resolve_scale
from tureen_core.reading import Rendered
from tureen_train.config import ArtifactSource, RecipeError
from tureen_train.networks.objective_reader import ObjectiveReader, ReadObjective
from tureen_train.networks.shared_base import share_equal_weights
from tureen_train.networks.shared_layers import share_lower_layers
from tureen_train.policies.rollouts.contract import Done, Prompt, Sample
from tureen_train.policies.rollouts.objective_valuer import ObjectiveValuer
from tureen_train.policies.rollouts.pair_rewards import PairValuer
from tureen_train.policies.rollouts.valuing import (
    Samples,
    Value,
    Valued,
    Valuer,
    count_normalised,
    make_value,
    shape_like,
)


class ArtifactValuer(ObjectiveValuer):
    """Values answers by the objectives of one artifact, all in one forward pass."""

    def value_samples(self, prompts: Sequence[Prompt], samples: Samples, done: Done) -> Valued:
        """See :class:`.valuing.Valuer`. An answer that the chat template does not render has no value."""
        told = [
            self._render(prompt, answer) for prompt, answers in zip(prompts, samples, strict=True) for answer in answers
        ]
        texts = [each for each in told if isinstance(each, Rendered)]
        done(len(told) - len(texts))
        rows = self.model.score(texts, self.batch, done)
        return Valued(
            {each.name: shape_like(samples, _values(told, rows, each)) for each in self.objectives},
            count_normalised(self.names, [each.normalised for each in texts]),
        )

    def _render(self, prompt: Prompt, answer: Sample) -> Rendered | str:
        turns = [*prompt.messages, assistant_turn(answer.text)]
        try:
            return self.model.render(turns, prompt.template_arguments)
        except BadRecord as error:
            return str(error)


def _values(told: Sequence[Rendered | str], rows: Sequence[Mapping[str, float]], wanted: ReadObjective) -> list[Value]:
    """Make the values of texts. ``rows`` has the raw rewards of those that were rendered."""
    left = iter(rows)
    return [
        make_value(wanted.scale.standardise(next(left)[wanted.objective]), each.truncated)
        if isinstance(each, Rendered)
        else Value(None, each)
        for each in told
    ]


def complete_source(source: ArtifactSource, manifest: Manifest) -> ArtifactSource:
    """Fill in the objective and the name of a source from its artifact's manifest.

    Raises:
        RecipeError: the artifact has no such objective, several and none is named, or no calibration.
    """
    scales = {each.name: each.calibration for each in manifest.objectives}
    known = ", ".join(scales)
    if source.objective is None and len(scales) > 1:
        raise RecipeError(f"rewards: {source.path} has several objectives; name one as objective: {known}")
    objective = source.objective or known
    if objective not in scales:
        raise RecipeError(f"rewards: {source.path} has no objective {objective!r}; it has {known}")
    if source.scale == "calibrated" and scales[objective] is None:
        raise RecipeError(
            f"rewards: {objective} of {source.path} has no calibration; set scale: raw if it is the only reward,"
            f" or calibrate it with {CALIBRATE}"
        )
    return source.model_copy(update={"objective": objective, "name": source.name or objective})


def compares_answers(artifact: Artifact) -> bool:
    """Whether an artifact is a pairwise model."""
    return artifact.manifest.input == "pair"


def open_valuers(sources: Sequence[ArtifactSource], artifacts: Mapping[str, Artifact], batch: int) -> list[Valuer]:
    """Load the artifacts that sources name. Each is loaded once, and those over one base share its weights and layers.

    Sources that read the preferences of a prompt alike have one valuer.

    Args:
        sources: see :func:`complete_source`.
        artifacts: by their path in the recipe.

    Raises:
        ArtifactError: an artifact is no reward model that reads conversations or pairs.
        BaseError: a base is missing, or has other weights.
    """
    models: dict[Path, ObjectiveReader] = {}
    asked: dict[tuple[Path, str], list[ArtifactSource]] = {}
    for source in sources:
        folder = artifacts[source.path].folder.resolve()
        if folder not in models:
            models[folder] = _load(artifacts[source.path], list(models.values()))
        asked.setdefault((folder, source.preferences), []).append(source)
    by_base: dict[str, list[ObjectiveReader]] = {}
    for model in models.values():
        if model.manifest.base is not None:
            by_base.setdefault(model.manifest.base.digest, []).append(model)
    for some in by_base.values():
        share_lower_layers([each.reader.model for each in some])
    return [_make_valuer(models[folder], some, batch) for (folder, _), some in asked.items()]


def _load(artifact: Artifact, others: Sequence[ObjectiveReader]) -> ObjectiveReader:
    """Load an artifact, and let it share the weights of one of ``others`` with the same base."""
    model = ObjectiveReader(artifact, reads=("conversation", "pair"))
    base = model.manifest.base
    same = [each for each in others if base and each.manifest.base and each.manifest.base.digest == base.digest]
    if same:
        share_equal_weights(same[0].reader.model, model.reader.model)
    return model


def _make_valuer(model: ObjectiveReader, sources: Sequence[ArtifactSource], batch: int) -> Valuer:
    found = []
    for each in sources:
        objective = str(each.objective)
        scale = resolve_scale(model.scales[objective] if each.scale == "calibrated" else None)
        found.append(ReadObjective(each.name, objective, scale))
    kind: type[PairValuer | ArtifactValuer] = PairValuer if compares_answers(model.artifact) else ArtifactValuer
    return kind(model, found, batch)
