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
    with pytest.raises(PlainError, match=f"there is no folder {Path(text).absolute()}: name a folder"):
        locate_source(text)


def test_what_is_neither_a_folder_nor_on_the_hub_is_told_with_both_places(cached: Path, tmp_path: Path) -> None:
    looked = f"there is no folder {tmp_path}/rewards/helpful"
    with pytest.raises(PlainError) as caught:
        locate_source("rewards/helpful")
    assert str(caught.value) == (
        f"{looked}, so rewards/helpful was taken for a model of the Hugging Face hub: rewards/helpful is not in the "
        "cache of the Hugging Face hub, and HF_HUB_OFFLINE=1 forbids to download it. Correct the path, or the name on "
        "the hub"
    )
    with pytest.raises(PlainError, match=r"^there is no folder /etc/rewards/helpful, so .* Correct the path"):
        locate_source("hf://rewards/helpful", tried=Path("/etc/rewards/helpful"))
    with pytest.raises(PlainError, match=r"^rewards/helpful is not in the cache"):
        locate_source("hf://rewards/helpful")
    (tmp_path / "rewards").mkdir()
    with pytest.raises(PlainError, match=f"^{looked}: correct the path; .* would be hf://rewards/helpful$"):
        locate_source("rewards/helpful")


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
