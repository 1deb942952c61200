"""Language models in GGUF files, read by transformers into a folder as other models have."""

import hashlib
from pathlib import Path
from typing import Any

import torch

from tureen_core.base import publish_folder
from tureen_core.plain.backbones import copy_beside, digest_beside
from tureen_core.plain.options import PlainError

ROTARY = ("rope_freqs.", "rope_factors_long.", "rope_factors_short.")  # transformers passes them over


def find_gguf(folder: Path) -> Path | None:
    """Find the GGUF file of a folder without other weights; None if it has none.

    Raises:
        PlainError: it has several.
    """
    files = sorted(folder.glob("*.gguf"))
    if not files or any(folder.glob("*.safetensors")):
        return None
    if len(files) > 1:
        raise PlainError(f"{folder} holds {len(files)} GGUF files; move one of them to a folder of its own")
    return files[0]


def convert_gguf(path: Path, cache: Path) -> Path:
    """Write the model of a GGUF file into ``cache``, in float32, with the tokenizer's files beside it.

    Raises:
        PlainError: transformers does not read all of it, or it has a head that is not a language model's.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest() + digest_beside(path.parent)
    target = cache / "plain" / hashlib.sha256(digest.encode()).hexdigest()[:32] / path.parent.name
    if (target / "config.json").is_file():
        return target
    elements = _count_elements(path)
    model = _load(path)
    parameters = sum(each.numel() for each in model.parameters())
    if parameters != elements:
        raise PlainError(
            f"{path.name}: transformers reads {parameters} of the {elements} numbers of this GGUF file, so it would be "
            "another model; serve the model's own checkpoint"
        )

    def write(folder: Path) -> None:
        model.save_pretrained(folder)
        copy_beside(path.parent, folder)

    publish_folder(target, write)
    return target


def _count_elements(path: Path) -> int:
    """Count the numbers in the file's tensors."""
    from gguf import GGUFReader

    try:
        tensors = GGUFReader(path).tensors
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise PlainError(f"{path} cannot be read: {error}; copy it again") from error
    for tensor in tensors:
        if tensor.name.startswith("cls."):
            raise PlainError(
                f"{path.name} has a head of llama.cpp ({tensor.name}), which transformers does not read; serve the "
                "model's own checkpoint"
            )
        if tensor.name.startswith(ROTARY):
            raise PlainError(
                f"{path.name} has factors of rotary positions ({tensor.name}), which transformers does not read from "
                "GGUF files; serve the model's own checkpoint"
            )
    return sum(int(tensor.n_elements) for tensor in tensors)


def _load(path: Path) -> Any:
    from transformers import AutoModelForCausalLM, GgufConfig

    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise PlainError(
            f"{path.name}: transformers cannot read this GGUF file: {' '.join(str(error).split())[:300]}; serve the "
            "model's own checkpoint"
        ) from error
    if missing := sorted(map(str, found["missing_keys"])):
        raise PlainError(f"{path.name}: the weight {missing[0]} is missing, and would be newly initialised, at random")
    return model.eval()
