"""The environment: what training sets before its libraries look, and what it reads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tureen_train
from tureen_train.settings import count_processes, read_rank, set_offline

NAMES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "TRL_EXPERIMENTAL_SILENCE")


def test_nothing_is_asked_of_a_hub_unless_somebody_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, "")  # so that it is put back afterwards
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    set_offline()
    assert [os.environ[name] for name in NAMES] == ["0", "1", "1", "1"]
    assert os.environ["TOKENIZERS_PARALLELISM"] == "false"


@pytest.mark.parametrize(("value", "number"), [(None, 0), ("0", 0), ("3", 3)])
def test_rank_is_the_launchers_number(value: str | None, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    if value is not None:
        monkeypatch.setenv("RANK", value)
    assert read_rank() == number


def test_without_a_launcher_there_are_no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert count_processes() == 0
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert count_processes() == 4


def test_no_other_file_of_training_touches_the_environment() -> None:
    package = Path(tureen_train.__file__).parent
    for path in package.rglob("*.py"):
        if path.name != "settings.py":
            assert "environ" not in path.read_text(), path


def test_the_command_line_opens_without_the_training_libraries() -> None:
    heavy = "('transformers', 'huggingface_hub', 'trl', 'peft', 'datasets', 'matplotlib')"
    code = f"import sys, tureen_train.__main__; print(*(name for name in {heavy} if name in sys.modules))"
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert outcome.stdout.strip() == ""
