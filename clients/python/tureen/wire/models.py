"""``/v1/models``: what is loaded."""

from typing import Literal

from tureen.wire.base import Reply


class ModelCard(Reply):
    """One entry of ``/v1/models``: OpenAI's four fields and what the artifact says of itself."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "tureen"
    kind: Literal["reward", "policy", "preset"]
    objectives: list[str] = []
    version: str | None = None
    fingerprint: str | None = None
    base: str | None = None
    max_length: int | None = None
    steering: list[str] = []
    presets: dict[str, dict[str, float]] = {}
    calibration: dict[str, dict[str, float]] = {}
    runtime: str | None = None


class ModelList(Reply):
    """The answer of ``/v1/models``."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
