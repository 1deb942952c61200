"""The chart, linted and rendered by a real helm."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "helm" / "tureen"
TRAINING = CHART.parent / "tureen-train"
CI_VALUES = {path.name.removesuffix("-values.yaml"): path for path in sorted(CHART.glob("ci/*-values.yaml"))}

DEFAULTS: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())

Manifest = dict[str, Any]
Values = Mapping[str, Any]


class Refused(RuntimeError):
    """helm refused the values; its words are the message."""


@dataclass(frozen=True)
class Helm:
    """One release of helm."""

    binary: Path
    chart: Path = CHART

    def lint(self, values: Values) -> str:
        return self._run("lint", "--strict", str(self.chart), "--values", "-", values=values)

    def render(self, values: Values, kubernetes: str = "1.37") -> list[Manifest]:
        """The manifests of a release named ``try`` in the namespace ``kitchen``."""
        command = ["template", "try", str(self.chart), "--namespace", "kitchen", "--kube-version", kubernetes]
        text = self._run(*command, "--values", "-", values=values)
        return [manifest for manifest in yaml.load_all(text, yaml.CSafeLoader) if manifest]

    def notes(self, values: Values) -> str:
        """What an install says at its end. Helm 3 would need a cluster for it."""
        command = ["install", "try", str(self.chart), "--namespace", "kitchen", "--dry-run=client", "--values", "-"]
        return self._run(*command, values=values).partition("NOTES:\n")[2]

    def _run(self, *arguments: str, values: Values) -> str:
        command = [str(self.binary), *arguments]
        done = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, check=False)
        if done.returncode:
            raise Refused(done.stdout + done.stderr)
        return done.stdout


def values_of(name: str) -> dict[str, Any]:
    """The values of ``ci/NAME-values.yaml``."""
    values: dict[str, Any] = yaml.safe_load(CI_VALUES[name].read_text())
    return values


def with_values(name: str, changes: Values) -> dict[str, Any]:
    """The values of ``ci/NAME-values.yaml`` with those at the dotted paths of ``changes`` replaced."""
    return reduce(lambda values, change: with_value(values, *change), changes.items(), values_of(name))


def with_value(values: Values, path: str, value: Any) -> dict[str, Any]:
    """``values`` with the one at the dotted ``path`` replaced, as ``--set`` does it."""
    key, _, rest = path.partition(".")
    return {**values, key: with_value(values.get(key, {}), rest, value) if rest else value}


def only(manifests: list[Manifest], kind: str) -> Manifest:
    """The one manifest of a kind."""
    (found,) = (manifest for manifest in manifests if manifest["kind"] == kind)
    return found


def claims(manifests: list[Manifest]) -> dict[str, Manifest]:
    """The claims that the chart makes, by name."""
    kind = "PersistentVolumeClaim"
    return {each["metadata"]["name"]: each for each in manifests if each["kind"] == kind}


def pod(manifests: list[Manifest]) -> Manifest:
    """The spec of the Deployment's pods."""
    spec: Manifest = only(manifests, "Deployment")["spec"]["template"]["spec"]
    return spec


def pod_templates(manifests: list[Manifest]) -> Iterator[Manifest]:
    """Everything that becomes pods: of any kind, the metadata and the spec."""
    for manifest in manifests:
        spec = manifest.get("spec", {})
        if manifest["kind"] == "Pod":
            yield manifest
        elif manifest["kind"] == "LeaderWorkerSet":
            yield spec["leaderWorkerTemplate"]["leaderTemplate"]
            yield spec["leaderWorkerTemplate"]["workerTemplate"]
        elif manifest["kind"] == "JobSet":
            yield from (job["template"]["spec"]["template"] for job in spec["replicatedJobs"])
        elif "template" in spec:
            yield spec["template"]


def containers_of(template: Manifest) -> list[Manifest]:
    """All containers of a pod, those that run first included."""
    spec = template["spec"]
    return list(chain(spec.get("initContainers", []), spec["containers"]))


def server(manifests: list[Manifest]) -> Manifest:
    """The one container of the Deployment's pods."""
    (container,) = pod(manifests)["containers"]
    found: Manifest = container
    return found


def mounted(manifests: list[Manifest]) -> dict[str, tuple[str, dict[str, Any]]]:
    """What lies at each mount path: the volume's kind and its source."""
    volumes = {volume.pop("name"): volume for volume in pod(manifests)["volumes"]}
    mounts = server(manifests)["volumeMounts"]
    return {mount["mountPath"]: next(iter(volumes[mount["name"]].items())) for mount in mounts}


def annotations(manifests: list[Manifest]) -> dict[str, str]:
    """The annotations of the Deployment's pods."""
    found: dict[str, str] = only(manifests, "Deployment")["spec"]["template"]["metadata"]["annotations"]
    return found
