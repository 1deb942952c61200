"""Contradictions are refused in one sentence that names the value; what fits together is rendered."""

from typing import Any

import pytest
from deploy.helm import DEFAULTS, Helm, values_of, with_values

STARTER = values_of("starter")
OWN = {"starter": False, "keys.existingSecret": "k", "keys.values": []}
REWARD = {**OWN, "server.rewards": [{"path": "/var/lib/tureen/rewards/helpful"}]}
FETCHED: dict[str, Any] = {**REWARD, "artifacts.sources": [{"source": "s3://models/helpful", "to": "rewards/helpful"}]}
SPREAD = {"cache.persistent": False, "server.batches.enabled": False, "replicaCount": 2}


def source(**fields: Any) -> dict[str, Any]:
    return {**REWARD, "artifacts.sources": [{"source": "s3://models/helpful", "to": "rewards/helpful", **fields}]}


def family(**fields: Any) -> dict[str, Any]:
    return {**OWN, "artifacts.existingClaim": "models", "server.families": [{"name": "smollm2", **fields}]}


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("starter", REWARD, r"server\.rewards\.0\.path: nothing brings /var/lib/tureen/rewards/helpful"),
    (
        "starter",
        {**FETCHED, "server.rewards": [{"path": "/var/lib/tureen/b"}]},
        "nothing brings /var/lib/tureen/b",
    ),
    ("starter", {**FETCHED, "server.load_roots": ["/var/lib/tureen/versions"]}, r"load_roots\.0: nothing brings"),
    ("starter", {**FETCHED, "server.bases": {"org/a": "/var/lib/tureen/a"}}, r"server\.bases\.org/a: nothing brings"),
    ("starter", {**FETCHED, "server.bases": {"org/a": "bases/a"}}, r"server\.bases\.org/a: bases/a is a relative path"),
    ("starter", {**OWN, "server.rewards": [{"path": "./helpful"}]}, r"\./helpful is a relative path"),
    ("starter", {**OWN, "server.rewards": [{"path": "helpful"}]}, "helpful is a relative path"),
    ("starter", {**OWN, "server.rewards_root": "rewards"}, r"server\.rewards_root: rewards is a relative path"),
    ("starter", family(base="bases/qwen", experts=["/var/lib/tureen/a"]), r"families\.0\.base: bases/qwen is a rel"),
    ("starter", family(experts={"a": {"path": "experts/a"}}), r"experts\.a: experts/a is a relative path"),
    ("starter", family(policy="policy"), r"families\.0\.policy: policy is a relative path"),
    ("starter", source(to="a/../../b"), "leads out of /var/lib/tureen"),
    ("starter", {**FETCHED, "artifacts.sources": 2 * FETCHED["artifacts.sources"]}, "overlap: give each model"),
    ("starter", source(source="ftp://host/model"), "no driver for ftp://"),
    ("starter", source(source="rewards"), "rewards is a relative path"),
    ("starter", source(source="https://host/m.tar"), r"sources\.0\.digest is needed for a web server"),
    ("starter", source(token={"existingSecret": "hub", "entry": "token"}), r"sources\.0\.token is for the hub, web"),
    ("starter", {"artifacts.persistent": True}, "keeps what is fetched, and nothing is"),
    ("starter", {**FETCHED, "artifacts.persistent": True, "artifacts.existingClaim": "c"}, "keep one of them"),
    ("starter", {**FETCHED, **SPREAD, "artifacts.persistent": True}, "cannot fetch into one ReadWriteOnce claim"),
    (
        "starter",
        {**FETCHED, "cache.persistent": False, "server.batches.enabled": False}
        | {"artifacts.existingClaim": "c", "rollout.maxSurge": 1},
        "cannot mount the ReadWriteOnce claim of artifacts",
    ),
    ("starter", {"server.batches.file_bytes": 2**31}, r"tmp\.size 4Gi is less than 4 uploads"),
    ("starter", {"server.batches.uploads": 64}, r"tmp\.size 4Gi is less than 64 uploads"),
    ("starter", {"server.batches.files": "gridfs://bucket"}, "no driver for gridfs://"),
    ("starter", {"env": [{"name": "TUREEN_PORT", "value": "1"}]}, "TUREEN_PORT is the chart's own"),
    ("starter", {"env": [{"name": "TUREEN_HOST", "value": "::"}]}, "TUREEN_HOST is the chart's own"),
    ("starter", {"env": [{"name": "TUREEN_KEYS", "value": ""}]}, "TUREEN_KEYS is the chart's own"),
    ("starter", {"env": [{"name": "TUREEN_CACHE", "value": "/tmp"}]}, "TUREEN_CACHE is the chart's own"),
    ("starter", {"env": [{"name": "TUREEN_BATCHES__STORE", "value": "x"}]}, "TUREEN_BATCHES__STORE would override"),
    ("starter", {"env": [{"name": "TUREEN_ACCESS__ANONYMOUS", "value": "1"}]}, "ANONYMOUS would serve everyone"),
    ("starter", {"env": 2 * [{"name": "A", "value": "1"}]}, "A is set twice"),
    ("starter", {"resources.limits.memory": "1Gi"}, r"resources\.limits\.memory 1Gi is less than resources\.requests"),
    ("starter", {"resources.limits.cpu": "999m"}, "limits.cpu 999m is less"),
    ("starter", {"artifacts.resources.limits.memory": "500M"}, r"artifacts\.resources\.limits\.memory 500M is less"),
    ("starter", {"probes.readiness.timeoutSeconds": 3}, r"probes\.readiness\.timeoutSeconds 3 is more than periodSec"),
    ("starter", {"probes.startup.failureThreshold": 2}, r"probes\.startup kills a pod after 20 seconds"),
    ("starter", {"probes.liveness.failureThreshold": 1}, r"probes\.liveness kills a pod after 10 seconds"),
    ("starter", {"probes.readiness.failureThreshold": 20}, "needs 40 seconds to see that a pod leaves"),
    ("starter", {"progressDeadlineSeconds": 10}, "must be more than minReadySeconds 10"),
    ("starter", {"server.limits.deadline_seconds": 90}, "90 is more than grace_seconds 60: a pod that ends"),
    ("starter", {"server.limits.longest_deadline_seconds": 100}, "deadline_seconds 120 is more than longest"),
    ("starter", {"keys.values": ["aaaaaaaabbbbbbbb"]}, r"keys\.values\.0 can be guessed"),
    ("starter", {"keys.values": ["ChangeMe-1234567890"]}, r"keys\.values\.0 holds a word that keys of examples have"),
    ("gpu", {"server.runtime": "vllm", "gpu.count": 0, "server.device": "auto"}, "server.runtime vllm needs gpu.count"),
    ("gpu", {"server.vllm.tensor_parallel": 2}, "tensor_parallel 2 is more than the 1 devices"),
    ("gpu", {"server.device": "cuda:1"}, "cuda:1 is beyond gpu.count 1"),
    ("gpu", {"image.digest": "", "image.tag": "0.2.0-cpu"}, "image.tag 0.2.0-cpu has no CUDA"),
    ("gpu", {"server.vllm.memory": {"a": 0.6, "b": 0.5}}, "add up to 1.1 of a GPU"),
    ("nodes", {"server.runtime": "auto"}, "multiNode.enabled needs server.runtime vllm"),
    ("nodes", {"multiNode.size": 4}, "tensor_parallel must be 32"),
    ("nodes", {"cache.persistent": True}, "multiNode.size 2 cannot share a ReadWriteOnce cache"),
    ("fleet", {"server.batches.worker": True}, "is set by batches.workers.replicaCount"),
    ("fleet", {"server.batches.enabled": False}, "batches.workers.replicaCount is set but server.batches.enabled"),
    ("fleet", {"autoscaling.keda.serverAddress": ""}, r"set autoscaling\.keda\.serverAddress"),
    ("fleet", {"autoscaling.minReplicas": 9}, "maxReplicas 4 is less than minReplicas 9"),
    ("fleet", {"autoscaling.keda.fallbackReplicas": 5}, "fallbackReplicas 5 is more than maxReplicas 4"),
    ("fleet", {"cache.accessMode": "ReadWriteOnce"}, "autoscaling.maxReplicas 4 cannot share a ReadWriteOnce cache"),
    ("fleet", {"networkPolicy.egress": []}, "artifacts.sources needs more: list it in networkPolicy.egress"),
    ("fleet", {"server.access.hosts": ["else.example.org"]}, "refuses the name scores.example.org"),
    ("fleet", {"httpRoute.parentRefs": []}, "needs httpRoute.parentRefs"),
    ("fleet", {"httpRoute.timeoutSeconds": 60}, "httpRoute.timeoutSeconds 60 would cut requests"),
    (
        "fleet",
        {"monitoring.serviceMonitor.enabled": True},
        "count every pod twice",
    ),
    ("edge", {"ingress.hosts": []}, "needs ingress.hosts"),
    ("edge", {"ingress.timeoutSeconds": 599}, "would cut requests that may take 600 seconds"),
]


