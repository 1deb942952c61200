"""Resources of operators, against models of their CRDs where a registry has them, and against the fields written here
where none has. Kubernetes drops a field that it does not know, so no field may be lost on the way through a model."""

from typing import Any

import pytest
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.prometheus_operator.v1 import PodMonitor, PrometheusRule, ServiceMonitor
from deploy.fetch_helm import fetch
from deploy.helm import TRAINING, Helm, Manifest, only, values_of
from jsonschema import Draft202012Validator
from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet
from kubeflow_trainer_api.models.trainer_v1alpha1_train_job import TrainerV1alpha1TrainJob
from yaml import safe_load

PYDANTIC = {"PodMonitor": PodMonitor, "PrometheusRule": PrometheusRule, "ScaledObject": ScaledObject}
PYDANTIC |= {"ServiceMonitor": ServiceMonitor}
GENERATED = {"JobSet": JobsetV1alpha2JobSet, "TrainJob": TrainerV1alpha1TrainJob}
CUSTOM = {*PYDANTIC, *GENERATED, "HTTPRoute", "LeaderWorkerSet"}
NODES = TRAINING / "ci" / "nodes-values.yaml"


def closed(required: str = "", **properties: Any) -> dict[str, Any]:
    """A JSON schema of a map with these fields and no others."""
    known = {name: value or {} for name, value in properties.items()}
    return {"type": "object", "additionalProperties": False, "required": required.split(), "properties": known}


NAME = {"type": "string", "maxLength": 253, "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"}
DURATION = {"type": "string", "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$"}
COUNT = {"type": "integer", "minimum": 0}
POD = closed("spec", metadata=None, spec={"type": "object", "required": ["containers"]})
FIELDS = {
    # gateway.networking.k8s.io/v1 of release 1.6
    "HTTPRoute": closed(
        "parentRefs rules",
        parentRefs={"type": "array", "items": closed("name", name=NAME, namespace=NAME, sectionName=NAME)},
        hostnames={"type": "array", "items": NAME},
        rules={
            "type": "array",
            "items": closed(
                "backendRefs",
                timeouts=closed("", request=DURATION, backendRequest=DURATION),
                backendRefs={"type": "array", "items": closed("name port", name=NAME, port=COUNT)},
            ),
        },
    ),
    # leaderworkerset.x-k8s.io/v1 of release 0.9
    "LeaderWorkerSet": closed(
        "leaderWorkerTemplate",
        replicas=COUNT,
        startupPolicy={"enum": ["LeaderCreated", "LeaderReady"]},
        rolloutStrategy=closed(
            "type",
            type={"const": "RollingUpdate"},
            rollingUpdateConfiguration=closed("maxUnavailable maxSurge", maxUnavailable=COUNT, maxSurge=COUNT),
        ),
        leaderWorkerTemplate=closed(
            "workerTemplate",
            size={"type": "integer", "minimum": 1},
            restartPolicy={"enum": ["RecreateGroupOnPodRestart", "RecreateGroupAfterStart", "None"]},
            leaderTemplate=POD,
            workerTemplate=POD,
        ),
    ),
}


def read_again(manifest: Manifest) -> Any:
    """What a model of its kind keeps of a manifest."""
    kind = manifest["kind"]
    if kind in PYDANTIC:
        return PYDANTIC[kind].model_validate(manifest).model_dump(mode="json", by_alias=True, exclude_unset=True)
    return GENERATED[kind].from_dict(manifest).to_dict()


def check(manifests: list[Manifest]) -> set[str]:
    """Check those of other kinds than Kubernetes' own, and return their kinds."""
    found = [manifest for manifest in manifests if manifest["kind"] in CUSTOM]
    for manifest in found:
        if manifest["kind"] in FIELDS:
            Draft202012Validator(FIELDS[manifest["kind"]]).validate(manifest["spec"])
        else:
            assert read_again(manifest) == manifest
    return {manifest["kind"] for manifest in found}


def test_models_know_every_field_of_the_chart(helm: Helm) -> None:
    found = {kind for name in ("fleet", "edge", "nodes") for kind in check(helm.render(values_of(name)))}
    assert found == CUSTOM - set(GENERATED)


@pytest.mark.parametrize("by", ["jobset", "trainjob"])
def test_models_know_every_field_of_a_training_run(by: str) -> None:
    values = {**safe_load(NODES.read_text()), "by": by}
    assert check(Helm(fetch("4.3.1"), TRAINING).render(values)) <= set(GENERATED)


def test_a_field_that_no_model_knows_is_found(helm: Helm) -> None:
    manifests = helm.render(values_of("fleet"))
    only(manifests, "ScaledObject")["spec"]["pollingIntervall"] = 15
    with pytest.raises(AssertionError):
        check(manifests)
