"""Copies of what vLLM reads: a full reward checkpoint without its score head, and a tokenizer with one decoder.

vLLM refuses weights that its architecture does not have. Tureen computes the head itself. A file with the head cannot
be linked, since safetensors has no holes; it is copied once, into the cache.
"""

import hashlib
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tureen_core.artifact import GATE, HEAD, HEAD_FILE
from tureen_core.base import has_mixed_decoder

INDEX = "model.safetensors.index.json"


def find_causal_architecture(folder: Path) -> str | None:
    """Find transformers' name of the causal architecture of a checkpoint's model type; None if there is none."""
    kind = json.loads((folder / "config.json").read_text()).get("model_type")
    found = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind)
    return found if isinstance(found, str) else None


def keep_headless_view(folder: Path, cache: Path, extra: tuple[str, ...] = (f"{HEAD}.",)) -> Path:
    """Find the view of a checkpoint in ``cache/views``, or write it there as a whole. Remove its oldest views.

    A view belongs to the names, sizes and times of the folder's files. The last two are kept, since another server may
    still run on the older one.

    Args:
        extra: see :func:`write_headless_view`.

    Raises:
        OSError: the cache cannot be written, or has no room.
    """
    files = sorted((path.name, path.stat()) for path in folder.iterdir() if path.is_file())
    facts = [*extra, *(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in files)]
    views = cache / "views" / _shorten(str(folder.resolve()))
    view = views / _shorten("\n".join(facts)) / folder.resolve().name
    if not view.is_dir():
        views.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".view-", dir=views))
        try:
            write_headless_view(folder, scratch / view.name, extra)
            os.replace(scratch, view.parent)
        except OSError:  # another process wrote it meanwhile
            if not view.is_dir():
                raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    os.utime(view.parent)
    _remove_oldest(views)
    return view


def _shorten(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _remove_oldest(views: Path) -> None:
    """Remove all views but the two that were used last, and what killed processes left a day ago."""
    used = sorted(views.iterdir(), key=lambda each: each.stat().st_mtime, reverse=True)
    whole = [each for each in used if not each.name.startswith(".")]
    left = [each for each in used if each.name.startswith(".") and each.stat().st_mtime < time.time() - 86_400]
    for each in [*whole[2:], *left]:
        shutil.rmtree(each, ignore_errors=True)


def write_headless_view(folder: Path, out: Path, extra: tuple[str, ...] = (f"{HEAD}.",)) -> Path:
    """Write a checkpoint without its head and gate to a new folder.

    Most files are links. Files that hold the head's tensors or name them are copied without them.

    Args:
        out: the folder to create.
        extra: prefixes of the tensors that do not belong to the backbone.

    Returns:
        ``out``.
    """
    out.mkdir(parents=True)
    for path in folder.iterdir():
        if path.suffix == ".safetensors" and path.name not in (GATE, HEAD_FILE) and _has_extra(path, extra):
            _copy_backbone(path, out / path.name, extra)
        elif path.is_file() and path.name not in ("config.json", INDEX, GATE, HEAD_FILE):
            (out / path.name).symlink_to(path.resolve())
    config = json.loads((folder / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(config | {"architectures": [find_causal_architecture(folder)]}))
    if (folder / INDEX).is_file():
        index = json.loads((folder / INDEX).read_text())
        index["weight_map"] = {key: file for key, file in index["weight_map"].items() if not key.startswith(extra)}
        (out / INDEX).write_text(json.dumps(index))
    return out


def write_decoder_view(folder: Path, tokenizer: Any, out: Path) -> dict[str, str]:
    """Write a base's tokenizer as ``load_tokenizer`` mends it, if it had to be mended.

    Returns:
        The engine's argument that names it; empty if the base's own is as good.
    """
    file = folder / "tokenizer.json"
    held = json.loads(file.read_bytes()).get("decoder") if file.is_file() else None
    if not has_mixed_decoder(json.dumps(held).encode()):
        return {}
    tokenizer.save_pretrained(out)
    return {"tokenizer": str(out)}


def _has_extra(path: Path, extra: tuple[str, ...]) -> bool:
    with safe_open(path, framework="pt") as shard:
        return any(key.startswith(extra) for key in shard.keys())  # noqa: SIM118  (a safetensors file is not a mapping)


def _copy_backbone(path: Path, out: Path, extra: tuple[str, ...]) -> None:
    with safe_open(path, framework="pt") as shard:
        tensors = {key: shard.get_tensor(key) for key in shard.keys() if not key.startswith(extra)}  # noqa: SIM118
    save_file(tensors, out, metadata={"format": "pt"})
