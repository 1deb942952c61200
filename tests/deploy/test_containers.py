"""What CI does where the image can be built, where it cannot, and where its build fails."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from deploy.dockerfile import ROOT

NEEDED = ("bash", "cat", "dirname", "env", "mkdir", "mktemp", "rm", "tee")
MAKE = """#!/usr/bin/env bash
echo "$@" >>made
if [[ $1 == image ]]; then IMAGE; fi
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with CI's scripts, and in ``bin`` the only commands that they find: no apt, no podman."""
    for name in (".ci/run", "tests/deploy/containers", "tests/deploy/containers.conf"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "bin").mkdir()
    for name in NEEDED:
        found = shutil.which(name)
        assert found is not None
        (tmp_path / "bin" / name).symlink_to(found)
    return tmp_path


def run(clone: Path, script: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": str(clone / "bin")}
    return subprocess.run([clone / script], env=environment, capture_output=True, text=True, timeout=60, check=False)


def run_ci(clone: Path, image: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run CI with a ``make`` that only notes its targets, and for ``image`` does this; the result, and the targets."""
    make = clone / "bin" / "make"
    make.write_text(MAKE.replace("IMAGE", image))
    make.chmod(0o755)
    return run(clone, ".ci/run"), (clone / "made").read_text().splitlines()


def test_a_machine_without_podman_and_apt_says_why(clone: Path) -> None:
    done = run(clone, "tests/deploy/containers")
    assert done.returncode == 3
    reason = (clone / ".cache/no-containers").read_text()
    assert reason.startswith("No image can be built and run here: apt cannot install ")
    assert {"buildah", "podman", "mmdebstrap"} <= set(reason.split())


def test_ci_is_green_and_loud_where_no_image_can_be_built(clone: Path) -> None:
    done, made = run_ci(clone, "tests/deploy/containers")
    assert done.returncode == 0, done.stderr
    assert "!!! NOT TESTED: the image and the pod of the chart. No image can be built" in done.stderr
    assert "deploy-test" not in made
    assert {"test", "image", "test-vllm", "test-clients"} <= set(made)


def test_ci_is_red_where_a_build_fails(clone: Path) -> None:
    done, made = run_ci(clone, "exit 2")
    assert done.returncode == 1
    assert "NOT TESTED" not in done.stderr
    assert "deploy-test" not in made


def test_ci_runs_the_image_that_was_built(clone: Path) -> None:
    done, made = run_ci(clone, "true")
    assert done.returncode == 0, done.stderr
    assert made[-1] == "deploy-test"
