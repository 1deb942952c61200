"""Metrics: what is counted, and under which labels."""

from prometheus_client.parser import text_string_to_metric_families
from serve.border import served
from serve.counting import CountingEngine
from serve.scrapes import find_name_faults, sample

from tureen_serve.inference.lane import LaneRun
from tureen_serve.telemetry import Metrics

SECRET = "the-text-of-a-conversation"
SCORE = {"items": [{"prompt": SECRET, "candidates": ["calm calm", "funny"]}]}
CHAT = {"messages": [{"role": "user", "content": SECRET}]}


def test_every_metric_keeps_the_rules_of_names() -> None:
    text = Metrics().text(None, ready=False).decode()
    assert find_name_faults(text) == []
    assert len(list(text_string_to_metric_families(text))) > 30
    assert "_created" not in text


def test_a_series_that_an_alert_watches_exists_before_it_rises() -> None:
    with served() as client:
        text = client.get("/metrics").text
    for line in ('tureen_nonfinite_scores_total{model="calm"} 0.0', 'reason="queue_full"} 0.0'):
        assert line in text


def test_scores_are_counted_by_reward() -> None:
    with served() as client:
        reply = client.post("/v1/score", json=SCORE | {"truncate": True}).json()
        bad = [{"prompt": "p", "candidates": ["boundless"]}]
        client.post("/v1/score", json={"items": bad, "on_error": "item"})
        text = client.get("/metrics").text
    assert sample(text, "tureen_texts_total", model="calm", outcome="scored") == 2
    assert sample(text, "tureen_texts_total", model="calm", outcome="failed") == 1
    assert sample(text, "tureen_nonfinite_scores_total", model="calm") == 1
    assert sample(text, "tureen_score_count", model="funny") == 2
    assert sample(text, "tureen_score_bucket", model="calm", le="0.0") == 1  # -0.5, and 0.5
    assert sample(text, "tureen_read_texts_total") == 3
    told = [each for item in reply["data"] for each in item["candidates"]]
    computed = sum(each["tokens"] - each["cached_tokens"] for each in told)
    assert 0 < computed <= sample(text, "tureen_tokens_total", model="calm", direction="in")


def test_texts_are_counted_by_family_and_never_by_weights() -> None:
    with served() as client:
        client.post("/v1/chat/completions", json=CHAT | {"preferences": {"calm": 0.123, "funny": 0.877}, "n": 2})
        text = client.get("/metrics").text
    assert sample(text, "tureen_texts_total", model="words", outcome="written") == 2
    assert sample(text, "tureen_tokens_total", model="words", direction="out") == 12
    assert sample(text, "tureen_tokens_total", model="words", direction="in") > 0
    assert "0.123" not in text


def test_a_stream_that_breaks_is_counted_as_one() -> None:
    engine = CountingEngine()
    engine.breaks_after = 2
    with served(engine) as client:
        client.post("/v1/chat/completions", json=CHAT | {"stream": True})
        text = client.get("/metrics").text
    assert sample(text, "tureen_texts_total", model="words", outcome="broken_off") == 1
    assert sample(text, "tureen_tokens_total", model="words", direction="out") == 2


def test_rejections_are_counted_by_reason() -> None:
    with served(limits={"body_bytes": 300}) as client:
        client.post("/v1/score", json=SCORE | {"padding": "x" * 300})
        client.post("/v1/score", json=SCORE | {"rewards": ["nobody"]})
        text = client.get("/metrics").text
    assert sample(text, "tureen_admission_rejections_total", reason="payload_too_large") == 1
    assert sample(text, "tureen_admission_rejections_total") == 1


def test_what_is_loaded_and_whether_it_is_ready() -> None:
    engine = CountingEngine()
    with served(engine) as client:
        text = client.get("/metrics").text
        engine.down = "a probe differs"
        broken = client.get("/metrics").text
    assert sample(text, "tureen_ready") == 1
    assert sample(broken, "tureen_ready") == 0
    assert sample(text, "tureen_model_info", model="words", kind="policy", fingerprint="words-fingerprint") == 1
    assert sample(text, "tureen_model_info", kind="reward") == 2
    assert sample(text, "tureen_build_info") == 1


def test_a_lanes_batches_are_counted() -> None:
    metrics = Metrics()
    metrics.observe(LaneRun("smol", rows=4, tokens=100, cached=30, failed=1, seconds=0.2))
    metrics.observe(LaneRun("smol", rows=2, tokens=50, cached=0, failed=0, seconds=0.1))
    text = metrics.text(None, ready=True).decode()
    assert sample(text, "tureen_inference_seconds_count", lane="smol") == 2
    assert sample(text, "tureen_batch_rows_sum", lane="smol") == 6
    assert sample(text, "tureen_batch_tokens_sum", lane="smol") == 150
    assert sample(text, "tureen_cached_tokens_total", lane="smol") == 30
    assert sample(text, "tureen_failed_rows_total", lane="smol") == 1
