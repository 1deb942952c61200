"""``tureen-train judge``: labels, comparisons and agreement from the command line, and a kill."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import tiny
from train.judge_server import READ, WRITTEN, JudgeServer, Pair, judging
from typer.testing import CliRunner, Result
from waiting import block_until

from tureen.records.reading import Reading
from tureen_train.__main__ import app

START = 400  # seconds in which a busy machine imports the libraries


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with judging() as found:
        yield found


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["judge", *map(str, arguments)])


def annotate(server: JudgeServer, *arguments: str | Path) -> Result:
    return run("annotate", *arguments, "--by", server.url, "--model", "m")


def answers(folder: Path, *pairs: Pair) -> Path:
    """Two answers to each prompt, as RLPHF writes its rollouts."""
    rows = [
        {"instruction": f"Why {number}?", "input": "", "output_1": one, "output_2": other}
        for number, (one, other) in enumerate(pairs)
    ]
    (folder / "rollouts.json").write_text(json.dumps(rows))
    return folder / "rollouts.json"


def method(folder: Path, name: str, *texts: str, reverse: bool = False) -> Path:
    """The answers of a method, as AlpacaFarm writes them."""
    rows = [{"instruction": f"Why {number}?", "input": "", "output": text} for number, text in enumerate(texts)]
    (folder / f"{name}.json").write_text(json.dumps(rows[::-1] if reverse else rows))
    return folder / f"{name}.json"


PAIRS: tuple[Pair, ...] = (("a longer one", "short"), ("short", "a longer one"), ("same", "same"), ("even", "same"))


# --------------------------------------------------------------------------- annotate


def test_answers_become_preferences_and_a_second_run_asks_nothing(server: JudgeServer, tmp_path: Path) -> None:
    source, target = answers(tmp_path, *PAIRS), tmp_path / "pairs.jsonl"
    for calls in (6, 6):
        result = annotate(server, source, target, "--config", "evaluate/pref2A", "--yes")
        assert result.exit_code == 0, result.output
        assert "the first answer is better: 1, the second: 1, ties: 2" in result.stdout
        assert "wrote 4 pairs" in result.stdout
        assert "equal answers: 1" in result.stderr
        assert len(server.bodies) == calls
    found = list(Reading(target, strict=True))
    assert [each.answers[0][0]["content"] for each in found] == ["short", "short", "same", "even"]
    assert [each.scores for each in found] == [(1, 0), (1, 0), (0.5, 0.5), (0.5, 0.5)]
    assert (tmp_path / "pairs.jsonl.judgements.jsonl").read_text().count("\n") == 6


def test_labels_for_rlphfs_reward_model_come_in_batches_and_in_one_order(server: JudgeServer, tmp_path: Path) -> None:
    source, target = answers(tmp_path, *PAIRS[:3]), tmp_path / "pairs.json"
    result = annotate(server, source, target, "--config", "pref2A", "--as", "rlphf", "--yes")
    assert result.exit_code == 0, result.output
    assert (len(server.bodies), server.bodies[0]["temperature"]) == (1, 1.0)
    rows = json.loads(target.read_text())
    assert [row["completion_a"] for row in rows] == ["short", "short"]
    assert all(row["user_input"].endswith("concise and to the point, without being verbose.") for row in rows)


def test_the_cost_is_told_first_and_nothing_is_spent_without_consent(server: JudgeServer, tmp_path: Path) -> None:
    source, target = answers(tmp_path, *PAIRS), tmp_path / "pairs.jsonl"
    options = ("--config", "evaluate/pref2A", "--price", "2.5/10")
    dry = annotate(server, source, target, *options, "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert "requests: 6 (verdicts that are known already: 0)" in dry.stderr
    assert "; cost: about 0." in dry.stderr
    refused = annotate(server, source, target, *options)
    assert refused.exit_code == 1
    assert "add --yes to go on, or --dry-run" in refused.stderr
    assert (server.calls, target.exists()) == (0, False)
    result = annotate(server, source, target, *options, "--yes")
    spent = f"requests answered: 6; tokens read: {6 * READ}, written: {6 * WRITTEN}; cost: 0.00192"
    assert spent in result.stderr
    again = annotate(server, source, target, *options)  # it costs nothing, so that nobody is asked
    assert again.exit_code == 0, again.output
    assert "requests: 0 (verdicts that are known already: 6)" in again.stderr


def test_a_configuration_has_its_own_price_and_a_tokenizer_counts(
    server: JudgeServer, tmp_path: Path, base: Path
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("style: annotate\ncriterion: pref2A\nprice: {read: 1000000, written: 0}\n")
    source = answers(tmp_path, PAIRS[0])
    told = annotate(server, source, tmp_path / "o.json", "--config", path, "--dry-run", "--tokenizer", base).stderr
    read = told.split("tokens read: about ")[1].split(", written")[0]
    assert f"cost: about {float(read.replace(',', '')):.4g}" in told


def test_too_many_answers_without_a_verdict_are_refused_with_an_example(server: JudgeServer, tmp_path: Path) -> None:
    source, target = answers(tmp_path, ("unclear", "b"), *PAIRS), tmp_path / "pairs.jsonl"
    options = ("--config", "evaluate/pref2A", "--yes")
    result = annotate(server, source, target, *options)
    assert result.exit_code == 1
    assert "1 answers of the judge to 8 questions" in result.stderr or "2 answers of the judge" in result.stderr
    assert "Both have their merits." in result.stderr
    assert not target.exists()
    allowed = annotate(server, source, target, *options, "--most-unparsed", "0.25")
    assert allowed.exit_code == 0, allowed.output
    assert "left out, the judge's answer has no verdict: 1" in allowed.stderr
    assert "wrote 4 pairs" in allowed.stdout
    assert server.calls == 8


def test_requests_that_fail_end_the_command_with_status_1_and_the_rest_is_written(
    server: JudgeServer, tmp_path: Path
) -> None:
    def decide(first: str, second: str) -> str:
        server.status = 400  # from the second request on
        return "Output (a)"

    source, target = answers(tmp_path, *PAIRS[:3]), tmp_path / "pairs.jsonl"
    server.decide = decide
    options = ("--config", "evaluate/pref2A", "--yes", "--concurrency", "1")
    result = annotate(server, source, target, *options)
    assert result.exit_code == 1
    assert "wrote 1 pairs" in result.stdout  # the equal answers
    assert "some requests failed; the same command goes on with them" in result.stderr
    with judging() as mended:
        again = annotate(mended, source, target, *options)
        assert again.exit_code == 0, again.output
        assert "wrote 3 pairs" in again.stdout
        assert len(mended.bodies) == 3


def test_a_reward_model_labels_without_a_request(tmp_path: Path, base: Path) -> None:
    reward = tiny.reward(tmp_path / "reward", base, "kind", 1)
    source, target = answers(tmp_path, *PAIRS), tmp_path / "pairs.json"
    result = run("annotate", source, target, "--by", reward.folder, "--as", "alpaca-farm")
    assert result.exit_code == 0, result.output
    assert "requests to a language model: 0" in result.stderr
    rows = json.loads(target.read_text())
    assert {row["annotator"] for row in rows} == {"kind"}
    assert [row["output_1"] for row in rows] == [first for first, _ in PAIRS]
    assert all(1 < row["preference"] < 2 for row in rows)
    assert rows[2]["preference"] == 1.5


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_run_that_is_killed_goes_on_and_asks_nothing_twice(server: JudgeServer, tmp_path: Path) -> None:
    """The process is killed by SIGKILL while the server holds its eighth request."""
    texts = [("a" * (number + 2), "b" * (number + 1)) for number in range(12)]
    source, target = answers(tmp_path, *texts), tmp_path / "pairs.jsonl"
    held: list[int] = []

    def hold(first: str, second: str) -> str:
        if len(server.bodies) == 8 and not held:
            held.append(1)
            block_until(lambda: process.poll() is not None)
        return "Output (a)" if len(first) < len(second) else "Output (b)"

    server.decide = hold
    options = ["--config", "evaluate/pref2A", "--yes", "--concurrency", "1"]
    command = ["judge", "annotate", str(source), str(target), "--by", server.url, "--model", "m", *options]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-m", "tureen_train", *command], env=environment)
    try:
        block_until(lambda: held or process.poll() is not None, START)
    finally:
        process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not target.exists()
    kept = tmp_path / "pairs.jsonl.judgements.jsonl"
    assert kept.read_bytes().count(b"\n") == 7
    result = annotate(server, source, target, *options)
    assert result.exit_code == 0, result.output
    assert "requests: 17 (verdicts that are known already: 7)" in result.stderr
    asked = Counter(json.dumps(body, sort_keys=True) for body in server.bodies)
    assert sorted(asked.values()) == [1] * 23 + [2]  # only the reply that the kill lost
    assert [each.answers[0][0]["content"] for each in Reading(target)] == [other for _, other in texts]


# --------------------------------------------------------------------------- evaluate


def evaluate(server: JudgeServer, out: Path, *arguments: str | Path) -> dict[str, Any]:
    result = run("evaluate", *arguments, "--by", server.url, "--model", "m", "--out", out, "--yes")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads((out / "results.json").read_text())
    return found


def test_methods_are_compared_by_their_prompts_and_a_swap_swaps_the_figures(
    server: JudgeServer, tmp_path: Path
) -> None:
    """RLPHF took the second file for the first, paired rows by their place, and lost ties of swapped rows."""
    one = method(tmp_path, "one", "a", "long answer", "x", "even", reverse=True)
    two = method(tmp_path, "two", "longer", "b", "yy", "same")
    for orders in ("once", "both"):
        options = ("--config", "pref2A", "--orders", orders)
        found = evaluate(server, tmp_path / orders, f"one={one}", two, *options)
        (pairing,) = found["pairings"]
        assert (pairing["first"], pairing["second"]) == ("one", "two")
        assert [pairing[name] for name in ("wins", "ties", "losses", "failed")] == [2, 1, 1, 0]
        assert pairing["win_rate"]["value"] == found["win_rates"]["one"]["value"] == 0.625
        turned = evaluate(server, tmp_path / orders, two, f"one={one}", *options)
        (other,) = turned["pairings"]
        assert [other[name] for name in ("wins", "ties", "losses", "failed")] == [1, 1, 2, 0]
        assert turned["win_rates"]["one"] == found["win_rates"]["one"]
        assert turned["spent"]["requests"] == 0
    rows = [json.loads(line) for line in (tmp_path / "once" / "verdicts.jsonl").read_text().splitlines()]
    assert [row["share"] for row in rows] == [0.0, 1.0, 0.0, 0.5]


def test_several_criteria_and_methods_are_judged_apart(server: JudgeServer, tmp_path: Path) -> None:
    files = [method(tmp_path, name, name * 2, name * 3) for name in ("a", "bb", "cccc")]
    found = evaluate(server, tmp_path / "out", *files, "--config", "pref2A", "--config", "annotate/pref2B")
    names = [(each["criterion"], each["first"], each["second"]) for each in found["pairings"]]
    two_of = [("a", "bb"), ("a", "cccc"), ("bb", "cccc")]
    assert names == [(criterion, *two) for criterion, two in product(("pref2A", "annotate/pref2B"), two_of)]
    assert [found["win_rates"][name]["value"] for name in ("a", "bb", "cccc")] == [1.0, 0.5, 0.0]
    assert found["prompts"] == 2


def test_files_that_cannot_be_compared_are_refused(server: JudgeServer, tmp_path: Path) -> None:
    one = method(tmp_path, "one", "a")
    for methods, told in (([one], "two methods or more"), ([one, one], "two are called 'one'")):
        result = run("evaluate", *methods, "--by", server.url, "--model", "m", "--yes")
        assert result.exit_code == 1
        assert told in result.stderr


# --------------------------------------------------------------------------- agree


def test_a_judges_labels_agree_with_those_of_people(server: JudgeServer, tmp_path: Path) -> None:
    source, labels = answers(tmp_path, *PAIRS), tmp_path / "labels.jsonl"
    assert annotate(server, source, labels, "--config", "evaluate/pref2A", "--yes").exit_code == 0
    rows = json.loads(source.read_text())
    people = [{**row, "preference": preference} for row, preference in zip(rows, (2, 2, 1.5, 1), strict=True)]
    (tmp_path / "people.json").write_text(json.dumps(people))
    result = run("agree", tmp_path / "people.json", "--by", labels, "--out", tmp_path / "agreement.json")
    assert result.exit_code == 0, result.output
    (row,) = json.loads((tmp_path / "agreement.json").read_text())
    figures = {name: figure["value"] for name, figure in row["figures"].items()}
    # they decide 2 pairs together, of which one is alike; one tie is alike, one meets a decision
    assert (figures["agreement"], figures["decided"]) == (2.5 / 4, 0.5)
    assert row["figures"]["agreement"]["n"] == 4
    assert "62.5 %" in result.stdout


def test_reward_models_and_policies_agree_with_labels_in_this_process(tmp_path: Path, base: Path) -> None:
    reward = tiny.reward(tmp_path / "reward", base, "kind", 1)
    source, labels = answers(tmp_path, *PAIRS), tmp_path / "labels.jsonl"
    assert run("annotate", source, labels, "--by", reward.folder).exit_code == 0
    out = tmp_path / "agreement.json"
    result = run("agree", labels, "--by", reward.folder, "--out", out)
    assert result.exit_code == 0, result.output
    (own,) = json.loads(out.read_text())
    assert own["figures"]["agreement"]["value"] == own["figures"]["kappa"]["value"] == 1
    nothing = run("agree", labels, "--by", method(tmp_path, "other", "a"))
    assert nothing.exit_code == 1
    assert "it has a verdict on none of the pairs" in nothing.stderr
    unlabelled = run("agree", source, "--by", labels)
    assert unlabelled.exit_code == 1
    assert "LABELS: no pair of answers has a label" in unlabelled.stderr


# --------------------------------------------------------------------------- configurations


def test_configurations_are_listed_and_shown(tmp_path: Path) -> None:
    listed = run("configurations").stdout.split()
    assert len(listed) == 27
    shown = run("show", "annotate/pref2A")
    assert "batch: 5" in shown.stdout
    path = tmp_path / "copy.yaml"
    path.write_text(shown.stdout)
    assert run("show", path).stdout == shown.stdout
    assert run("show", "pref9Z").exit_code == 1
