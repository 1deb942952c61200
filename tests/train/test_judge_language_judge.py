"""A judge behind a server: orders, ties, batches, what has no verdict, and that nothing is asked twice."""

import time
from collections import Counter
from collections.abc import Iterator
from email.utils import formatdate
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from train.judge_server import READ, WRITTEN, Failure, JudgeServer, Pair, judging, say_verdicts

from tureen.records.dialogue import user_turn
from tureen.retry import Retries
from tureen_train.judge.comparisons import Comparison, Judgement
from tureen_train.judge.configuration import read_configuration
from tureen_train.judge.language_judge import NO_VERDICT, Endpoint, LanguageJudge, UnparsedReplies
from tureen_train.networks.reward_reader import ignore_progress
from tureen_train.runs import server_calls
from tureen_train.runs.server_calls import ServerRefusal

PROMPT = (user_turn("why?"),)
TEXTS = ["a", "bb", "ccc", "dddd"]


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with judging() as found:
        yield found


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_calls, "PATIENT", Retries(limit=3, first=0.01, most=0.01))


def opened(server: JudgeServer, folder: Path, config: str = "pref2A", **keys: Any) -> LanguageJudge:
    most = keys.pop("most_unparsed", 1.0)
    endpoint = Endpoint(server.url, "m", keys.pop("concurrency", 4), 30.0)
    return LanguageJudge(read_configuration(config, **keys), endpoint, folder / "judgements.jsonl", most)


def pairs(*texts: Pair) -> list[Comparison]:
    return [Comparison(PROMPT, *each) for each in texts]


def shares(found: list[Judgement]) -> list[float | None]:
    return [each.share for each in found]


def test_each_pair_is_judged_in_both_orders(server: JudgeServer, tmp_path: Path) -> None:
    judge = opened(server, tmp_path)
    seen: list[float] = []
    found = judge.compare(pairs(("ab", "abc"), ("abcd", "a"), ("x", "x"), ("xy", "yx")), seen.append)
    assert shares(found) == [1.0, 0.0, 0.5, 0.5]
    assert sorted(server.pairs) == sorted(
        [("ab", "abc"), ("abc", "ab"), ("abcd", "a"), ("a", "abcd"), ("xy", "yx"), ("yx", "xy")]
    )
    assert {(body["model"], body["temperature"], body["max_tokens"]) for body in server.bodies} == {("m", 0.1, 512)}
    assert dict(+judge.counts) == {"pairs": 4, "equal answers": 1, "ties": 1}
    assert sum(seen) == 4
    assert vars(judge.spent) == {"requests": 6, "read": 6 * READ, "written": 6 * WRITTEN, "uncounted": 0}


def test_a_judge_that_prefers_a_place_ties_and_is_counted(server: JudgeServer, tmp_path: Path) -> None:
    server.decide = lambda first, second: "Output (a)"
    judge = opened(server, tmp_path)
    assert judge.compare(pairs(("a", "b")), ignore_progress) == [Judgement(0.5)]
    assert judge.counts["turned with the order"] == 1


def test_a_tie_in_one_order_is_half_a_win_there(server: JudgeServer, tmp_path: Path) -> None:
    server.decide = lambda first, second: "Output (a)" if first == "a" else "TIE"
    found = opened(server, tmp_path).compare(pairs(("a", "b"), ("b", "a")), ignore_progress)
    assert shares(found) == [0.75, 0.25]


def test_asked_once_the_order_is_drawn_and_the_verdict_is_of_the_texts(server: JudgeServer, tmp_path: Path) -> None:
    judge = opened(server, tmp_path, orders="once")
    asked = pairs(*[("a" * number, "a" * (number + 1)) for number in range(1, 21)])
    assert shares(judge.compare(asked, ignore_progress)) == [1.0] * 20
    shorter_first = sum(len(first) < len(second) for first, second in server.pairs)
    assert len(server.bodies) == 20
    assert 0 < shorter_first < 20
    turned = judge.compare([each.turned for each in asked], ignore_progress)
    assert shares(turned) == [0.0] * 20
    assert len(server.bodies) == 20


def test_a_tie_is_a_tie_in_the_order_that_was_drawn_and_in_the_other(server: JudgeServer, tmp_path: Path) -> None:
    """RLPHF turned the 3 of a TIE into 0 in swapped rows, and left it in the others, where its counter stopped."""
    server.decide = lambda first, second: "TIE"
    judge = opened(server, tmp_path, orders="once")
    asked = pairs(*[("a" * number, "a" * (number + 1)) for number in range(1, 13)])
    assert shares(judge.compare(asked, ignore_progress)) == [0.5] * 12
    assert len({len(first) < len(second) for first, second in server.pairs}) == 2
    assert judge.counts["ties"] == 12


def test_an_answer_without_a_verdict_is_no_number_and_is_not_asked_for_again(
    server: JudgeServer, tmp_path: Path
) -> None:
    for _ in range(2):
        judge = opened(server, tmp_path)
        found = judge.compare(pairs(("unclear", "b"), ("a", "bb")), ignore_progress)
        assert found == [Judgement(None, NO_VERDICT), Judgement(1.0)]
        assert judge.counts["without a verdict"] == 1
        assert "Both have their merits." in judge.example
    assert len(server.bodies) == 4


