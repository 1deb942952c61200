"""What is known of a plain model before its weights are loaded: its names, its reading, and what is missing."""

import json
from pathlib import Path
from typing import Any

import classifiers
import plain_folders
import pytest
import tiny
from core.hubs import fill_cache
from serve import layouts
from serve.layouts import LAYOUTS
from serve.reward_adapters import write_adapter

from tureen_core import base
from tureen_core.plain import reward
from tureen_core.plain.bases import MissingBase
from tureen_core.plain.hub import ON_REQUEST
from tureen_core.plain.options import PlainError, PlainOptions
from tureen_core.plain.reward import describe_plain_reward, open_plain_reward

TOLD = {"kind", "input", "gated", "head", "name", "weights", "objectives", "reading"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(base, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_a_description_says_what_the_opened_model_says_and_reads_no_weights(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    layout = LAYOUTS[name](tmp_path / name)
    options = PlainOptions(**layout.options)
    with monkeypatch.context() as patch:
        for each in ("digest_files", "_score_probes", "compute_base_digest"):
            patch.setattr(reward, each, lambda *_: pytest.fail("the weights were read"))
        described = describe_plain_reward(layout.folder, options)
    assert not cache.exists()  # nothing was converted
    opened = open_plain_reward(layout.folder, options)
    assert opened.plain is not None
    assert described.manifest.model_dump(include=TOLD) == opened.manifest.model_dump(include=TOLD)
    assert described.form == opened.plain.form
    assert (described.manifest.files, described.manifest.probes) == ({}, [])


def name_rewards(folder: Path, **options: Any) -> list[str]:
    found = describe_plain_reward(folder, PlainOptions(**options), unnamed="polite")
    return [each.name for each in found.manifest.objectives]


def test_rewards_that_the_files_do_not_name_get_the_name_that_is_given(tmp_path: Path) -> None:
    assert name_rewards(plain_folders.classifier(tmp_path / "one")) == ["polite"]
    assert name_rewards(plain_folders.classifier(tmp_path / "two", labels=2)) == ["polite-0", "polite-1"]
    assert name_rewards(plain_folders.openrlhf(tmp_path / "openrlhf")) == ["polite"]
    assert name_rewards(layouts.starling(tmp_path / "starling").folder) == ["polite"]
    bert = classifiers.write_model(tmp_path / "bert", "bert", labels=2)
    assert name_rewards(bert, template="text-pair") == ["polite-0", "polite-1"]
    named = plain_folders.classifier(tmp_path / "named", labels=2, id2label={0: "clear", 1: "true"})
    assert name_rewards(named) == ["clear", "true"]
    assert name_rewards(named, objectives=("reward-0", "reward-1")) == ["reward-0", "reward-1"]


def test_the_base_of_an_adapter_is_not_downloaded_where_that_is_forbidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ON_REQUEST, "1")  # as a server sets it, which may download what the user names
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("a download was started"))
    adapter = write_adapter(tmp_path / "adapter", tiny.base(tmp_path / "base"), 0)
    path = adapter / "adapter_config.json"
    for named in ("org/name", "memory://bucket/base"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": named}))
        with pytest.raises(MissingBase, match=r"nothing is downloaded here.* Name the base with --adapter-base FOLDER"):
            describe_plain_reward(adapter, download=False)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "org/name"}))
    cached = fill_cache(tmp_path / "hub")
    with pytest.raises(PlainError) as caught:  # what is cached is only a stub, but it was found
        describe_plain_reward(adapter, download=False)
    assert not isinstance(caught.value, MissingBase)
    assert cached.is_dir()
