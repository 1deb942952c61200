import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy.dockerfile import ROOT, environment, last, stages

from tureen_serve.batch_settings import BatchSettings
from tureen_serve.settings import ServerLimits, load_settings

PATH = ROOT / "docker" / "compose.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load(PATH.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def check(path: Path) -> subprocess.CompletedProcess[str]:
    checker = Path(sys.executable).with_name("check-jsonschema")
    command = [str(checker), "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_compose_schema_accepts_the_file() -> None:
    done = check(PATH)
    assert done.returncode == 0, done.stdout


def test_compose_schema_refuses_what_compose_does_not_know(tmp_path: Path) -> None:
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(PATH.read_text().replace("read_only:", "readonly:"))
    assert "readonly" in check(wrong).stdout


@pytest.mark.parametrize("name", SERVICES)
def test_service_builds_the_target_of_its_name(name: str) -> None:
    build = SERVICES[name]["build"]
    assert build["target"] == name
    assert name in stages()
    assert (PATH.parent / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()
    assert set(build.get("args", {})) == set(stages()[f"environment-{name}"].all("ARG"))


@pytest.mark.parametrize("name", SERVICES)
def test_service_has_no_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "user", "network_mode", "pid"} & set(service)


@pytest.mark.parametrize("name", SERVICES)
def test_service_is_published_on_loopback_only(name: str) -> None:
    (port,) = SERVICES[name]["ports"]
    outside, _, inside = port.rpartition(":")
    assert outside.startswith("127.0.0.1:")
    assert inside == last(name, "EXPOSE")


@pytest.mark.parametrize("name", SERVICES)
def test_mounts_are_where_the_image_looks(name: str) -> None:
    variables = environment(name)
    (secret,) = SERVICES[name]["secrets"]
    assert secret == {"source": "keys", "target": variables["TUREEN_KEYS"]}
    kept = {"cache": variables["TUREEN_CACHE"], "batches": variables["TUREEN_BATCHES__FOLDER"]}
    assert SERVICES[name]["volumes"] == [f"{volume}:{folder}" for volume, folder in kept.items()]
    assert (set(COMPOSE["secrets"]), set(COMPOSE["volumes"])) == ({"keys"}, set(kept))


@pytest.mark.parametrize("name", SERVICES)
def test_memory_of_tmp_is_bounded_and_holds_a_few_uploads(name: str) -> None:
    (mount,) = SERVICES[name]["tmpfs"]
    folder, _, size = mount.partition(":size=")
    assert folder == "/tmp"
    assert int(size.removesuffix("g")) * 2**30 >= 4 * BatchSettings().file_bytes


@pytest.mark.parametrize("name", SERVICES)
def test_another_store_of_batches_is_handed_on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    urls = {"TUREEN_BATCHES__STORE": "postgresql://host/jobs", "TUREEN_BATCHES__FILES": "s3://bucket/tureen"}
    assert SERVICES[name]["environment"] == [*urls, "OMP_NUM_THREADS"]
    for variable, url in urls.items():
        monkeypatch.setenv(variable, url)
    batches = load_settings().batches
    assert [batches.store_url, batches.files_url] == list(urls.values())


def test_keys_have_no_default() -> None:
    assert COMPOSE["secrets"]["keys"]["file"].startswith("${TUREEN_KEYS:?")


def test_only_the_gpu_service_waits_to_be_asked_for() -> None:
    assert {name: service.get("profiles") for name, service in SERVICES.items()} == {"cpu": None, "cuda": ["cuda"]}
    (device,) = SERVICES["cuda"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}


@pytest.mark.parametrize("name", SERVICES)
def test_requests_in_flight_are_waited_for(name: str) -> None:
    limits = ServerLimits()
    assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) > limits.drain_seconds + limits.grace_seconds
