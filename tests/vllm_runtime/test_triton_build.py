"""Triton builds launchers when an engine starts: with the compiler that the image's ``cuda`` target installs."""

import importlib.util
import re
from pathlib import Path

import pytest
from deploy.dockerfile import lineage

SOURCE = """
#include <Python.h>
static struct PyModuleDef about = {PyModuleDef_HEAD_INIT, "launcher", NULL, -1, NULL};
PyMODINIT_FUNC PyInit_launcher(void) { PyObject *made = PyModule_Create(&about);
    PyModule_AddIntConstant(made, "answer", 42); return made; }
"""


def build_launcher(folder: Path) -> Path:
    build = pytest.importorskip("triton.runtime.build")
    build._find_compiler.cache_clear()
    (folder / "launcher.c").write_text(SOURCE)
    return Path(build._build("launcher", str(folder / "launcher.c"), str(folder), [], [], [], []))


def test_a_launcher_is_built_by_the_systems_compiler_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = [
        run for stage in lineage("cuda") for run in stage.all("RUN") if re.search(r"apt-get install .* g\+\+ ", run)
    ]
    assert installed, "the cuda target installs no compiler"
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "/usr/bin")  # where Debian's package puts it
    found = importlib.util.spec_from_file_location("launcher", build_launcher(tmp_path))
    assert found is not None
    module = importlib.util.module_from_spec(found)
    assert found.loader is not None
    found.loader.exec_module(module)
    assert module.answer == 42


def test_without_a_compiler_triton_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="compiler"):
        build_launcher(tmp_path)
