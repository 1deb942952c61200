"""Models of the hub: from its cache without a network, and from a hub where downloads are allowed."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from core.hubs import COMMIT, fill_cache, run_hub

from tureen_core.plain.hub import OFFLINE, ON_REQUEST, fetch_from_hub, limit_hub_to_requests, may_download
from tureen_core.plain.options import PlainError
from tureen_core.plain.source_text import HubName


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every connection of this process fail the test."""

    def refuse(*_: Any) -> None:
        raise AssertionError("the network was used")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(subprocess, "run", refuse)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Let the user be offline, with an own cache."""
    monkeypatch.delenv(ON_REQUEST, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_a_cached_model_needs_no_network(offline: Path, no_network: None) -> None:
    snapshot = fill_cache(offline)
    assert fetch_from_hub(HubName("org/name")) == snapshot
    assert fetch_from_hub(HubName("org/name", COMMIT)) == snapshot


@pytest.mark.parametrize("name", [HubName("org/other"), HubName("org/name", "v2"), HubName("org/..name")])
def test_offline_what_is_not_cached_is_refused(offline: Path, no_network: None, name: HubName) -> None:
    fill_cache(offline)
    with pytest.raises(PlainError, match="is not in the cache .* HF_HUB_OFFLINE=1 forbids to download"):
        fetch_from_hub(name)


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        ({}, True),
        ({"HF_HUB_OFFLINE": "1"}, False),
        ({"TRANSFORMERS_OFFLINE": "yes"}, False),
        ({"HF_HUB_OFFLINE": "0"}, True),
    ],
)
def test_the_users_offline_switch_forbids_downloads(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], allowed: bool
) -> None:
    for name in (*OFFLINE, ON_REQUEST):
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert may_download() is allowed
    for _ in range(2):  # as a server and then its child process do
        limit_hub_to_requests()
        assert may_download() is allowed
    assert os.environ["TRANSFORMERS_OFFLINE"]


@pytest.fixture
def hub() -> Iterator[str]:
    """The address of a hub on this machine."""
    with run_hub() as address:
        yield address


def test_a_named_model_is_downloaded_though_the_process_is_offline(
    hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv(ON_REQUEST, "1")
    folder = fetch_from_hub(HubName("org/name"))
    assert sorted(path.name for path in folder.iterdir()) == ["chat_template.jinja", "config.json", "model.safetensors"]
    assert folder == tmp_path / "hub" / "models--org--name" / "snapshots" / COMMIT
    assert (fetch_from_hub(HubName("org/name"), pickles=True) / "pytorch_model.bin").read_bytes() == b"pickle"
    with pytest.raises(PlainError, match="org/private cannot be downloaded .*404"):
        fetch_from_hub(HubName("org/private"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    assert fetch_from_hub(HubName("org/name")) == folder


def test_importing_it_loads_no_library() -> None:
    code = (
        "import sys; import tureen_core.plain.hub; sys.exit('huggingface_hub' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
