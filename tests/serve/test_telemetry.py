"""Metrics and log lines: what is counted, under which labels, and what must never appear."""

import json
import logging
import re
import sys
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families
from serve.border import served
from serve.counting import CountingEngine

from tureen_serve.inference.lane import LaneRun
from tureen_serve.telemetry import REQUEST_ID, JsonLines, Metrics, TextLines, start_logging

SECRET = "the-text-of-a-conversation"
SCORE = {"items": [{"prompt": SECRET, "candidates": ["calm calm", "funny"]}]}
CHAT = {"messages": [{"role": "user", "content": SECRET}]}


def sample(text: str, name: str, **labels: str) -> float:
    """The value of one series; 0 where it is not there."""
    found = [
        each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
        if each.name == name and labels.items() <= each.labels.items()
    ]
    return sum(found)


@pytest.fixture
def _logging() -> Iterator[None]:
    """Puts the root logger back as it was."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    root.handlers[:] = handlers
    for own in ("tureen_serve", "tureen_core"):
        logging.getLogger(own).setLevel(logging.NOTSET)


def test_every_metric_has_the_prefix_a_help_and_a_plain_name() -> None:
    families = list(text_string_to_metric_families(Metrics().text(None, ready=False).decode()))
    assert len(families) > 15
    for family in families:
        assert re.fullmatch(r"tureen_[a-z_]+", family.name), family.name
        assert family.documentation
        assert "_created" not in family.name


def test_requests_are_counted_by_template_method_and_status() -> None:
    with served() as client:
        client.get("/v1/models/calm")
        client.get("/v1/models/nobody")
        client.get("/nowhere/at/all")
        client.request("BREW", "/v1/models")
        text = client.get("/metrics").text
    assert sample(text, "tureen_http_requests_total", route="/v1/models/{name}", status="200") == 1
    assert sample(text, "tureen_http_requests_total", route="/v1/models/{name}", status="404") == 1
    assert sample(text, "tureen_http_requests_total", route="unmatched", status="404") == 1
    assert sample(text, "tureen_http_requests_total", method="other", status="405") == 1
    assert sample(text, "tureen_http_request_duration_seconds_count", route="/v1/models/{name}") == 2
    assert "nobody" not in text
    assert "nowhere" not in text


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
    assert sample(text, "tureen_score_sum", model="calm") == pytest.approx(0.5 - 0.5)
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


@pytest.mark.parametrize("name", ["abc", "trace:1.2_3-4", "x" * 128])
def test_a_safe_request_id_is_kept(name: str) -> None:
    with served() as client:
        assert client.get("/health/live", headers={"x-request-id": name}).headers["x-request-id"] == name


@pytest.mark.parametrize("name", ["", "a b", "x" * 129, "a\tb", "é", "{}", "a;b"])
def test_an_unsafe_one_is_replaced(name: str) -> None:
    with served() as client:
        found = client.get("/health/live", headers={b"x-request-id": name.encode()}).headers["x-request-id"]
    assert re.fullmatch(r"req_[0-9a-f]{32}", found)


def test_every_reply_has_its_own_request_id() -> None:
    with served() as client:
        paths = ["/health/live", "/v1/models", "/nope", "/metrics"]
        names = {client.get(path).headers["x-request-id"] for path in paths}
        names.add(client.post("/v1/score", content=b"{").headers["x-request-id"])
    assert len(names) == 5


def test_one_line_for_each_request_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    with served() as client, caplog.at_level(logging.INFO, "tureen_serve"):
        caplog.clear()
        client.post("/v1/score", json=SCORE)
        client.post("/v1/chat/completions", json=CHAT)
        client.get("/health/live")
    lines = [record for record in caplog.records if record.name == "tureen_serve.telemetry"]
    assert [line.facts["route"] for line in lines] == ["/v1/score", "/v1/chat/completions"]  # type: ignore[attr-defined]
    assert lines[0].facts["status"] == 200  # type: ignore[attr-defined]
    assert SECRET not in caplog.text


def test_lines_of_json_carry_the_request(caplog: pytest.LogCaptureFixture) -> None:
    token = REQUEST_ID.set("req_1")
    try:
        raise ValueError("bad\nline")
    except ValueError:
        record = logging.getLogger("x").makeRecord(
            "x",
            logging.ERROR,
            "f",
            1,
            "it %s",
            ("broke",),
            sys.exc_info(),
            extra={"facts": {"status": 500}},
        )
    line = JsonLines().format(record)
    plain = TextLines().format(record)
    REQUEST_ID.reset(token)
    told = json.loads(line)
    assert "\n" not in line
    assert (told["message"], told["level"], told["status"], told["request_id"]) == ("it broke", "error", 500, "req_1")
    assert "ValueError" in told["exception"]
    assert plain.startswith("error   it broke")
    assert plain.endswith("(req_1)")


@pytest.mark.usefixtures("_logging")
def test_ours_are_logged_from_the_level_on_and_the_libraries_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    start_logging("info", "json")
    logging.getLogger("tureen_serve.app").info("ours")
    logging.getLogger("tureen_core.base").info("ours too")
    logging.getLogger("tureen_serve.app").debug("too fine")
    logging.getLogger("a.library").info("theirs")
    logging.getLogger("a.library").warning("their warning")
    lines = [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["ours", "ours too", "their warning"]
