"""Open causal models strictly, with or without a PEFT adapter, in float32."""

import json
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tureen_core.adapter_files import WEIGHTS
from tureen_core.capped_attention import keep_attention_cap
from tureen_core.lora import SoupError
from tureen_core.peft_config import CONFIG, check_plain, load_config

Method = Literal["lora", "merged", "full"]
MERGED = ("ADALORA", "HRA", "IA3", "LOHA", "LOKR", "OFT", "VERA")


def find_method(folder: Path, name: str) -> Method:
    """Find out how a folder is read as an expert.

    Returns:
        ``lora`` for a plain LoRA, which is read exactly; ``merged`` for DoRA and for other adapters that PEFT can merge
        into the base; ``full`` for a whole model.

    Raises:
        SoupError: the folder holds neither an adapter nor a model, or an adapter that cannot be part of a soup.
    """
    if not (folder / CONFIG).is_file():
        if (folder / "config.json").is_file():
            return "full"
        raise SoupError(f"{name}: {folder} holds neither a PEFT adapter ({CONFIG}) nor a model (config.json)")
    config = load_config(folder, name)
    if config.get("peft_type") in MERGED:
        return "merged"
    dora = bool(config.get("use_dora"))
    check_plain({**config, "use_dora": False}, name, None)
    return "merged" if dora else "lora"


def read_named_base(folder: Path) -> str | None:
    """Read the base model that an adapter's configuration names; None if it names none."""
    try:
        named = json.loads((folder / CONFIG).read_text()).get("base_model_name_or_path")
    except (OSError, ValueError):
        return None
    return named if isinstance(named, str) and named else None


def open_model(folder: Path, name: str, device: torch.device) -> Any:
    """Open a causal model in float32.

    Raises:
        SoupError: it cannot be opened, or a tensor is missing, unexpected or of another shape.
    """
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise SoupError(f"{name}: {folder} is no model that AutoModelForCausalLM opens: {_shorten(error)}") from error
    for fault in ("missing", "unexpected", "mismatched"):
        if keys := found[f"{fault}_keys"]:
            raise SoupError(f"{name}: {folder} is no causal model: {fault} tensor {min(map(str, keys))}")
    return keep_attention_cap(model).eval().requires_grad_(False).to(device)


def attach_adapter(model: Any, folder: Path, name: str) -> Any:
    """Open an adapter on a model with PEFT.

    Raises:
        SoupError: it does not fit the model, or PEFT leaves out one of its tensors.
    """
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            adapted = PeftModel.from_pretrained(model, folder, local_files_only=True, use_safetensors=True)
            found = set_peft_model_state_dict(adapted, load_file(folder / WEIGHTS))
        except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
            raise SoupError(f"{name}: PEFT cannot open {folder} on this base: {_shorten(error)}") from error
    lost = [str(each.message) for each in told if "missing adapter keys" in str(each.message)]
    lost += [f"it holds {key}, which nothing reads" for key in found.unexpected_keys]
    if lost:
        raise SoupError(f"{name}: the adapter is not whole, or has another base: {' '.join(lost[0].split())[:300]}")
    return adapted.eval()


def merge_adapter_into(model: Any, folder: Path, name: str) -> Any:
    """Merge an adapter into a model with PEFT, in place.

    Raises:
        SoupError: PEFT cannot open or merge it.
    """
    adapted = attach_adapter(model, folder, name)
    try:
        return adapted.merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError, AttributeError, NotImplementedError) as error:
        raise SoupError(f"{name}: PEFT cannot merge {folder} into this base: {_shorten(error)}") from error


def _shorten(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
