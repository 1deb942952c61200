"""Models that compare two answers, over tiny artifacts in process; tests/journeys holds a server against them."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from train.tiny_runs import records

from tureen.records.dialogue import assistant_turn, user_turn
from tureen.records.schema import BadRecord
from tureen_core.artifact import Artifact, ArtifactError, seal_artifact
from tureen_core.calibration import Calibration, compute_sigmoid
from tureen_core.manifest import Input, Probe
from tureen_core.tournament import compute_preference, rank_round_robin
from tureen_train.evaluation.comparison_report import compare_folders
from tureen_train.evaluation.evaluate import evaluate_model, load_items
from tureen_train.evaluation.items import Item
from tureen_train.evaluation.objectives import ScoredItem
from tureen_train.evaluation.pairwise_models import (
    describe_comparisons,
    is_flipped,
    measure_position_bias,
    read_sides,
    score_comparisons,
)
from tureen_train.evaluation.scorers import ArtifactScorer, open_scorer
from tureen_train.networks.reward_reader import RewardReader, ignore_progress

TEMPERATURE = 1.7
PROMPT = (user_turn("why?"),)
ANSWERS = tuple((assistant_turn(text),) for text in ("a fox", "a dog", "leaves"))
ITEMS = [
    Item("two", PROMPT, ANSWERS[:2], (1, 0)),
    Item("one", PROMPT, ANSWERS[:1], (1,)),
    Item("three", PROMPT, ANSWERS, (0, 1, 0)),
    Item("equal", PROMPT, (ANSWERS[0], ANSWERS[0]), (1, 0)),
    Item(
        "whole",
        (),
        ((user_turn("x"), assistant_turn("y")), (user_turn("p"), assistant_turn("q"))),
        (1, 0),
    ),
    Item("long", PROMPT, ((assistant_turn("leaves " * 200),), (assistant_turn("fall"),)), (0, 1)),
]


def comparer(folder: Path, base: Path, name: str = "duel", seed: int = 1, reads: Input = "pair") -> Artifact:
    """A sealed artifact that reads something else than conversations, with a temperature."""
    manifest = tiny.reward(folder / name, base, name, seed).manifest
    scaled = manifest.objectives[0].model_copy(update={"calibration": Calibration(temperature=TEMPERATURE)})
    return seal_artifact(folder / name, manifest.model_copy(update={"input": reads, "objectives": [scaled]}))


def test_a_model_of_pairs_has_no_place_for_tools(base: Path, tmp_path: Path) -> None:
    tools = {"tools": [{"type": "function", "function": {"name": "f"}}]}
    item = replace(ITEMS[0], template_arguments=tools)
    with (
        open_scorer(str(comparer(tmp_path, base).folder)) as scorer,
        pytest.raises(BadRecord, match="two: cannot .* pair has no place for `tools`"),
    ):
        scorer.score([item], ignore_progress)


def table(count: int, seed: int, size: float = 1.0) -> list[list[float]]:
    """Comparisons of some answers, every one read twice."""
    logits = np.random.default_rng(seed).normal(size=count * (count - 1)) * size
    return read_sides(count, logits.tolist())


def test_two_answers_differ_by_the_log_odds_of_both_orders_mean() -> None:
    forward, backward = 1.3, 0.4
    first, second = score_comparisons(read_sides(2, [forward, backward]), cut=False).rewards
    sure = compute_preference(forward, backward)
    assert first - second == pytest.approx(math.log(sure / (1 - sure)))
    assert first == pytest.approx(-second)


@pytest.mark.parametrize("lean", [-7.3, 0.0, 0.1, 3.7, 12.1, 40.0])
def test_the_same_number_in_both_orders_is_a_tie(lean: float) -> None:
    assert score_comparisons(read_sides(2, [lean, lean]), cut=False).rewards == [0, 0]


def test_more_answers_rank_as_the_round_robin_does() -> None:
    for seed in range(20):
        sides = table(5, seed, 3.0)
        standing = rank_round_robin(5, lambda i, j, sides=sides: (sides[i][j] + 1 - sides[j][i]) / 2)  # type: ignore[misc]
        rewards = score_comparisons(sides, cut=False).rewards
        assert sorted(range(5), key=lambda place: -rewards[place]) == standing.ranking


def test_near_one_half_margins_are_the_least_squares_fit_of_all_log_odds() -> None:
    """The fit of rᵢ − rⱼ to all log-odds, whose solution is each one's mean over all, itself included."""
    sides = table(4, 3, 1e-3)
    odds = np.array([[(sides[i][j] - sides[j][i]) * 2 for j in range(4)] for i in range(4)])  # ln p/(1−p) near ½
    assert score_comparisons(sides, cut=False).rewards == pytest.approx(odds.mean(axis=1).tolist(), rel=1e-3)


def test_equal_answers_among_others_stand_level() -> None:
    """The first and the third are one text: what is read of them is the same, at either end of the table."""
    ab, ba, same = 2.3, -0.7, 1.1
    rewards = score_comparisons(read_sides(3, [ab, ba, same, same, ba, ab]), cut=False).rewards
    assert rewards[0] == rewards[2]


def test_certain_comparisons_stay_finite() -> None:
    rewards = score_comparisons(read_sides(3, [900, -900, 900, -900, 900, -900]), cut=False).rewards
    assert rewards == sorted(rewards, reverse=True)
    assert all(math.isfinite(reward) for reward in rewards)


