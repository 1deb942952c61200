"""Recipes: one YAML a run, grouped, checked, and written resolved beside the result."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from tureen_core.preference import NAME
from tureen_core.template import Reading

RECIPES = Path(__file__).parent / "recipes"
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]


class RecipeError(ValueError):
    """A recipe cannot be run; the message names the key."""


class Part(BaseModel):
    """Base of a recipe's parts: an unknown key is an error, not a silent default."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Source(Part):
    """One file or folder of preference records, and how to read it (see :mod:`tureen_train.records`)."""

    path: str
    form: str = "auto"
    domain: str | None = None
    to_pairs: bool = False
    exclude: list[str] = []
    split: str | None = None
    limit: int | None = Field(default=None, ge=1)
    strict: bool = False


class Data(Part):
    """What is trained on and what is held out.

    ``holdout`` of the prompts are kept for evaluation and never trained on: of ``train`` under the name ``heldout``,
    and of each named file in ``eval`` (of which ``eval_whole`` judges all that is not trained on). Relative paths
    stand below ``root``.
    ``pairs_per_prompt`` breaks what is trained on into pairs and takes so many of each prompt, in turn.
    """

    root: str = ""
    train: list[Source] = Field(min_length=1)
    eval: dict[str, Source] = {}
    eval_whole: bool = False
    holdout: float = Field(default=0.2, ge=0, lt=1)
    seed: int = 0
    pairs_per_prompt: int | None = Field(default=None, ge=1)
    limit: int | None = Field(default=None, ge=1)
    eval_limit: int | None = Field(default=None, ge=1)


