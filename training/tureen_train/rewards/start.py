"""The start of training: a base with a new head, or the artifact of an earlier stage (DSP's base → GRFT → CRFT)."""

import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import set_seed

from tureen_core.artifact import HEAD, Artifact, open_artifact, read_weights
from tureen_core.base import digest_weights, load_tokenizer
from tureen_train.config import RecipeError, RewardRun
from tureen_train.networks.adapter_start import load_adapter
from tureen_train.networks.reward_model import add_lora, load_reward_model
from tureen_train.networks.sharded import gather_weights
from tureen_train.rewards.collate import EncodedRecords
from tureen_train.rewards.probe_head import start_from_probe
from tureen_train.rewards.token_head import start_from_tokens
from tureen_train.runs.folder import find_cache

LM_HEAD = "lm_head.weight"

log = logging.getLogger("tureen.train")


def open_start(run: RewardRun, base: Path) -> Artifact | None:
    """Open and verify the artifact that ``model.start`` names; None where the recipe starts from its base.

    Call it before the trainer's settings are made: after that, under ZeRO-3, any model that is opened is sharded.

    Raises:
        RecipeError: the artifact has other weights or another base than the recipe, or reads its reward otherwise.
        ArtifactError: the artifact does not verify.
    """
    if run.model.start is None:
        return None
    begun = open_artifact(Path(run.model.start))
    manifest = begun.manifest
    for field in ("pooling", "template", "bos", "eos", "step_mark"):
        theirs, ours = getattr(manifest.reading, field), getattr(run.reading, field)
        if theirs != ours:
            raise RecipeError(f"model.start: {begun.name} was trained with reading.{field} {theirs!r}, not {ours!r}")
    if manifest.input != run.loss.input:
        raise RecipeError(f"model.start: {begun.name} reads a {manifest.input}, and loss.method a {run.loss.input}")
    if not run.loss.frozen and manifest.rows != run.loss.rows:
        rows = f"{manifest.rows} rewards, and loss.method trains {run.loss.rows}"
        raise RecipeError(f"model.start: {begun.name} has a head of {rows}")
    if (manifest.weights == "lora") != (run.model.lora is not None):
        raise RecipeError(f"model.start: {begun.name} has {manifest.weights} weights; make model.lora agree")
    if manifest.base is not None and manifest.base.digest != digest_weights(base):
        raise RecipeError(f"model.start: {begun.name} has another base than {run.model.base}")
    return begun


def make_model(run: RewardRun, base: Path, begun: Artifact | None = None, train: EncodedRecords | None = None) -> Any:
    """Make the model that a run trains, with the weights of its base or of ``begun``.

    Args:
        begun: the result of :func:`open_start`.
        train: the records for ``model.head: probe``.

    Raises:
        RecipeError: the adapter of ``begun`` has another shape than the recipe's.
    """
    folder = begun.folder if begun is not None and begun.manifest.weights == "full" else base
    zero = run.scale.zero
    kept = begun is None and keeps_head(run, base)
    set_seed(run.optimisation.seed)
    model = load_reward_model(
        folder, run.model, run.reading, zero, run.loss.rows, renew=begun is None and not kept and has_head(base)
    )
    if begun is None and train is not None and run.model.head == "probe":
        start_from_probe(model, train, run.model.probe_decay, digest_weights(folder), find_cache(run))
    if begun is None and run.model.head == "tokens":
        start_from_tokens(model, load_tokenizer(base), run)
    source = run.model.base if kept else None if begun is None else begun.name
    log.info("the score head is %s", "new" if source is None else f"taken from {source}")
    if run.model.lora is not None:
        model = add_lora(model, run.model, zero)
        if begun is not None:
            adapter, head = read_weights(begun)
            load_adapter(model, adapter, {} if head is None else {f"{HEAD}.weight": head})
    elif not model.config.tie_word_embeddings:
        _settle_lm_head(model, folder, base, imitates=run.loss.imitates, sharded=zero == 3)
    return model


def has_head(base: Path) -> bool:
    """Whether a base is a classifier with a score head."""
    return _shard_of(base, f"{HEAD}.weight") is not None


def keeps_head(run: RewardRun, base: Path) -> bool:
    """Whether training goes on from the score head of the base.

    Raises:
        RecipeError: the recipe wants that head, and there is none, or one with other rows.
    """
    if run.model.head not in ("auto", "base"):
        return False
    path = _shard_of(base, f"{HEAD}.weight")
    if path is None:
        if run.model.head == "base":
            raise RecipeError(f"model.head: {run.model.base} has no score head; set it to random or leave it out")
        return False
    with safe_open(path, framework="pt") as shard:
        rows = shard.get_slice(f"{HEAD}.weight").get_shape()[0]
    if rows != run.loss.rows:
        raise RecipeError(
            f"model.head: the score head of {run.model.base} has {rows} rows, and this run trains {run.loss.rows}; set "
            "it to random, which begins a new head"
        )
    return True


def _settle_lm_head(model: Any, folder: Path, base: Path, imitates: bool, sharded: bool) -> None:
    """Prepare an untied LM head: frozen unless it imitates, and the base's if the checkpoint in ``folder`` has none."""
    weight = model.lm_head.weight
    weight.requires_grad_(imitates)
    if imitates and _shard_of(folder, LM_HEAD) is None:
        log.info("the LM head is taken from the base, because a classifier has none")
        with gather_weights([weight], sharded), torch.no_grad():
            weight.copy_(_lm_head(base))


def _shard_of(folder: Path, name: str) -> Path | None:
    """Find the file of a checkpoint that has a tensor of this name."""
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as shard:
            if name in shard.keys():  # noqa: SIM118  (a safetensors file is no mapping)
                return path
    return None


def _lm_head(base: Path) -> Tensor:
    path = _shard_of(base, LM_HEAD)
    if path is None:
        raise RecipeError(f"loss.lm_coefficient: {base} has no {LM_HEAD}, so nothing can be imitated; set it to 0")
    with safe_open(path, framework="pt") as shard:
        weight: Tensor = shard.get_tensor(LM_HEAD)
    return weight
