"""The command line against a real server."""

import json
from pathlib import Path
from typing import Any

import pytest
from client.standin import StandIn, free_url, refusal
from typer.main import get_command
from typer.testing import CliRunner, Result

from tureen import cli

PAIR = {"prompt": "Why?", "candidates": ["Because.", "No idea at all."]}


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")


def run(standin: StandIn, *arguments: str | Path, **options: Any) -> Result:
    return CliRunner().invoke(cli.app, [*map(str, arguments), "--url", standin.url], **options)


def test_the_commands_and_their_flags() -> None:
    commands = get_command(cli.app).commands  # type: ignore[attr-defined]
    flags = {
        name: sorted(option for parameter in command.params for option in parameter.opts if option.startswith("--"))
        for name, command in commands.items()
        if name != "batch"  # its commands are those of test_commands_batch
    }
    shared = {"--url", "--json"}
    making = {"--model", "--max-tokens", "--temperature", "--seed"}
    scoring = {"--reward", "--preference", "--normalize", "--truncate"}
    cutting = {"--format", "--pairs", "--ties", "--tie-margin", "--min-margin", "--min-probability", "--seed"}
    reading = {"--form", "--map"}
    assert {name: set(each) - shared for name, each in flags.items()} == {
        "score": {*scoring, *reading, "--file"},
        "label": {*scoring, *reading, *cutting, "--fail", "--run", "--parallel", "--restart", "--outage"},
        "chat": {*making, "--preference", "--normalize", "--desired-reward", "--preset"},
        "sweep": {*making, "--from", "--to", "--steps", "--score", "--reward"},
        "bench": {
            *(scoring | reading | making),
            *("--file", "--to", "--rate", "--concurrency", "--seconds", "--requests", "--timeout", "--within"),
            *("--words", "--candidates", "--plot"),
        }
        - {"--temperature", "--normalize"},
        "weights": {*reading, "--reward", "--truncate", "--level", "--width", "--preset"},
        "models": set(),
        "health": {"--wait"},
    }
    assert all(shared <= set(each) for each in flags.values())


def test_score_shows_a_table(standin: StandIn) -> None:
    result = run(standin, "score", "Why?", "Because.", "No idea.", "-r", "length", "-p", "length=1")
    assert result.exit_code == 0
    assert "Because." in result.stdout
    assert "-0.40 (8.00)" in result.stdout
    items = [{"prompt": "Why?", "candidates": ["Because.", "No idea."]}]
    assert standin.seen[0].json == {"items": items, "rewards": ["length"], "preferences": {"length": 1.0}}


def test_weights_are_sent_as_given_if_that_is_asked_for(standin: StandIn) -> None:
    run(standin, "score", "Why?", "Because.", "-p", "length=1", "-p", "words=-0.5", "--normalize", "none")
    assert standin.seen[-1].json["normalize"] == "none"
    assert standin.seen[-1].json["preferences"] == {"length": 1.0, "words": -0.5}
    run(standin, "chat", "Hello", "-p", "academy=1.5", "-p", "business=-0.5", "--normalize", "none")
    assert standin.seen[-1].json["soup"] == {"normalize": "none"}


@pytest.mark.parametrize(("name", "content"), [("a.json", json.dumps([PAIR])), ("a.jsonl", json.dumps(PAIR) + "\n")])
def test_score_reads_files_and_prints_json(standin: StandIn, tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    result = run(standin, "score", "--file", tmp_path / name, "--json")
    reply = json.loads(result.stdout)
    assert reply["data"][0]["candidates"][0]["scores"]["length"]["raw"] == 8.0
    assert reply["fingerprint"] == standin.fingerprint


def test_score_echoes_ids_and_does_not_send_them(standin: StandIn, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({**PAIR, **more}) + "\n" for more in ({"id": "leaves"}, {"id": 7}, {})))
    reply = json.loads(run(standin, "score", "--file", path, "--json").stdout)
    assert [(row["index"], row.get("id")) for row in reply["data"]] == [(0, "leaves"), (1, 7), (2, None)]
    assert standin.seen[0].json["items"] == [PAIR] * 3
    shown = run(standin, "score", "--file", path).stdout
    assert [name in shown for name in (" leaves ", " 7 ", " 2 ")] == [True] * 3


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_file_is_said(standin: StandIn, tmp_path: Path, content: str) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(content)
    result = run(standin, "score", "--file", path)
    assert (result.exit_code, standin.seen) == (1, [])
    assert result.stderr.startswith(f"tureen: {path} holds no items; write one item per line, as {{")


def test_chat_streams_one_answer(standin: StandIn) -> None:
    result = run(standin, "chat", "Hello", "-p", "academy=0.6", "-p", "business=0.4", "--seed", "3")
    assert result.stdout == "0.6academy+0.4business says Hello\n"
    assert standin.seen[0].json == {
        "messages": [{"role": "user", "content": "Hello"}],
        "preferences": {"academy": 0.6, "business": 0.4},
        "seed": 3,
        "stream": True,
    }


def test_chat_with_json_prints_the_reply(standin: StandIn) -> None:
    result = run(standin, "chat", "Hello", "--json", "--preset", "playful")
    assert json.loads(result.stdout)["choices"][0]["message"]["content"] == "plain says Hello"
    assert standin.seen[0].json["preset"] == "playful"


