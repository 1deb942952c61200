from pathlib import Path
from typing import Any

import pytest
from deploy.dockerfile import environment
from deploy.helm import DEFAULTS, Helm, Manifest, claims, mounted, only, pod, server, values_of, with_value, with_values

from tureen_serve import settings
from tureen_serve.batch_settings import BatchSettings

FOLDER = environment("cpu")["TUREEN_BATCHES__FOLDER"]
STARTER = values_of("starter")
STORE = {"batches.store.existingSecret": "postgres"}
FILES = {"server.batches.files": "s3://bucket/tureen"}
SHARED = {"batches.persistence.accessMode": "ReadWriteMany"}
OFF = {"server.batches.enabled": False}
BARE = {"cache.persistent": False}
ROLLING = {**BARE, "rollout.maxSurge": 1}
MANY = {**BARE, "replicaCount": 2}


def read_by_the_server(
    manifests: list[Manifest], secrets: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> BatchSettings:
    """What the server takes from its configuration, the image's environment and the pod's."""
    (document,) = only(manifests, "ConfigMap")["data"].values()
    (tmp_path / "tureen.yaml").write_text(document)
    monkeypatch.setenv("TUREEN_BATCHES__FOLDER", FOLDER)
    for variable in server(manifests).get("env", []):
        monkeypatch.setenv(variable["name"], secrets[variable["valueFrom"]["secretKeyRef"]["key"]])
    return settings.load_settings(tmp_path / "tureen.yaml").batches


def test_one_replica_keeps_both_in_the_folder_of_its_claim(
    helm: Helm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests = helm.render(STARTER)
    batches = read_by_the_server(manifests, {}, tmp_path, monkeypatch)
    assert batches.store_url == f"sqlite:///{FOLDER}/batches.sqlite"
    assert batches.files_url == f"{FOLDER}/files"
    assert mounted(manifests)[FOLDER] == ("persistentVolumeClaim", {"claimName": "try-tureen-batches"})


def test_replicas_share_what_the_values_name(helm: Helm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifests = helm.render(values_of("replicas"))
    batches = read_by_the_server(manifests, {"uri": "postgresql://host/jobs"}, tmp_path, monkeypatch)
    assert (batches.store_url, batches.files_url) == ("postgresql://host/jobs", "s3://bucket/tureen")
    assert batches.lease_seconds == 30


def test_settings_of_batches_reach_the_server(helm: Helm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {key: value for key, value in values_of("gpu").items() if key != "env"}
    batches = read_by_the_server(helm.render(values), {}, tmp_path, monkeypatch)
    assert (batches.file_bytes, batches.lines, batches.keep_days) == (2**30, 250_000, 7)


def test_url_of_the_store_comes_from_its_secret_before_further_variables(helm: Helm) -> None:
    further = {"name": "AWS_REGION", "value": "eu-central-1"}
    variable, second = server(helm.render(with_value(values_of("replicas"), "env", [further])))["env"]
    reference = {"name": "tureen-postgres", "key": "uri"}
    assert variable == {"name": "TUREEN_BATCHES__STORE", "valueFrom": {"secretKeyRef": reference}}
    assert second == further


@pytest.mark.parametrize("changes", [{}, {**STORE, **OFF}])
def test_no_variable_is_set_without_need(helm: Helm, changes: dict[str, Any]) -> None:
    assert "env" not in server(helm.render(with_values("starter", changes)))


def test_claim_outlives_the_release(helm: Helm) -> None:
    wanted = {"batches.persistence.storageClassName": "fast", "batches.persistence.size": "1Ti", **SHARED}
    claim = claims(helm.render(with_values("starter", wanted)))["try-tureen-batches"]
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert claim["spec"] == {
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "fast",
        "resources": {"requests": {"storage": "1Ti"}},
    }


def test_claim_is_like_that_of_the_cache_by_default(helm: Helm) -> None:
    cache, batches = claims(helm.render(STARTER)).values()
    assert cache["spec"] == batches["spec"]
    assert cache["metadata"]["labels"] == batches["metadata"]["labels"]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"batches.persistence.existingClaim": "jobs"}, ("persistentVolumeClaim", {"claimName": "jobs"})),
        ({"batches.persistence.enabled": False}, ("emptyDir", {"sizeLimit": "10Gi"})),
        ({**STORE, **FILES}, None),
        (OFF, None),
    ],
)
def test_folder_can_be_elsewhere_or_not_needed(
    helm: Helm, changes: dict[str, Any], found: tuple[str, dict[str, str]] | None
) -> None:
    manifests = helm.render(with_values("starter", changes))
    volumes = [volume["name"] for volume in pod(manifests)["volumes"]]
    assert mounted(manifests).get(FOLDER) == found
    assert volumes.count("batches") == (found is not None)
    assert set(claims(manifests)) == {"try-tureen-cache"}


@pytest.mark.parametrize("one", [STORE, FILES])
def test_folder_is_mounted_where_one_of_both_needs_it(helm: Helm, one: dict[str, str]) -> None:
    kind, _ = mounted(helm.render(with_values("starter", one)))[FOLDER]
    assert kind == "persistentVolumeClaim"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (MANY, "replicaCount 2 needs one store of batches: set batches.store.existingSecret"),
        ({**MANY, **SHARED, **FILES}, "needs one store of batches"),
        ({**MANY, **STORE}, "replicaCount 2 needs one place for files: set server.batches.files"),
        ({**MANY, **STORE, **SHARED, "batches.persistence.enabled": False}, "needs one place for files"),
        (ROLLING, "a new pod cannot mount the ReadWriteOnce claim of batches"),
        (
            {**ROLLING, **STORE, "batches.persistence.accessMode": "ReadWriteOncePod"},
            "rollout.maxSurge must be 0: a new pod cannot mount the ReadWriteOncePod claim of batches",
        ),
        ({**ROLLING, **SHARED}, "rollout.maxSurge must be 0: a new pod cannot share the SQLite database"),
        (
            {"batches.persistence.existingClaim": "jobs", "batches.persistence.enabled": False},
            "batches.persistence.enabled is false: keep one",
        ),
    ],
)
def test_contradictions_are_refused(any_helm: Helm, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RuntimeError, match=sentence):
        any_helm.render(with_values("starter", changes))


@pytest.mark.parametrize(
    "changes",
    [
        {**MANY, **ROLLING, **STORE, **FILES},
        {**MANY, **ROLLING, **STORE, **SHARED},
        {**MANY, **ROLLING, **OFF},
        {**ROLLING, "batches.persistence.enabled": False},
        {**SHARED, **FILES},
    ],
)
def test_what_fits_together_is_rendered(any_helm: Helm, changes: dict[str, Any]) -> None:
    assert only(any_helm.render(with_values("starter", changes)), "Deployment")["spec"]["replicas"] >= 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [({}, False), (OFF, False), ({**STORE, **FILES}, False), ({"batches.persistence.enabled": False}, True)],
)
def test_notes_say_where_batches_end_with_their_pod(helm: Helm, changes: dict[str, Any], told: bool) -> None:
    assert ("batches are not persistent" in helm.notes(with_values("starter", changes))) is told


def test_server_takes_batches_by_default() -> None:
    assert DEFAULTS["server"]["batches"] == {"enabled": BatchSettings().enabled}
