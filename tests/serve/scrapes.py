"""What a scrape of `/metrics` says, and whether it keeps Prometheus' rules of names."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

RESERVED = ("_count", "_sum", "_bucket", "_total", "_created")
# of promtool's list: units that are not base units, and words that name a type
WRONG_WORDS = {"ms", "milliseconds", "minutes", "hours", "days", "kib", "mib", "gib", "mb", "gb", "bits", "percent"}
TYPE_WORDS = {"gauge", "counter", "histogram", "summary"}


def read_samples(text: str) -> Iterator[Sample]:
    """All samples of a scrape."""
    for family in text_string_to_metric_families(text):
        yield from family.samples


def sample(text: str, name: str, **labels: str) -> float:
    """The sum of the series that have these labels; 0 where there is none."""
    found = [each.value for each in read_samples(text) if each.name == name and labels.items() <= each.labels.items()]
    return sum(found)


def find_name_faults(text: str) -> list[str]:
    """Find what breaks the rules of names that `promtool check metrics` checks."""
    return [f"{family.name}: {fault}" for family in text_string_to_metric_families(text) for fault in _faults(family)]


def _faults(family: Metric) -> Iterator[str]:
    words = set(family.name.split("_"))
    if not family.documentation:
        yield "no help"
    if family.type not in {"counter", "gauge", "histogram"}:
        yield f"the type {family.type}"
    if not re.fullmatch(r"tureen_[a-z0-9_]+", family.name):
        yield "not in snake case, or without the prefix"
    if found := words & (WRONG_WORDS | TYPE_WORDS):
        yield f"a unit that is no base unit, or a type: {found}"
    if family.type == "counter" and not all(each.name == f"{family.name}_total" for each in family.samples):
        yield "a counter without _total"
    if family.type != "counter" and family.name.endswith(RESERVED):
        yield "a reserved ending"
    for each in family.samples:
        if "quantile" in each.labels or ("le" in each.labels and family.type != "histogram"):
            yield "a reserved label"


def find_promtool() -> str:
    """The path of promtool. Where it is not installed the test is skipped from here, but not in CI."""
    promtool = shutil.which("promtool")
    if promtool is None:
        absent = pytest.fail if os.environ.get("CI") else pytest.skip
        absent("promtool is not installed: `make promtool`")
    return str(promtool)


def run_promtool(*arguments: str, given: str = "") -> str:
    """Run promtool and return what it says.

    Raises:
        AssertionError: promtool found a fault.
    """
    command = [find_promtool(), *arguments]
    found = subprocess.run(command, input=given, text=True, capture_output=True, timeout=300)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout + found.stderr


def check_with_promtool(text: str) -> None:
    """Have promtool check the names and types in a scrape."""
    assert run_promtool("check", "metrics", given=text) == ""