def test_position_bias_is_the_share_of_pairs_whose_verdict_turns_with_the_order() -> None:
    leaning, clear, even = (score_comparisons(read_sides(2, logits), cut=False) for logits in ([2, 1], [2, -1], [0, 0]))
    assert [is_flipped(each.sides, 0, 1) for each in (leaning, clear, even)] == [True, False, False]
    two = ITEMS[0]
    figure = measure_position_bias([two] * 4, [leaning, clear, even, leaning])["flips"]
    assert (figure.value, figure.n) == (0.5, 4)
    assert figure.low < 0.5 < figure.high
    triple = score_comparisons(
        read_sides(3, [2, 1, 2, -1, -3, -1]), cut=False
    )  # of its comparable pairs, (1, 0) and (1, 2) flip
    assert measure_position_bias([ITEMS[2]], [triple])["flips"].value == 1
    assert measure_position_bias([two], [ScoredItem([1, 0], [1, 0], [False, False])]) == {}
    assert describe_comparisons([ScoredItem([1, 0], [1, 0], [False, False])]) == []


def test_an_artifact_gives_what_its_reader_gives_in_both_orders(base: Path, tmp_path: Path) -> None:
    artifact = comparer(tmp_path, base)
    reader = RewardReader(artifact.folder, base, artifact.manifest.reading)
    seen: list[int] = []
    with open_scorer(str(artifact.folder), batch=3) as scorer:
        two, one, three, equal, whole, long = scorer.score(ITEMS, seen.append)

    def sure(item: Item, i: int, j: int) -> float:
        talks = item.conversations
        probes = [Probe(messages=list(talks[a]), rival=list(talks[b])) for a, b in ((i, j), (j, i))]
        (forward,), (backward,) = reader.score_probes(probes, "pair")
        return compute_preference(forward, backward, TEMPERATURE)

    for item, each in ((ITEMS[0], two), (ITEMS[4], whole)):
        assert compute_sigmoid(each.rewards[0] - each.rewards[1]) == pytest.approx(sure(item, 0, 1), abs=1e-5)
        assert each.logits == each.rewards
    standing = rank_round_robin(3, lambda i, j: sure(ITEMS[2], i, j))
    wanted = [2 / 3 * math.log(strength / (1 - strength)) for strength in standing.strength]
    assert three.rewards == pytest.approx(wanted, abs=1e-4)
    assert one.rewards == [0]
    assert equal.rewards == pytest.approx([0, 0], abs=1e-5)
    assert [any(each.truncated) for each in (two, one, three, equal, whole, long)] == [False] * 5 + [True]
    assert sum(seen) == sum(len(item.answers) for item in ITEMS)
    assert scorer.about["comparisons"] == "of all pairs of answers, each in both orders"


def test_evaluations_tell_of_flips_and_ties_and_stand_side_by_side(base: Path, tmp_path: Path) -> None:
    loaded = load_items("pairs", [records(tmp_path)])
    for seed, name in enumerate(("one", "other")):
        with open_scorer(str(comparer(tmp_path, base, name, seed).folder)) as scorer:
            found = evaluate_model(scorer, loaded, "pairs", tmp_path / f"of-{name}")
        assert 0 <= found.figures["flips"].value <= 1
        assert found.figures["flips"].n == found.figures["margin"].n
        assert found.figures["ece"].value == found.figures["ece_scaled"].value
        assert any(note.startswith("16 of 24 items have more than two answers") for note in found.notes)
        assert "verdicts that change with the order" in (tmp_path / f"of-{name}" / "report.md").read_text()
    page = compare_folders([tmp_path / "of-one", tmp_path / "of-other"], tmp_path / "both").read_text()
    assert "verdicts that change with the order" in page


def test_what_was_cut_is_told_of_answers(base: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "p", "chosen": "leaves " * 300, "rejected": "x", "subset": "math-prm", "id": 1}] * 2
    (tmp_path / "v1.jsonl").write_text("\n".join(map(json.dumps, rows)))
    loaded = load_items("rewardbench", [tmp_path / "v1.jsonl"])
    with open_scorer(str(comparer(tmp_path, base).folder)) as scorer:
        found = evaluate_model(scorer, loaded, "rewardbench", tmp_path / "out")
    assert "4 of 4 answers are in pairs that were cut to 256 tokens" in found.notes


def test_steps_are_refused_and_pairs_where_answers_are_read_alone(base: Path, tmp_path: Path) -> None:
    steps = comparer(tmp_path, base, "proof", reads="steps")
    with (
        pytest.raises(ArtifactError, match="proof is of kind reward with the input steps"),
        open_scorer(str(steps.folder)),
    ):
        pass
    with pytest.raises(ArtifactError, match="duel is of kind reward with the input pair"):
        ArtifactScorer(comparer(tmp_path, base).folder, None, None, 1)


def test_a_weight_of_the_only_objective_changes_nothing(base: Path, tmp_path: Path) -> None:
    artifact = comparer(tmp_path, base)
    with open_scorer(str(artifact.folder)) as plain, open_scorer(str(artifact.folder), None, {"duel": 3}) as weighed:
        assert (
            plain.score(ITEMS[:1], ignore_progress)[0].rewards == weighed.score(ITEMS[:1], ignore_progress)[0].rewards
        )
