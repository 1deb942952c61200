"""Opens the policy that a run trains: the base with a new LoRA, with an adapter that goes on, or with whole weights."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft import get_peft_model
from transformers import set_seed

from tureen_core.adapter_files import read_adapter
from tureen_core.artifact import MANIFEST, open_artifact, read_weights
from tureen_core.base import BaseError, digest_weights, locate_base
from tureen_core.experts.opened_models import read_named_base
from tureen_core.lora import Adapter
from tureen_train.config import ExpertRun, Packed, RecipeError
from tureen_train.networks.adapter_start import load_adapter
from tureen_train.networks.packing import switch_to_packed
from tureen_train.networks.policy_model import load_policy_model
from tureen_train.networks.reward_model import make_lora_config
from tureen_train.runs.folder import find_cache

log = logging.getLogger("tureen.train")


def open_start(run: ExpertRun, base: Path) -> Adapter | None:
    """Read and verify the adapter that ``model.start`` names; None where the recipe starts from its base.

    Raises:
        RecipeError: it is no adapter of a policy, or its base is not the recipe's.
        ArtifactError: the artifact does not verify.
        SoupError: the folder holds no plain LoRA.
    """
    if run.model.start is None:
        return None
    folder = Path(run.model.start).expanduser()
    if (folder / MANIFEST).is_file():
        artifact = open_artifact(folder)
        manifest = artifact.manifest
        if manifest.kind == "reward" or manifest.weights != "lora":
            told = "a reward model" if manifest.kind == "reward" else "whole weights"
            raise RecipeError(f"model.start: {manifest.name} is {told}; name an expert, a policy or a PEFT folder")
        if manifest.base is None or manifest.base.digest != digest_weights(base):
            raise RecipeError(f"model.start: {manifest.name} has another base than {run.model.base}")
        return read_weights(artifact)[0]
    _check_named_base(folder, run, base)
    return read_adapter(folder, folder.name)[0]


def _check_named_base(folder: Path, run: ExpertRun, base: Path) -> None:
    """Refuse a PEFT folder whose configuration names another base that is on this machine; tell one that is not."""
    named = read_named_base(folder)
    if named is None or named in (run.model.base, str(base)):
        return
    try:
        own = locate_base(named, find_cache(run))
    except BaseError:
        log.info("model.start: it was trained on %s, which is not on this machine to be compared", named)
        return
    if digest_weights(own) != digest_weights(base):
        raise RecipeError(f"model.start: it was trained on {named}, whose weights are not those of {run.model.base}")


def open_policy(run: ExpertRun, base: Path, start: Adapter | None = None) -> Any:
    """Load the policy that a run trains, with the weights of its base and, where given, of an adapter.

    Call it after the trainer's settings are made: they switch on ZeRO-3, which shards a model while it loads. The
    adapter of :func:`open_start` is read before that.

    Returns:
        A model of :mod:`tureen_train.networks.policy_model`, under PEFT if the recipe has a LoRA. The new LoRA follows
        from ``optimisation.seed``.

    Raises:
        RecipeError: the base cannot be trained as a policy, a target is not in it, or the adapter has other modules or
            ranks than ``model.lora``.
    """
    zero = run.scale.zero
    set_seed(run.optimisation.seed)
    model = load_policy_model(base, run.model, zero)
    if run.model.lora is None:
        return model
    settings = make_lora_config(run.model.lora, model, task="CAUSAL_LM")
    model = get_peft_model(model, settings, autocast_adapter_dtype=zero < 3)
    if start is not None:
        load_adapter(model, start)
        log.info("the LoRA starts from %s", start.name)
    return model


def choose_layout(run: ExpertRun, models: Sequence[Any]) -> Packed:
    """Choose how a policy's own answers run, and switch the models to packed attention if they run packed."""
    longest = run.sampling.max_prompt + run.sampling.max_tokens
    if run.scale.packing == "off":
        return "off"
    return run.scale.packing if all(switch_to_packed(each, longest) for each in models) else "off"
