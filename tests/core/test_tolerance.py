"""Tolerances: a share of each objective's own numbers, at each weight of the adapter."""

import math

import pytest

from tureen_core.manifest import Base, Manifest, Objective, Probe
from tureen_core.reading import Reading
from tureen_core.tolerance import (
    LOGPROB,
    compute_difference,
    compute_tolerance,
    get_reading,
    list_checked_weights,
    name_reading,
    rank_probes,
    share_tolerance,
)

TALK = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]


def manifest(*scores: dict[str, float], **changes: object) -> Manifest:
    fields: dict[str, object] = {
        "kind": "reward",
        "name": "two",
        "base": Base(model="b", digest="d"),
        "objectives": [Objective(name="large"), Objective(name="small", column=1)],
        "reading": Reading(),
        "probes": [Probe(messages=TALK, scores=each) for each in scores],
    }
    return Manifest.model_validate(fields | changes)


FULL = manifest({"large": 0.0, "small": 0.1}, {"large": 10.0, "small": 0.2})
ADAPTED = manifest(
    {"large": 0.0, "large@0": 1.0, "large@8": -8.0, "small": 0.1, "small@0": 0.6},
    {"large": 10.0, "large@0": 10.0, "large@8": 10.0, "small": 0.2, "small@0": 0.2},
)


def test_each_objective_has_the_tolerance_of_its_own_range() -> None:
    assert compute_tolerance(FULL, "large", "bfloat16") == pytest.approx(1.5)
    assert compute_tolerance(FULL, "small", "bfloat16") == pytest.approx(0.015)
    assert compute_tolerance(FULL, "large", "float16") == pytest.approx(0.3)
    assert compute_tolerance(FULL, "small", "float32") == pytest.approx(1e-4)


def test_the_manifests_own_tolerance_bounds_float32() -> None:
    assert compute_tolerance(FULL, "large", "float32") == 1e-3


def test_the_adapters_effect_is_the_measure_at_the_largest_weight_only() -> None:
    assert compute_tolerance(ADAPTED, "large", "bfloat16") == pytest.approx(1.5)
    assert compute_tolerance(ADAPTED, "large", "bfloat16", 8.0) == pytest.approx(0.25 * 9)
    assert compute_tolerance(ADAPTED, "small", "bfloat16") == pytest.approx(0.015)  # the range's share is less


def test_a_single_probe_has_the_manifests_tolerance() -> None:
    assert compute_tolerance(manifest({"large": 1.0, "small": 2.0}), "large", "bfloat16") == 0.25


def test_an_unknown_dtype_has_what_the_manifest_says_of_it() -> None:
    assert compute_tolerance(FULL, "large", "float8") == 0.0


def test_an_expert_is_measured_by_its_log_probabilities() -> None:
    probes = [Probe(messages=TALK, logprob=-1.0, scores={"logprob@0": -2.0, "logprob@4": 1.0})]
    probes += [Probe(messages=TALK, logprob=-3.0, scores={"logprob@0": -3.0, "logprob@4": -3.0})]
    expert = FULL.model_copy(update={"probes": probes})
    assert list_checked_weights(probes, LOGPROB) == [1.0, 4.0]
    assert compute_tolerance(expert, LOGPROB, "bfloat16") == pytest.approx(0.15 * 2)
    assert compute_tolerance(expert, LOGPROB, "bfloat16", 4.0) == pytest.approx(0.25 * 3)


def test_readings_are_named_by_their_weight() -> None:
    assert [name_reading("helpful", weight) for weight in (1.0, 0.0, 8.0)] == ["helpful", "helpful@0", "helpful@8"]
    probe = Probe(messages=TALK, scores={"helpful": 1.0, "helpful@0": 2.0})
    assert [get_reading(probe, "helpful", weight) for weight in (1.0, 0.0, 8.0)] == [1.0, 2.0, None]
    assert list_checked_weights([probe], "helpful") == [1.0]


def test_no_tolerance_is_below_the_rounding_of_float32() -> None:
    assert share_tolerance([50.0, 50.0], (), "float32") == pytest.approx(50e-6)
    assert share_tolerance([0.0, 0.0], [0.0, 0.0], "bfloat16", 8.0) == pytest.approx(1e-6)


def test_a_reading_that_is_not_a_number_is_infinitely_far() -> None:
    assert compute_difference([0.0, math.nan], [0.0, 1.0]) == math.inf
    assert compute_difference([0.0, 3.0], [0.5, 1.0]) == 2.0


def test_the_probe_that_tells_the_most_comes_first() -> None:
    assert rank_probes(FULL, ["large", "small"]) == [0, 1]
    moved = manifest(
        {"large": 0.0, "large@0": 0.1, "small": 0.1, "small@0": 0.1},
        {"large": 1.0, "large@0": 5.0, "small": 0.1, "small@0": 0.1},
        {"large": 2.0, "large@0": 2.0, "small": 0.1, "small@0": 0.12},
    )
    assert rank_probes(moved, ["large", "small"]) == [1, 2, 0]
    assert rank_probes(moved, ["large"]) == [1, 0, 2]
