"""The bodies of ``/v1/models``: the models that are loaded or can be."""

from typing import Literal

from tureen.wire.base import Reply


class ModelCard(Reply):
    """One model: OpenAI's four fields, and fields from the artifact's manifest.

    ``loaded`` is false for a reward that the server loads when a request names it.

    [card.id for card in client.models().data if card.kind == "reward"]

    Attributes:
        calibration: mean, deviation and temperature of a reward; empty if it has none.
        trained_on: the SHA-256 of each file that a reward was trained on, where its artifact tells it.
        evaluation: what training measured of a reward on each set of held-out data, by its name.
        licences: the data that a reward was trained on, with its licences, where its artifact tells it.
        steering: how preferences steer a policy: ``soup``, ``reward-tags`` or ``prompt``.
        ranges: for ``reward-tags``: of each objective the lowest and the highest desired reward (``low``, ``high``),
            and the mean and the deviation by which its raw reward was normalised.
        sentences: for ``prompt``: what is said for each objective.
        input: what a reward reads: a ``conversation``, a ``pair`` of answers, or ``steps``; None for others.
        calibrated: whether a reward has a calibration; None for a policy and a preset.
    """

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
    ranges: dict[str, dict[str, float]] = {}
    sentences: dict[str, str] = {}
    presets: dict[str, dict[str, float]] = {}
    calibration: dict[str, dict[str, float]] = {}
    calibrated: bool | None = None
    input: Literal["conversation", "pair", "steps"] | None = None
    trained_on: list[str] = []
    evaluation: dict[str, dict[str, float]] = {}
    licences: list[str] = []
    runtime: str | None = None
    loaded: bool = True


class ModelList(Reply):
    """The reply of ``/v1/models``."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
