"""The settings of the server, from flags, the environment, a YAML file and defaults; earlier ones take precedence.

A variable's name is ``TUREEN_`` and the field, with ``__`` before a nested field: ``TUREEN_LIMITS__IN_FLIGHT=64``.
Lists and maps are JSON. Relative paths in the file start at the file's folder.
"""

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    Field,
    PositiveFloat,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as SourceError

from tureen_serve.access_settings import AccessSettings
from tureen_serve.batch_settings import BatchSettings
from tureen_serve.family_settings import ExpertEntry, FamilyEntry, UpstreamEntry
from tureen_serve.limit_settings import ServerLimits
from tureen_serve.reward_settings import RewardEntry, resolve_reward_paths
from tureen_serve.vllm_settings import VllmSettings

__all__ = [
    "ExpertEntry",
    "FamilyEntry",
    "RewardEntry",
    "ServerLimits",
    "Settings",
    "SettingsError",
    "UpstreamEntry",
    "build_starter_settings",
    "load_settings",
]

STARTER = Path(__file__).parent / "starter"
STARTER_PRESETS = {
    "scholarly": {"academy": 1.0},
    "businesslike": {"business": 1.0},
    "playful": {"entertainment": 1.0},
    "literary": {"literature": 1.0},
}
PATHS = {"path", "experts", "policy", "key_file", "cache", "keys", "folder", "rewards_root", "load_roots", "bases"}


class SettingsError(ValueError):
    """The settings cannot be used. The message names the field and says why."""


class Settings(BaseSettings):
    """All settings of a server.

    Attributes:
        rewards_root: a folder of reward models, artifacts or plain ones, that are loaded when a request names them.
        rewards_memory_gib: the GiB of the weights of all models in ``rewards_root`` that are loaded; None for no bound.
        load_roots: the folders below which ``POST /v1/models/{name}/load`` may name a model; without any it only loads
            again what ``rewards`` names.
        bases: the folders of base models, by the names that manifests, adapters and ``families`` have for them, as
            ``org/name`` or the path on the machine of the training. The weights must be the same.
        aliases: further names for the ``model`` of other protocols. Each stands for a reward (``helpful``), several
            (``helpful+harmless``) or a weighted mix (``helpful=0.3+harmless=0.7``). The alias ``default`` is used for
            requests without a model.
        control_marks: how control marks inside a message, such as ``<|im_end|>``, are read: ``text`` reads them as
            plain text, ``as-is`` as control tokens. By default the reading of each artifact decides.
        traces: the URL of a receiver of OpenTelemetry's traces (OTLP over HTTP), as
            ``http://127.0.0.1:4318/v1/traces``; needs the extra ``otel``. None for no traces.
        cache: the folder for converted base models.
        keys: a file of API keys, see :mod:`tureen_serve.security.key_entries`; never a key itself.
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
    rewards_root: Path | None = None
    rewards_memory_gib: PositiveFloat | None = None
    load_roots: list[Path] = []
    bases: dict[Annotated[str, StringConstraints(min_length=1)], Path] = {}
    aliases: dict[Annotated[str, StringConstraints(min_length=1)], str] = {}
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8900
    runtime: Literal["auto", "transformers", "vllm"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = "auto"
    control_marks: Literal["text", "as-is"] | None = None
    cache: Path | None = None
    keys: Path | None = None
    access: AccessSettings = AccessSettings()
    limits: ServerLimits = ServerLimits()
    vllm: VllmSettings = VllmSettings()
    batches: BatchSettings = BatchSettings()
    traces: Annotated[str, StringConstraints(pattern=r"^https?://")] | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"

    @field_validator("keys", mode="before")
    @classmethod
    def _read_no_keys(cls, value: Any) -> Any:
        return value or None  # an image sets the variable, and ``TUREEN_KEYS=`` takes it back

    @model_validator(mode="after")
    def _check_keys(self) -> "Settings":
        if self.keys is not None and self.access.anonymous:
            raise ValueError("access.anonymous serves everyone without keys, and `keys` is set too: keep one of them")
        if self.keys is None and not (self.access.anonymous or _is_loopback(self.host)):
            raise ValueError(
                f"{self.host} is reachable from other machines: set `keys` to a file of keys (`tureen-serve key new` "
                "makes one), or `host` to 127.0.0.1; `access.anonymous: true` serves everyone without keys"
            )
        if self.keys is not None and not self.keys.is_file():
            raise ValueError(f"keys: {self.keys} is not a file")
        return self

    @property
    def host_names(self) -> list[str]:
        """The names by which the server may be called, beside its addresses; ``*`` for all."""
        guarded = self.keys is not None or not _is_loopback(self.host)
        return self.access.hosts or (["*"] if guarded else [])

    @model_validator(mode="after")
    def _check_models(self) -> "Settings":
        names = [family.name for family in self.families]
        if len(set(names)) < len(names):
            raise ValueError(f"families: two families have the same name: {', '.join(names)}")
        if self.rewards_root is not None and not self.rewards_root.is_dir():
            raise ValueError(f"rewards_root: {self.rewards_root} is not a folder")
        for root in self.load_roots:
            if not root.is_dir():
                raise ValueError(f"load_roots: {root} is not a folder")
        for name, folder in self.bases.items():
            if not (folder / "config.json").is_file():
                raise ValueError(f"bases.{name}: {folder} is no folder with a config.json; name that of the base model")
        if self.rewards_memory_gib is not None and self.rewards_root is None:
            raise ValueError("rewards_memory_gib: it bounds the models in `rewards_root`; set that too")
        return self

    @property
    def has_models(self) -> bool:
        """Whether they name any models."""
        return bool(self.rewards or self.families or self.rewards_root)


def load_settings(config: Path | None = None, **flags: Any) -> Settings:
    """Load the settings from flags, the environment and a file. A flag that is None was not given.

    Raises:
        SettingsError: the file cannot be read, or a field is unknown or has a bad value.
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
        raise SettingsError(f"{error}; write lists and maps as JSON") from error