def test_a_reply_that_was_cut_has_no_verdict(server: JudgeServer, tmp_path: Path) -> None:
    server.finish = "length"
    assert opened(server, tmp_path).compare(pairs(("a", "bb")), ignore_progress) == [Judgement(None, NO_VERDICT)]


def test_too_many_answers_without_a_verdict_end_it_before_the_rest_is_paid_for(
    server: JudgeServer, tmp_path: Path
) -> None:
    server.decide = lambda first, second: "I cannot tell."
    asked = pairs(*[("a", "b" * number) for number in range(1, 21)])
    judge = opened(server, tmp_path, orders="once", concurrency=1, most_unparsed=0.1)
    with pytest.raises(UnparsedReplies, match=r"3 answers .* to 20 questions .*0\.1 .*I cannot tell\."):
        judge.compare(asked, ignore_progress)
    assert len(server.bodies) < 10
    before = len(server.bodies)
    with pytest.raises(UnparsedReplies, match="3 answers"):  # what is kept counts, too
        opened(server, tmp_path, orders="once", most_unparsed=0.1).compare(asked, ignore_progress)
    assert len(server.bodies) == before
    few = opened(server, tmp_path, orders="once").compare(asked, ignore_progress)
    assert shares(few) == [None] * 20
    assert len(server.bodies) == 20


# --------------------------------------------------------------------------- batches


def test_a_batch_asks_about_five_pairs_and_never_about_both_orders_of_one(server: JudgeServer, tmp_path: Path) -> None:
    asked = pairs(*[("a" * number, "a" * (number + 1)) for number in range(1, 8)])
    judge = opened(server, tmp_path, "annotate/pref2A", orders="both")
    assert shares(judge.compare(asked, ignore_progress)) == [1.0] * 7
    assert sorted(len(texts) for texts in batches_of(server)) == [4, 5, 5]
    for texts in batches_of(server):
        assert max(Counter(frozenset(pair) for pair in texts).values()) == 1
    assert judge.spent.requests == 3


def batches_of(server: JudgeServer) -> list[list[Pair]]:
    found, at = [], iter(server.pairs)
    for body in server.bodies:
        count = body["messages"][-1]["content"].count("### Output (a)")
        found.append([next(at) for _ in range(count)])
    return found


def test_a_batch_with_another_number_of_verdicts_is_asked_one_by_one(server: JudgeServer, tmp_path: Path) -> None:
    """RLPHF dropped all pairs of such a batch."""

    def forget_one(texts: list[Pair], decide: Any) -> str:
        said = say_verdicts(texts, decide)
        return said.rpartition("\n")[0] if any("ccc" in pair for pair in texts) and len(texts) > 1 else said

    server.say = forget_one
    asked = pairs(*combinations(TEXTS, 2))
    judge = opened(server, tmp_path, "annotate/pref2A", batch=2, concurrency=1)
    seen: list[float] = []
    assert shares(judge.compare(asked, seen.append)) == [1.0] * 6
    sizes = [len(texts) for texts in batches_of(server)]
    assert sizes[:3] == [2, 2, 2]
    assert set(sizes[3:]) == {1}
    assert sum(seen) == 6
    calls = server.calls
    again = opened(server, tmp_path, "annotate/pref2A", batch=2)
    assert shares(again.compare(asked, ignore_progress)) == [1.0] * 6
    assert server.calls == calls


def test_a_batch_that_failed_is_not_tried_again_after_a_kill(server: JudgeServer, tmp_path: Path) -> None:
    asked = pairs(("a", "bb"), ("a", "ccc"))
    server.say = lambda texts, decide: "I would rather not." if len(texts) > 1 else say_verdicts(texts, decide)
    opened(server, tmp_path, "annotate/pref2A").compare(asked, ignore_progress)
    path = tmp_path / "judgements.jsonl"
    first = path.read_bytes().splitlines(keepends=True)[0]
    path.write_bytes(first + b'{"asked": ["half a li')
    server.bodies.clear()
    judge = opened(server, tmp_path, "annotate/pref2A")
    assert judge.estimate_cost(asked).requests == 2
    assert shares(judge.compare(asked, ignore_progress)) == [1.0, 1.0]
    assert [len(texts) for texts in batches_of(server)] == [1, 1]


def test_a_batch_that_is_too_long_for_the_server_is_asked_one_by_one(server: JudgeServer, tmp_path: Path) -> None:
    server.failures.append(Failure(400))
    judge = opened(server, tmp_path, "annotate/pref2A")
    assert shares(judge.compare(pairs(("a", "bb"), ("a", "ccc")), ignore_progress)) == [1.0, 1.0]
    assert server.calls == 3
    assert judge.counts["failed"] == 0


# --------------------------------------------------------------------------- kills and failures


