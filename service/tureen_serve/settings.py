"""The settings of the server. Flags take precedence over the environment, then a YAML file, then the defaults.

Environment names are ``TUREEN_`` and the field, with ``__`` before a nested one: ``TUREEN_LIMITS__IN_FLIGHT=64``.
Lists are JSON. In the file, relative paths are relative to the file.
"""

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as SourceError

from tureen_core.preference import NAME
from tureen_serve.batch_settings import BatchSettings

STARTER = Path(__file__).parent / "starter"
STARTER_PRESETS = {
    "scholarly": {"academy": 1.0},
    "businesslike": {"business": 1.0},
    "playful": {"entertainment": 1.0},
    "literary": {"literature": 1.0},
}
PATHS = {"path", "experts", "cache", "keys", "folder"}

Name = Annotated[str, StringConstraints(pattern=f"^{NAME.pattern}$")]
Weights = dict[Name, Annotated[float, Field(allow_inf_nan=False)]]


class SettingsError(ValueError):
    """The settings cannot be used; the message names the field and says why."""


class SettingsGroup(BaseModel):
    """Base of nested settings: frozen, and unknown fields are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RewardEntry(SettingsGroup):
    """A reward artifact's folder; ``name`` renames its one objective."""

    path: Path
    name: Name | None = None


class FamilyEntry(SettingsGroup):
    """A policy family: experts over one base. What is left out comes from the experts' manifests."""

    name: Name
    base: str | None = None
    experts: list[Path] = []
    presets: dict[Name, Weights] = {}
    default: Weights = {}
    semantics: Literal["delta", "factor"] | None = None
    normalize: Literal["simplex", "none"] | None = None

    @model_validator(mode="after")
    def _something_to_load(self) -> "FamilyEntry":
        if self.base is None and not self.experts:
            raise ValueError("give the family experts, or a base to serve without any")
        return self


class ServerLimits(SettingsGroup):
    """What one server takes on. Tokens are padded ones; a batch holds as many, a queue refuses beyond its own.

    ``kept_scores`` of each backbone are remembered, so that a text that is asked again is not computed again, and
    ``prompt_mib`` of keys and values of prompts, so that answers which come one by one do not compute them anew (on a
    CPU; vLLM has its own cache). 0 turns either off.
    """

    body_bytes: PositiveInt = 8 * 2**20
    in_flight: PositiveInt = 512
    batch_tokens: PositiveInt = 8192
    batch_rows: PositiveInt = 64
    queue_tokens: PositiveInt = 2**20
    kept_scores: Annotated[int, Field(ge=0)] = 2**16
    prompt_mib: Annotated[int, Field(ge=0)] = 512
    deadline_seconds: PositiveFloat = 120.0
    longest_deadline_seconds: PositiveFloat = 600.0
    drain_seconds: Annotated[float, Field(ge=0)] = 0.0
    grace_seconds: PositiveInt = 60


class VllmSettings(SettingsGroup):
    """How vLLM's engines run, where the runtime is ``vllm``.

    A base with rewards and experts needs two engines, ``<base>-scores`` and one called as the family. ``memory`` gives
    an engine its share of each GPU; those not named share what is left of 0.9 alike. On a CPU every engine gets
    ``cache_gib`` for keys and values instead. ``rows`` and ``step_tokens`` bound one step, ``context`` a text (the
    model's own by default). ``gate: off`` serves one LoRA for each weight vector, ``adapters`` of them at once.
    ``restarts`` is how often in a row a dead engine is started again. ``scores`` says who scores: ``auto`` is the
    packed scorer of transformers for backbones under two billion weights on a GPU, where it was measured the faster.
    """

    memory: dict[str, Annotated[float, Field(gt=0, le=1)]] = {}
    cache_gib: PositiveFloat = 2.0
    context: PositiveInt | None = None
    rows: PositiveInt = 256
    step_tokens: PositiveInt = 8192
    tensor_parallel: PositiveInt = 1
    eager: bool = False
    gate: Literal["auto", "off"] = "auto"
    scores: Literal["auto", "vllm", "transformers"] = "auto"
    adapters: PositiveInt = 8
    restarts: Annotated[int, Field(ge=0)] = 3


