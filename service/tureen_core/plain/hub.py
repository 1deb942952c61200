"""Models of the Hugging Face hub, in its own cache. The network is used for a model that the user names, never else."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tureen_core.plain.options import PlainError
from tureen_core.plain.source_text import HubName

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
ON_REQUEST = "TUREEN_HUB_ON_REQUEST"
FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "README.md"]
OTHER_FORMATS = ["onnx/*", "openvino/*", "original/*", "coreml/*", "checkpoint-*/*", "runs/*"]
PICKLES = ["pytorch_model*.bin"]


def limit_hub_to_requests() -> None:
    """Stop the hub's libraries from using the network. Call it before they are imported.

    If the user has not done that already, :func:`fetch_from_hub` may still download.
    """
    if not any(_is_set(name) for name in OFFLINE):
        os.environ.setdefault(ON_REQUEST, "1")
    for name in OFFLINE:
        os.environ.setdefault(name, "1")


def may_download() -> bool:
    """Whether a model that the user names may be downloaded: unless the user set ``HF_HUB_OFFLINE`` or the like."""
    return _is_set(ON_REQUEST) or not any(_is_set(name) for name in OFFLINE)


def allow_hub_requests() -> bool:
    """Let the hub's libraries use the network in this process, if downloads are allowed; call it before their import.

    Returns:
        Whether they are.
    """
    if not may_download():
        return False
    for name in OFFLINE:
        os.environ.pop(name, None)
    return True


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"}


def fetch_from_hub(name: HubName, pickles: bool = False, download: bool = True) -> Path:
    """Find a model in the hub's cache; where downloads are allowed, first bring the cache up to date.

    The download runs in a process of its own, since the libraries read at their import that they are offline. Without a
    network, what is cached is used. The settings of ``huggingface_hub`` hold, as ``HF_TOKEN``, ``HF_HOME`` and
    ``HF_ENDPOINT``. No code of a model is downloaded.

    Args:
        pickles: whether weights may be pickles.
        download: whether it may be downloaded.

    Raises:
        PlainError: it cannot be downloaded, or, offline, is not in the cache.
    """
    if not download or not may_download():
        try:
            return download_snapshot(name, pickles, cached=True)
        except (OSError, ValueError) as error:
            reason = f"{_name_switch()} forbids to download it" if download else "nothing is downloaded here"
            raise PlainError(f"{name} is not in the cache of the Hugging Face hub, and {reason}") from error
    environment = {key: value for key, value in os.environ.items() if key not in OFFLINE}
    command = [sys.executable, "-m", "tureen_core.plain.hub_download", name.repository, name.revision]
    done = subprocess.run(
        [*command, *(["pickles"] if pickles else [])], env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    try:
        answer = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        answer = {"error": f"the download ended with exit status {done.returncode}"}
    if "error" in answer:
        raise PlainError(f"{name} cannot be downloaded from the Hugging Face hub: {answer['error'].rstrip('.')}")
    return Path(answer["folder"])


def download_snapshot(name: HubName, pickles: bool, cached: bool = False) -> Path:
    """Download a snapshot; with ``cached``, only find it in the cache.

    Raises:
        OSError: it cannot be downloaded or found.
        ValueError: the hub allows no such name.
    """
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(
            name.repository,
            revision=name.revision,
            allow_patterns=FILES + PICKLES * pickles,
            ignore_patterns=OTHER_FORMATS,
            local_files_only=cached,
        )
    )


def _name_switch() -> str:
    return next(f"{name}={os.environ[name]}" for name in OFFLINE if _is_set(name))
