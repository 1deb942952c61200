"""Records that leave nothing to learn from end a run before its first step; single such pairs are left out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from train.rated_runs import attributes_run, rated, trained
from train.tiny_runs import BAD, GOOD, expert_run, merged, records, reward_run

from tureen.records.dialogue import assistant_turn, user_turn
from tureen.records.schema import Record
from tureen_core.base import load_tokenizer
from tureen_core.template import Renderer
from tureen_train.config import ExpertRun, RecipeError, RewardRun
from tureen_train.kinds import train_run
from tureen_train.rewards.collate import EncodedRecords, collate_answers
from tureen_train.rewards.gate_fit import find_pairs
from tureen_train.rewards.losses import find_comparable
from tureen_train.rewards.rated_records import RatedRecords

CASES = Path(__file__).parents[1] / "cases" / "records"
TIES, CUT = "all-ties.jsonl", "equal-after-cut.jsonl"
REWARDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "full": {"model": {"lora": None}},
    "probe": {"model": {"head": "probe"}},
    "odin": {"loss": {"method": "odin"}},
    "span": {"loss": {"read": "span", "span_padding": "published"}},
    "capped": {"loss": {"constraint": {"prior": "fixed"}}},
    "imitating": {"loss": {"lm_coefficient": 0.1}},
    "pair": {"loss": {"method": "pair"}},
    "pair, ties too": {"loss": {"method": "pair", "ties": "half"}},
}


def run_on(base: Path, folder: Path, case: str, **changes: Any) -> RewardRun:
    reads = {"max_length": 128}
    if changes.get("loss", {}).get("method") != "pair":
        reads["truncation"] = "right"  # type: ignore[assignment]
    settings = {"data": {"train": [{"path": str(CASES / case)}], "holdout": 0}, "reading": reads}
    return reward_run(base, folder, **merged(settings, changes))


def refuse(run: RewardRun | ExpertRun, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        train_run(run)
    left = {path.name for path in Path(run.output).iterdir()} if Path(run.output).exists() else set()
    assert not left & {"history.jsonl", "model", "artifact"}  # no step was made


@pytest.mark.parametrize("changes", REWARDS.values(), ids=REWARDS)
def test_records_that_all_tie_are_refused(base: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    refuse(run_on(base, tmp_path, TIES, **changes), "no record has two answers with different scores")


@pytest.mark.parametrize("changes", REWARDS.values(), ids=REWARDS)
def test_pairs_that_are_equal_after_the_cut_are_refused(base: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    words = r"of 8 pairs none is left to train on: 8 equal after the cut; raise max_length"
    refuse(run_on(base, tmp_path, CUT, **changes), words)


@pytest.mark.parametrize(("case", "message"), [(TIES, "two answers with different scores"), (CUT, "no prompt fits")])
def test_an_expert_is_refused_too(base: Path, tmp_path: Path, case: str, message: str) -> None:
    data = {"train": [{"path": str(CASES / case)}], "holdout": 0}
    refuse(expert_run(base, tmp_path, data=data, policy={"max_length": 128}), message)


def test_an_experts_pairs_that_trl_cuts_to_one_text_are_left_out(base: Path, tmp_path: Path) -> None:
    """The probe fits, so the run is stopped by its pairs."""
    short = records(tmp_path, count=1)
    data = {"train": [{"path": str(CASES / CUT)}], "eval": {"short": {"path": str(short)}}, "eval_whole": True}
    run = expert_run(base, tmp_path, data={**data, "holdout": 0}, policy={"max_length": 128})
    refuse(run, "of 8 pairs none is left to train on: 8 equal after the cut; raise max_length")


@pytest.mark.parametrize(
    ("case", "message"), [(TIES, "no record has two answers"), (CUT, "no record is left in which it is known")]
)
def test_a_gate_is_refused_too(base: Path, tmp_path: Path, case: str, message: str) -> None:
    start = trained(attributes_run(base, tmp_path))
    changes = {"loss": {"method": "gate", "width": 8, "depth": 1}, "model": {"start": str(start.folder)}}
    refuse(run_on(base, tmp_path, case, **changes, objective="overall", cache=str(tmp_path / "cache")), message)


@pytest.mark.parametrize("fit", ["gradient", "ridge"])
def test_attributes_that_all_answers_share_are_refused(base: Path, tmp_path: Path, fit: str) -> None:
    rows = [
        {**json.loads(line), "foxes": 3, "verbosity": 1, "rare": 2} for line in rated(tmp_path).read_text().splitlines()
    ]
    (tmp_path / "same.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"train": [{"path": str(tmp_path / "same.jsonl")}]}
    refuse(attributes_run(base, tmp_path, data=data, loss={"fit": fit}), r"the same ratings \(foxes 3, verbosity 1")


@pytest.mark.parametrize("targets", ["process", "outcome"])
def test_steps_that_are_all_right_are_refused(base: Path, tmp_path: Path, targets: str) -> None:
    row = {"prompt": "why?", "completions": [GOOD, GOOD], "labels": [True, True]}
    (tmp_path / "steps.jsonl").write_text(f"{json.dumps(row)}\n" * 4)
    data = {"train": [{"path": str(tmp_path / "steps.jsonl")}], "holdout": 0}
    refuse(reward_run(base, tmp_path, data=data, loss={"method": "steps", "targets": targets}), "every label is 1")


# --------------------------------------------------------------------------- single pairs


def record(*texts: str, scores: tuple[float, ...], prompt: str = "why?") -> Record:
    return Record((user_turn(prompt),), tuple((assistant_turn(text),) for text in texts), scores)


def encoded(base: Path, *given: Record) -> EncodedRecords:
    return EncodedRecords(given, Renderer(load_tokenizer(base), tiny.reading(base, max_length=40, truncation="right")))


LONG = " ".join([BAD] * 40)


def test_a_pair_of_equal_texts_counts_nowhere_and_the_others_of_its_prompt_do(base: Path) -> None:
    one = record(f"{LONG} end", LONG, GOOD, scores=(3.0, 2.0, 1.0))
    found = encoded(base, one, record(f"{LONG} end", LONG, scores=(1.0, 0.0)))
    assert (found.items[0].pairs, found.items[0].equal_pairs, found.items[0].texts) == ([(0, 2), (1, 2)], 1, [0, 0, 2])
    found.leave_out_equal()
    found.leave_out_equal()
    assert len(found) == 1
    assert (found.report.kept, found.report.left_out) == (2, {"equal after the cut": 2})
    batch = collate_answers(found.items, 3, 0)
    pairs = find_comparable(batch["scores"][0], batch["group"], batch["texts"])
    assert pairs.nonzero().tolist() == [[0, 2], [1, 2]]
    assert find_pairs(found).tolist() == [[0, 2, 0], [1, 2, 0]]


def test_answers_of_one_text_with_two_ratings_lose_them(base: Path) -> None:
    renderer = Renderer(load_tokenizer(base), tiny.reading(base, max_length=40, truncation="right"))
    texts = tuple((assistant_turn(text),) for text in (f"{LONG} end", LONG, GOOD, f"{GOOD} fox"))
    ratings = {"liked": (1.0, 2.0, 3.0, float("nan"))}
    found = RatedRecords(
        [Record((user_turn("why?"),), texts, (1.0, 1.0, 1.0, 1.0), attributes=ratings)], renderer, ["liked"]
    )
    found.leave_out_equal()
    np.testing.assert_array_equal(found.ratings[:, 0], [np.nan, np.nan, 3.0, np.nan])
    assert (found.report.kept, found.report.left_out) == (1, {"equal after the cut": 2})


def mixed(folder: Path, bad: int) -> Path:
    """Twenty pairs, of which ``bad`` are equal after a cut at the right to 40 tokens."""
    rows = [
        {"prompt": f"prompt {n}", "chosen": f"{LONG} a" if n < bad else GOOD, "rejected": LONG if n < bad else BAD}
        for n in range(20)
    ]
    path = folder / "mixed.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_what_is_left_out_is_told_in_the_report(base: Path, tmp_path: Path) -> None:
    data = {"train": [{"path": str(mixed(tmp_path, 2))}], "holdout": 0}
    run = reward_run(base, tmp_path, data=data, reading={"max_length": 40, "truncation": "right"})
    assert train_run(run) is not None
    told = json.loads((Path(run.output) / "account.json").read_text())["texts"]["training"]
    assert told == {"unit": "pairs", "kept": 18, "left_out": {"equal after the cut": 2}, "truncated": 4}
    assert "| training | 18 pairs | 2 equal after the cut | 4 |" in (Path(run.output) / "report.md").read_text()


def test_more_than_a_tenth_of_the_pairs_must_be_asked_for(base: Path, tmp_path: Path) -> None:
    data = {"train": [{"path": str(mixed(tmp_path, 3))}], "holdout": 0}
    reading = {"max_length": 40, "truncation": "right"}
    refuse(reward_run(base, tmp_path, data=data, reading=reading), r"3 of 20 pairs are left out .*data\.most_dropped")
    asked = reward_run(base, tmp_path, data={**data, "most_dropped": 0.2}, reading=reading)
    assert train_run(asked) is not None


def test_the_loss_is_that_of_the_pairs_that_differ(base: Path, tmp_path: Path) -> None:
    """Two runs, with the equal pairs in the file and without them, are one."""
    losses = []
    for name, bad in (("with", 1), ("without", 0)):
        folder = tmp_path / name
        folder.mkdir()
        path = mixed(folder, 1)
        if not bad:
            path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
        data = {"train": [{"path": str(path)}], "holdout": 0}
        run = reward_run(base, folder, data=data, reading={"max_length": 40, "truncation": "right"})
        assert train_run(run) is not None
        lines = (Path(run.output) / "history.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines if '"loss"' in line])
    assert losses[0] == losses[1]
    assert torch.tensor(losses[0]).unique().numel() > 1