class Lora(Part):
    """Low-rank adaptation; ``layers`` are counted from the top, all by default."""

    rank: int = Field(default=8, ge=1)
    alpha: float = Field(default=16, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: list[str] = ATTENTION
    top_layers: int | None = Field(default=None, ge=1)


class Model(Part):
    """The start and what of it is trained.

    ``start`` is an artifact of an earlier stage to go on from (DSP's base → GRFT → CRFT); its base must be ``base``.
    ``lora: null`` trains all weights. ``head: probe`` starts a new head from linear probing, with ``probe_decay`` as
    its ridge penalty, instead of at random.
    """

    base: str = "smollm2-135m-instruct"
    start: str | None = None
    lora: Lora | None = Lora()
    head: Literal["random", "probe"] = "random"
    probe_decay: float = Field(default=0.1, gt=0)
    precision: Literal["bf16", "fp32"] = "bf16"
    gradient_checkpointing: bool = False
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"


class Optimisation(Part):
    """How many steps of what size. ``batch`` counts prompts on one device; ``warmup`` is a share of all steps."""

    learning_rate: float = Field(default=1e-4, gt=0)
    epochs: float = Field(default=1, gt=0)
    max_steps: int = -1
    batch: int = Field(default=8, ge=1)
    accumulation: int = Field(default=1, ge=1)
    eval_batch: int = Field(default=8, ge=1)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    schedule: Literal["linear", "cosine", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt"] = "cosine"
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    seed: int = 0


class Watch(Part):
    """When to log, evaluate and save. Steps are optimiser steps; 0 means never."""

    log_every: int = Field(default=5, ge=1)
    eval_at_start: bool = True
    eval_every: int = Field(default=0, ge=0)
    save_every: int = Field(default=0, ge=0)
    keep: int = Field(default=2, ge=1)
    trackers: list[str] = []


class Scale(Part):
    """DeepSpeed's ZeRO stage, with the launcher's processes (torchrun, accelerate launch or deepspeed)."""

    zero: Literal[0, 1, 2, 3] = 0
    offload: bool = False

    @model_validator(mode="after")
    def _offload_needs_zero(self) -> "Scale":
        if self.offload and self.zero < 2:
            raise ValueError("offload needs zero: 2 or 3")
        return self


class Run(Part):
    """What both kinds of recipe share."""

    name: str
    data: Data
    model: Model = Model()
    optimisation: Optimisation = Optimisation()
    watch: Watch = Watch()
    scale: Scale = Scale()
    output: str = ""
    cache: str | None = None
    licences: list[str] = []

    @model_validator(mode="after")
    def _named(self) -> "Run":
        if not NAME.fullmatch(self.name):
            raise ValueError("name: use 1 to 64 of letters, digits, '_', '.', '-'")
        if not self.output:
            self.output = f"runs/{self.name}"
        return self


class RewardLoss(Part):
    """DSP's two losses: ranking over all comparable pairs, and imitation of texts scored above a threshold."""

    lm_coefficient: float = Field(default=0.0, ge=0)
    lm_threshold: float = Field(default=0.85, ge=0)
    lm_prompt: bool = False


class RewardRun(Run):
    """A reward model: DSP's ranking loss over N answers (arXiv 2309.03126)."""

    kind: Literal["reward"]
    reading: Reading = Reading(max_length=512)
    loss: RewardLoss = RewardLoss()
    objective: str = ""
    probes: int = Field(default=8, ge=1, le=64)

    @model_validator(mode="after")
    def _probing_reads_whole_weights(self) -> "RewardRun":
        if self.model.head == "probe" and self.scale.zero == 3:
            raise ValueError("model.head: probe reads the weights whole; use scale.zero up to 2, or head: random")
        return self

    @model_validator(mode="after")
    def _default_objective(self) -> "RewardRun":
        self.objective = self.objective or self.name
        return self


class Preference(Part):
    """DPO's settings, given to TRL: β, and the weight of a likelihood term on the chosen answer."""

    beta: float = Field(default=0.1, gt=0)
    sft: float = Field(default=0.0, ge=0)
    max_length: int = Field(default=512, ge=16)


class ExpertRun(Run):
    """An expert policy: DPO (arXiv 2305.18290) toward one domain's or preference's answers."""

    kind: Literal["expert"]
    preference: Preference = Preference()
    family: str = "policy"
    objective: str = ""
    probes: int = Field(default=4, ge=1, le=64)

    @model_validator(mode="after")
    def _fits_a_soup(self) -> "ExpertRun":
        self.objective = self.objective or self.name
        if self.model.lora is None:
            raise ValueError("model.lora: an expert is an adapter, so that it can be souped; give it a rank")
        if self.model.start is not None:
            raise ValueError("model.start: experts of one family all start from their base")
        if self.model.head != "random":
            raise ValueError("model.head: an expert has no score head")
        return self


Recipe = Annotated[RewardRun | ExpertRun, Field(discriminator="kind")]
_RECIPE: TypeAdapter[RewardRun | ExpertRun] = TypeAdapter(Recipe)


def read_recipe(source: str, changes: Sequence[str] = ()) -> RewardRun | ExpertRun:
    """Read a recipe file, or a packaged one by name, with ``a.b=c`` changes applied.

    Raises:
        RecipeError: no such file, a key that does not exist, or a value that cannot be.
    """
    path = Path(source)
    if not path.is_file():
        path = RECIPES / f"{source}.yaml"
    if not path.is_file():
        raise RecipeError(f"{source!r} is no file and none of the packaged recipes: {', '.join(packaged())}")
    raw = _yaml(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(raw, dict):
        raise RecipeError(f"{path}: a recipe is a mapping with `kind`, `name` and `data`")
    for change in changes:
        _apply(raw, change)
    return resolve(raw, str(path))


def resolve(raw: dict[str, Any], where: str = "recipe") -> RewardRun | ExpertRun:
    """Validate a mapping as a recipe, all defaults filled in."""
    try:
        return _RECIPE.validate_python(raw)
    except ValidationError as error:
        raise RecipeError(f"{where}: {'; '.join(map(_told, error.errors()))}") from error


def _told(fault: Any) -> str:
    """A fault by its key in the recipe; pydantic puts the kind before it, and a few words before our own."""
    key = ".".join(str(part) for part in fault["loc"] if part not in ("reward", "expert"))
    message = fault["msg"].removeprefix("Value error, ")
    return f"{key}: {message}" if key else message


def packaged() -> list[str]:
    """Names of the recipes that travel in this package."""
    return sorted(path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.rglob("*.yaml"))


def dump(recipe: RewardRun | ExpertRun) -> str:
    """The resolved recipe as YAML."""
    return yaml.safe_dump(recipe.model_dump(), sort_keys=False, allow_unicode=True, width=100)


def _yaml(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{where} is no YAML: {' '.join(str(error).split())}") from error


def _apply(raw: dict[str, Any], change: str) -> None:
    key, equals, value = change.partition("=")
    if not equals:
        raise RecipeError(f"--set {change!r}: write it as key.key=value")
    *parents, last = key.split(".")
    node: Any = raw
    for parent in parents:
        node = _step(node, parent, key)
    if isinstance(node, list):
        node[_index(node, last, key)] = _yaml(value, f"--set {key}")
    elif isinstance(node, dict):
        node[last] = _yaml(value, f"--set {key}")
    else:
        raise RecipeError(f"--set {key}: nothing stands below {parents[-1]!r}")


def _step(node: Any, part: str, key: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, part, key)]
    if not isinstance(node, dict):
        raise RecipeError(f"--set {key}: {part!r} is not a group")
    if node.get(part) is None:
        node[part] = {}
    return node[part]


def _index(node: list[Any], part: str, key: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        raise RecipeError(f"--set {key}: {part!r} is no index into a list of {len(node)}")
    return int(part)
