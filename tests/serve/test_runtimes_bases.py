"""Bases that the settings place: models name them as on the machine of the training, and they lie elsewhere here."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
from serve.artifacts import build, prove
from serve.changing import Operator, operating
from serve.reward_adapters import write_adapter
from typer.testing import CliRunner

from tureen_serve.__main__ import app
from tureen_serve.runtimes.load import LoadError, LoadOptions, load_models
from tureen_serve.settings import RewardEntry

NAME = "somebody/some-base"


def rename_base(folder: Path) -> None:
    """Let an artifact or an adapter of PEFT name its base as the hub does."""
    manifest, adapter = folder / "tureen.json", folder / "adapter_config.json"
    if manifest.exists():
        told = json.loads(manifest.read_text())
        told["base"]["model"] = NAME
        manifest.write_text(json.dumps(told))
    else:
        told = json.loads(adapter.read_text())
        adapter.write_text(json.dumps(told | {"base_model_name_or_path": NAME}))


def read_all(operator: Operator, *names: str) -> dict[str, Any]:
    body = {"model": "tiny", "prompt": "why?", "max_tokens": 4, "temperature": 0, "preferences": {"calm": 1}}
    text = operator.client.post("/v1/completions", json=body)
    assert text.status_code == 200, text.text
    return {"text": text.json()["choices"][0]["text"], **{name: operator.raw(name) for name in names}}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Rewards and experts at the start; more rewards in a root and in a folder that a request may load from."""
    config = build(tmp_path)
    base = tmp_path / "base"
    prove(tiny.reward(tmp_path / "root/late", base, "late", 3))
    write_adapter(tmp_path / "root/plain", base, 4)
    write_adapter(tmp_path / "adapter", base, 5)
    prove(tiny.reward(tmp_path / "models/helpful-2", base, "helpful", 6))
    config.write_text(config.read_text().replace("rewards: [", "rewards: [{path: adapter, name: adapter}, "))
    return config


def test_models_of_all_kinds_find_a_base_of_another_name(config: Path, tmp_path: Path) -> None:
    names = ("helpful", "amusing", "adapter", "late", "plain")
    with operating(config, rewards_root=tmp_path / "root") as operator:
        before = read_all(operator, *names)
        operator.load("helpful", path="helpful-2")
        loaded = operator.raw("helpful")
    for each in ("helpful", "funny", "calm", "dry", "adapter", "root/late", "root/plain", "models/helpful-2"):
        rename_base(tmp_path / each)
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    config.write_text(config.read_text() + f"bases: {{{NAME}: elsewhere}}\n")
    with operating(config, rewards_root=tmp_path / "root") as operator:
        assert read_all(operator, *names) == before
        operator.load("helpful", path="helpful-2")
        assert operator.raw("helpful") == loaded


def test_a_base_that_is_not_here_is_named_with_the_setting(config: Path, tmp_path: Path) -> None:
    rename_base(tmp_path / "helpful")
    with pytest.raises(LoadError, match=rf"'{NAME}' is neither .* set `bases` to \{{{NAME}: FOLDER\}}"):
        load_models([RewardEntry(path=tmp_path / "helpful")], [], LoadOptions(device="cpu"))


def test_a_base_with_other_weights_is_refused(config: Path, tmp_path: Path) -> None:
    rename_base(tmp_path / "helpful")
    other = tiny.base(tmp_path / "other", seed=9)
    options = LoadOptions(device="cpu", bases={NAME: other})
    with pytest.raises(LoadError, match=rf"helpful needs the base {NAME} with [0-9a-f]+, but {other} has the weights"):
        load_models([RewardEntry(path=tmp_path / "helpful")], [], options)


def test_a_place_that_cannot_be_a_base_is_named(config: Path, tmp_path: Path) -> None:
    rename_base(tmp_path / "helpful")
    shutil.rmtree(tmp_path / "base")
    options = LoadOptions(device="cpu", bases={NAME: tmp_path / "base"})
    with pytest.raises(LoadError, match=rf"bases.{NAME}: .*base' is neither a folder"):
        load_models([RewardEntry(path=tmp_path / "helpful")], [], options)


def test_a_family_may_be_a_base_by_that_name(tmp_path: Path) -> None:
    tiny.base(tmp_path / "elsewhere")
    config = tmp_path / "server.yaml"
    config.write_text(f"families: [{{name: tiny, base: {NAME}}}]\nbases: {{{NAME}: elsewhere}}\nport: 0\ndevice: cpu\n")
    with operating(config, load_roots=[]) as operator:
        reply = operator.client.post("/v1/completions", json={"model": "tiny", "prompt": "why?", "max_tokens": 2})
        assert reply.status_code == 200, reply.text


def test_check_reads_the_places_of_the_environment(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename_base(tmp_path / "helpful")
    flags = ["check", str(tmp_path / "helpful"), "--dtype", "float32", "--device", "cpu"]
    refused = CliRunner().invoke(app, flags)
    assert refused.exit_code == 1
    assert f"set `bases` to {{{NAME}: FOLDER}}" in refused.output
    monkeypatch.setenv("TUREEN_BASES", json.dumps({NAME: str(tmp_path / "base")}))
    assert CliRunner().invoke(app, flags).exit_code == 0