def test_chat_asks_for_rewards(standin: StandIn) -> None:
    assert run(standin, "chat", "Hello", "-d", "helpful=1.5", "-d", "harmless=-0.4").exit_code == 0
    assert standin.seen[0].json["desired_rewards"] == {"helpful": 1.5, "harmless": -0.4}


def test_chat_remembers_what_was_said(standin: StandIn) -> None:
    result = run(standin, "chat", input="Hello\nAnd now?\n")
    assert result.exit_code == 0
    assert "plain says Hello\n" in result.stdout
    assert standin.seen[1].json["messages"] == [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "plain says Hello"},
        {"role": "user", "content": "And now?"},
    ]


def test_sweep_shows_a_line_for_each_mixture(standin: StandIn) -> None:
    result = run(standin, "sweep", "Hello", "--from", "academy", "--to", "business", "--steps", "3", "--score")
    lines = [line for line in result.stdout.splitlines() if "says" in line]
    assert ["academy=1" in lines[0], "academy=0.5" in lines[1], "academy=0" in lines[2]] == [True] * 3
    assert "0.5academy+0.5business says Hello" in lines[1]
    assert "(33.00)" in lines[1]  # its length


def test_sweep_with_json_prints_its_rows(standin: StandIn) -> None:
    arguments = ("sweep", "Hello", "--from", "academy", "--to", "business", "--steps", "2", "--json")
    rows = json.loads(run(standin, *arguments, "--score", "-r", "length").stdout)
    assert [row["preferences"] for row in rows] == [{"academy": 1, "business": 0}, {"academy": 0, "business": 1}]
    assert [row["scores"]["length"]["raw"] for row in rows] == [len(row["text"]) for row in rows]
    assert standin.seen[1].json["rewards"] == ["length"]
    assert [row["scores"] for row in json.loads(run(standin, *arguments).stdout)] == [None, None]


@pytest.mark.parametrize("steps", [2, 3, 7, 64])
def test_a_line_of_weights_runs_from_one_end_to_the_other(steps: int) -> None:
    line = cli.make_sweep_weights("a", "b", steps)
    assert (line[0], line[-1], len(line)) == ({"a": 1.0, "b": 0.0}, {"a": 0.0, "b": 1.0}, steps)
    assert all(abs(sum(weights.values()) - 1) < 1e-5 for weights in line)


def test_models_as_table_and_json(standin: StandIn) -> None:
    assert "academy, business" in run(standin, "models").stdout
    assert [card["id"] for card in json.loads(run(standin, "models", "--json").stdout)["data"]] == ["length", "smol"]


def test_health_says_ready_or_why_not(standin: StandIn) -> None:
    assert run(standin, "health").stdout == f"{standin.url} is ready\n"
    assert json.loads(run(standin, "health", "--json").stdout) == {"ready": True, "url": standin.url}
    standin.fail(refusal(503, "model_loading", "the models are loading"))
    result = run(standin, "health")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "tureen: the server is not ready: the models are loading\n"


def test_health_can_wait(standin: StandIn) -> None:
    standin.fail(refusal(503, "model_loading"))
    assert run(standin, "health", "--wait", "30").exit_code == 0


def test_errors_are_one_sentence_with_the_requests_id(standin: StandIn) -> None:
    standin.fail(refusal(422, "unknown_objective", "unknown objective 'humor'", param="preferences.humor"))
    result = run(standin, "chat", "Hello", "-p", "humor=1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "tureen: unknown objective 'humor' (request req-7)\n"


def test_nobody_there_says_how_to_start_a_server() -> None:
    result = CliRunner().invoke(cli.app, ["models", "--url", free_url()])
    assert result.exit_code == 1
    assert "tureen-serve --starter" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", "only a prompt"], "give a prompt and one or more answers, or --file"),
        (["score"], "give a prompt and one or more answers, or --file"),
        (["score", "p", "--file", __file__], "give a prompt and one or more answers, or --file"),
        (["score", "p", "a", "--file", __file__], "give a prompt and one or more answers, or --file"),
        (["score", "p", "a", "-p", "academy"], "'academy' is not a weight: write it as"),
        (["score", "p", "a", "-p", "academy=much"], "'academy=much' is not a weight: write it"),
        (["score", "p", "a", "-p", "a=1", "-p", "a=2"], "'a' has two weights; give one"),
        (["score", "p", "a", "--normalize", "none"], "say which weights with -p"),
        (["score", "p", "a", "-p", "a=1", "-p", "b=-0.5"], "'b' is negative: add --normalize none"),
        (["chat", "p", "-d", "a"], "'a' is not a reward: write it as"),
        (["score", "--file", "/no/such/file"], "does not exist"),
        (["chat", "--json"], "--json needs a prompt"),
        (["sweep", "p", "--from", "a", "--to", "a"], "name the same objective"),
        (["sweep", "p", "--from", "a", "--to", "b", "--steps", "1"], "greater than or equal to 2"),
    ],
)
def test_wrong_usage_exits_with_2(standin: StandIn, arguments: list[str], message: str) -> None:
    result = run(standin, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert standin.seen == []
