from typing import Any

import pytest
import yaml
from deploy.dockerfile import environment, last
from deploy.helm import (
    CI_VALUES,
    DEFAULTS,
    Helm,
    annotations,
    claims,
    containers_of,
    mounted,
    only,
    pod,
    pod_templates,
    server,
    values_of,
    with_value,
    with_values,
)

from tureen_serve.security.scopes import OPEN

STARTER = values_of("starter")
RESTRICTED_VOLUMES = {"name", "configMap", "emptyDir", "persistentVolumeClaim", "secret"}
IMAGE = {"image"}  # of OCI volumes, which the standard does not know yet


def test_pod_labels_cannot_hide_the_pods_from_the_service(helm: Helm) -> None:
    manifests = helm.render(with_value(STARTER, "podLabels", {"app.kubernetes.io/name": "other"}))
    assert only(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"] == "tureen"


@pytest.mark.parametrize("name", CI_VALUES)
def test_pod_meets_the_restricted_standard(helm: Helm, name: str) -> None:
    templates = list(pod_templates(helm.render(values_of(name))))
    assert len(templates) >= 2
    for template in templates:
        spec = template["spec"]
        context = spec["securityContext"]
        for container in containers_of(template):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
        users = {context.get(field) for field in ("runAsUser", "runAsGroup", "fsGroup")}
        assert (context["runAsNonRoot"], users) == (True, {None} if name == "edge" else {10001})
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        allowed = RESTRICTED_VOLUMES | IMAGE if name == "sources" else RESTRICTED_VOLUMES
        assert {key for volume in spec["volumes"] for key in volume} <= allowed
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)


def test_pod_runs_as_the_image_is_built_for(helm: Helm) -> None:
    context = pod(helm.render(STARTER))["securityContext"]
    assert f"{context['runAsUser']}:0" == last("cpu", "USER")  # group 0 may write too, for any other user
    assert context["runAsGroup"] == context["fsGroup"] == context["runAsUser"]


@pytest.mark.parametrize("name", CI_VALUES)
def test_no_token_reaches_the_pod(helm: Helm, name: str) -> None:
    manifests = helm.render(values_of(name))
    account = only(manifests, "ServiceAccount")
    assert account["automountServiceAccountToken"] is False
    for template in pod_templates(manifests):
        assert template["spec"]["automountServiceAccountToken"] is False
        assert template["spec"]["serviceAccountName"] == account["metadata"]["name"]


def test_an_account_that_exists_is_used(helm: Helm) -> None:
    manifests = helm.render(with_value(STARTER, "serviceAccount", {"create": False, "name": "kitchen"}))
    assert pod(manifests)["serviceAccountName"] == "kitchen"
    assert "ServiceAccount" not in {manifest["kind"] for manifest in manifests}


def test_variables_of_a_service_named_tureen_stay_outside(helm: Helm) -> None:
    manifests = helm.render(with_value(STARTER, "fullnameOverride", "tureen"))
    assert only(manifests, "Service")["metadata"]["name"] == "tureen"
    assert pod(manifests)["enableServiceLinks"] is False


def test_probes_ask_open_paths_at_the_advised_pace(helm: Helm) -> None:
    container = server(helm.render(STARTER))
    asked = {
        name: (probe["httpGet"]["path"], probe["periodSeconds"], probe["timeoutSeconds"], probe["failureThreshold"])
        for name in ("startup", "readiness", "liveness")
        for probe in [container[f"{name}Probe"]]
    }
    assert asked == {
        "startup": ("/health/live", 10, 5, 120),  # a large model may load as long as it must
        "readiness": ("/health/ready", 2, 1, 2),
        "liveness": ("/health/live", 10, 5, 6),
    }
    assert {path for path, *_ in asked.values()} <= OPEN


def test_a_rollout_waits_longer_than_a_pod_may_load(helm: Helm) -> None:
    manifests = helm.render(STARTER)
    startup, spec = server(manifests)["startupProbe"], only(manifests, "Deployment")["spec"]
    assert (spec["progressDeadlineSeconds"], DEFAULTS["progressDeadlineSeconds"]) == (1800, 1800)
    assert spec["progressDeadlineSeconds"] > startup["periodSeconds"] * startup["failureThreshold"]
    assert spec["minReadySeconds"] == 10


@pytest.mark.parametrize("name", CI_VALUES)
def test_pod_outlives_the_drain(helm: Helm, name: str) -> None:
    manifests = helm.render(values_of(name))
    file = next(each for each in manifests if "tureen.yaml" in each.get("data", {}))["data"]["tureen.yaml"]
    limits = yaml.safe_load(file)["limits"]
    (grace,) = {
        template["spec"]["terminationGracePeriodSeconds"]
        for template in pod_templates(manifests)
        if "restartPolicy" not in template["spec"]
    }
    assert grace > limits["drain_seconds"] + limits["grace_seconds"] + 5


@pytest.mark.parametrize(
    ("changes", "image"),
    [
        ({}, "tureen:0.2.0-cpu"),
        ({"gpu.count": 1}, "tureen:0.2.0-cuda"),
        ({"image.tag": "nightly"}, "tureen:nightly"),
        ({"image.repository": "registry.example:5000/a/tureen"}, "registry.example:5000/a/tureen:0.2.0-cpu"),
        ({"image.tag": "nightly", "image.digest": "sha256:" + "0" * 64}, "tureen@sha256:" + "0" * 64),
    ],
)
def test_image_is_chosen(helm: Helm, changes: dict[str, Any], image: str) -> None:
    assert server(helm.render(with_values("starter", changes)))["image"] == image


