"""Find the folder of a model that a flag or a setting names: on this machine, on the hub, or behind a URL."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from tureen_core.base import CACHE
from tureen_core.own_files import find_foreign_file, list_missing_shards
from tureen_core.plain.hub import fetch_from_hub
from tureen_core.plain.options import PlainError
from tureen_core.plain.source_text import HUB, HubName, is_url, parse_hub_name
from tureen_core.plain.url_copies import copy_from_url


def locate_source(
    text: str, cache: Path = CACHE, pickles: bool = False, tried: Path | None = None, download: bool = True
) -> Path:
    """Find the folder of a model. A folder goes before a hub name of the same text.

    Example::

        locate_source("checkpoints/trl-reward")
        locate_source("Skywork/Skywork-Reward-V2-Qwen3-0.6B@main")
        locate_source("s3://bucket/reward")

    Args:
        text: a folder, ``org/name`` or ``org/name@revision`` of the Hugging Face hub, or an fsspec URL.
        cache: the folder for copies of what is behind URLs. Models of the hub are in the hub's own cache.
        pickles: whether weights may be pickles, which are converted before they are read.
        tried: the folder that was looked for before ``text`` was taken for a hub name, for errors.
        download: whether it may be fetched. Otherwise it must be a folder, or in the hub's cache.

    Raises:
        PlainError: there is no such folder, or it cannot be fetched.
    """
    if text.startswith("file://"):
        text = unquote(urlsplit(text).path)
    folder = Path(text).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if folder.exists():
        raise PlainError(f"{text} is a file; name the folder that holds it")
    name = parse_hub_name(text)
    if name is not None:
        tried = folder.absolute() if tried is None and not text.startswith(HUB) else tried
        return _check_whole(_fetch_named(name, pickles, tried, download), str(name), pickles)
    if is_url(text):
        if not download:
            raise PlainError(f"{text} is not on this machine, and nothing is downloaded here")
        return _check_whole(copy_from_url(text, cache), text, pickles)
    raise PlainError(f"there is no folder {folder.absolute()}: {_advise(text)}")


def _fetch_named(name: HubName, pickles: bool, tried: Path | None, download: bool) -> Path:
    """Find or download a model of the hub. An error says that a folder was looked for first."""
    try:
        return fetch_from_hub(name, pickles, download)
    except PlainError as error:
        if tried is None:
            raise
        raise PlainError(
            f"there is no folder {tried}, so {name} was taken for a model of the Hugging Face hub: "
            f"{str(error).rstrip('.')}. Correct the path, or the name on the hub"
        ) from error


def _advise(text: str) -> str:
    named = parse_hub_name(f"{HUB}{text}")
    if named is None:
        return "name a folder, a model of the hub as org/name, or a URL"
    return f"correct the path; since its first folder is there, the model of the hub would be {HUB}{named}"


def _check_whole(folder: Path, text: str, pickles: bool) -> Path:
    """Check that no file of the weights is missing, as after an interrupted download.

    Raises:
        PlainError: one is, or an index names a file elsewhere.
    """
    if foreign := find_foreign_file(folder):
        raise PlainError(f"{text}: {foreign}")
    if missing := list_missing_shards(folder):
        raise PlainError(f"{text}: {missing[0]} is missing in {folder}, the copy is not whole; fetch it again online")
    weights = [*folder.glob("*.safetensors"), *(folder.glob("*.bin") if pickles else ())]
    if not weights:
        raise PlainError(
            f"{text}: {folder} holds no *.safetensors. If it was fetched in part, fetch it again online; if its "
            f"weights are pickles, convert them with `tureen-train import {text} OUT --from pickle`"
        )
    return folder
