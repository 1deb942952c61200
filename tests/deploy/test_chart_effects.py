"""Every value has an effect: changed, it changes what is rendered, or a guard says why it may not be so."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from deploy.helm import DEFAULTS, TRAINING, Helm, Manifest, Refused, with_value, with_values
from yaml import safe_load

OWN_CLAIMS = {"artifacts.sources": [{"source": "s3://models/a", "to": "a"}], "artifacts.persistent": True}
# in which chart values beside the starter's a value can be seen, by the start of its path
CONTEXTS: dict[str, tuple[str, dict[str, Any]]] = {
    "": ("starter", {}),
    "artifacts": ("starter", {**OWN_CLAIMS, "artifacts.images": [{"name": "a", "reference": "b"}]}),
    "artifacts.persistent": ("starter", {"artifacts.sources": OWN_CLAIMS["artifacts.sources"]}),
    "autoscaling": ("fleet", {}),
    "batches.workers": ("fleet", {}),
    "batches.store.entry": ("replicas", {}),
    "gpu.resource": ("gpu", {}),
    "httpRoute": ("fleet", {}),
    "ingress": ("edge", {}),
    "keys.entry": ("replicas", {}),
    "monitoring": ("fleet", {}),
    "monitoring.serviceMonitor": ("edge", {}),
    "multiNode": ("nodes", {}),
    "networkPolicy": ("fleet", {}),
    "podDisruptionBudget": ("replicas", {}),
    "test.key.entry": ("fleet", {}),
}
# other values than those that `flip` makes
SAMPLES: dict[str, Any] = {
    "artifacts.accessMode": "ReadWriteMany",
    "artifacts.env": [{"name": "AWS_REGION", "value": "eu-central-1"}],
    "artifacts.images": [{"name": "extra", "reference": "registry.example/model:1"}],
    "artifacts.sources": [{"source": "s3://models/extra", "to": "extra"}],
    "autoscaling.by": "hpa",
    "autoscaling.keda.serverAddress": "http://other:9090",
    "cache.accessMode": "ReadWriteMany",
    "batches.persistence.accessMode": "ReadWriteMany",
    "env": [{"name": "OMP_NUM_THREADS", "value": "4"}],
    "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "extra"}}],
    "extraVolumeMounts": [{"name": "tmp", "mountPath": "/extra"}],
    "gpu.resource": "example.com/npu",
    "httpRoute.hostnames": ["other.example.org"],
    "image.digest": "sha256:" + "1" * 64,
    "image.pullPolicy": "Always",
    "ingress.hosts": ["other.example.org"],
    "keys.entries": [{"id": "0" * 12, "name": "a", "scopes": ["score"], "digest": f"sha256:{'0' * 32}:{'0' * 64}"}],
    "keys.values": ["c07e19b4d52af863"],
    "server.bases": {"org/name": "/models/base"},
    "server.access.cors_origins": ["https://app.example.org"],
    "server.access.hosts": ["scores.example.org"],
    "server.device": "cpu",
    "server.dtype": "float32",
    "server.families": [{"name": "a", "base": "b"}],
    "server.log_format": "text",
    "server.rewards": [{"path": "org/name"}],
    "server.runtime": "transformers",
    "service.type": "NodePort",
    # of the chart of training runs
    "by": "jobset",
    "recipe": "dsp/crft",
    "recipeFile": "kind: reward\n",
    "runs.accessMode": "ReadWriteMany",
    "set": {"scale.zero": 3},
}
ANNOTATIONS = {"example.org/a": "b"}
MAPS = {"resources": {"limits": {"memory": "6Gi"}}, "vllm": {"rows": 16}, "aliases": {"a": "helpful"}}


def leaves(values: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path and default of each value; of a map that users fill, the whole."""
    for key, value in values.items():
        here = f"{path}.{key}".lstrip(".")
        if isinstance(value, dict) and value and key not in ("podSecurityContext", "securityContext", "labels"):
            yield from leaves(value, here)
        else:
            yield here, value


def flip(path: str, value: Any) -> Any:
    """Another value of the same kind."""
    if path in SAMPLES:
        return SAMPLES[path]
    name = path.rpartition(".")[2]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, dict):
        return MAPS.get(name) or {**value, **ANNOTATIONS}
    if isinstance(value, list):
        return [{"name": "extra"}]
    if name in ("interval", "scrapeTimeout"):
        return "7s"
    return "7Gi" if name in ("size", "memory", "storage") else "7" if name == "cpu" else "other"


def context_of(path: str) -> dict[str, Any]:
    longest = max((start for start in CONTEXTS if f"{path}.".startswith(f"{start}.") or not start), key=len)
    return with_values(*CONTEXTS[longest])


def render(helm: Helm, values: dict[str, Any]) -> list[Manifest] | str:
    """The manifests, or the words of a guard; a refusal of the schema is a failure of the test."""
    try:
        return helm.render(values)
    except Refused as refused:
        if "don't meet the specifications" in str(refused):
            raise
        return str(refused)


@pytest.fixture(scope="module")
def rendered() -> dict[str, list[Manifest] | str]:
    """What was rendered already, by its values."""
    return {}


LEAVES = dict(leaves(DEFAULTS))


@pytest.mark.parametrize("path", LEAVES)
def test_value_has_an_effect(helm: Helm, path: str, rendered: dict[str, list[Manifest] | str]) -> None:
    values = context_of(path)
    before = rendered.setdefault(json.dumps(values), render(helm, values))
    assert isinstance(before, list), before
    given: Any = values
    for key in path.split("."):
        given = given.get(key, {}) if isinstance(given, dict) else {}
    assert render(helm, with_value(values, path, flip(path, given if given != {} else LEAVES[path]))) != before


TRAINING_DEFAULTS: dict[str, Any] = safe_load((TRAINING / "values.yaml").read_text())
TRAINING_LEAVES = dict(leaves(TRAINING_DEFAULTS))


@pytest.mark.parametrize("path", TRAINING_LEAVES)
def test_value_of_a_training_run_has_an_effect(
    training_helm: Helm, path: str, rendered: dict[str, list[Manifest] | str]
) -> None:
    one: dict[str, Any] = {"recipe": "dsp/grft", "gpu": {"count": 1}}
    if path == "trainingRuntime":
        one["by"] = "trainjob"
    before = rendered.setdefault(json.dumps(one), render(training_helm, one))
    given = one["gpu"]["count"] if path == "gpu.count" else TRAINING_LEAVES[path]
    assert render(training_helm, with_value(one, path, flip(path, given))) != before


def test_samples_are_of_values_that_there_are() -> None:
    assert set(SAMPLES) <= {*LEAVES, *TRAINING_LEAVES}
