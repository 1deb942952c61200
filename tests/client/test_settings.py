"""Where the server is and which key opens it."""

import re

import pytest

from tureen import Client, InvalidRequest, settings


def test_by_default_the_server_is_on_this_machine_and_there_is_no_key() -> None:
    assert settings.resolve_base_url() == "http://127.0.0.1:8900"
    assert settings.resolve_api_key() is None


def test_the_environment_says_where_and_who(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUREEN_BASE_URL", "https://tureen.example/")
    monkeypatch.setenv("TUREEN_API_KEY", "secret")
    assert settings.resolve_base_url() == "https://tureen.example"
    assert settings.resolve_api_key() == "secret"
    with Client() as client:
        assert client.base_url == "https://tureen.example"


def test_what_is_given_outranks_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUREEN_BASE_URL", "https://tureen.example")
    monkeypatch.setenv("TUREEN_API_KEY", "secret")
    assert settings.resolve_base_url("http://other:1") == "http://other:1"
    assert settings.resolve_api_key("mine") == "mine"


@pytest.mark.parametrize("empty", ["TUREEN_BASE_URL", "TUREEN_API_KEY"])
def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch, empty: str) -> None:
    monkeypatch.setenv(empty, "")
    assert (settings.resolve_base_url(), settings.resolve_api_key()) == (settings.LOCAL, None)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://host:8900/v1", "http://host:8900"),
        ("http://host:8900/v1/", "http://host:8900"),
        ("https://host/tureen/", "https://host/tureen"),
    ],
)
def test_what_openais_client_wants_at_the_end_is_taken_off(given: str, url: str) -> None:
    assert settings.resolve_base_url(given) == url


@pytest.mark.parametrize("given", ["host:8900", "ftp://host", "/path"])
def test_an_address_without_http_is_refused(given: str) -> None:
    with pytest.raises(InvalidRequest, match="write it as http://127.0.0.1:8900") as caught:
        settings.resolve_base_url(given)
    assert caught.value.param == "base_url"


@pytest.mark.parametrize("text", ["", None])
def test_without_the_variable_nothing_is_weighed(monkeypatch: pytest.MonkeyPatch, text: str | None) -> None:
    if text is not None:
        monkeypatch.setenv("TUREEN_PREFERENCES", text)
    assert settings.read_preferences() is None


def test_the_environment_says_how_rewards_are_weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("helpful=0.7, harmless=3e-1", "helpful=0.7+harmless=0.3", "helpful = 0.7 ; harmless=0.3"):
        monkeypatch.setenv("TUREEN_PREFERENCES", text)
        assert settings.read_preferences() == ({"helpful": 0.7, "harmless": 0.3}, "simplex")
    monkeypatch.setenv("TUREEN_PREFERENCES", "helpful=1")
    assert settings.read_preferences() == ({"helpful": 1.0}, "simplex")
    monkeypatch.setenv("TUREEN_PREFERENCES", "none:helpful=1+verbose=-0.5")
    assert settings.read_preferences() == ({"helpful": 1.0, "verbose": -0.5}, "none")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("helpful=0.7", "add up to 0.7"),
        ("helpful=0.7+helpful=0.3", "two weights"),
        ("none:helpful=1", "has one weight; after `none:` write two or more"),
    ],
)
def test_weights_of_which_some_are_lost_are_refused(monkeypatch: pytest.MonkeyPatch, text: str, says: str) -> None:
    """Slurm's ``--export`` cuts a variable at its comma."""
    monkeypatch.setenv("TUREEN_PREFERENCES", text)
    with pytest.raises(InvalidRequest, match=f"TUREEN_PREFERENCES.*{says}") as caught:
        settings.read_preferences()
    assert caught.value.param == "TUREEN_PREFERENCES"


@pytest.mark.parametrize("text", ["helpful", "helpful=0.7,", "helpful:1"])
def test_weights_that_cannot_be_read_are_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("TUREEN_PREFERENCES", text)
    with pytest.raises(InvalidRequest, match=re.escape("write it as helpful=0.7+harmless=0.3")) as caught:
        settings.read_preferences()
    assert caught.value.param == "TUREEN_PREFERENCES"
