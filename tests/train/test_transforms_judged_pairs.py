"""Pairs labelled by a language model, as a function and from the command line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from train.judge_server import JudgeServer, judging
from typer.testing import CliRunner, Result

from tureen.records.dialogue import assistant_turn, user_turn
from tureen.records.reading import Reading
from tureen.records.schema import UNLABELLED, BadOption, Record
from tureen_train.__main__ import app
from tureen_train.policies.rollouts.judge import JudgeCost
from tureen_train.policies.rollouts.wins import Judgement
from tureen_train.transforms.judged_pairs import describe_cost, label_by_judge, make_unlabelled_pairs

PROMPT = (user_turn("why?"),)


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with judging() as found:
        yield found


def record(*texts: str, **keys: Any) -> Record:
    scores = keys.pop("scores", (UNLABELLED,) * len(texts))
    return Record(PROMPT, tuple((assistant_turn(text),) for text in texts), scores, **keys)


def test_all_answers_to_a_prompt_are_paired_and_what_a_judge_cannot_read_is_counted() -> None:
    whole = Record((), ((user_turn("a"), assistant_turn("b")), (user_turn("c"), assistant_turn("d"))), (1, 0))
    tools = record("a", "b", tools=({"type": "function", "function": {"name": "f"}},))
    pairs = make_unlabelled_pairs([record("a", "b", "c"), record("alone"), whole, tools])
    assert [(each.first, each.second) for each in pairs.comparisons] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert sorted(pairs.left_out.values()) == [1, 1, 1]


def test_a_long_answer_is_read_with_its_turns() -> None:
    turns = (assistant_turn("hm"), user_turn("so?"), assistant_turn("yes"))
    (pair,) = make_unlabelled_pairs([Record(PROMPT, (turns, (assistant_turn("no"),)), (1, 0))]).comparisons
    assert pair.first == "[assistant]\nhm\n\n[user]\nso?\n\n[assistant]\nyes"


def test_a_verdict_orders_the_answers_and_a_failure_is_left_out() -> None:
    pairs = make_unlabelled_pairs([record("a", "b", scores=(1, 0)) for _ in range(4)])
    judged = [Judgement(1.0), Judgement(0.25), Judgement(0.5), Judgement(None, "no verdict")]
    made = label_by_judge(pairs, judged)
    assert [each.scores for each in made.records] == [(1.0, 0.0), (0.75, 0.25), (0.5, 0.5)]
    assert [each.answers[0][0]["content"] for each in made.records] == ["a", "b", "a"]
    assert [each.meta.get("turned") for each in made.records] == [None, True, None]
    assert made.left_out == {"no verdict": 1}


def test_the_cost_is_told_with_a_price() -> None:
    cost = JudgeCost(calls=10, known=2, tokens_in=200_000, tokens_out=5_000)
    assert describe_cost(cost).startswith("requests: 10 (and 2 that were judged before); about 200000 tokens read")
    assert describe_cost(cost, "2.5/10").endswith("; at most about 0.55")
    with pytest.raises(BadOption, match="--price: write the prices .* not 'cheap'"):
        describe_cost(cost, "cheap")


def run(server: JudgeServer, *arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["transform", "judge", server.url, "m", "pref2A", *map(str, arguments)])


def rollouts(folder: Path) -> Path:
    """Two answers to each prompt, as RLPHF writes its rollouts."""
    answers = [("a longer one", "short"), ("short", "a longer one"), ("same", "same"), ("unclear", "b")]
    rows = [
        {"instruction": f"Why {number}?", "input": "", "output_1": one, "output_2": other}
        for number, (one, other) in enumerate(answers)
    ]
    (folder / "rollouts.json").write_text(json.dumps(rows))
    return folder / "rollouts.json"


def test_rollouts_become_preferences_and_a_second_run_asks_nothing(server: JudgeServer, tmp_path: Path) -> None:
    source, target = rollouts(tmp_path), tmp_path / "pairs.jsonl"
    dry = run(server, source, target, "--dry-run", "--price", "1/1")
    assert dry.exit_code == 0, dry.output
    assert "requests: 6 (and 0 that were judged before)" in dry.stderr
    assert not server.bodies
    assert not target.exists()
    for calls in (6, 6):
        result = run(server, source, target)
        assert result.exit_code == 0, result.output
        assert "the first answer is better: 1, the second: 1, ties: 1" in result.stdout
        assert "wrote 3 pairs" in result.stdout
        assert "left out, the judge's answer has no verdict: 1" in result.stderr
        assert "equal answers: 1" in result.stderr
        assert len(server.bodies) == calls
    found = list(Reading(target, strict=True))
    assert [each.answers[0][0]["content"] for each in found] == ["short", "short", "same"]
    assert [each.scores for each in found] == [(1, 0), (1, 0), (0.5, 0.5)]
    assert (tmp_path / "pairs.jsonl.judgements.jsonl").read_text().count("\n") == 6


def test_requests_that_fail_end_the_command_with_status_1_and_the_rest_is_written(
    server: JudgeServer, tmp_path: Path
) -> None:
    def decide(first: str, second: str) -> str:
        server.status = 400  # from the second request on
        return "Verdict: A"

    source, target = rollouts(tmp_path), tmp_path / "pairs.jsonl"
    server.decide = decide
    result = run(server, source, target, "--concurrency", "1")
    assert result.exit_code == 1
    assert "wrote 1 pairs" in result.stdout  # the equal answers
    assert "some requests failed; the same command goes on with them" in result.stderr
    with judging() as mended:
        again = run(mended, source, target)
        assert again.exit_code == 0, again.output
        assert "wrote 3 pairs" in again.stdout
        assert len(mended.bodies) == 5
