import base64
import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from deploy.dockerfile import environment, last
from deploy.fetch_helm import fetch
from deploy.helm import CHART, CI_VALUES, DEFAULTS, Helm, mounted, only, pod_templates, server, values_of, with_value
from serve.keys import make_entry

from tureen_serve import settings
from tureen_serve.security.key_ring import read_key_ring

KUBERNETES = ("1.27", "1.30", "1.33", "1.37")
CUSTOM = {"HTTPRoute", "LeaderWorkerSet", "PodMonitor", "PrometheusRule", "ScaledObject", "ServiceMonitor"}
STARTER = values_of("starter")
ALWAYS = {"ConfigMap", "Pod", "Service", "ServiceAccount"}
EDGE = {"HorizontalPodAutoscaler", "Ingress", "ServiceMonitor"}
FLEET = {"HTTPRoute", "NetworkPolicy", "PodMonitor", "PrometheusRule", "ScaledObject"}


@pytest.mark.parametrize("name", CI_VALUES)
def test_lint_finds_nothing(any_helm: Helm, name: str) -> None:
    assert "0 chart(s) failed" in any_helm.lint(values_of(name))


def test_lint_accepts_the_defaults(any_helm: Helm) -> None:
    assert "0 chart(s) failed" in any_helm.lint({})


@pytest.mark.parametrize("kubernetes", KUBERNETES)
@pytest.mark.parametrize("name", CI_VALUES)
def test_kubernetes_accepts_every_manifest(helm: Helm, name: str, kubernetes: str) -> None:
    values = values_of(name)
    if kubernetes < "1.31" and values.get("artifacts", {}).pop("images", None):
        values["server"]["rewards"].pop()  # volumes of images are younger
    for manifest in helm.render(values, kubernetes):
        if manifest["kind"] not in CUSTOM:
            kubernetes_validate.validate(manifest, kubernetes, strict=True)


def test_oldest_kubernetes_is_the_one_that_is_tested(helm: Helm) -> None:
    oldest = yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"]
    assert oldest == f">={KUBERNETES[0]}.0-0"
    with pytest.raises(RuntimeError, match="incompatible with Kubernetes"):
        helm.render(STARTER, "1.26")


@pytest.mark.parametrize("name", ["gpu", "sources", "fleet", "edge", "nodes"])
def test_both_releases_of_helm_render_the_same(helm: Helm, name: str) -> None:
    assert Helm(fetch("3.17.3")).render(values_of(name)) == helm.render(values_of(name))


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("starter", {*ALWAYS, "Deployment", "PersistentVolumeClaim", "Secret"}),
        ("replicas", {*ALWAYS, "Deployment", "PodDisruptionBudget"}),
        ("gpu", {*ALWAYS, "Deployment"}),
        ("sources", {*ALWAYS, "Deployment", "PersistentVolumeClaim"}),
        ("edge", {*ALWAYS, *EDGE, "Deployment", "PodDisruptionBudget", "Secret"}),
        ("fleet", {*ALWAYS, *FLEET, "Deployment", "PodDisruptionBudget", "PersistentVolumeClaim"}),
        ("nodes", {*ALWAYS, "LeaderWorkerSet", "NetworkPolicy"}),
    ],
)
def test_manifests_are_those_that_the_values_need(helm: Helm, name: str, kinds: set[str]) -> None:
    manifests = helm.render(values_of(name))
    assert {manifest["kind"] for manifest in manifests} == kinds
    assert len(manifests) == len({(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests})


def test_service_finds_the_pods_and_their_port(helm: Helm) -> None:
    manifests = helm.render(values_of("gpu"))
    service, deployment = only(manifests, "Service")["spec"], only(manifests, "Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert service["selector"] == deployment["selector"]["matchLabels"]
    assert service["selector"].items() < labels.items()
    assert labels["team"] == "alignment"
    assert (service["type"], service["ports"][0]["port"], service["ports"][0]["targetPort"]) == (
        "LoadBalancer",
        80,
        "http",
    )
    assert server(manifests)["ports"] == [
        {"name": "http", "containerPort": int(last("cuda", "EXPOSE")), "protocol": "TCP"}
    ]


@pytest.mark.parametrize("name", CI_VALUES)
def test_server_accepts_the_configuration(helm: Helm, name: str, tmp_path: Path) -> None:
    manifests = helm.render(values_of(name))
    document = next(each for each in manifests if "tureen.yaml" in each.get("data", {}))["data"]["tureen.yaml"]
    keys, config = tmp_path / "keys", tmp_path / "tureen.yaml"
    keys.write_text("0123456789abcdef\n")
    for place in (yaml.safe_load(document).get("bases") or {}).values():  # in a pod the init container brings them
        here = tmp_path / Path(place).name
        here.mkdir()
        (here / "config.json").touch()
        document = document.replace(place, str(here))
    config.write_text(document)
    loaded = settings.load_settings(config, host="0.0.0.0", keys=keys)
    assert loaded.log_format == "json"
    assert loaded.limits.drain_seconds >= 15
    told = [container.get("args") for pod in pod_templates(manifests) for container in pod["spec"]["containers"]]
    assert bool(loaded.rewards or loaded.families) is ("--starter" not in str(told))


def test_configuration_is_the_server_values(helm: Helm) -> None:
    values = values_of("gpu")
    manifests = helm.render(values)
    document = yaml.safe_load(only(manifests, "ConfigMap")["data"]["tureen.yaml"])
    ours, theirs = DEFAULTS["server"], values["server"]
    merged = {part: {**ours[part], **theirs[part]} for part in ("limits", "batches")}
    assert document == {**ours, **theirs, **merged}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("starter", ["--starter", "--config", "/etc/tureen/tureen.yaml"]),
        ("gpu", ["--config", "/etc/tureen/tureen.yaml"]),
    ],
)
def test_server_is_given_its_configuration(helm: Helm, name: str, arguments: list[str]) -> None:
    manifests = helm.render(values_of(name))
    assert server(manifests)["args"] == arguments
    kind, source = mounted(manifests)["/etc/tureen"]
    assert (kind, source["name"]) == ("configMap", only(manifests, "ConfigMap")["metadata"]["name"])
    assert list(only(manifests, "ConfigMap")["data"]) == ["tureen.yaml"]


