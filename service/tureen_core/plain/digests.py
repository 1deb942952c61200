"""Digests of what changes the scores of a plain model."""

import hashlib
from pathlib import Path

from tureen_core.base import digest_weights
from tureen_core.peft_config import CONFIG as ADAPTER_CONFIG
from tureen_core.stored_head import StoredHead


def digest_files(folder: Path) -> dict[str, str]:
    """Compute the digests of the weights, and of the configurations beside them."""
    settings = (folder / name for name in ("config.json", ADAPTER_CONFIG))
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in settings if path.is_file()}
    return digests | {"weights": digest_weights(folder)}


def digest_head(head: StoredHead | None) -> dict[str, str]:
    """Compute the digest of a head: the options may choose which tensors it has."""
    if head is None:
        return {}
    digest = hashlib.sha256()
    for name, tensor in sorted(head.list_tensors().items()):
        digest.update(f"{name} {list(tensor.shape)} ".encode() + tensor.numpy().tobytes())
    return {"head": digest.hexdigest()}
