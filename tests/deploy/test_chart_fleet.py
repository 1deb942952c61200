"""More than one pod, and what stands before them: scaling, workers, groups, routes, network and the test pod."""

from typing import Any

import pytest
from deploy.helm import Helm, Manifest, containers_of, only, pod_templates, values_of, with_value, with_values

STARTER = values_of("starter")


@pytest.fixture(scope="module")
def fleet(helm: Helm) -> list[Manifest]:
    return helm.render(values_of("fleet"))


@pytest.fixture(scope="module")
def edge(helm: Helm) -> list[Manifest]:
    return helm.render(values_of("edge"))


@pytest.fixture(scope="module")
def nodes(helm: Helm) -> list[Manifest]:
    return helm.render(values_of("nodes"))


def named(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    return next(each for each in manifests if (each["kind"], each["metadata"]["name"]) == (kind, name))


def variables(template: Manifest) -> dict[str, Any]:
    return {each["name"]: each.get("value") for each in template["spec"]["containers"][0].get("env", [])}


def test_workers_run_batches_and_the_other_pods_none(fleet: list[Manifest]) -> None:
    serving = named(fleet, "Deployment", "try-tureen")["spec"]["template"]
    workers = named(fleet, "Deployment", "try-tureen-worker")["spec"]
    assert variables(serving)["TUREEN_BATCHES__WORKER"] == "false"
    assert variables(workers["template"])["TUREEN_BATCHES__WORKER"] == "true"
    assert workers["replicas"] == 2
    assert containers_of(workers["template"])[-1]["resources"] == values_of("fleet")["batches"]["workers"]["resources"]
    assert workers["template"]["spec"]["nodeSelector"] == {"pool": "spot"}
    assert "nodeSelector" not in serving["spec"]


def test_neither_service_nor_scaling_counts_the_workers(fleet: list[Manifest]) -> None:
    labels = named(fleet, "Deployment", "try-tureen-worker")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        only(fleet, "Service")["spec"]["selector"],
        named(fleet, "Deployment", "try-tureen")["spec"]["selector"]["matchLabels"],
        only(fleet, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
    ]
    assert not [selector for selector in selectors if selector.items() <= labels.items()]


def test_pod_monitor_finds_pods_and_workers_but_not_the_test(fleet: list[Manifest]) -> None:
    selector = only(fleet, "PodMonitor")["spec"]["selector"]
    (expression,) = selector["matchExpressions"]
    found = [
        template["metadata"]["labels"][expression["key"]] in expression["values"] for template in pod_templates(fleet)
    ]
    assert sorted(found) == [False, True, True]


@pytest.mark.parametrize("by", ["hpa", "keda"])
def test_pods_are_scaled_by_the_tokens_that_wait(helm: Helm, by: str) -> None:
    manifests = helm.render(with_values("fleet", {"autoscaling.by": by, "autoscaling.queueTokens": 5000}))
    assert "replicas" not in named(manifests, "Deployment", "try-tureen")["spec"]
    if by == "hpa":
        spec = only(manifests, "HorizontalPodAutoscaler")["spec"]
        assert spec["metrics"][0]["pods"]["metric"] == {"name": "tureen_queue_tokens"}
        assert spec["metrics"][0]["pods"]["target"] == {"type": "AverageValue", "averageValue": "5000"}
    else:
        spec = only(manifests, "ScaledObject")["spec"]
        (trigger,) = spec["triggers"]
        assert trigger["metadata"]["threshold"] == "5000"
        assert trigger["metadata"]["query"].startswith('sum(tureen_queue_tokens{namespace="kitchen",pod=~"try-tureen-')
        assert spec["fallback"] == {"failureThreshold": 3, "replicas": 2}
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "try-tureen"}


def test_disruptions_are_bounded_where_there_are_several_pods(helm: Helm) -> None:
    budget = only(helm.render(values_of("replicas")), "PodDisruptionBudget")["spec"]
    assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
    assert "PodDisruptionBudget" not in {each["kind"] for each in helm.render(STARTER)}


def test_first_pod_of_a_group_serves_and_the_others_lend_their_devices(nodes: list[Manifest]) -> None:
    group = only(nodes, "LeaderWorkerSet")["spec"]["leaderWorkerTemplate"]
    leader = group["leaderTemplate"]["spec"]["containers"][0]
    follower = group["workerTemplate"]["spec"]["containers"][0]
    assert 'ray start --head --port=6379 --disable-usage-stats && exec tureen-serve "$@"' in leader["command"]
    assert (leader["command"][-1], leader["args"]) == ("tureen-serve", ["--config", "/etc/tureen/tureen.yaml"])
    assert "--address=$(LWS_LEADER_ADDRESS):6379" in follower["command"]
    assert not {"args", "ports", "readinessProbe", "livenessProbe"} & set(follower)
    assert leader["resources"] == follower["resources"]
    assert only(nodes, "Service")["spec"]["selector"]["leaderworkerset.sigs.k8s.io/worker-index"] == "0"


def test_pods_of_a_group_may_talk_to_each_other(nodes: list[Manifest]) -> None:
    spec = only(nodes, "NetworkPolicy")["spec"]
    own = {"podSelector": {"matchLabels": spec["podSelector"]["matchLabels"]}}
    assert {"from": [own]} in spec["ingress"]
    assert {"to": [own]} in spec["egress"]