class Settings(BaseSettings):
    """All settings of a server. ``keys`` is a file with a key on each line, never a key.

    ``aliases`` are what the dialects' ``model`` may be called, and what each means: a reward (``helpful``), several
    (``helpful+harmless``), or a mix of them (``helpful=0.3+harmless=0.7``). ``default`` answers who names none.
    ``control_marks`` says how marks such as ``<|im_end|>`` inside a message are read: as plain ``text``, or ``as-is``,
    as control tokens; by default as each artifact's reading says.
    """

    model_config = SettingsConfigDict(
        env_prefix="TUREEN_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    rewards: list[RewardEntry] = []
    families: list[FamilyEntry] = []
    aliases: dict[Annotated[str, StringConstraints(min_length=1)], str] = {}
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8900
    runtime: Literal["auto", "transformers", "vllm"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = "auto"
    control_marks: Literal["text", "as-is"] | None = None
    cache: Path | None = None
    keys: Path | None = None
    limits: ServerLimits = ServerLimits()
    vllm: VllmSettings = VllmSettings()
    batches: BatchSettings = BatchSettings()
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"

    @model_validator(mode="after")
    def _guarded(self) -> "Settings":
        if self.keys is None and not _loopback(self.host):
            raise ValueError(
                f"{self.host} is reachable from other machines: set `keys` to a file of keys, or bind 127.0.0.1"
            )
        if self.keys is not None and not self.keys.is_file():
            raise ValueError(f"keys: there is no file {self.keys}")
        return self

    @model_validator(mode="after")
    def _named_once(self) -> "Settings":
        names = [family.name for family in self.families]
        if len(set(names)) < len(names):
            raise ValueError(f"families: two have one name: {', '.join(names)}")
        return self


def load_settings(config: Path | None = None, **flags: Any) -> Settings:
    """Settings of a file, the environment and flags; a flag that is None was not given.

    Raises:
        SettingsError: the file cannot be read, or a value is unknown or bad.
    """
    document = _read(config) if config else {}

    class Sourced(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],  # noqa: ARG003
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[Any, ...]:
            return init_settings, env_settings, lambda: document

    try:
        return Sourced(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{where}: {message}" if where else message) from error
    except SourceError as error:
        raise SettingsError(f"{error}: write lists and maps as JSON") from error


def _read(config: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(config.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"{config} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise SettingsError(f"{config} must be a map of settings, as `rewards:` and `families:`")
    anchored: dict[str, Any] = _anchor(document, config.expanduser().resolve().parent)
    return anchored


def _anchor(value: Any, folder: Path, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _anchor(each, folder, str(name)) for name, each in value.items()}
    if isinstance(value, list):
        return [_anchor(each, folder, key) for each in value]
    if isinstance(value, str) and (key in PATHS or (key == "base" and (folder / value).is_dir())):
        return str(folder / Path(value).expanduser())
    return value


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def build_starter_settings() -> dict[str, Any]:
    """Settings that serve the artifacts inside the package.

    Raises:
        SettingsError: the package was installed without them.
    """
    rewards = sorted(path.parent for path in STARTER.glob("rewards/*/tureen.json"))
    experts = sorted(path.parent for path in STARTER.glob("experts/*/tureen.json"))
    if not rewards or not experts:
        raise SettingsError(
            f"{STARTER} holds no artifacts: make them with `make starter`, or give --reward and --expert"
        )
    family = FamilyEntry(name="smollm2", experts=experts, presets=STARTER_PRESETS)
    return {"rewards": [RewardEntry(path=path) for path in rewards], "families": [family]}
