"""The PromQL of the alerts and of the dashboard, and their evaluation by promtool over the series of a scrape."""

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from deploy.helm import CHART
from prometheus_client.samples import Sample
from serve.scrapes import find_promtool

ALERTS = CHART / "monitoring" / "alerts.yaml"
DASHBOARD = CHART / "monitoring" / "dashboard.json"
VARIABLES = {"$__rate_interval": "5m", "$job": ".*", "$model": ".*"}
BY_PROMETHEUS = {"job": "tureen", "instance": "one:8900"}  # what every scrape adds to the series
MINUTES = 60


def read_alerts() -> dict[str, dict[str, Any]]:
    """Name → rule."""
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def read_panels() -> list[dict[str, Any]]:
    """The panels with expressions."""
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def read_targets() -> Iterator[tuple[str, str]]:
    """Expression and legend of each query of the dashboard."""
    for panel in read_panels():
        for target in panel["targets"]:
            expression = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            yield expression, target["legendFormat"]


def open_conditions(expression: str) -> str:
    """The expression of an alert with conditions that hold nothing back: it has a value wherever it has data."""
    return re.sub(r"([=<>]=|[<>]) (-?[\d.]+)", r"\1 bool \2", expression).replace("absent(", "count(")


def list_series(samples: Sequence[Sample]) -> list[dict[str, str]]:
    """The series of a scrape as promtool reads them: counters and buckets rise by their value every minute."""
    series = []
    for each in samples:
        labels = {**each.labels, **BY_PROMETHEUS}
        text = ",".join(f"{name}={json.dumps(value)}" for name, value in labels.items())
        rises = each.name.endswith(("_total", "_bucket", "_count", "_sum"))
        series.append(
            {
                "series": f"{each.name}{{{text}}}",
                "values": f"0+{each.value}x{MINUTES}" if rises else f"{each.value}+0x{MINUTES}",
            }
        )
    return series


def find_empty_expressions(expressions: Sequence[str], samples: Sequence[Sample], folder: Path) -> list[str]:
    """Evaluate expressions over the series of a scrape, and return those that have no value.

    promtool is told to expect nothing; then it reports each expression that has a value.
    """
    flat = [" ".join(each.split()) for each in expressions]
    tests = [{"expr": each, "eval_time": f"{MINUTES}m", "exp_samples": []} for each in flat]
    case = {"interval": "1m", "input_series": list_series(samples), "promql_expr_test": tests}
    file = folder / "expressions.yaml"
    file.write_text(json.dumps({"evaluation_interval": "1m", "tests": [case]}))
    done = subprocess.run([find_promtool(), "test", "rules", str(file)], capture_output=True, text=True, timeout=300)
    told = done.stdout + done.stderr
    assert "parse error" not in told, told
    valued = {json.loads(each) for each in re.findall(r'expr: ("(?:[^"\\]|\\.)*"), time', told)}
    return [each for each in flat if each not in valued]
