"""What the process tells the libraries below it by the environment."""

import os
import sys

import pytest

from tureen_serve.process_environment import limit_native_memory, share_interpreter, stay_offline


def test_libraries_are_told_to_stay_offline_unless_the_user_said_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("DO_NOT_TRACK", "0")
    stay_offline()
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert os.environ["DO_NOT_TRACK"] == "0"


def test_libraries_keep_few_kernels_unless_the_user_said_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "7")
    limit_native_memory()
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "64"
    assert os.environ["LRU_CACHE_CAPACITY"] == "7"
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY")


def test_threads_take_turns_sooner_than_by_default() -> None:
    before = sys.getswitchinterval()
    by_default = 0.005
    sys.setswitchinterval(by_default)
    try:
        share_interpreter()
        assert sys.getswitchinterval() < by_default / 5
    finally:
        sys.setswitchinterval(before)
