"""The recipe of a policy family: several experts of one base, each toward its own objective."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from tureen_core.preference import NAME
from tureen_train.config.experts import ExpertRun
from tureen_train.config.parts import Data, RecipeError, RecipePart
from tureen_train.config.policy_methods import PolicySettings
from tureen_train.config.rollouts import ArtifactSource, Sampling

_EXPERT = TypeAdapter(ExpertRun)
_POLICY: TypeAdapter[PolicySettings] = TypeAdapter(PolicySettings)


class Objective(RecipePart):
    """One objective of a family.

    ``reward`` is the model of the objective, which the on-policy stages learn from and by which the expert is measured.
    ``judge`` is a second one, which no expert learns from: it shows what was gained only by the first. ``expert`` holds
    the keys of this objective's expert that differ from the family's, as ``data``. ``stages`` is the number of the
    family's stages that the expert takes, from the first on; all if it is not given.
    """

    reward: ArtifactSource
    judge: ArtifactSource | None = None
    expert: dict[str, Any] = {}
    stages: int | None = Field(default=None, ge=1)


class Measurement(RecipePart):
    """How a family is measured.

    Each expert alone, the bare base and, for each pair of experts, ``steps`` weights from the one to the other answer
    the same ``count`` prompts, and all objectives reward the answers. The prompts are held-out ones of ``data``: their
    share ``data.holdout`` must be that of the experts' data, with the same ``data.seed``. ``steps: 0`` measures no
    pairs.
    """

    data: Data | None = None
    count: int = Field(default=48, ge=2)
    steps: int = Field(default=11, ge=0)
    sampling: Sampling = Sampling(count=1, max_tokens=96, temperature=0.0)

    @model_validator(mode="after")
    def _answers_once(self) -> "Measurement":
        if self.sampling.count != 1:
            raise ValueError("sampling.count: a prompt is answered once at each weight; set it to 1")
        if self.steps in (1, 2):
            raise ValueError("steps: 3 or more weights make a sweep; 0 measures none")
        return self


class FamilyRun(RecipePart):
    """A family: ``expert`` holds the keys of the experts' recipes, and ``stages`` what changes from stage to stage.

    Each objective's expert is trained once for each stage that it takes. A stage starts from the adapter of the one
    before; the first starts from the base. ``presets`` are weights that requests can name.
    """

    kind: Literal["family"]
    name: str
    objectives: dict[str, Objective] = Field(min_length=1)
    expert: dict[str, Any]
    stages: list[dict[str, Any]] = Field(default=[{}], min_length=1)
    measure: Measurement = Measurement()
    presets: dict[str, dict[str, float]] = {}
    output: str = ""

    @model_validator(mode="after")
    def _named(self) -> "FamilyRun":
        for name in (self.name, *self.objectives, *self.presets):
            if not NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not a name: use 1 to 64 of letters, digits, '_', '.', '-'")
        for preset, weights in self.presets.items():
            unknown = next((name for name in weights if name not in self.objectives), None)
            if unknown is not None:
                raise ValueError(f"presets.{preset}: there is no objective {unknown!r}")
        self.output = self.output or f"runs/{self.name}"
        return self

    @model_validator(mode="after")
    def _staged(self) -> "FamilyRun":
        for name, objective in self.objectives.items():
            if objective.stages is not None and objective.stages > len(self.stages):
                message = f"it takes {objective.stages} stages, and the family has {len(self.stages)}"
                raise ValueError(f"objectives.{name}.stages: {message}")
        return self

    def count_stages(self, objective: str) -> int:
        """The number of stages that one objective's expert takes."""
        return self.objectives[objective].stages or len(self.stages)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """All pairs of objectives, in the recipe's order."""
        return list(combinations(self.objectives, 2))

    def plan_expert(self, objective: str, stage: int) -> ExpertRun:
        """Make the recipe of one objective's expert in one stage.

        Raises:
            RecipeError: its keys do not make a recipe.
        """
        chosen = self.objectives[objective]
        raw = merge_keys(merge_keys(self.expert, chosen.expert), self.stages[stage])
        raw |= {"kind": "expert", "name": objective, "objective": objective, "family": self.name}
        raw["output"] = f"{self.output}/{objective}/stage-{stage + 1}"
        if stage:
            start = f"{self.output}/{objective}/stage-{stage}/artifact"
            raw["model"] = {**raw.get("model", {}), "start": start}
        if _samples(raw.get("policy", {})):
            raw.setdefault("rewards", [chosen.reward.model_dump()])
        try:
            return _EXPERT.validate_python(raw)
        except ValidationError as error:
            told = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
            raise RecipeError(f"objectives.{objective}, stage {stage + 1}: {told}") from error


def _samples(policy: Any) -> bool:
    """Whether a policy's settings sample. Wrong ones do not: the recipe's own check names their key."""
    try:
        return _POLICY.validate_python(policy).samples
    except ValidationError:
        return False


def merge_keys(keys: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Change nested keys: a group is changed key by key, anything else is replaced.

    A group whose ``method`` changes is replaced as a whole, since its keys are those of another method.
    """
    merged = dict(keys)
    for key, change in changes.items():
        own = merged.get(key)
        if isinstance(own, Mapping) and isinstance(change, Mapping) and not _is_another(own, change):
            merged[key] = merge_keys(own, change)
        else:
            merged[key] = change
    return merged


def _is_another(own: Mapping[str, Any], change: Mapping[str, Any]) -> bool:
    """Whether a group changes its method. A policy without a method is DPO."""
    return "method" in change and change["method"] != own.get("method", "dpo")
