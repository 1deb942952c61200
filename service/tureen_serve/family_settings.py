"""The settings of policy families: the field ``families`` of :class:`tureen_serve.settings.Settings`."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, StringConstraints, model_validator

from tureen_core.preference import NAME
from tureen_core.steering import PromptSteering

Name = Annotated[str, StringConstraints(pattern=f"^{NAME.pattern}$")]
Weights = dict[Name, Annotated[float, Field(allow_inf_nan=False)]]


class SettingsGroup(BaseModel):
    """Base of nested settings. They are immutable, and unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ExpertEntry(SettingsGroup):
    """An expert: the folder of an artifact, or of an adapter or a whole model that others saved.

    Attributes:
        path: the folder.
        name: what requests call it; by default an artifact's objective. A folder of others needs a name.
        rank: the largest rank, where others' weights are approximated; see :class:`tureen_core.experts.low_rank`.
        energy: the share of each module's energy that chooses its rank; 0.95 by default.
        accept_energy: the smallest share of all energy that is accepted; by default ``energy``.
    """

    path: Path
    name: Name | None = None
    rank: PositiveInt | None = None
    energy: Annotated[float, Field(gt=0, le=1)] | None = None
    accept_energy: Annotated[float, Field(ge=0, le=1)] | None = None

    @model_validator(mode="after")
    def _check_choice(self) -> "ExpertEntry":
        if self.rank is not None and self.energy is not None:
            raise ValueError("`rank` and `energy` exclude each other: give one of them")
        return self


def _list_experts(value: Any) -> Any:
    """Read experts as a list, or as a map from names. Each is a folder, or a map of an entry's fields."""
    if isinstance(value, dict):
        read = {name: _read_expert(each) for name, each in value.items()}
        return [{**each, "name": name} if isinstance(each, dict) else each for name, each in read.items()]
    return [_read_expert(each) for each in value] if isinstance(value, list | tuple) else value


def _read_expert(value: Any) -> Any:
    return {"path": value} if isinstance(value, str | Path) else value


class FamilyEntry(SettingsGroup):
    """A policy family: experts on one base, or one policy that is steered in its prompt.

    Attributes:
        base: a folder or a known name; by default that of the manifests.
        experts: a list of experts, or a map from names to experts. A folder is an expert's ``path``.
        policy: the folder of a policy artifact, whose manifest says how its prompt is steered; or of an expert that is
            to be told what is wanted, as ``steering`` says.
        steering: the sentences that tell ``base`` or ``policy`` what is wanted, see
            :class:`tureen_core.steering.PromptSteering`.
        presets: name → weights of experts or objectives.
        default: weights for requests without preferences; empty for the base without experts, for no sentence, and for
            equal weights of all reward tags.
        semantics: how experts are souped; by default as the experts' manifests say.
        normalize: how weights are normalised; by default as the experts' manifests say.
    """

    name: Name
    base: str | None = None
    experts: Annotated[list[ExpertEntry], BeforeValidator(_list_experts)] = []
    policy: Path | None = None
    steering: PromptSteering | None = None
    presets: dict[Name, Weights] = {}
    default: Weights = {}
    semantics: Literal["delta", "factor"] | None = None
    normalize: Literal["simplex", "none"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _name_steering(cls, value: Any) -> Any:
        """Give the steering of the settings its family, which is this one."""
        if isinstance(value, dict) and isinstance(value.get("steering"), dict):
            return {**value, "steering": {"family": value.get("name"), **value["steering"]}}
        return value

    @model_validator(mode="after")
    def _check_content(self) -> "FamilyEntry":
        if self.base is None and not self.experts and self.policy is None:
            raise ValueError("the family needs `experts`, a `policy`, or a `base` to serve without experts")
        if self.policy is None and self.steering is None:
            return self
        for field in ("experts", "semantics", "normalize"):
            if field in self.model_fields_set and getattr(self, field):
                raise ValueError(f"{field}: it is for soups, and this family is steered in its prompt; leave it out")
        return self
