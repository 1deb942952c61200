"""The bases of plain adapters."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from tureen_core.base import PACKAGED, BaseError, digest_weights, locate_base
from tureen_core.peft_config import CONFIG as ADAPTER_CONFIG
from tureen_core.plain.checkpoint import Checkpoint, read_json
from tureen_core.plain.locate import locate_source
from tureen_core.plain.options import PlainError, PlainOptions
from tureen_core.plain.quantised import dequantise_folder


class MissingBase(PlainError):
    """The base of an adapter is not on this machine. It may come later."""


def attach_base(checkpoint: Checkpoint, options: PlainOptions, download: bool = True) -> Checkpoint:
    """Find the base of an adapter, and give the checkpoint its configuration. A whole model is returned as it is.

    Args:
        download: whether the base may be fetched and dequantised.

    Raises:
        MissingBase: the base is not on this machine.
        PlainError: it is quantised in a way that is not read, or a base was named for a whole model.
    """
    if not checkpoint.adapter:
        if options.adapter_base is not None:
            raise PlainError(f"adapter_base: {checkpoint.folder.name} is no adapter; leave it out")
        return checkpoint
    named = _name_base(checkpoint.adapter, options)
    try:
        cached = checkpoint.cache
        folder = locate_base(named, cached) if named in PACKAGED else locate_source(named, cached, download=download)
    except (BaseError, PlainError) as error:
        raise MissingBase(
            f"{checkpoint.folder.name} is an adapter, and its base {named!r} is not on this machine: "
            f"{str(error).rstrip('.')}. Name the base with --adapter-base FOLDER"
        ) from error
    if download:
        folder = dequantise_folder(folder, checkpoint.cache)
    return replace(checkpoint, base=folder, config=read_json(folder / "config.json"))


def place_adapter_base(folder: Path, options: PlainOptions, places: Mapping[str, Path]) -> PlainOptions:
    """Name the folder of an adapter's base, if ``places`` has it by the name that the adapter or the options give it.

    Raises:
        PlainError: the adapter's configuration cannot be read.
    """
    adapter = read_json(folder / ADAPTER_CONFIG) if places else {}
    place = places.get(_name_base(adapter, options)) if adapter else None
    return options if place is None else options.model_copy(update={"adapter_base": str(place)})


def _name_base(adapter: Mapping[str, Any], options: PlainOptions) -> str:
    return options.adapter_base or str(adapter.get("base_model_name_or_path") or "")


def compute_base_digest(folder: Path) -> str:
    """Compute the digest of a base's weights, once while its files are unchanged."""
    stats = [(path, path.stat()) for path in sorted(folder.glob("*.safetensors"))]
    return _digest(folder, tuple((path.name, stat.st_size, stat.st_mtime_ns) for path, stat in stats))


@cache
def _digest(folder: Path, files: tuple[tuple[str, int, int], ...]) -> str:  # noqa: ARG001  (part of the key)
    return digest_weights(folder)