def test_keys_of_the_values_are_keys_to_the_server(helm: Helm, tmp_path: Path) -> None:
    first, second = "c07e19b4d52af863", "sha256:" + hashlib.sha256(b"another").hexdigest()
    manifests = helm.render({"keys": {"values": [first, second]}})
    kind, source = mounted(manifests)[str(Path(environment("cpu")["TUREEN_KEYS"]).parent)]
    secret = only(manifests, "Secret")
    (item,) = source["items"]
    file = tmp_path / item["path"]
    file.write_bytes(base64.b64decode(secret["data"][item["key"]]))
    assert (kind, source["secretName"], file.name) == ("secret", secret["metadata"]["name"], "keys")
    ring = read_key_ring(file)
    assert [ring.find_caller(key) in ring.callers for key in (first.encode(), b"another", b"a third")] == [
        True,
        True,
        False,
    ]


def test_entries_of_the_values_are_keys_to_the_server(helm: Helm, tmp_path: Path) -> None:
    key, entry = make_entry("loop", ["score"], tenant="a", expires="2126-01-31", quota={"requests_per_minute": 60})
    secret = only(helm.render({"keys": {"entries": [entry]}}), "Secret")
    file = tmp_path / "keys"
    file.write_bytes(base64.b64decode(secret["data"]["keys"]))
    caller = read_key_ring(file).find_caller(key.encode())
    assert caller is not None
    assert (caller.name, caller.tenant, list(caller.scopes)) == ("loop", "a", ["score"])
    assert caller.quota is not None


def test_keys_of_an_existing_secret_are_mounted_read_only(helm: Helm) -> None:
    manifests = helm.render(values_of("replicas"))
    _, source = mounted(manifests)["/run/secrets/tureen"]
    assert (source["secretName"], source["items"]) == ("tureen-keys", [{"key": "tokens", "path": "keys"}])
    assert source["defaultMode"] == 0o440
    assert not [
        mount for mount in server(manifests)["volumeMounts"] if mount["name"] == "keys" and not mount["readOnly"]
    ]


def test_a_key_stands_in_the_secret_and_nowhere_else(helm: Helm) -> None:
    rest = [manifest for manifest in helm.render(STARTER) if manifest["kind"] != "Secret"]
    assert STARTER["keys"]["values"][0] not in json.dumps(rest) + helm.notes(STARTER)


@pytest.mark.parametrize(
    ("release", "names"),
    [({}, "try-tureen"), ({"nameOverride": "soup"}, "try-soup"), ({"fullnameOverride": "bowl"}, "bowl")],
)
def test_resources_are_named_after_the_release(helm: Helm, release: dict[str, str], names: str) -> None:
    found = {manifest["metadata"]["name"] for manifest in helm.render({**STARTER, **release})}
    assert found == {names, f"{names}-keys", f"{names}-cache", f"{names}-batches", f"{names}-test"}


def test_notes_say_what_to_do_next(helm: Helm) -> None:
    notes = helm.notes(with_value(STARTER, "service.port", 80))
    assert "rollout status deployment/try-tureen" in notes
    assert "helm --namespace kitchen test try" in notes
    assert "test try" not in helm.notes(with_value(STARTER, "test.enabled", False))
    assert "service/try-tureen 8900:80" in notes
    assert "try-tureen-keys" in notes
    assert "not persistent" not in notes
    assert "cache is not persistent" in helm.notes(values_of("replicas"))


def test_chart_and_package_have_one_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == version("tureen")
