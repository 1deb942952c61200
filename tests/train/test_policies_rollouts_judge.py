"""A judge behind a server: orders, ties, what has no verdict, and that nothing is judged twice."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from train.judge_server import JudgeServer, judging

from tureen.records.dialogue import user_turn
from tureen.retry import Retries
from tureen_train.config import JudgeSource, RecipeError
from tureen_train.networks.reward_reader import ignore_progress
from tureen_train.policies.rollouts import server_calls
from tureen_train.policies.rollouts.comparison_prompts import Comparison
from tureen_train.policies.rollouts.judge import NO_VERDICT, LanguageJudge
from tureen_train.policies.rollouts.valuing import RewardError
from tureen_train.policies.rollouts.wins import Judgement

PROMPT = (user_turn("why?"),)


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with judging() as found:
        yield found


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_calls, "PATIENT", Retries(limit=1, first=0.01, most=0.01))


def opened(server: JudgeServer, folder: Path, **keys: Any) -> LanguageJudge:
    source = JudgeSource(source="judge", url=server.url, model="m", criterion="pref2A", **keys)
    return LanguageJudge(source, folder / "judgements.jsonl")


def pairs(*texts: tuple[str, str]) -> list[Comparison]:
    return [Comparison(PROMPT, *each) for each in texts]


def test_each_pair_is_judged_in_both_orders(server: JudgeServer, tmp_path: Path) -> None:
    judge = opened(server, tmp_path)
    seen: list[int] = []
    found = judge.compare(pairs(("ab", "abc"), ("abcd", "a"), ("x", "x"), ("xy", "yx")), seen.append)
    assert [each.share for each in found] == [1.0, 0.0, 0.5, 0.5]
    assert sorted(server.pairs) == sorted(
        [("ab", "abc"), ("abc", "ab"), ("abcd", "a"), ("a", "abcd"), ("xy", "yx"), ("yx", "xy")]
    )
    assert {(body["model"], body["temperature"], body["max_tokens"]) for body in server.bodies} == {("m", 0.0, 512)}
    assert dict(+judge.counts) == {"pairs": 4, "equal answers": 1, "ties": 1}
    assert sum(seen) == 4


def test_a_judge_that_prefers_a_place_ties_and_is_counted(server: JudgeServer, tmp_path: Path) -> None:
    server.decide = lambda first, second: "Verdict: A"
    judge = opened(server, tmp_path)
    assert judge.compare(pairs(("a", "b")), ignore_progress) == [Judgement(0.5)]
    assert judge.counts["turned with the order"] == 1


def test_a_tie_in_one_order_is_half_a_win_there(server: JudgeServer, tmp_path: Path) -> None:
    server.decide = lambda first, second: "Verdict: A" if first == "a" else "Verdict: tie"
    found = opened(server, tmp_path).compare(pairs(("a", "b"), ("b", "a")), ignore_progress)
    assert [each.share for each in found] == [0.75, 0.25]


def test_asked_once_the_order_is_drawn_and_the_verdict_is_of_the_texts(server: JudgeServer, tmp_path: Path) -> None:
    judge = opened(server, tmp_path, orders="once")
    asked = pairs(*[("a" * number, "a" * (number + 1)) for number in range(1, 21)])
    assert [each.share for each in judge.compare(asked, ignore_progress)] == [1.0] * 20
    shorter_first = sum(len(first) < len(second) for first, second in server.pairs)
    assert len(server.bodies) == 20
    assert 0 < shorter_first < 20
    turned = judge.compare([each.turned for each in asked], ignore_progress)
    assert [each.share for each in turned] == [0.0] * 20
    assert len(server.bodies) == 20


def test_an_answer_without_a_verdict_is_no_number_and_is_not_asked_for_again(
    server: JudgeServer, tmp_path: Path
) -> None:
    for _ in range(2):
        judge = opened(server, tmp_path)
        found = judge.compare(pairs(("unclear", "b"), ("a", "bb")), ignore_progress)
        assert found == [Judgement(None, NO_VERDICT), Judgement(1.0)]
        assert judge.counts["without a verdict"] == 1
    assert len(server.bodies) == 4


def test_nothing_is_judged_twice_wherever_a_kill_cuts_the_file(server: JudgeServer, tmp_path: Path) -> None:
    asked = pairs(*combinations(["a", "bb", "ccc", "dddd"], 2))
    wanted = opened(server, tmp_path).compare(asked, ignore_progress)
    path = tmp_path / "judgements.jsonl"
    whole = path.read_bytes()
    assert whole.count(b"\n") == 12
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        server.bodies.clear()
        judge = opened(server, tmp_path)
        left = 12 - whole[:size].count(b"\n")
        cost = judge.estimate_cost(asked)
        assert (cost.calls, cost.known, cost.tokens_out) == (left, 12 - left, 512 * left)
        seen: list[int] = []
        assert judge.compare(asked, seen.append) == wanted
        assert len(server.bodies) == left
        assert sum(seen) == len(asked)
        assert sorted(path.read_bytes().splitlines()) == sorted(whole.splitlines())


def test_equal_questions_are_asked_once(server: JudgeServer, tmp_path: Path) -> None:
    judge = opened(server, tmp_path)
    found = judge.compare(pairs(("a", "bb"), ("a", "bb"), ("bb", "a")), ignore_progress)
    assert [each.share for each in found] == [1.0, 1.0, 0.0]
    assert len(server.bodies) == 2


def test_the_cost_is_told_without_a_request(server: JudgeServer, tmp_path: Path) -> None:
    judge = opened(server, tmp_path, max_tokens=None)
    cost = judge.estimate_cost(pairs(("a", "bb"), ("a", "a")))
    assert (cost.calls, cost.known, cost.tokens_out) == (2, 0, None)
    assert not server.bodies
    judge.compare(pairs(("a", "bb")), ignore_progress)
    sent = sum(len(turn["content"]) for body in server.bodies for turn in body["messages"])
    assert cost.tokens_in == sent // 4
    assert all("max_tokens" not in body for body in server.bodies)


def test_what_fails_over_http_is_counted_and_asked_again_later(server: JudgeServer, tmp_path: Path) -> None:
    judge = opened(server, tmp_path)
    for status in (503, 400):  # an outage, and a request that this server does not take
        server.status = status
        found = judge.compare(pairs(("a", "bb"), ("a", "ccc")), ignore_progress)
        assert [(each.share, "told to fail" in each.error) for each in found] == [(None, True)] * 2
    assert judge.counts["failed"] == 4
    server.status = 401
    with pytest.raises(RewardError, match="told to fail"):
        judge.compare(pairs(("a", "bb")), ignore_progress)
    server.status = 200
    assert judge.compare(pairs(("a", "bb")), ignore_progress) == [Judgement(1.0)]


def test_an_unknown_criterion_is_refused(server: JudgeServer, tmp_path: Path) -> None:
    source = JudgeSource(source="judge", url=server.url, model="m", criterion="kindness")
    with pytest.raises(RecipeError, match="'kindness' is none of"):
        LanguageJudge(source, tmp_path / "judgements.jsonl")
