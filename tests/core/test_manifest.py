"""What a manifest may say, and what its identity covers."""

import hashlib
import json
import math
from typing import Any

import pytest
from pydantic import ValidationError

from tureen_core.calibration import Calibration
from tureen_core.manifest import Base, Manifest, Objective, Probe, Training
from tureen_core.reading import Reading
from tureen_core.steering import SoupSteering

FULL: dict[str, Any] = {
    "kind": "reward",
    "name": "helpful",
    "base": {"model": "some/folder", "digest": "d" * 64},
    "objectives": [{"name": "helpful", "column": 0, "calibration": {"mean": 1.0, "std": 2.0, "temperature": 0.5}}],
    "reading": {"pooling": "eos", "template": "t" * 16},
    "steering": {"family": "smol"},
    "files": {"adapter_model.safetensors": "f" * 64},
    "probes": [{"messages": [{"role": "user", "content": "hi"}], "scores": {"helpful": 0.5}}],
    "training": {"seed": 7, "metrics": {"accuracy": 0.7}},
}


def manifest(**changes: Any) -> Manifest:
    return Manifest.model_validate({**FULL, **changes})


def test_a_manifest_survives_json() -> None:
    made = manifest()
    again = Manifest.model_validate_json(made.model_dump_json())
    assert again == made
    assert again.identity() == made.identity()


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "policy"},
        {"weights": "full"},
        {"base": {"model": "some/folder", "digest": "e" * 64}},
        {"objectives": [{"name": "helpful", "calibration": {"mean": 1.1, "std": 2.0, "temperature": 0.5}}]},
        {"objectives": [{"name": "helpful", "calibration": {"mean": 1.0, "std": 2.1, "temperature": 0.5}}]},
        {"objectives": [{"name": "helpful", "calibration": {"mean": 1.0, "std": 2.0, "temperature": 0.6}}]},
        {"objectives": [{"name": "helpful", "column": 1, "calibration": FULL["objectives"][0]["calibration"]}]},
        {"objectives": [{"name": "kind", "calibration": FULL["objectives"][0]["calibration"]}]},
        {"reading": {"pooling": "last", "template": "t" * 16}},
        {"reading": {"pooling": "eos", "template": "u" * 16}},
        {"reading": {"pooling": "eos", "template": "t" * 16, "bos": "none"}},
        {"reading": {"pooling": "eos", "template": "t" * 16, "eos": "none"}},
        {"reading": {"pooling": "eos", "template": "t" * 16, "truncation": "right"}},
        {"reading": {"pooling": "eos", "template": "t" * 16, "max_length": 512}},
        {"reading": {"pooling": "eos", "template": "t" * 16, "dtype": "bfloat16"}},
        {"steering": {"family": "smol", "semantics": "factor"}},
        {"steering": {"family": "smol", "normalize": "none"}},
        {"gated": True},
        {"files": {"adapter_model.safetensors": "0" * 64}},
        {"files": {"adapter_model.safetensors": "f" * 64, "more.json": "f" * 64}},
    ],
    ids=str,
)
def test_whatever_changes_a_score_changes_the_identity(change: dict[str, Any]) -> None:
    assert manifest(**change).identity() != manifest().identity()


