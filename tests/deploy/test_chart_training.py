"""The chart of training runs: one process, several on one node, and several nodes."""

from typing import Any

import kubernetes_validate
import pytest
from deploy.helm import TRAINING, Helm, Manifest, containers_of, only, pod_templates
from typer.testing import CliRunner
from yaml import safe_load

from tureen_train.__main__ import app

VALUES: dict[str, dict[str, Any]] = {
    path.name.removesuffix("-values.yaml"): safe_load(path.read_text()) for path in TRAINING.glob("ci/*-values.yaml")
}


def command(manifests: list[Manifest]) -> list[str]:
    (template,) = pod_templates(manifests)
    found: list[str] = containers_of(template)[0]["command"]
    return found


@pytest.mark.parametrize("name", VALUES)
def test_kubernetes_accepts_the_run(training_helm: Helm, name: str) -> None:
    assert "0 chart(s) failed" in training_helm.lint(VALUES[name])
    for kubernetes in ("1.27", "1.37"):
        for manifest in training_helm.render(VALUES[name], kubernetes):
            kubernetes_validate.validate(manifest, kubernetes, strict=True)


@pytest.mark.parametrize("by", ["job", "jobset"])
def test_processes_of_all_nodes_find_the_first(training_helm: Helm, by: str) -> None:
    manifests = training_helm.render({**VALUES["nodes"], "by": by})
    started = command(manifests)
    leader = {"job": "try-0.try", "jobset": "try-node-0-0.try"}[by]
    assert started[:5] == [
        "torchrun",
        "--nnodes=2",
        "--nproc-per-node=8",
        "--node-rank=$(JOB_COMPLETION_INDEX)",
        f"--master-addr={leader}",
    ]
    run = next(each for each in manifests if each["kind"] in ("Job", "JobSet"))["spec"]
    job = run if by == "job" else run["replicatedJobs"][0]["template"]["spec"]
    assert (job["completions"], job["parallelism"], job["completionMode"]) == (2, 2, "Indexed")
    if by == "job":
        service = only(manifests, "Service")
        assert job["template"]["spec"]["subdomain"] == service["metadata"]["name"] == "try"
        assert (service["spec"]["clusterIP"], service["spec"]["publishNotReadyAddresses"]) == ("None", True)
        assert service["spec"]["selector"].items() <= job["template"]["metadata"]["labels"].items()
    else:
        assert (run["network"]["subdomain"], run["failurePolicy"]) == ("try", {"maxRestarts": 2})


@pytest.mark.parametrize(
    ("devices", "start"),
    [(0, ["tureen-train", "run"]), (1, ["tureen-train", "run"]), (4, ["torchrun", "--standalone"])],
)
def test_torchrun_starts_more_than_one_process(training_helm: Helm, devices: int, start: list[str]) -> None:
    assert command(training_helm.render({"recipe": "dsp/grft", "gpu": {"count": devices}}))[:2] == start


def test_command_is_one_of_the_trainers(training_helm: Helm) -> None:
    arguments = command(training_helm.render(VALUES["one"]))[1:]
    assert arguments == ["run", "dsp/grft", "--set", "data.root=/data", "--set", "optimisation.epochs=2", "--resume"]
    told = CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "200"}).output
    assert all(flag in told for flag in ("recipe", "--set", "--resume"))


def test_pod_meets_the_restricted_standard(training_helm: Helm) -> None:
    (template,) = pod_templates(training_helm.render(VALUES["nodes"]))
    assert template["spec"]["securityContext"]["runAsNonRoot"] is True
    assert template["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = containers_of(template)
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    written = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert written == {"/runs", "/tmp", "/dev/shm"}


def test_recipe_of_ones_own_is_mounted(training_helm: Helm) -> None:
    manifests = training_helm.render(VALUES["nodes"])
    assert only(manifests, "ConfigMap")["data"] == {"recipe.yaml": VALUES["nodes"]["recipeFile"]}
    assert "/etc/tureen/recipe.yaml" in command(manifests)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "there is nothing to run"),
        ({"recipe": "dsp/grft", "recipeFile": "kind: reward"}, "exclude one another"),
        ({"recipe": "dsp/grft", "nodes": 2}, "nodes 2 cannot share a ReadWriteOnce claim of runs"),
        ({"recipe": "dsp/grft", "gpu": {"count": 1}, "image": {"tag": "0.2.0-cpu"}}, "has no CUDA"),
        ({"recipe": "dsp/grft", "surprise": 1}, "surprise"),
        ({"recipe": "dsp/grft", "resources": None}, "resources"),
    ],
)
def test_contradictions_are_refused(training_helm: Helm, values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RuntimeError, match=sentence):
        training_helm.render(values)


def test_notes_say_what_to_do_next(training_helm: Helm) -> None:
    notes = training_helm.notes(VALUES["one"])
    assert "logs --follow --selector app.kubernetes.io/instance=try" in notes
    assert "artifacts.existingClaim=try-runs" in notes
