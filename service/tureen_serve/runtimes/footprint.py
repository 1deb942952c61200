"""How much memory the weights of models take, from the headers of their files."""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

from tureen_core.artifact import Artifact

BaseKey = tuple[str, str]


@dataclass(frozen=True)
class Footprint:
    """The memory of one model's weights in bytes.

    Attributes:
        own: the weights that only this model uses.
        base: the key of the base whose weights it shares with other models; None without such a base.
        base_bytes: the weights of the base.
    """

    own: int
    base: BaseKey | None = None
    base_bytes: int = 0


def add_footprints(footprints: Iterable[Footprint]) -> int:
    """Add the bytes of models that are loaded together. Each shared base counts once."""
    found = list(footprints)
    bases = {each.base: each.base_bytes for each in found if each.base is not None}
    return sum(each.own for each in found) + sum(bases.values())


def count_weights(folder: Path) -> int:
    """Count the parameters of a checkpoint or an adapter from the headers of its files."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as shard:
            total += sum(math.prod(shard.get_slice(key).get_shape()) for key in shard.keys())  # noqa: SIM118
    return total


def make_base_key(artifact: Artifact, folder: Path) -> BaseKey:
    """Make the key of an adapter's base: two folders are one base if their weights and their configuration are equal.

    Args:
        folder: the folder of the base, whose weights were compared with the artifact's manifest.
    """
    base = artifact.manifest.base
    config = hashlib.sha256((folder / "config.json").read_bytes()).hexdigest()
    return (base.digest if base else "", config)
