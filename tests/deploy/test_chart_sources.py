"""How models come to the pods: the init container that fetches them, and the volumes that hold them."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy.helm import Helm, Manifest, claims, mounted, only, pod, server, values_of, with_values

from tureen_serve.fetching.entries import read_entries

SOURCES = values_of("sources")
TO = {"artifacts.sources": [{"source": "s3://models/helpful", "to": "rewards/helpful"}]}


@pytest.fixture(scope="module")
def manifests(helm: Helm) -> list[Manifest]:
    return helm.render(SOURCES)


def fetch_of(manifests: list[Manifest]) -> Manifest:
    (found,) = (each for each in pod(manifests)["initContainers"] if each["name"] == "fetch")
    container: Manifest = found
    return container


def test_file_of_sources_has_what_the_values_name(manifests: list[Manifest]) -> None:
    entries = yaml.safe_load(only(manifests, "ConfigMap")["data"]["sources.yaml"])["sources"]
    given = SOURCES["artifacts"]["sources"]
    assert [entry["source"] for entry in entries] == [each["source"] for each in given]
    assert [entry["to"] for entry in entries] == [each["to"] for each in given]
    assert entries[2]["digest"] == given[2]["digest"]
    assert [set(entry) for entry in entries] == [
        {"source", "to"},
        {"source", "to", "token_file"},
        {"source", "to", "digest"},
        {"source", "to", "token_file"},
    ]


def test_fetch_accepts_the_file(manifests: list[Manifest], tmp_path: Path) -> None:
    file = tmp_path / "sources.yaml"
    file.write_text(only(manifests, "ConfigMap")["data"]["sources.yaml"])
    entries = read_entries(file, Path("/var/lib/tureen"))
    assert [str(entry.to) for entry in entries] == [
        "/var/lib/tureen/rewards/helpful",
        "/var/lib/tureen/bases/qwen",
        "/var/lib/tureen/experts/brief",
        "/var/lib/tureen/experts/brave",
    ]
    assert [entry.token_file for entry in entries] == [
        None,
        Path("/run/secrets/fetch/1/token"),
        None,
        Path("/run/secrets/fetch/3/token"),
    ]


def test_init_container_fetches_into_what_the_server_only_reads(manifests: list[Manifest]) -> None:
    fetch = fetch_of(manifests)
    assert fetch["args"] == ["fetch", "--sources", "/etc/tureen/sources.yaml", "--to", "/var/lib/tureen"]
    assert fetch["image"] == server(manifests)["image"]
    mounts = {mount["mountPath"]: mount for mount in fetch["volumeMounts"]}
    assert not mounts["/var/lib/tureen"].get("readOnly")
    theirs = {mount["mountPath"]: mount for mount in server(manifests)["volumeMounts"]}
    assert theirs["/var/lib/tureen"]["readOnly"] is True
    assert theirs["/var/lib/tureen"]["name"] == mounts["/var/lib/tureen"]["name"]
    assert {"/etc/tureen", "/tmp"} < set(mounts)


def test_token_is_a_file_of_its_secret_that_only_the_init_container_has(manifests: list[Manifest]) -> None:
    entry = yaml.safe_load(only(manifests, "ConfigMap")["data"]["sources.yaml"])["sources"][1]
    mount = next(each for each in fetch_of(manifests)["volumeMounts"] if each["mountPath"] == "/run/secrets/fetch/1")
    volume = next(each for each in pod(manifests)["volumes"] if each["name"] == mount["name"])
    assert (volume["secret"]["secretName"], volume["secret"]["items"]) == ("hub", [{"key": "token", "path": "token"}])
    assert entry["token_file"] == "/run/secrets/fetch/1/token"
    assert mount["name"] not in {each["name"] for each in server(manifests)["volumeMounts"]}


def test_credentials_of_a_store_reach_the_init_container_only(manifests: list[Manifest]) -> None:
    fetch = fetch_of(manifests)
    assert fetch["env"] == SOURCES["artifacts"]["env"]
    assert fetch["envFrom"] == SOURCES["artifacts"]["envFrom"]
    assert not {"env", "envFrom"} & set(server(manifests))


def test_image_is_a_volume_that_is_read_only(helm: Helm) -> None:
    kind, source = mounted(helm.render(SOURCES))["/var/lib/images/safety"]
    assert (kind, source) == ("image", {"reference": "registry.example/models/safety:1", "pullPolicy": "IfNotPresent"})


@pytest.mark.parametrize(
    ("changes", "volume", "claim"),
    [
        ({}, ("emptyDir", {"sizeLimit": "20Gi"}), False),
        ({"artifacts.size": "1Ti"}, ("emptyDir", {"sizeLimit": "1Ti"}), False),
        ({"artifacts.persistent": True}, ("persistentVolumeClaim", {"claimName": "try-tureen-artifacts"}), True),
        ({"artifacts.existingClaim": "models"}, ("persistentVolumeClaim", {"claimName": "models"}), False),
    ],
)
def test_what_is_fetched_lies_where_the_values_say(
    helm: Helm, changes: dict[str, Any], volume: tuple[str, dict[str, str]], claim: bool
) -> None:
    manifests = helm.render(with_values("starter", {**TO, **changes}))
    assert ("try-tureen-artifacts" in claims(manifests)) is claim
    assert mounted(manifests)["/var/lib/tureen"] == volume


def test_claim_of_artifacts_outlives_the_release(helm: Helm) -> None:
    wanted = {
        "artifacts.persistent": True,
        "artifacts.storageClassName": "fast",
        "artifacts.accessMode": "ReadWriteMany",
    }
    claim = claims(helm.render(with_values("starter", {**TO, **wanted})))["try-tureen-artifacts"]
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert claim["spec"] == {
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "fast",
        "resources": {"requests": {"storage": "20Gi"}},
    }


def test_claim_without_sources_is_mounted_read_only_by_everyone(helm: Helm) -> None:
    manifests = helm.render(values_of("gpu"))
    assert "initContainers" not in pod(manifests)
    assert mounted(manifests)["/var/lib/tureen"] == (
        "persistentVolumeClaim",
        {"claimName": "artifacts", "readOnly": True},
    )


def test_another_source_makes_new_pods(helm: Helm) -> None:
    other = with_values(
        "sources", {"artifacts.sources": [*SOURCES["artifacts"]["sources"], {"source": "a/b", "to": "b"}]}
    )
    found = [
        only(helm.render(values), "Deployment")["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
        for values in (SOURCES, other)
    ]
    assert found[0] != found[1]


def test_notes_tell_what_every_pod_fetches_again(helm: Helm) -> None:
    assert "artifacts are not persistent" in helm.notes(with_values("starter", TO))
    assert "artifacts are not persistent" not in helm.notes(SOURCES)
