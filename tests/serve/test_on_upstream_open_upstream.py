"""Opening a family that an upstream writes for: its key, its presets, its fingerprint, and the look at the start."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serve.upstreams import KEY, SENTENCES, Upstream, upstream

from tureen_serve.runtimes.load import LoadError, LoadOptions, load_models
from tureen_serve.runtimes.on_upstream.open_upstream import open_upstream
from tureen_serve.runtimes.on_upstream.upstream_key import UpstreamKey
from tureen_serve.settings import FamilyEntry, UpstreamEntry

NOWHERE = "http://127.0.0.1:9/v1"


@pytest.fixture
def far() -> Iterator[Upstream]:
    with upstream() as found:
        yield found


def entry(**changes: Any) -> UpstreamEntry:
    return UpstreamEntry(base_url=NOWHERE, model="large", **changes)


def family(far: Upstream, more: Any = None, **changes: Any) -> FamilyEntry:
    return far.family(**changes).model_copy(update=more or {})


def test_a_key_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAR_KEY", f" {KEY}\n")
    key = UpstreamKey(entry(key_env="FAR_KEY"), "families.far.upstream")
    assert key.build_headers() == {"authorization": f"Bearer {KEY}"}
    assert key.hide_key(f"no {KEY}!") == "no [key]!"
    assert UpstreamKey(entry(), "").build_headers() == {}


def test_a_file_with_a_key_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("first\n")
    key = UpstreamKey(entry(key_file=file), "families.far.upstream")
    assert key.build_headers() == {"authorization": "Bearer first"}
    file.write_text("another\n")
    assert key.build_headers() == {"authorization": "Bearer another"}
    file.write_text("")
    os.utime(file, ns=(1, 1))
    with pytest.raises(LoadError, match=r"families\.far\.upstream\.key_file: .* has no key"):
        key.build_headers()


@pytest.mark.parametrize(("text", "says"), [("", "has no key"), ("two words", "one word"), ("schlüssel", "one word")])
def test_a_key_that_cannot_be_sent_is_refused_without_being_told(
    text: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAR_KEY", text)
    (tmp_path / "key").write_text(text, encoding="utf-8")
    for given in ({"key_env": "FAR_KEY"}, {"key_file": tmp_path / "key"}):
        with pytest.raises(LoadError, match=says) as caught:
            UpstreamKey(entry(**given), "families.far.upstream")
        assert not text or text not in str(caught.value)
    with pytest.raises(LoadError, match="cannot be read: FileNotFoundError"):
        UpstreamKey(entry(key_file=tmp_path / "none"), "families.far.upstream")


def test_a_fingerprint_covers_what_is_asked_for(far: Upstream) -> None:
    entries = [
        family(far),
        family(far, model="other"),
        family(far, extra={"top_k": 5}),
        family(far, {"steering": far.family().steering.model_copy(update={"threshold": 0.2})}),  # type: ignore[union-attr]
    ]
    found = [open_upstream(each).family.fingerprint for each in entries]
    assert len(set(found)) == len(found)
    assert open_upstream(family(far, concurrency=2, retries=1)).family.fingerprint == found[0]


def test_presets_are_checked(far: Upstream) -> None:
    good = open_upstream(family(far, {"presets": {"short": {"brief": 2.0}}, "default": {"kind": 1.0}})).family
    assert (good.presets, good.default, good.base) == ({"short": {"brief": 1.0}}, {"kind": 1.0}, "large")
    assert (good.objectives, good.context, good.renderer) == (list(SENTENCES), 0, None)
    for more in ({"presets": {"fun": {"humor": 1.0}}}, {"default": {"brief": -1.0}}):
        with pytest.raises(LoadError, match=r"families\.far\."):
            open_upstream(family(far, more))


def test_an_upstream_that_is_not_there_is_served_and_told(far: Upstream, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert open_upstream(far.family()).upstream.trouble is None
        assert not [each for each in caplog.records if each.name.startswith("tureen")]
        opened = open_upstream(far.family(base_url=NOWHERE))
        assert opened.upstream.trouble is not None
        assert "the upstream of far is failing: http://127.0.0.1:9/v1 cannot be reached" in caplog.text
        far.models = 401
        assert "denies access" in str(open_upstream(far.family()).upstream.trouble)
        far.models = 404
        assert open_upstream(far.family()).upstream.trouble is None
        assert "does base_url end with /v1?" in caplog.text


def test_families_keep_the_order_of_the_settings(far: Upstream) -> None:
    """The first one answers requests without a model."""
    entries = [far.family("one"), far.family("two")]
    loaded = load_models([], entries, LoadOptions(runtime="transformers", dtype="float32", device="cpu"))
    assert [each.family.name for each in loaded.upstreams] == list(loaded.order) == ["one", "two"]
    assert (loaded.policies, loaded.failure) == ((), None)
    loaded.close()
