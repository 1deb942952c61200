import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("torch_index")


def torch_version() -> str:
    (line,) = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch==")]
    return line.removeprefix("torch==")


def make_wheel(folder: Path, version: str) -> None:
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"torch-{version}-py3-none-any.whl", "w") as file:
        note = f"torch-{version}.dist-info"
        file.writestr(f"{note}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
        file.writestr(f"{note}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{note}/RECORD", "")


def run(*command: str | Path, **variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    environment |= {"PYTHON": sys.executable, "PIP_CONFIG_FILE": os.devnull, **variables}
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("build", ["+cpu", ""])
def test_pip_takes_the_pinned_torch_from_the_index(build: str, tmp_path: Path) -> None:
    found, index, taken = (tmp_path / name for name in ("found", "index", "taken"))
    version = torch_version()
    for each in (version + build, "99.0"):
        make_wheel(found, each)
    said = run(SCRIPT, index, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(found))
    assert ("set TORCH_INDEX" in said) == (not build)
    source = ("--index-url", index.as_uri(), "--constraint", ROOT / "constraints.txt")
    run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *source, "--dest", taken, "torch")
    assert [path.name for path in taken.iterdir()] == [f"torch-{version}{build}-py3-none-any.whl"]