def test_nothing_is_judged_twice_wherever_a_kill_cuts_the_file(server: JudgeServer, tmp_path: Path) -> None:
    asked = pairs(*combinations(TEXTS, 2))
    wanted = opened(server, tmp_path).compare(asked, ignore_progress)
    path = tmp_path / "judgements.jsonl"
    whole = path.read_bytes()
    assert whole.count(b"\n") == 12
    for size in range(0, len(whole), 211):
        path.write_bytes(whole[:size])
        server.bodies.clear()
        judge = opened(server, tmp_path)
        left = 12 - whole[:size].count(b"\n")
        cost = judge.estimate_cost(asked)
        assert (cost.requests, cost.known, cost.most_written) == (left, 12 - left, 512 * left)
        seen: list[float] = []
        assert judge.compare(asked, seen.append) == wanted
        assert len(server.bodies) == left
        assert sum(seen) == len(asked)
        assert sorted(path.read_bytes().splitlines()) == sorted(whole.splitlines())


def test_equal_questions_are_asked_once(server: JudgeServer, tmp_path: Path) -> None:
    judge = opened(server, tmp_path)
    found = judge.compare(pairs(("a", "bb"), ("a", "bb"), ("bb", "a")), ignore_progress)
    assert shares(found) == [1.0, 1.0, 0.0]
    assert len(server.bodies) == 2


def test_another_model_temperature_or_criterion_is_asked_anew(server: JudgeServer, tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [{}, {"temperature": 0.7}, {"config": "pref2B"}, {"max_tokens": 99}]
    for number, keys in enumerate(changes, start=1):
        opened(server, tmp_path, **keys).compare(pairs(("a", "bb")), ignore_progress)
        assert len(server.bodies) == 2 * number


def test_the_cost_is_told_without_a_request(server: JudgeServer, tmp_path: Path) -> None:
    judge = opened(server, tmp_path)
    cost = judge.estimate_cost(pairs(("a", "bb"), ("a", "a")), lambda messages: len(messages))
    assert (cost.requests, cost.known, cost.read, cost.most_written) == (2, 0, 2 * 8, 1024)
    assert not server.calls


def test_fields_that_are_null_are_not_sent_and_biases_are(server: JudgeServer, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("criterion: pref2A\nmax_tokens: null\ntemperature: null\nlogit_bias: {'7': 5}\n")
    judge = opened(server, tmp_path, str(path))
    assert judge.estimate_cost(pairs(("a", "bb"))).most_written is None
    judge.compare(pairs(("a", "bb")), ignore_progress)
    assert all({"max_tokens", "temperature"}.isdisjoint(body) for body in server.bodies)
    assert all(body["logit_bias"] == {"7": 5.0} for body in server.bodies)


def test_a_server_that_is_busy_or_broken_is_asked_again_and_a_malformed_reply_is_lost_alone(
    server: JudgeServer, tmp_path: Path
) -> None:
    server.failures.extend([Failure(429, {"retry-after": "0.01"}), Failure(500), Failure(502)])
    judge = opened(server, tmp_path, orders="once", concurrency=1)
    assert shares(judge.compare(pairs(("a", "bb")), ignore_progress)) == [1.0]
    assert (server.calls, len(server.bodies), judge.spent.requests) == (4, 1, 1)
    server.failures.append(Failure(200, {"x-told": "half"}, '{"id": "1", "choices": ['))
    found = judge.compare(pairs(("a", "ccc"), ("a", "dddd")), ignore_progress)
    assert shares(found) == [None, 1.0]
    assert "not JSON" in found[0].error
    assert shares(judge.compare(pairs(("a", "ccc")), ignore_progress)) == [1.0]


def test_a_server_says_when_to_come_back_in_seconds_or_by_a_date(
    server: JudgeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("tureen.calls.senders.time.sleep", waited.append)
    server.failures.append(Failure(429, {"retry-after": "7"}))
    server.failures.append(Failure(503, {"retry-after": formatdate(time.time() + 90, usegmt=True)}))
    judge = opened(server, tmp_path, orders="once", concurrency=1)
    assert shares(judge.compare(pairs(("a", "bb")), ignore_progress)) == [1.0]
    first, second = [seconds for seconds in waited if seconds >= 1]
    assert first == 7
    assert 30 < second <= 90


def test_what_fails_over_http_is_counted_and_asked_again_later(server: JudgeServer, tmp_path: Path) -> None:
    judge = opened(server, tmp_path)
    for status in (503, 400):  # an outage, and a request that this server does not take
        server.status = status
        found = judge.compare(pairs(("a", "bb"), ("a", "ccc")), ignore_progress)
        assert [(each.share, "told to fail" in each.error) for each in found] == [(None, True)] * 2
    assert judge.counts["failed"] == 4
    server.status = 401
    with pytest.raises(ServerRefusal, match="told to fail"):
        judge.compare(pairs(("a", "bb")), ignore_progress)
    server.status = 200
    assert judge.compare(pairs(("a", "bb")), ignore_progress) == [Judgement(1.0)]


def test_tokens_that_a_server_does_not_count_are_told(server: JudgeServer, tmp_path: Path) -> None:
    server.counts = False
    judge = opened(server, tmp_path)
    judge.compare(pairs(("a", "bb")), ignore_progress)
    assert "the server did not count the tokens of 2" in judge.spent.describe()
