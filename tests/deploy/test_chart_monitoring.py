"""What the chart ships for Prometheus and Grafana: off by default, and the files as they are."""

import json
from typing import Any

import pytest
import yaml
from deploy.helm import CHART, Helm, Manifest, only, values_of, with_value, with_values

STARTER = values_of("starter")
KINDS = {"serviceMonitor": "ServiceMonitor", "alerts": "PrometheusRule", "dashboard": "ConfigMap"}
ALL: dict[str, Any] = {
    "monitoring.serviceMonitor.enabled": True,
    "monitoring.serviceMonitor.key.existingSecret": "prometheus-key",
    "monitoring.serviceMonitor.labels": {"release": "prometheus"},
    "monitoring.alerts.enabled": True,
    "monitoring.alerts.labels": {"release": "prometheus"},
    "monitoring.dashboard.enabled": True,
}


@pytest.fixture(scope="module")
def manifests(helm: Helm) -> list[Manifest]:
    """All that the chart makes, with all of the monitoring."""
    return helm.render(with_values("starter", ALL))


def test_nothing_of_it_is_made_by_default(helm: Helm, manifests: list[Manifest]) -> None:
    assert len(manifests) - len(helm.render(STARTER)) == len(KINDS)


def test_both_releases_of_helm_render_it_alike(any_helm: Helm, manifests: list[Manifest]) -> None:
    assert any_helm.render(with_values("starter", ALL)) == manifests


def test_service_monitor_finds_the_service_and_has_a_key(manifests: list[Manifest]) -> None:
    monitor, service = only(manifests, "ServiceMonitor"), only(manifests, "Service")
    (endpoint,) = monitor["spec"]["endpoints"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert endpoint["authorization"]["credentials"] == {"name": "prometheus-key", "key": "key"}
    assert (endpoint["path"], endpoint["interval"], endpoint["scrapeTimeout"]) == ("/metrics", "15s", "10s")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"


def test_service_monitor_without_a_key_is_refused(helm: Helm) -> None:
    with pytest.raises(RuntimeError, match=r"set monitoring\.serviceMonitor\.key\.existingSecret"):
        helm.render(with_value(STARTER, "monitoring.serviceMonitor.enabled", True))


def test_rules_are_those_of_the_file(manifests: list[Manifest]) -> None:
    rule = only(manifests, "PrometheusRule")
    assert rule["spec"] == yaml.safe_load((CHART / "monitoring/alerts.yaml").read_text())
    assert rule["metadata"]["labels"]["release"] == "prometheus"


def test_dashboard_is_that_of_the_file(manifests: list[Manifest]) -> None:
    (board,) = (each for each in manifests if each["metadata"]["name"].endswith("-dashboard"))
    assert json.loads(board["data"]["tureen.json"]) == json.loads((CHART / "monitoring/dashboard.json").read_text())
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
