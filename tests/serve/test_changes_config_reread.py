"""The configuration that is read again: what it names is served, in one step, and a wrong one changes nothing."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from serve.changing import Operator, make_versions, operating
from waiting import block_until

REWARDS = "rewards: [{path: helpful}, {path: funny, name: amusing}]"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_versions(tmp_path_factory.mktemp("versions"))


@pytest.fixture
def config(made: Path) -> Iterator[Path]:
    """The YAML file, which each test writes anew."""
    text = made.read_text()
    yield made
    made.write_text(text)


@pytest.fixture
def operator(config: Path) -> Iterator[Operator]:
    with operating(config, reread=True) as found:
        yield found


def reread(operator: Operator, config: Path, old: str, new: str, caplog: pytest.LogCaptureFixture) -> str:
    """Change the file, have it read, and return what the log says."""
    config.write_text(config.read_text().replace(old, new))
    caplog.clear()
    with caplog.at_level(logging.INFO, "tureen_serve"):
        operator.client.portal.call(operator.app.state.reread.request)  # type: ignore[union-attr]
        block_until(lambda: "read again" in caplog.text)
    return caplog.text


def test_what_is_added_loads_what_is_gone_unloads_and_the_rest_stays(
    operator: Operator, config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old, raw = operator.versions(), operator.raw("amusing")
    lane = operator.app.state.server.engine.scorers[0]
    said = reread(operator, config, "port: 0", "port: 0\naliases: {judge: amusing}", caplog)
    assert "loaded: none; unloaded: none" in said
    assert operator.app.state.server.engine.scorers == [lane]  # nothing was loaded again
    new = "rewards: [{path: models/helpful-2}, {path: funny, name: amusing}, {path: models/whole}]"
    said = reread(operator, config, REWARDS, new, caplog)
    assert "loaded: helpful, whole; unloaded: helpful" in said
    found = operator.versions()
    assert list(found) == ["helpful", "amusing", "whole"]
    assert (found["amusing"], found["helpful"] != old["helpful"]) == (old["amusing"], True)
    assert operator.raw("amusing") == pytest.approx(raw, abs=1e-5)
    judged = operator.client.post("/classify", json={"model": "judge", "input": "hi"})
    assert judged.status_code == 200, judged.text
    said = reread(operator, config, new, "rewards: [{path: funny, name: amusing}]", caplog)
    assert "loaded: none; unloaded: helpful, whole" in said
    assert list(operator.versions()) == ["amusing"]


def test_a_version_that_a_request_loaded_gives_way_to_the_file(
    operator: Operator, config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = operator.versions()
    operator.load("helpful", path="helpful-2")
    operator.load("calm", path="calm")
    reread(operator, config, "port: 0", "port: 0", caplog)
    assert operator.versions() == old


@pytest.mark.parametrize(
    ("new", "says"),
    [
        ("rewards: [", "cannot be read"),
        ("rewards: [{path: nowhere}]", "there is no folder"),
        ("rewards: [{path: models/helpful-2}, {path: models/off}]", "two reward artifacts are called 'helpful'"),
        ("rewards: [{path: models/off}]", "the score of a probe differs"),
        ("rewards: [{path: helpful}]\naliases: {judge: amusing}", "aliases.judge"),
        ("rewards: [{path: helpful, nmae: x}]", "nmae"),
    ],
)
def test_a_wrong_file_changes_nothing_and_the_log_says_why(
    operator: Operator, config: Path, caplog: pytest.LogCaptureFixture, new: str, says: str
) -> None:
    old = operator.versions()
    said = reread(operator, config, REWARDS, new, caplog)
    assert "nothing was changed" in said
    assert says in said
    assert operator.versions() == old
    assert operator.app.state.server.aliases == {}
    assert operator.raw("helpful")


def test_other_settings_are_named_and_wait_for_the_next_start(
    operator: Operator, config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reread(operator, config, "port: 0", "port: 0\nlimits: {in_flight: 3}", caplog)
    block_until(lambda: "read at the next start only: limits" in caplog.text)
