"""Alerts and dashboard over the scrape of a live server: every name, every label, every expression, every alert."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
from deploy.expressions import (
    ALERTS,
    BY_PROMETHEUS,
    find_empty_expressions,
    open_conditions,
    read_alerts,
    read_panels,
    read_targets,
)
from prometheus_client.samples import Sample
from serve.artifacts import PROBE, build, prove
from serve.border import wait_for_models
from serve.scrapes import check_with_promtool, read_samples, run_promtool
from starlette.testclient import TestClient
from waiting import PATIENCE, block_until

from tureen_core.artifact import seal_artifact
from tureen_core.calibration import Calibration
from tureen_serve.app import create_app
from tureen_serve.inference.engine import Engine
from tureen_serve.settings import load_settings

PROMPT = PROBE[0]["content"]
WORDS = ("the", "quick", "brown", "fox", "jumps", "over")
UPSTREAM = """  - name: far
    upstream: {base_url: http://127.0.0.1:9/v1, model: large}
    steering: {sentences: {brief: Be brief.}}"""
EXPRESSIONS = [rule["expr"] for rule in read_alerts().values()] + [each for each, _ in read_targets()]


def calibrated(folder: Path) -> Path:
    """The models of :func:`build`, the reward ``helpful`` and a next version of it with a calibration."""
    config = build(folder)
    for place, seed in (("helpful", 0), ("models/next", 71)):
        artifact = tiny.reward(folder / place, folder / "base", "helpful", seed)
        objective = artifact.manifest.objectives[0].model_copy(update={"calibration": Calibration(mean=0.1, std=0.5)})
        prove(seal_artifact(artifact.folder, artifact.manifest.model_copy(update={"objectives": [objective]})))
    return config


def ask_everything(client: TestClient) -> None:
    """What a server is asked for, so that every series has begun."""
    answers = [" ".join(WORDS[(n * k) % 6] for k in range(1 + n % 9)) + f" {n}" for n in range(180)]
    for n in range(3):
        items = [{"prompt": f"{PROMPT} {n}", "candidates": answers}]
        assert client.post("/v1/score", json={"items": items, "rewards": ["helpful"]}).status_code == 200
    pair = {"items": [{"prompt": PROMPT, "candidates": ["why", "why"]}, {"prompt": PROMPT, "candidates": ["a", "b c"]}]}
    for _ in range(2):
        client.post("/v1/preferences", json=pair | {"preferences": {"helpful": 1}})
    long = [{"prompt": PROMPT, "candidates": ["the quick brown fox " * 2000, "<|im_end|> in the middle"]}]
    client.post("/v1/score", json={"items": long, "truncate": True})
    client.post("/v1/chat/completions", json={"messages": PROBE[:1], "max_tokens": 3})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "score", None)
        assert client.post("/v1/score", json=pair).status_code == 500


@pytest.fixture(scope="module")
def scrape(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A scrape of a server of two reward models and two families that was asked for all that it can do."""
    folder = tmp_path_factory.mktemp("monitored")
    config, state = calibrated(folder), {"enabled": True, "folder": folder / "state"}
    config.write_text(config.read_text().replace("port: 0", f"{UPSTREAM}\nport: 0"))
    app = create_app(load_settings(config, batches=state, load_roots=[folder / "models"]))
    with TestClient(app, raise_server_exceptions=False) as client:
        wait_for_models(app)
        began = client.post("/v1/models/helpful/shadow", json={"path": str(folder / "models/next"), "share": 1})
        assert began.status_code == 200, began.text
        ask_everything(client)
        block_until(lambda: client.get("/v1/models/helpful/shadow").json()["compared"] >= 540, PATIENCE)
        block_until(lambda: "tureen_jobs{" in client.get("/metrics").text, PATIENCE)
        yield client.get("/metrics").text


@pytest.fixture(scope="module")
def samples(scrape: str) -> Sequence[Sample]:
    return list(read_samples(scrape))


def test_names_and_types_keep_the_rules(scrape: str) -> None:
    check_with_promtool(scrape)


def selected(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Each metric in an expression, and the labels that it is selected by."""
    for name, matchers in re.findall(r"\b(tureen_[a-z_]+)(?:{([^}]*)})?", expression):
        yield name, set(re.findall(r"(\w+)\s*(?:=|!)", matchers))


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_metric_and_label_of_an_expression_is_scraped(expression: str, samples: Sequence[Sample]) -> None:
    known: dict[str, set[str]] = {}
    for each in samples:
        known.setdefault(each.name, set()).update(each.labels, BY_PROMETHEUS)
    found = list(selected(expression))
    assert found
    for name, labels in found:
        assert labels <= known[name], name
    grouped = {label for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(", ")}
    assert grouped <= set().union(*(known[name] for name, _ in found))


def test_every_expression_has_a_value_over_the_scrape(samples: Sequence[Sample], tmp_path: Path) -> None:
    opened = [open_conditions(each) for each in EXPRESSIONS]
    assert find_empty_expressions(opened, samples, tmp_path) == []


def test_an_expression_without_data_is_found(samples: Sequence[Sample], tmp_path: Path) -> None:
    wrong = ['tureen_ready{model="x"}', "rate(tureen_read_texts[5m])"]
    assert find_empty_expressions([*wrong, "tureen_ready"], samples, tmp_path) == wrong


@pytest.mark.parametrize(("expression", "legend"), list(read_targets()))
def test_a_legend_names_labels_that_the_expression_keeps(expression: str, legend: str) -> None:
    grouped = {label for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(", ")}
    named = set(re.findall(r"{{(\w+)}}", legend))
    assert named <= (grouped or {"instance", "job"})


def test_panels_have_a_title_and_say_what_they_show() -> None:
    panels = read_panels()
    assert len({panel["title"] for panel in panels}) == len(panels)
    assert all(panel["description"].endswith(".") for panel in panels)
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels)


JOB = 'job="t", instance="i"'
SCORED = f'tureen_texts_total{{{JOB}, model="m", outcome="scored"}}'
TOOK = f'tureen_http_request_duration_seconds_bucket{{{JOB}, route="/v1/score", status_class="2xx"'
# alert → the minute, the series under which it fires, and what is changed so that it does not
CASES: dict[str, tuple[int, dict[str, str], dict[str, str]]] = {
    "TureenAbsent": (6, {}, {f"tureen_ready{{{JOB}}}": "0x60"}),
    "TureenNotReady": (11, {f"tureen_ready{{{JOB}}}": "0x60"}, {f"tureen_ready{{{JOB}}}": "1x60"}),
    "TureenErrors": (
        20,
        {
            f'tureen_http_requests_total{{{JOB}, status="200"}}': "0+97x60",
            f'tureen_http_requests_total{{{JOB}, status="500"}}': "0+3x60",
        },
        {f'tureen_http_requests_total{{{JOB}, status="500"}}': "0+1x60"},
    ),
    "TureenRefuses": (
        20,
        {
            f'tureen_http_requests_total{{{JOB}, status="503"}}': "0+100x60",
            f'tureen_admission_rejections_total{{{JOB}, reason="queue_full"}}': "0+6x60",
            f'tureen_admission_rejections_total{{{JOB}, reason="invalid_http"}}': "0+50x60",
        },
        {f'tureen_admission_rejections_total{{{JOB}, reason="queue_full"}}': "0+4x60"},
    ),
    "TureenSlow": (
        20,
        {f'{TOOK}, le="10.0"}}': "0+98x60", f'{TOOK}, le="30.0"}}': "0+100x60", f'{TOOK}, le="+Inf"}}': "0+100x60"},
        {f'{TOOK}, le="10.0"}}': "0+100x60"},
    ),
    "TureenRestarts": (
        30,
        {f"tureen_process_start_time_seconds{{{JOB}}}": "0x5 100x5 200x5 300x5 400x20"},
        {f"tureen_process_start_time_seconds{{{JOB}}}": "0x5 100x5 200x5 300x30"},
    ),
    "TureenMemoryRunsOut": (
        10,
        {f'tureen_out_of_memory_total{{{JOB}, lane="m"}}': "0x5 5x60"},
        {f'tureen_out_of_memory_total{{{JOB}, lane="m"}}': "0x5 2x60"},
    ),
    "TureenBatchesFail": (
        6,
        {f"tureen_batches_failing{{{JOB}}}": "1x60"},
        {f"tureen_batches_failing{{{JOB}}}": "0x60"},
    ),
    "TureenUpstreamFails": (
        6,
        {f'tureen_upstream_failing{{{JOB}, lane="far"}}': "1x60"},
        {f'tureen_upstream_failing{{{JOB}, lane="far"}}': "0x60"},
    ),
    "TureenBatchWaits": (
        6,
        {f"tureen_job_oldest_queued_age_seconds{{{JOB}}}": "3700+60x60"},
        {f"tureen_job_oldest_queued_age_seconds{{{JOB}}}": "3000+60x60"},
    ),
    "TureenNonFiniteScores": (
        10,
        {f'tureen_nonfinite_scores_total{{{JOB}, model="m"}}': "0x5 1x60"},
        {f'tureen_nonfinite_scores_total{{{JOB}, model="m"}}': "7x60"},
    ),
    "TureenTextsFail": (
        30,
        {SCORED: "0+98x60", f'tureen_texts_total{{{JOB}, model="m", outcome="failed"}}': "0+2x60"},
        {SCORED: "0+300x60"},
    ),
    "TureenTextsAreCut": (
        65,
        {f"tureen_truncated_texts_total{{{JOB}}}": "0+6x90", f"tureen_read_texts_total{{{JOB}}}": "0+100x90"},
        {f"tureen_truncated_texts_total{{{JOB}}}": "0+4x90"},
    ),
    "TureenScoresBeginToDrift": (
        61,
        {f'tureen_score_population_stability{{{JOB}, model="m"}}': "0.11x90"},
        {f'tureen_score_population_stability{{{JOB}, model="m"}}': "0.09x90"},
    ),
    "TureenScoresDrift": (
        16,
        {
            f'tureen_score_population_stability{{{JOB}, model="m"}}': "0.24x60",
            f'tureen_score_kolmogorov_smirnov{{{JOB}, model="m"}}': "0.21x60",
        },
        {f'tureen_score_kolmogorov_smirnov{{{JOB}, model="m"}}': "0.19x60"},
    ),
    "TureenLengthDecides": (
        31,
        {f'tureen_score_length_correlation{{{JOB}, model="m", within="prompt"}}': "-0.9x60"},
        {
            f'tureen_score_length_correlation{{{JOB}, model="m", within="prompt"}}': "0.7x60",
            f'tureen_score_length_correlation{{{JOB}, model="m", within="all"}}': "0.9x60",
        },
    ),
    "TureenScoresTie": (
        65,
        {
            f'tureen_tied_pairs_total{{{JOB}, model="m"}}': "0+3x90",
            f'tureen_compared_pairs_total{{{JOB}, model="m"}}': "0+10x90",
        },
        {f'tureen_tied_pairs_total{{{JOB}, model="m"}}': "0+1x90"},
    ),
    "TureenModelChangeFails": (
        10,
        {f'tureen_model_changes_total{{{JOB}, action="load", result="failed"}}': "0x5 1x60"},
        {f'tureen_model_changes_total{{{JOB}, action="load", result="failed"}}': "1x60"},
    ),
    "TureenShadowDisagrees": (
        20,
        {f'tureen_shadow_pair_agreement{{{JOB}, model="m"}}': "0.7x60"},
        {f'tureen_shadow_pair_agreement{{{JOB}, model="m"}}': "0.9x60"},
    ),
}


def build_case(name: str, series: dict[str, str], fires: bool) -> dict[str, Any]:
    """A unit test of promtool: whether the alert fires."""
    minute = CASES[name][0]
    expression = f'count(ALERTS{{alertname="{name}", alertstate="firing"}})'
    expected = [{"labels": "{}", "value": 1}] if fires else []
    return {
        "interval": "1m",
        "input_series": [{"series": each, "values": values} for each, values in series.items()],
        "promql_expr_test": [{"expr": expression, "eval_time": f"{minute}m", "exp_samples": expected}],
    }


def test_rules_are_valid_and_each_alert_fires_when_it_should(tmp_path: Path) -> None:
    assert set(CASES) == set(read_alerts())
    run_promtool("check", "rules", str(ALERTS))
    tests = []
    for name, (_, firing, changed) in CASES.items():
        tests += [build_case(name, firing, True), build_case(name, firing | changed, False)]
    file = tmp_path / "alerts.yaml"
    file.write_text(json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests}))
    assert "SUCCESS" in run_promtool("test", "rules", str(file))


def test_every_alert_has_a_severity_and_says_what_is_wrong() -> None:
    for rule in read_alerts().values():
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert rule["annotations"]["summary"].endswith(".")
