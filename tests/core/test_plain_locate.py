"""Where a model is: a folder first, then the hub or a URL."""

import json
from pathlib import Path

import fsspec
import pytest
from core.hubs import fill_cache

from tureen_core.plain.hub import ON_REQUEST
from tureen_core.plain.locate import locate_source
from tureen_core.plain.options import PlainError


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A snapshot of org/name in the hub's cache, offline, in a folder of its own."""
    monkeypatch.delenv(ON_REQUEST, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    return fill_cache(tmp_path / "hub")


def test_a_folder_goes_before_a_hub_name(cached: Path, tmp_path: Path) -> None:
    assert locate_source("org/name") == cached
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert locate_source("org/name") == tmp_path / "org" / "name"
    assert locate_source("hf://org/name") == cached
    assert locate_source((tmp_path / "org").as_uri()) == tmp_path / "org"


@pytest.mark.parametrize("text", ["nowhere", "./nowhere", "/no/where", "a/b/c", "org/nam e"])
def test_a_missing_path_is_no_matter_of_the_hub(cached: Path, text: str) -> None:
    with pytest.raises(PlainError, match=f"there is no folder {text}: name a folder"):
        locate_source(text)


def test_a_file_is_refused(cached: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(PlainError, match=r"model\.safetensors is a file; name the folder"):
        locate_source("model.safetensors")


def test_a_copy_in_part_is_refused(cached: Path) -> None:
    index = cached / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}))
    with pytest.raises(PlainError, match=r"org/name: model-2\.safetensors is missing .* fetch it again online"):
        locate_source("org/name")
    index.unlink()
    (cached / "model.safetensors").unlink()
    with pytest.raises(PlainError, match=r"holds no \*\.safetensors"):
        locate_source("org/name")


def test_a_url_is_copied_to_the_cache(tmp_path: Path) -> None:
    system = fsspec.filesystem("memory")
    system.pipe_file("/bucket/located/model.safetensors", b"weights")
    folder = locate_source("memory://bucket/located", tmp_path)
    assert folder.is_relative_to(tmp_path / "sources")
    assert (folder / "model.safetensors").read_bytes() == b"weights"
