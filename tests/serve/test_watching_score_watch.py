"""Metrics of scores, over HTTP and alone: by reward and caller, drift, length, spread and ties."""

import logging
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from serve.border import served
from serve.counting import CountingEngine
from serve.keys import bear, make_entry, write_entries
from serve.scrapes import check_with_promtool, read_samples, sample

from tureen_core.calibration import Calibration
from tureen_serve.watching.drift import LEAST
from tureen_serve.watching.score_watch import ScoreWatch

SCALE = Calibration(mean=1, std=2)


def scrape(registry: CollectorRegistry) -> str:
    return generate_latest(registry).decode()


def test_answers_to_one_prompt_have_a_spread_and_ties() -> None:
    items = [
        {"prompt": "p", "candidates": ["calm calm", "calm", "a calm word", "none"]},  # raw 2 1 1 0
        {"messages": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "calm"}]},
    ]
    with served() as client:
        client.post("/v1/score", json={"items": items, "rewards": ["calm"]})
        text = client.get("/metrics").text
    assert sample(text, "tureen_compared_pairs_total", model="calm") == 6
    assert sample(text, "tureen_tied_pairs_total", model="calm") == 1
    assert sample(text, "tureen_score_group_spread_count", model="calm") == 1
    assert sample(text, "tureen_score_group_spread_sum", model="calm") == pytest.approx(np.std([2, 1, 1, 0]) / 2)
    assert sample(text, "tureen_score_count", model="calm", caller="unnamed") == 5
    assert sample(text, "tureen_score_drift_texts", model="calm") == 5


def test_only_rewards_of_whole_answers_with_a_fitted_calibration_have_drift() -> None:
    pairs = {"items": [{"prompt": "p", "candidates": ["calm", "b"]}]}
    with served(CountingEngine("calm", "funny", "duel", "proof")) as client:
        client.post("/v1/score", json=pairs)
        client.post("/v1/preferences", json=pairs | {"rewards": ["duel"]})
        client.post("/v1/score", json={"items": [{"prompt": "p", "steps": ["calm", "b"]}]})
        client.post("/v1/score", json=pairs | {"soup": True, "preferences": {"calm": 1, "funny": 1}})
        text = client.get("/metrics").text
    assert {each.labels["model"] for each in read_samples(text) if each.name == "tureen_score_drift_texts"} == {"calm"}
    scored = {each.labels["model"] for each in read_samples(text) if each.name == "tureen_score_count"}
    assert scored == {"calm", "funny", "duel", "proof", "soup"}
    assert sample(text, "tureen_compared_pairs_total") == 2


def test_labels_are_counted_by_outcome() -> None:
    items = [{"prompt": "p", "candidates": each} for each in (["calm", "b"], ["a", "b"], ["calm", "boundless"])]
    asked = {"items": items, "rewards": ["calm"], "on_error": "item"}
    with served(CountingEngine("calm", "duel")) as client:
        client.post("/v1/preferences", json=asked)
        client.post("/v1/preferences", json=asked | {"format": "ranking"})
        client.post("/v1/preferences", json={"items": items[:1], "rewards": ["duel"], "format": "trl"})
        text = client.get("/metrics").text
    counted = {each.labels["outcome"]: each.value for each in read_samples(text) if each.name == "tureen_labels_total"}
    assert counted == {"preferred": 2, "tie": 1, "failed": 2, "ranked": 2}


def test_drift_and_length_are_measured_on_the_recent_scores_of_one_version() -> None:
    registry = CollectorRegistry()
    watch = ScoreWatch(registry)
    draw = np.random.default_rng(2)
    lengths = draw.integers(5, 400, LEAST)
    raw = 2 + 2 * draw.normal(size=LEAST) + lengths / 100
    scores = (raw - 1) / 2
    for length, score in zip(lengths.tolist(), scores.tolist(), strict=True):
        watch.take_answers("calm", "v1", [score], [length], SCALE)
    text = scrape(registry)
    assert sample(text, "tureen_score_recent_mean", model="calm") == pytest.approx(scores.mean())
    assert sample(text, "tureen_score_recent_deviation", model="calm") == pytest.approx(scores.std())
    assert sample(text, "tureen_score_length_correlation", model="calm", within="all") == pytest.approx(
        np.corrcoef(lengths, raw)[0, 1]
    )
    assert sample(text, "tureen_score_population_stability", model="calm") > 0.25
    assert sample(text, "tureen_score_kolmogorov_smirnov", model="calm") > 0.2
    check_with_promtool(text)
    watch.take_answers("calm", "v2", [1.0, 2.0], [5, 6], SCALE)
    text = scrape(registry)
    assert sample(text, "tureen_score_drift_texts", model="calm") == 2
    assert "tureen_score_population_stability{" not in text


def test_callers_have_their_names_up_to_a_bound() -> None:
    registry = CollectorRegistry()
    watch = ScoreWatch(registry, callers=3)
    for name in (None, "trainer", "judge", "fourth", "fifth", "trainer"):
        watch.take_scores("calm", [0.0], name)
    counted = {
        each.labels["caller"]: each.value
        for each in read_samples(scrape(registry))
        if each.name == "tureen_score_count"
    }
    assert counted == {"unnamed": 1, "trainer": 2, "judge": 1, "other": 2}


def test_the_caller_of_a_score_is_the_name_of_its_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key, entry = make_entry("trainer")
    keys = write_entries(tmp_path / "keys.json", entry)
    with served(keys=keys) as client, caplog.at_level(logging.INFO, "tureen_serve"):
        client.post("/v1/score", json={"items": [{"prompt": "p", "candidates": ["calm"]}]}, headers=bear(key))
        text = client.get("/metrics", headers=bear(key)).text
    assert sample(text, "tureen_score_count", model="calm", caller="trainer") == 1
    assert key not in text + caplog.text