def test_devices_are_limits_beside_the_others(helm: Helm) -> None:
    values = with_value(STARTER, "gpu", {"count": 2, "resource": "nvidia.com/mig-1g.10gb"})
    assert server(helm.render(values))["resources"]["limits"] == {"memory": "4Gi", "nvidia.com/mig-1g.10gb": 2}
    assert server(helm.render(STARTER))["resources"] == DEFAULTS["resources"]


def test_cache_is_a_claim_that_outlives_the_release(helm: Helm) -> None:
    manifests = helm.render(STARTER)
    claim = claims(manifests)["try-tureen-cache"]
    kind, source = mounted(manifests)[environment("cpu")["TUREEN_CACHE"]]
    assert (kind, source["claimName"]) == ("persistentVolumeClaim", claim["metadata"]["name"])
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert claim["spec"] == {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}}


def test_cache_claim_takes_a_storage_class(helm: Helm) -> None:
    manifests = helm.render(with_value(STARTER, "cache.storageClassName", "fast"))
    asked = {name: claim["spec"].get("storageClassName") for name, claim in claims(manifests).items()}
    assert asked == {"try-tureen-cache": "fast", "try-tureen-batches": None}


@pytest.mark.parametrize(
    ("name", "cache"),
    [
        ("replicas", ("emptyDir", {"sizeLimit": "2Gi"})),
        ("gpu", ("persistentVolumeClaim", {"claimName": "models"})),
    ],
)
def test_cache_can_be_elsewhere(helm: Helm, name: str, cache: tuple[str, dict[str, str]]) -> None:
    assert mounted(helm.render(values_of(name)))["/var/cache/tureen"] == cache


def test_artifacts_are_mounted_where_the_example_looks_for_them(helm: Helm) -> None:
    manifests = helm.render(values_of("gpu"))
    kind, source = mounted(manifests)["/var/lib/tureen"]
    assert (kind, source) == ("persistentVolumeClaim", {"claimName": "artifacts", "readOnly": True})
    assert values_of("gpu")["server"]["rewards"][0]["path"].startswith("/var/lib/tureen/")


def test_only_what_the_server_keeps_and_tmp_can_be_written(helm: Helm) -> None:
    mounts = server(helm.render(values_of("gpu")))["volumeMounts"]
    variables = environment("cuda")
    kept = {variables["TUREEN_CACHE"], variables["TUREEN_BATCHES__FOLDER"]}
    assert {mount["mountPath"] for mount in mounts if not mount.get("readOnly")} == {"/tmp", "/dev/shm", *kept}


@pytest.mark.parametrize(("name", "limit"), [("starter", "4Gi"), ("gpu", "8Gi")])
def test_tmp_is_bounded(helm: Helm, name: str, limit: str) -> None:
    assert mounted(helm.render(values_of(name)))["/tmp"] == ("emptyDir", {"sizeLimit": limit})


@pytest.mark.parametrize(
    ("path", "value", "replaced"),
    [("server.dtype", "float32", 1), ("keys.values", ["another-key-of-some-length"], 0)],  # keys are read again
)
def test_pods_are_replaced_when_what_they_read_once_changes(helm: Helm, path: str, value: Any, replaced: int) -> None:
    before, after = annotations(helm.render(STARTER)), annotations(helm.render(with_value(STARTER, path, value)))
    assert len([key for key in before if key.startswith("checksum/") and before[key] != after[key]]) == replaced


def test_pods_stay_when_only_their_number_changes(helm: Helm) -> None:
    values = values_of("replicas")
    before, after = helm.render(values), helm.render(with_value(values, "replicaCount", 4))
    assert only(before, "Deployment")["spec"]["template"] == only(after, "Deployment")["spec"]["template"]


def test_pods_are_replaced_without_a_gap_where_the_cache_allows_it(helm: Helm) -> None:
    names = ("starter", "replicas")
    strategies = {name: only(helm.render(values_of(name)), "Deployment")["spec"]["strategy"] for name in names}
    assert strategies["replicas"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert strategies["starter"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


@pytest.mark.parametrize(
    "field",
    ["nodeSelector", "tolerations", "affinity", "priorityClassName", "imagePullSecrets", "topologySpreadConstraints"],
)
def test_placing_of_pods_is_passed_on(helm: Helm, field: str) -> None:
    values = values_of("replicas" if field == "topologySpreadConstraints" else "gpu")
    assert pod(helm.render(values))[field] == values[field]
    assert field not in pod(helm.render(STARTER))


def test_environment_and_annotations_are_passed_on(helm: Helm) -> None:
    values = values_of("gpu")
    manifests = helm.render(values)
    assert server(manifests)["env"] == values["env"]
    assert values["podAnnotations"].items() < annotations(manifests).items()
    assert only(manifests, "Service")["metadata"]["annotations"] == values["service"]["annotations"]
    assert only(manifests, "ServiceAccount")["metadata"]["annotations"] == values["serviceAccount"]["annotations"]
