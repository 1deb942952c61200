"""``tureen-train weights``: choices in a file, by artifacts or by the rewards that the file has."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from typer.testing import CliRunner, Result

from tureen.records.dialogue import assistant_turn, user_turn
from tureen_core.weight_fit import fit_weights
from tureen_train.__main__ import app
from tureen_train.evaluation.items import Item
from tureen_train.evaluation.scorers import open_scorer
from tureen_train.networks.reward_reader import ignore_progress

PAIRS = [
    {"prompt": "why?", "chosen": "a fox", "rejected": "a dog"},
    {"prompt": "what?", "chosen": "leaves fall", "rejected": "no"},
]


def call(folder: Path, rows: list[Any], *flags: object) -> Result:
    path = folder / "choices.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return CliRunner().invoke(app, ["weights", str(path), *map(str, flags)], env={"COLUMNS": "200"})


def test_rewards_in_a_file_give_a_persons_weights(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for first, second in rng.standard_normal((60, 2, 2)).tolist():
        gap = 0.7 * (first[0] - second[0]) + 0.3 * (first[1] - second[1])
        won, lost = (first, second) if rng.random() < 1 / (1 + np.exp(-5 * gap)) else (second, first)
        rows.append(
            {
                f"{side}_rewards": {"helpful": row[0], "brief": row[1]}
                for side, row in (("chosen", won), ("rejected", lost))
            }
        )
    result = call(tmp_path, rows, "--json")
    assert result.exit_code == 0, result.output
    fit = json.loads(result.stdout)
    assert fit["weights"]["helpful"] == pytest.approx(0.7, abs=0.1)
    assert "presets: {mine: {brief: 0.2" in call(tmp_path, rows).output


def test_artifacts_score_the_texts_and_their_calibration_counts(base: Path, tmp_path: Path) -> None:
    one = tiny.reward(tmp_path / "one", base, "one", 1).folder
    two = tiny.reward(tmp_path / "two", base, "two", 2, objectives=["a", "b"]).folder
    result = call(tmp_path, PAIRS, "--reward", one, "--reward", f"{two}#b", "--json")
    assert result.exit_code == 0, result.output
    chosen: list[dict[str, float]] = [{}, {}]
    rejected: list[dict[str, float]] = [{}, {}]
    for model, objective in ((one, None), (two, "b")):
        with open_scorer(str(model), objective) as scorer:
            name = scorer.about["objective"]
            for side, rows in (("chosen", chosen), ("rejected", rejected)):
                items = [
                    Item(str(at), (user_turn(pair["prompt"]),), ((assistant_turn(pair[side]),),), (1,))
                    for at, pair in enumerate(PAIRS)
                ]
                for row, scored in zip(rows, scorer.score(items, ignore_progress), strict=True):
                    row[name] = scored.rewards[0]
    wanted = fit_weights(chosen, rejected).weights
    assert json.loads(result.stdout)["weights"] == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "--reward: name two or more rewards"),
        (("--reward", "{one}", "--reward", "{one}"), "two are called 'one'"),
        (("--reward", "{one}", "--reward", "{two}"), "write the objective after a #"),
        (("--reward", "{one}", "--reward", "{two}#c"), "no reward 'c'"),
    ],
)
def test_rewards_that_cannot_be_used_are_refused(
    base: Path, tmp_path: Path, flags: tuple[str, ...], words: str
) -> None:
    folders = {
        "one": tiny.reward(tmp_path / "one", base, "one", 1).folder,
        "two": tiny.reward(tmp_path / "two", base, "two", 2, objectives=["a", "b"]).folder,
    }
    result = call(tmp_path, PAIRS, *(flag.format(**folders) for flag in flags))
    assert result.exit_code == 1
    assert words in result.output


def test_a_file_with_rewards_takes_no_others(tmp_path: Path) -> None:
    rows = [{"chosen_rewards": {"a": 1, "b": 0}, "rejected_rewards": {"a": 0, "b": 0}}]
    assert "the file has rewards already" in call(tmp_path, rows, "--reward", "x").output