def _read(config: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(config.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"{config} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise SettingsError(f"{config} must be a YAML map of settings, with keys as `rewards:` and `families:`")
    folder = config.expanduser().resolve().parent
    resolved: dict[str, Any] = _resolve_paths(document, folder)
    rewards = document.get("rewards")
    if isinstance(rewards, list):
        resolved["rewards"] = [resolve_reward_paths(each, folder) for each in rewards]
    return resolved


def _resolve_paths(value: Any, folder: Path, key: str = "") -> Any:
    """Make the relative paths of a document start at its folder."""
    if isinstance(value, dict) and key != "aliases":  # these are called as their owner likes
        named = key in ("experts", "bases")  # maps from names to folders
        return {
            name: _resolve_paths(each, folder, key if named and isinstance(each, str) else str(name))
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [_resolve_paths(each, folder, key if isinstance(each, str) else "") for each in value]
    if isinstance(value, str) and (key in PATHS or (key == "base" and (folder / value).is_dir())):
        return str(folder / Path(value).expanduser())
    return value


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def build_starter_settings() -> dict[str, Any]:
    """Build settings that serve the starter artifacts of the package.

    Raises:
        SettingsError: the package was installed without them.
    """
    rewards = sorted(path.parent for path in STARTER.glob("rewards/*/tureen.json"))
    experts = sorted(path.parent for path in STARTER.glob("experts/*/tureen.json"))
    if not rewards or not experts:
        raise SettingsError(f"{STARTER} has no artifacts: make them with `make starter`, or give --reward and --expert")
    family = FamilyEntry(name="smollm2", experts=[ExpertEntry(path=path) for path in experts], presets=STARTER_PRESETS)
    return {"rewards": [RewardEntry(path=path) for path in rewards], "families": [family]}