@pytest.mark.parametrize(
    "change",
    [
        {"probes": []},
        {"training": {"seed": 8}},
        {"training": {"seed": 7, "metrics": {"accuracy": 0.9}, "licences": ["MIT"]}},
        {"tolerance": {"float32": 1e-4}},
        {"version": "0123456789ab"},
        {"base": {"model": "the/same/base/elsewhere", "digest": "d" * 64}},
    ],
    ids=str,
)
def test_what_changes_no_score_changes_no_identity(change: dict[str, Any]) -> None:
    assert manifest(**change).identity() == manifest().identity()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format"),
        ({"kind": "judge"}, "kind"),
        ({"name": "has space"}, "use 1 to 64 of letters"),
        ({"objectives": []}, "objectives"),
        ({"objectives": [{"name": "a=b"}]}, "use 1 to 64 of letters"),
        ({"objectives": [{"name": "a", "column": -1}]}, "column"),
        ({"objectives": [{"name": "a"}, {"name": "a", "column": 1}]}, "two objectives have one name"),
        ({"objectives": [{"name": "a"}, {"name": "b"}]}, r"two objectives read one column of the head: \[0, 0\]"),
        ({"objectives": [{"name": "a", "calibration": {"std": 0}}]}, "std"),
        ({"objectives": [{"name": "a", "calibration": {"mean": math.nan}}]}, "mean"),
        ({"base": None}, "a LoRA artifact needs the base"),
        ({"kind": "expert", "steering": None}, "an expert needs its steering"),
        ({"reading": {"pooling": "first"}}, "pooling"),
        ({"gated": True, "kind": "expert"}, "a gate weighs the rewards of conversations"),
        ({"gated": True, "input": "pair"}, "a gate weighs the rewards of conversations"),
        ({"gated": True, "reading": {"pooling": "mean"}}, "reads the prompt's last token.*pools by mean"),
        ({"colour": "red"}, "colour"),
        ({"steering": {"family": "smol", "strength": 2}}, "strength"),
        ({"training": {"seeds": 1}}, "seeds"),
        ({"probes": [{"messages": [], "scores": {"a": math.nan}}]}, "scores"),
        ({"probes": [{"messages": [], "logprob": math.inf}]}, "logprob"),
        ({"tolerance": {"float32": math.nan}}, "tolerance"),
    ],
    ids=str,
)
def test_what_a_manifest_may_not_say(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        manifest(**change)


def test_experts_of_one_policy_read_no_head() -> None:
    made = manifest(kind="expert", objectives=[{"name": "a"}, {"name": "b"}])
    assert [objective.column for objective in made.objectives] == [0, 0]


def test_a_full_checkpoint_stands_on_no_base() -> None:
    assert manifest(weights="full", base=None).base is None


def test_defaults_are_those_of_the_design() -> None:
    made = Manifest(
        kind="expert",
        name="academy",
        base=Base(model="smollm2-135m-instruct", digest="d"),
        objectives=[Objective(name="academy")],
        reading=Reading(),
        steering=SoupSteering(family="smol"),
    )
    assert (made.format, made.weights, made.probes, made.training) == (1, "lora", [], Training())
    assert made.steering == SoupSteering(family="smol", method="soup", semantics="delta", normalize="simplex")
    assert made.objectives[0].calibration == Calibration()
    assert Probe(messages=[]).logprob is None


def test_an_objective_without_a_calibration_is_not_one_with_the_unit_scale() -> None:
    bare = manifest(objectives=[{"name": "helpful", "calibration": None}])
    assert bare.objectives[0].calibration is None
    assert Manifest.model_validate_json(bare.model_dump_json()) == bare
    assert '"calibration":null' in bare.model_dump_json()
    unit = manifest(objectives=[{"name": "helpful", "calibration": {"mean": 0, "std": 1, "temperature": 1}}])
    silent = manifest(objectives=[{"name": "helpful"}])
    assert silent.identity() == unit.identity() != bare.identity()


def test_a_gates_objective_stands_after_the_heads_rows() -> None:
    objectives = [{"name": "a"}, {"name": "b", "column": 1}, {"name": "overall", "column": 2}]
    assert (manifest(objectives=objectives).rows, manifest(objectives=objectives, gated=True).rows) == (3, 2)


def test_no_gate_leaves_the_identity_as_it_was() -> None:
    """An artifact of an earlier release keeps its version."""
    made = manifest(gated=False)
    parts = made.model_dump(include={"kind", "weights", "objectives", "reading", "steering", "files"})
    before = json.dumps({**parts, "base": "d" * 64}, sort_keys=True)
    assert made.identity() == hashlib.sha256(before.encode()).hexdigest()


FILES = {"a.json": {"sha256": "a" * 64, "kept": 3}, "b.json": {"sha256": "b" * 64}, "c.json": {"kept": 1}}


@pytest.mark.parametrize(
    ("recipe", "digests"),
    [
        ({"data": {"train": [{"path": "a.json"}, {"path": "c.json"}], "eval": {"x": {"path": "b.json"}}}}, ["a" * 64]),
        ({"data": {"train": [{"path": "b.json"}, {"path": "a.json"}]}}, ["a" * 64, "b" * 64]),
        ({}, ["a" * 64, "b" * 64]),
        ({"data": {"train": "a.json"}}, ["a" * 64, "b" * 64]),
        ({"data": None}, ["a" * 64, "b" * 64]),
    ],
)
def test_the_files_of_the_training_are_listed_by_their_digests(recipe: dict[str, Any], digests: list[str]) -> None:
    assert Training(recipe=recipe, data=FILES).list_digests() == digests
    assert Training(recipe=recipe, data={"a.json": "x"}).list_digests() == []
