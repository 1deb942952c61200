"""``tureen.json``, the manifest: what an artifact is, how it is read, what its rewards mean, and where it comes from.

Data and its rules only; :mod:`tureen_core.artifact` holds a folder against it.
"""

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, FiniteFloat, field_validator, model_validator

from tureen_core.calibration import Calibration
from tureen_core.chat_template import TemplateInputs
from tureen_core.head_rule import HeadRule
from tureen_core.manifest_part import Part
from tureen_core.own_files import is_own_path
from tureen_core.preference import NAME
from tureen_core.reading import Reading
from tureen_core.steering import SoupSteering, Steering

FORMAT: Literal[1] = 1


def _check_own_path(path: str) -> str:
    if not is_own_path(path):
        raise ValueError("names a file that is not in the artifact's folder")
    return path


class Base(Part):
    """The checkpoint that an adapter stands on; ``digest`` is :func:`tureen_core.base.digest_weights`."""

    model: str
    digest: str


class Objective(Part):
    """One reward: its name, its column in the head, its scale.

    Attributes:
        calibration: None if the reward is uncalibrated. A manifest without this field means a mean of 0, a deviation of
            1 and a temperature of 1, as artifacts of earlier versions do.
    """

    name: str
    column: int = Field(default=0, ge=0)
    calibration: Calibration | None = Calibration()

    @field_validator("name")
    @classmethod
    def _named(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError("use 1 to 64 of letters, digits, '_', '.', '-'")
        return name


class Probe(Part):
    """A conversation and the numbers that training read for it in float32.

    Attributes:
        rival: the other finished conversation, where a model compares two.
        tools: descriptions of tools that the chat template writes.
        chat_template_kwargs: further arguments of the chat template.
        scores: objective → raw reward. The last step is scored where a model reads steps. ``name@8`` is the same with
            the LoRA adapter at 8 times its weight, and ``name@0`` with the bare base, see
            :mod:`tureen_core.tolerance`.
        logprob: of an expert: the mean log-probability, in nats per token, of the last message.
    """

    messages: list[dict[str, Any]]
    rival: list[dict[str, Any]] = []
    tools: Annotated[list[dict[str, Any]], Field(exclude_if=lambda tools: not tools)] = []
    chat_template_kwargs: Annotated[dict[str, Any], Field(exclude_if=lambda given: not given)] = {}
    scores: dict[str, FiniteFloat] = {}
    logprob: FiniteFloat | None = None

    @property
    def inputs(self) -> TemplateInputs:
        """The inputs of the chat template beside the messages."""
        return TemplateInputs(self.tools, self.chat_template_kwargs)


class Training(Part):
    """Where it comes from: the resolved recipe, digests of the data, figures, licences, versions."""

    recipe: dict[str, Any] = {}
    data: dict[str, Any] = {}
    seed: int = 0
    metrics: dict[str, Any] = {}
    licences: list[str] = []
    libraries: dict[str, str] = {}

    def list_digests(self) -> list[str]:
        """List the SHA-256 of each file whose records were trained on. Files for evaluation only are left out."""
        given = self.recipe.get("data")
        train = given.get("train") if isinstance(given, dict) else None
        paths = {each.get("path") for each in train if isinstance(each, dict)} if isinstance(train, list) else self.data
        files = [about for path, about in self.data.items() if path in paths and isinstance(about, dict)]
        return sorted({str(about["sha256"]) for about in files if "sha256" in about})


Input = Literal["conversation", "pair", "steps"]


class Manifest(Part):
    """``tureen.json``.

    ``input`` says what a reward model reads: a finished conversation, two answers to one prompt side by side, or an
    answer step by step. ``gated`` says that ``gate.safetensors`` weighs the head's K rewards by the prompt: what comes
    out is the objective of column K, the first after the head's. ``head`` says how rewards are computed from a hidden
    state; Tureen's own artifacts have the default, a linear head without a bias.

    A ``policy`` is steered in its prompt, or not at all. With a LoRA it stands on its base; it is no part of a soup.
    """

    format: Literal[1] = FORMAT
    kind: Literal["reward", "expert", "policy"]
    input: Input = "conversation"
    gated: bool = False
    head: Annotated[HeadRule, Field(exclude_if=lambda rule: rule == HeadRule())] = HeadRule()
    name: str
    version: str = ""
    weights: Literal["lora", "full"] = "lora"
    base: Base | None = None
    objectives: list[Objective] = Field(min_length=1)
    reading: Reading
    steering: Steering | None = None
    tolerance: dict[str, FiniteFloat] = {"float32": 1e-3, "bfloat16": 0.25, "float16": 0.1}
    files: dict[Annotated[str, AfterValidator(_check_own_path)], str] = {}
    probes: list[Probe] = []
    training: Training = Training()

    @field_validator("name")
    @classmethod
    def _named(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError("use 1 to 64 of letters, digits, '_', '.', '-'")
        return name

    @model_validator(mode="after")
    def _whole(self) -> "Manifest":
        names = [objective.name for objective in self.objectives]
        if len(set(names)) < len(names):
            raise ValueError(f"two objectives have one name: {names}")
        columns = [objective.column for objective in self.objectives]
        if self.kind == "reward" and len(set(columns)) < len(columns):
            raise ValueError(f"two objectives read one column of the head: {columns}")
        if self.weights == "lora" and self.base is None:
            raise ValueError("a LoRA artifact needs the base it stands on")
        if self.kind == "expert" and self.steering is None:
            raise ValueError("an expert needs its steering")
        self._check_steering(names)
        if self.gated:
            self._check_gated()
        return self

    def _check_steering(self, names: list[str]) -> None:
        if self.steering is None or isinstance(self.steering, SoupSteering):
            return
        if self.kind != "policy":
            raise ValueError(f"steering: only a policy is steered by {self.steering.method}; say kind: policy")
        if self.steering.names != names:
            raise ValueError(f"steering: it has the objectives {self.steering.names}, and the artifact has {names}")

    def _check_gated(self) -> None:
        if self.kind != "reward" or self.input != "conversation":
            raise ValueError("gated: a gate weighs the rewards of conversations")
        if self.reading.pooling not in ("eos", "last"):
            raise ValueError(
                f"gated: a gate reads the prompt's last token, and the reading pools by {self.reading.pooling}"
            )

    @property
    def rows(self) -> int:
        """How many rows the objectives need of the score head; a gate makes the last column of others."""
        return max(objective.column for objective in self.objectives) + (0 if self.gated else 1)

    def identity(self) -> str:
        """SHA-256 over all that changes a score: files, base, objectives with their scale, reading, steering.

        The base counts by its digest: the same weights in another folder are the same base.
        """
        parts = self.model_dump(include={"kind", "weights", "objectives", "reading", "steering", "files"})
        parts["base"] = self.base.digest if self.base else None
        if self.input != "conversation":
            parts["input"] = self.input
        if self.gated:
            parts["gated"] = True
        if self.head != HeadRule():
            parts["head"] = self.head.model_dump()
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
