"""The settings of policy families: the field ``families`` of :class:`tureen_serve.settings.Settings`."""

from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    field_validator,
    model_validator,
)

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


SamplingField = Literal[
    "seed",
    "logprobs",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "top_k",
    "min_p",
    "repetition_penalty",
    "min_tokens",
    "ignore_eos",
    "stop_token_ids",
    "include_stop_str_in_output",
    "skip_special_tokens",
]
LimitField = Literal["max_tokens", "max_completion_tokens"]
OWN_FIELDS = {
    *("model", "messages", "prompt", "n", "stream", "stream_options", "stop", "temperature", "top_p", "top_logprobs"),
    *("seed", "logprobs", "presence_penalty", "frequency_penalty", "logit_bias"),
    *get_args(LimitField),
}  # of a request to an upstream: these are the server's to set


class UpstreamEntry(SettingsGroup):
    """A model behind another server with OpenAI's ``/chat/completions``, in the place of a base of this machine.

    Attributes:
        base_url: as OpenAI's clients take it, with the version: ``https://api.example.org/v1``.
        model: the model's name there.
        key_env: the environment variable that holds the key.
        key_file: the file that holds the key; it is read again when it changes.
        honours: the sampling fields that the upstream acts on, beside ``temperature``, ``top_p``, ``stop`` and the
            limit of tokens. Requests with others are refused, since an upstream may ignore a field in silence.
        limit_field: the field that limits the tokens of an answer.
        extra: further fields of each request to it, as ``{"top_k": -1}``.
        concurrency: how many texts it is asked for at once; others wait.
        connect_seconds: the longest time until a connection stands.
        idle_seconds: the longest time between two events of a text, the first one included.
        retries: how often a request is sent again that failed before its text began.
    """

    base_url: str
    model: Annotated[str, StringConstraints(min_length=1)]
    key_env: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    key_file: Path | None = None
    honours: list[SamplingField] = []
    limit_field: LimitField = "max_tokens"
    extra: dict[str, Any] = {}
    concurrency: PositiveInt = 32
    connect_seconds: PositiveFloat = 5.0
    idle_seconds: PositiveFloat = 120.0
    retries: Annotated[int, Field(ge=0, le=20)] = 3

    @field_validator("base_url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("it must start with http:// or https://, as https://api.example.org/v1")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("it must have no name, password, query or fragment; give the key by key_env or key_file")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _check_fields(self) -> "UpstreamEntry":
        if self.key_env is not None and self.key_file is not None:
            raise ValueError("`key_env` and `key_file` exclude each other: give one of them")
        own = sorted(OWN_FIELDS.union(self.honours) & self.extra.keys())
        if own:
            raise ValueError(f"extra.{own[0]}: the server sets this field for each text; leave it out")
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
        upstream: a model behind another server, which is told what is wanted, as ``steering`` says.
        steering: the sentences that tell ``base``, ``policy`` or ``upstream`` what is wanted, see
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
    upstream: UpstreamEntry | None = None
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
        if self.upstream is not None:
            self._check_upstream()
        elif self.base is None and not self.experts and self.policy is None:
            raise ValueError("the family needs `experts`, a `policy`, an `upstream`, or a `base` without experts")
        if self.policy is None and self.steering is None:
            return self
        for field in ("experts", "semantics", "normalize"):
            if field in self.model_fields_set and getattr(self, field):
                raise ValueError(f"{field}: it is for soups, and this family is steered in its prompt; leave it out")
        return self

    def _check_upstream(self) -> None:
        if self.steering is None:
            raise ValueError("steering: an upstream is told what is wanted; give `steering` with `sentences`")
        for field in ("base", "policy"):
            if getattr(self, field) is not None:
                raise ValueError(f"{field}: the upstream writes the texts of this family; leave one of them out")