@pytest.mark.parametrize(("name", "changes", "sentence"), REFUSED)
def test_contradictions_are_refused(helm: Helm, name: str, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RuntimeError, match=sentence) as refused:
        helm.render(with_values(name, changes))
    assert "don't meet the specifications" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("starter", FETCHED),
        ("starter", {**FETCHED, "server.rewards": [{"path": "/var/lib/tureen/rewards/helpful/final"}]}),
        ("starter", {**FETCHED, "server.load_roots": ["/var/lib/tureen/rewards"]}),
        ("starter", {**FETCHED, **SPREAD}),
        ("starter", {**OWN, "server.rewards": [{"path": "org/name"}, {"path": "s3://models/b", "name": "b"}]}),
        ("starter", {**OWN, "server.rewards": [{"path": "/models/baked-into-an-image-of-ones-own"}]}),
        ("starter", family(base="smollm2-135m-instruct", experts=["/var/lib/tureen/a"])),
        (
            "starter",
            {**family(base="org/a", experts=["/var/lib/tureen/b"]), "server.bases": {"org/a": "/var/lib/tureen/a"}},
        ),
        ("gpu", {"server.limits.deadline_seconds": 90}),
        ("starter", {"keys.values": ["c07e19b4d52af863"]}),
        ("starter", {"server.batches.file_bytes": 2**30, "server.batches.uploads": 3}),
        ("gpu", {"gpu.count": 2, "server.vllm.tensor_parallel": 2, "server.device": "cuda:1"}),
        ("gpu", {"server.vllm.memory": {"a": 0.6, "b": 0.4}}),
        ("edge", {"monitoring.serviceMonitor.key.existingSecret": "", "server.access.open_metrics": True}),
        ("fleet", {"server.access.hosts": ["scores.example.org"]}),
    ],
)
def test_what_fits_together_is_rendered(helm: Helm, name: str, changes: dict[str, Any]) -> None:
    assert helm.render(with_values(name, changes))


@pytest.mark.parametrize("section", [name for name, value in DEFAULTS.items() if isinstance(value, dict)])
def test_sections_are_never_null(helm: Helm, section: str) -> None:
    with pytest.raises(RuntimeError, match=f"missing property '{section}'"):
        helm.render({**STARTER, section: None})


@pytest.mark.parametrize("path", ["server.batches", "server.limits", "probes.startup", "monitoring.alerts"])
def test_sections_of_sections_are_never_null(helm: Helm, path: str) -> None:
    with pytest.raises(RuntimeError, match=f"missing property '{path.partition('.')[2]}'"):
        helm.render(with_values("starter", {path: None}))
