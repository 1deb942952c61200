"""A plain folder's configuration and tensors, read without loading the model."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from tureen_core.base import CACHE
from tureen_core.own_files import find_foreign_file
from tureen_core.peft_config import CONFIG as ADAPTER_CONFIG
from tureen_core.plain.options import PlainError

PICKLED = ("*.bin", "*.pt", "*.pth")
CODED = {"I8", "U8", "I16", "U16", "I32", "U32"}  # dtypes of a weight that is not a number by itself


@dataclass(frozen=True)
class Checkpoint:
    """A Hugging Face folder.

    Attributes:
        folder: its path.
        config: ``config.json``; of an adapter, its base's.
        adapter: ``adapter_config.json``; empty for a whole model.
        shapes: the shape of each tensor by name.
        dtypes: the dtype of each tensor, as safetensors names it.
        files: the file of each tensor.
        cache: the folder for copies whose weights are converted.
        base: the folder of an adapter's base; None for a whole model.
    """

    folder: Path
    config: dict[str, Any]
    adapter: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    files: dict[str, Path]
    cache: Path = CACHE
    base: Path | None = None

    @property
    def architecture(self) -> str:
        """The first architecture of the configuration; empty if it names none."""
        return str(next(iter(self.config.get("architectures") or [""])))

    @property
    def text_config(self) -> dict[str, Any]:
        """The configuration of the language model, also inside a model that sees images."""
        found: dict[str, Any] = self.config.get("text_config") or self.config
        return found

    def read_tensor(self, name: str) -> Tensor:
        """Read one tensor.

        Raises:
            PlainError: there is none of this name.
        """
        if name not in self.files:
            raise PlainError(f"{self.folder.name}: the tensor {name} is missing; copy or save the model again")
        with safe_open(self.files[name], framework="pt") as shard:
            tensor: Tensor = shard.get_tensor(name)
        return tensor

    def find_tensor(self, *names: str) -> str | None:
        """Return the first of these names that a tensor has; None if none has."""
        return next((name for name in names if name in self.shapes), None)

    def refuse_codes(self, known: Collection[str] = ()) -> None:
        """Refuse weights that are stored as codes of a quantisation, unless these are known.

        Raises:
            PlainError: there is one; without its scale it would be read as wrong numbers.
        """
        for name, dtype in self.dtypes.items():
            coded = (dtype in CODED or dtype.startswith(("F8", "F4"))) and name.endswith("weight")
            if coded and len(self.shapes[name]) > 1 and name not in known:
                raise PlainError(
                    f"{self.folder.name}: {name} is quantised ({dtype}), and `quantization_config` of config.json and "
                    "the other tensors do not say how; copy the whole model again"
                )


def read_checkpoint(folder: Path, cache: Path = CACHE) -> Checkpoint:
    """Read the configuration and the headers of the weights.

    Args:
        cache: the folder for copies whose weights are converted.

    Raises:
        PlainError: the folder holds no configuration, or no safetensors.
    """
    config, adapter = read_json(folder / "config.json"), read_json(folder / ADAPTER_CONFIG)
    if not config and not adapter:
        inside = sorted(path.parent.name for path in folder.glob("*/config.json"))
        hint = f"; it holds models in folders of their own: name one, such as {folder / inside[-1]}" if inside else ""
        raise PlainError(
            f"{folder} is no model: it has neither tureen.json (an artifact) nor config.json (Hugging Face) nor "
            f"{ADAPTER_CONFIG} (PEFT){hint}"
        )
    if foreign := find_foreign_file(folder):
        raise PlainError(f"{folder}: {foreign}")
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, str] = {}
    files: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as shard:
                for name in shard.keys():  # noqa: SIM118  (a safetensors file is not a mapping)
                    stored = shard.get_slice(name)
                    shapes[name], dtypes[name], files[name] = tuple(stored.get_shape()), stored.get_dtype(), path
        except (SafetensorError, OSError) as error:
            raise PlainError(f"{path} cannot be read: {error}; copy it again") from error
    if not files:
        pickled = sorted(path.name for pattern in PICKLED for path in folder.glob(pattern))
        if pickled:
            raise PlainError(
                f"{folder} holds its weights as pickles ({pickled[0]}), which can run code when they are read: convert "
                f"them with `tureen-train import {folder} OUT --from pickle`"
            )
        raise PlainError(f"{folder} holds no *.safetensors; save the model with save_pretrained")
    return Checkpoint(folder, config, adapter, shapes, dtypes, files, cache)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty if there is no such file.

    Raises:
        PlainError: the file cannot be read, or holds something else.
    """
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise PlainError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise PlainError(f"{path} holds no JSON object")
    return found