def test_network_allows_what_is_listed_and_no_more(fleet: list[Manifest]) -> None:
    listed = values_of("fleet")["networkPolicy"]
    for name in ("try-tureen", "try-tureen-worker"):
        spec = named(fleet, "NetworkPolicy", name)["spec"]
        assert spec["policyTypes"] == ["Ingress", "Egress"]
        assert spec["ingress"] == [{"from": listed["from"], "ports": [{"protocol": "TCP", "port": "http"}]}]
        dns = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
        assert spec["egress"] == [{"ports": dns}, *listed["egress"]]
        template = named(fleet, "Deployment", name)["spec"]["template"]
        assert spec["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


def test_ingress_lets_long_requests_and_streams_through(edge: list[Manifest]) -> None:
    ingress, service = only(edge, "Ingress"), only(edge, "Service")
    annotations = ingress["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"] == "600"
    assert annotations["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"
    assert annotations["nginx.ingress.kubernetes.io/proxy-body-size"] == "0"
    (rule,) = ingress["spec"]["rules"]
    backend = rule["http"]["paths"][0]["backend"]["service"]
    assert (rule["host"], backend["name"]) == ("scores.example.org", service["metadata"]["name"])
    assert backend["port"]["name"] == service["spec"]["ports"][0]["name"]
    assert (ingress["spec"]["ingressClassName"], ingress["spec"]["tls"][0]["secretName"]) == ("nginx", "scores-tls")


def test_annotations_of_an_ingress_come_before_the_charts_own(helm: Helm) -> None:
    name = "nginx.ingress.kubernetes.io/proxy-read-timeout"
    manifests = helm.render(with_values("edge", {"ingress.annotations": {name: "900"}}))
    assert only(manifests, "Ingress")["metadata"]["annotations"][name] == "900"


def test_route_leads_to_the_service_and_lets_long_requests_through(fleet: list[Manifest]) -> None:
    (rule,) = only(fleet, "HTTPRoute")["spec"]["rules"]
    service = only(fleet, "Service")
    assert rule["timeouts"] == {"request": "600s", "backendRequest": "600s"}
    assert rule["backendRefs"] == [
        {"name": service["metadata"]["name"], "port": service["spec"]["ports"][0]["port"]},
    ]


@pytest.mark.parametrize(
    ("changes", "secret"),
    [
        ({}, "try-tureen-keys"),
        ({"test.key.existingSecret": "one"}, "one"),
        ({"keys.values": ["sha256:" + "0" * 64]}, None),
        ({"keys.values": [], "keys.existingSecret": "several"}, None),
    ],
)
def test_test_pod_scores_where_it_has_a_key(helm: Helm, changes: dict[str, Any], secret: str | None) -> None:
    pod = only(helm.render(with_values("starter", changes)), "Pod")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    (container,) = pod["spec"]["containers"]
    assert container["env"] == [{"name": "TUREEN_BASE_URL", "value": "http://try-tureen:8900"}]
    script = container["command"][-1]
    assert "tureen health" in script
    assert ("tureen score" in script) is (secret is not None)
    secrets = [volume["secret"]["secretName"] for volume in pod["spec"]["volumes"] if "secret" in volume]
    assert secrets == ([secret] if secret else [])


def test_test_pod_is_none_of_the_pods_that_serve(helm: Helm) -> None:
    manifests = helm.render(STARTER)
    labels = only(manifests, "Pod")["metadata"]["labels"]
    assert not only(manifests, "Service")["spec"]["selector"].items() <= labels.items()


def test_own_containers_volumes_and_manifests_are_passed_on(edge: list[Manifest]) -> None:
    values = values_of("edge")
    spec = only(edge, "Deployment")["spec"]["template"]["spec"]
    assert [each["name"] for each in spec["initContainers"]] == ["wait"]
    assert [each["name"] for each in spec["containers"]] == ["server", "relay"]
    assert values["extraVolumes"][0] in spec["volumes"]
    assert values["extraVolumeMounts"][0] in spec["containers"][0]["volumeMounts"]
    assert spec["hostAliases"] == values["hostAliases"]
    assert spec["containers"][0]["envFrom"] == values["envFrom"]
    assert named(edge, "ConfigMap", "try-notes")["data"] == {"note": "by the release"}
    assert only(edge, "Deployment")["metadata"]["annotations"] == values["deploymentAnnotations"]


def test_shared_memory_is_there_for_devices_and_where_it_is_asked_for(helm: Helm, edge: list[Manifest]) -> None:
    def sizes(manifests: list[Manifest]) -> list[str]:
        volumes = next(pod_templates(manifests))["spec"]["volumes"]
        return [each["emptyDir"]["sizeLimit"] for each in volumes if each.get("emptyDir", {}).get("medium") == "Memory"]

    assert sizes(helm.render(STARTER)) == []
    assert sizes(helm.render(values_of("gpu"))) == ["2Gi"]
    assert sizes(edge) == ["256Mi"]
    assert sizes(helm.render(with_value(values_of("gpu"), "shm.size", "8Gi"))) == ["8Gi"]
