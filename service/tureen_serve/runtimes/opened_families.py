"""What every opened policy family has: its base and adapters, checked weights, and a fingerprint."""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tureen.errors import Unprocessable
from tureen.mixes import Normalize
from tureen_core.artifact import Artifact
from tureen_core.preference import normalise_weights
from tureen_core.reading import Reading
from tureen_core.soup import Stack
from tureen_serve.runtimes.catalogue import Family
from tureen_serve.runtimes.sources import LoadError


@dataclass(frozen=True)
class OpenedFamily:
    """An opened family, the folder of its base, and its stacked adapters. The runtime sets ``family.context`` later."""

    family: Family
    folder: Path
    stack: Stack


def keep_prompt_reading(reading: Reading) -> Reading:
    """Return a reading with only the fields that change a prompt, which all experts of a family must share."""
    return Reading(**reading.model_dump(include={"template", "bos", "eos", "control_marks"}))


def check_stored_weights(
    weights: Mapping[str, float], known: Collection[str], normalize: Normalize, where: str
) -> dict[str, float]:
    """Normalise weights of the settings.

    Raises:
        LoadError: they cannot be used; ``where`` is the field that has them.
    """
    try:
        return normalise_weights(weights, known, normalize, where)
    except Unprocessable as error:
        raise LoadError(f"{error.param}: {error.message}") from error


def compute_family_fingerprint(
    base: str, dtype: str, adapters: Mapping[str, Artifact], steering: Mapping[str, Any] | None = None
) -> str:
    """Hash base, dtype, adapters and what steers a prompt to 16 hex digits.

    Equal texts under equal seeds need an equal fingerprint.
    """
    identity: list[Any] = [base, dtype, {name: artifact.fingerprint(dtype) for name, artifact in adapters.items()}]
    if steering is not None:
        identity.append(steering)
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
