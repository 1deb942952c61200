"""The parts that every recipe has: data, model, optimisation, watch, scale."""

from collections.abc import Callable
from pathlib import PurePath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tureen_core.manifest import Input
from tureen_core.preference import NAME

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
Packed = Literal["prompts", "texts", "off"]


class RecipeError(ValueError):
    """A recipe cannot be run. The message names the key."""


class RecipePart(BaseModel):
    """Base class of a recipe's parts. An unknown key is an error."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Source(RecipePart):
    """A file or folder of preference records, and how to read it (see :mod:`tureen.records`).

    ``map`` gives columns the names that the forms know; an empty name leaves a column out. ``strict`` makes a bad
    record and a column that is not understood an error. Pairs whose scores contradict which answer is chosen are left
    out, or with ``reversed_pairs: turn`` read by their scores. ``licence`` is the file's own, for the artifact's card.
    """

    path: str
    licence: str | None = None
    form: str = "auto"
    domain: str | None = None
    to_pairs: bool = False
    exclude: list[str] = []
    split: str | None = None
    limit: int | None = Field(default=None, ge=1)
    strict: bool = False
    map: dict[str, str] = {}
    reversed_pairs: Literal["refuse", "turn"] = "refuse"


class Data(RecipePart):
    """The training data and the evaluation data.

    ``holdout`` is the share of the prompts that are kept out of training. Without ``eval`` these prompts of ``train``
    are the evaluation file ``heldout``. Of each file in ``eval`` the same share is evaluated. With ``eval_whole`` all
    prompts of ``eval`` that are not trained on are evaluated. Relative paths are below ``root``. ``pairs_per_prompt``
    splits the training records into pairs and draws at most this number for each record.

    ``most_dropped`` is the largest share of a file's records, and of the training pairs, that may be dropped; a run
    that drops more ends before its first step. 1 allows all. ``calibrate_on`` names the evaluation file that sets the
    rewards' scale; by default all of them do.
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
    most_dropped: float = Field(default=0.1, ge=0, le=1)
    calibrate_on: str | None = None


class Lora(RecipePart):
    """Low-rank adaptation. ``top_layers`` adapts only so many of the last layers; by default all."""

    rank: int = Field(default=8, ge=1)
    alpha: float = Field(default=16, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: list[str] = ATTENTION
    top_layers: int | None = Field(default=None, ge=1)


class Model(RecipePart):
    """The start of training, and which weights are trained.

    ``start`` is the artifact of an earlier stage (DSP's base → GRFT → CRFT); its base must be ``base``. ``lora: null``
    trains all weights. The score head goes on from that of ``base`` where ``base`` is a classifier with one, and else
    starts at random. ``head: base`` demands the first and ``head: random`` the second; with ``head: probe`` it starts
    from linear probing with the ridge penalty ``probe_decay``, with ``head: tokens`` from the LM head's rows of
    ``loss.tokens``. ``quantise`` keeps the
    base under a LoRA in 4 or 8 bits (QLoRA). It is served unquantised, so served rewards differ slightly from
    training's. ``saved`` is the dtype of a LoRA in the artifact; by default that of training.
    """

    base: str = "smollm2-135m-instruct"
    start: str | None = None
    lora: Lora | None = Lora()
    head: Literal["auto", "base", "random", "probe", "tokens"] = "auto"
    probe_decay: float = Field(default=0.1, gt=0)
    precision: Literal["bf16", "fp32"] = "bf16"
    saved: Literal["bfloat16", "float32"] | None = None
    gradient_checkpointing: bool = False
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    quantise: Literal["nf4", "int8"] | None = None

    @model_validator(mode="after")
    def _quantised_weights_are_not_trained(self) -> "Model":
        if self.quantise and self.lora is None:
            raise ValueError("quantise needs lora: quantised weights cannot be trained")
        return self

    @model_validator(mode="after")
    def _only_a_lora_is_saved_in_another_dtype(self) -> "Model":
        if self.saved and self.lora is None:
            raise ValueError("saved needs lora: whole weights are saved as they were trained; leave the key out")
        return self


class Optimisation(RecipePart):
    """The optimiser's settings. ``batch`` counts prompts on one device; ``warmup`` is a share of all steps."""

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


class Watch(RecipePart):
    """How often to log, evaluate and save, in optimiser steps; 0 means never. ``keep`` checkpoints are kept."""

    log_every: int = Field(default=5, ge=1)
    eval_at_start: bool = True
    eval_every: int = Field(default=0, ge=0)
    save_every: int = Field(default=0, ge=0)
    keep: int = Field(default=2, ge=1)
    trackers: list[str] = []


class Scale(RecipePart):
    """DeepSpeed's ZeRO stage, which needs a launcher (torchrun, accelerate launch or deepspeed); and packing.

    ``packing`` runs the texts of a batch (of rewards or DPO) as one row without padding. ``prompts`` also computes the
    shared start of the answers to one prompt only once; ``texts`` does not. Loss and gradients are those of ``off``,
    which pads. Where they would not be, the run pads and logs the reason. Only dropout differs: a shared prompt draws
    it once.
    """

    zero: Literal[0, 1, 2, 3] = 0
    offload: bool = False
    packing: Packed = "prompts"

    @model_validator(mode="after")
    def _offload_needs_zero(self) -> "Scale":
        if self.offload and self.zero < 2:
            raise ValueError("offload needs zero: 2 or 3")
        return self


class Run(RecipePart):
    """The keys that all kinds of recipe share.

    ``licences`` are those of all data files together, beside the ``licence`` of each. Where ``--set`` names another
    file, its licence goes, and ``licences`` too, since nothing tells which of them were the file's.
    """

    name: str
    data: Data
    model: Model = Model()
    optimisation: Optimisation = Optimisation()
    watch: Watch = Watch()
    scale: Scale = Scale()
    output: str = ""
    cache: str | None = None
    licences: list[str] = []

    def list_licences(self) -> list[str]:
        """List the licences of the data, each once, and the training files without one. Empty if nothing is stated."""
        sources = [*self.data.train, *self.data.eval.values()]
        stated = [*self.licences, *(each.licence for each in sources if each.licence)]
        if stated and not self.licences:
            names = [PurePath(each.path).name for each in self.data.train if not each.licence]
            stated += [f"{name}: not stated" for name in names]
        return list(dict.fromkeys(stated))

    @model_validator(mode="after")
    def _named(self) -> "Run":
        if not NAME.fullmatch(self.name):
            raise ValueError("name: use 1 to 64 of letters, digits, '_', '.', '-'")
        if self.model.quantise and self.scale.zero == 3:
            raise ValueError("model.quantise: ZeRO-3 cannot shard quantised weights; use scale.zero up to 2")
        if not self.output:
            self.output = f"runs/{self.name}"
        return self


class Loss(RecipePart):
    """Base class of the methods' settings, with the values that most of them share."""

    @property
    def rows(self) -> int:
        """Rows of the score head."""
        return 1

    @property
    def input(self) -> Input:
        """The kind of the model's input."""
        return "conversation"

    @property
    def frozen(self) -> bool:
        """Whether the backbone is frozen, so that only the head or gate is fitted."""
        return False

    @property
    def imitates(self) -> bool:
        """Whether the LM head is trained too."""
        return False


def make_tag(default: str) -> Callable[[Any], Any]:
    """Make the function that reads the method of settings, for a union of them; ``default`` if none is named."""

    def read_method(value: Any) -> Any:
        return value.get("method", default) if isinstance(value, dict) else getattr(value, "method", None)

    return read_method
