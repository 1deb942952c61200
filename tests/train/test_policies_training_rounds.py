"""Runs in rounds on a tiny model: their files, and that a run broken at any point goes on to the same ones."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from train import tiny_rounds
from train.tiny_rounds import METER, Meter, rounds_run
from train.tiny_runs import history, untimed

from tureen_core.artifact import open_artifact
from tureen_train.config import ExpertRun, RecipeError
from tureen_train.policies import iterative_dpo, training_rounds
from tureen_train.policies.rollouts.rounds import REWARDS, SAMPLES
from tureen_train.policies.rollouts.sampler import ProcessSampler
from tureen_train.policies.run import train_policy


def metered(base: Path, folder: Path, **changes: Any) -> ExpertRun:
    """Two rounds of iterative DPO, whose reward is the meter, with a checkpoint at each step and at the end."""
    folder.mkdir(exist_ok=True)
    changes = {"rewards": [METER], "sampling": {"count": 3, "batch": 12}, "watch": {"save_every": 1}, **changes}
    return rounds_run(base, folder, "iterative-dpo", **changes)


def trained(run: ExpertRun, resume: bool = False) -> Path:
    assert train_policy(run, resume) is not None
    return Path(run.output)


def files_of(folder: Path) -> dict[str, Any]:
    """What a run leaves, without the times in it."""
    rounds = folder / "rounds"
    found: dict[str, Any] = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in (*rounds.rglob("*.json*"), folder / "held_answers.jsonl")
        if "model" not in path.parts
    }
    found = {name: value for name, value in found.items() if "training/" not in name}
    for place in rounds.glob("*/training"):
        found[str(place.relative_to(folder))] = untimed(place)
    for path in (*rounds.glob("*/model/*.safetensors"), folder / "artifact" / "adapter_model.safetensors"):
        found[str(path.relative_to(folder))] = {name: each.tolist() for name, each in load_file(path).items()}
    found["history"] = untimed(folder)
    found["metrics"] = json.loads((folder / "metrics.json").read_text())
    return found


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> Meter:
    made = Meter()
    monkeypatch.setattr(tiny_rounds, "meter", made)
    return made


@pytest.fixture(scope="module")
def straight(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Counter[str]]:
    """A run that nothing broke, and the answers that it rewarded."""
    with pytest.MonkeyPatch.context() as patch:
        made = Meter()
        patch.setattr(tiny_rounds, "meter", made)
        folder = trained(metered(base, tmp_path_factory.mktemp("straight")))
    return folder, made.seen


def test_a_round_is_a_folder_that_tells_what_was_kept_and_why(straight: tuple[Path, Counter[str]]) -> None:
    folder, _ = straight
    for number in ("001", "002"):
        place = folder / "rounds" / number
        kept = [json.loads(line) for line in (place / "kept.jsonl").read_text().splitlines()]
        about = json.loads((place / "round.json").read_text())
        assert about["kept"] == len(kept) > 0
        assert about["answers"] == 3 * about["prompts"] == 3 * len((place / "prompts.jsonl").read_text().splitlines())
        assert about["kept"] + sum(about["left_out"].values()) == about["prompts"]
        assert all(row["why"].startswith("the best and the worst of 3, ") for row in kept)
        assert all(row["score_chosen"] > row["score_rejected"] for row in kept)
        assert about["trained"] is True


def test_the_log_has_figures_of_each_round_and_the_steps_of_all(straight: tuple[Path, Counter[str]]) -> None:
    folder, _ = straight
    entries = history(folder)
    starts = [entry for entry in entries if "kept_share" in entry]
    assert [entry["round"] for entry in starts] == [1, 2]
    assert starts[0]["kl_per_token"] == 0 < abs(starts[1]["kl_per_token"])
    assert {"reward", "reward_std", "reward_meter", "length", "unfinished", "distinct_2"} <= starts[0].keys()
    steps = [entry["step"] for entry in entries]
    assert steps == sorted(steps)
    assert starts[1]["step"] == max(entry["step"] for entry in entries if entry["round"] == 1) > 0


def test_held_out_prompts_are_answered_before_and_after(straight: tuple[Path, Counter[str]]) -> None:
    folder, _ = straight
    metrics = open_artifact(folder / "artifact").manifest.training.metrics["heldout"]
    assert {"reward_before", "reward_after", "length_before", "length_after", "kl_per_token_after"} <= metrics.keys()
    assert metrics["kl_per_token_before"] == 0
    rows = [json.loads(line) for line in (folder / "held_answers.jsonl").read_text().splitlines()]
    for when in ("before", "after"):
        written = (folder / f"rounds/{when}/heldout/samples.jsonl").read_text().splitlines()
        assert [row[when]["text"] for row in rows] == [json.loads(line)["answers"][0]["text"] for line in written]
        mean = sum(row[when]["total"] for row in rows) / len(rows)
        assert mean == pytest.approx(metrics[f"reward_{when}"], abs=1e-6)


def broken(run: ExpertRun) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_policy(run)
    AcceleratorState._reset_state(reset_partial_state=True)


def break_call(patch: pytest.MonkeyPatch, owner: object, name: str, call: int, after: bool = False) -> None:
    """Interrupt the ``call``-th call of a function, counted from 0, before or after it."""
    function: Callable[..., Any] = vars(owner)[name]
    calls = iter(range(100))

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        due = next(calls) == call
        if due and not after:
            raise KeyboardInterrupt
        found = function(*args, **kwargs)
        if due:
            raise KeyboardInterrupt
        return found

    patch.setattr(owner, name, wrapped)


SEAMS: Mapping[str, tuple[object, str, int, bool]] = {
    "before the first answer": (ProcessSampler, "sample", 0, False),
    "between two answers of round 1": (ProcessSampler, "sample", 2, False),
    "before the rewards of round 1": (tiny_rounds, "reward_meter", 0, False),
    "before the training of round 1": (iterative_dpo, "train_dpo", 0, False),
    "after the training of round 1": (iterative_dpo, "train_dpo", 0, True),
    "between two answers of round 2": (ProcessSampler, "sample", 4, False),
    "before round 2 is described": (training_rounds, "write_rows", 1, False),
    "after the training of round 2": (iterative_dpo, "train_dpo", 1, True),
    "before the held-out answers after it": (ProcessSampler, "sample", 5, False),
    "after all": (training_rounds, "TrainedRounds", 0, False),
}


QUICK = {"before the rewards of round 1", "after the training of round 1", "between two answers of round 2"}


@pytest.mark.parametrize(
    "seam", [pytest.param(each, marks=() if each in QUICK else pytest.mark.long) for each in SEAMS]
)
def test_a_run_that_breaks_goes_on_to_the_same_files(
    seam: str, straight: tuple[Path, Counter[str]], base: Path, tmp_path: Path, meter: Meter
) -> None:
    folder, alone = straight
    run = metered(base, tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        break_call(patch, *SEAMS[seam])
        broken(run)
    again = files_of(trained(run, resume=True))
    assert again == files_of(folder)
    assert meter.seen == alone  # nothing was rewarded twice


@pytest.mark.parametrize("name", [SAMPLES, REWARDS])
@pytest.mark.parametrize("cut", ["half a line", "lines"])
def test_files_that_lost_their_end_are_completed(
    name: str, cut: str, straight: tuple[Path, Counter[str]], base: Path, tmp_path: Path, meter: Meter
) -> None:
    folder, _ = straight
    run = metered(base, tmp_path / "run")
    shutil.copytree(folder, run.output)
    place = Path(run.output) / "rounds" / "002"
    for path in (Path(run.output) / "artifact", place / "training", place / "model"):
        shutil.rmtree(path)
    about = json.loads((place / "round.json").read_text())
    (place / "round.json").write_text(json.dumps({"settings": about["settings"]}))
    text = (place / name).read_bytes()
    lines = text.splitlines(keepends=True)
    (place / name).write_bytes(b"".join(lines[:3]) + (lines[3][:20] if cut == "half a line" else b""))
    if name == SAMPLES:
        (place / REWARDS).unlink()
    for path in (*(Path(run.output) / "rounds/before").rglob(REWARDS), Path(run.output) / "held_answers.jsonl"):
        path.unlink()
    shutil.rmtree(Path(run.output) / "rounds/after")
    again = files_of(trained(run, resume=True))
    assert again == files_of(folder)
    left = len(lines) if name == SAMPLES else len(lines) - 3
    held = 8
    assert sum(meter.seen.values()) == 3 * left + 2 * held


def test_rounds_of_another_recipe_are_refused(
    straight: tuple[Path, Counter[str]], base: Path, tmp_path: Path, meter: Meter
) -> None:
    run = metered(base, tmp_path / "run", sampling={"count": 3, "batch": 12, "temperature": 0.5})
    shutil.copytree(straight[0], run.output)
    with pytest.raises(RecipeError, match=r"begun with another recipe \(not the same: sampling\)"):
        train_policy(run, resume=True)


def test_a_round_of_which_nothing_is_kept_ends_the_run(base: Path, tmp_path: Path) -> None:
    run = metered(base, tmp_path / "run", rewards=[{**METER, "function": "train.tiny_rounds:reward_alike"}])
    with pytest.raises(RecipeError, match="keeps no answer of round 1: 8 prompts whose answers have equal rewards"):
        train_policy(run)


def test_whole_weights_are_trained_on_over_the_rounds(base: Path, tmp_path: Path, meter: Meter) -> None:
    run = metered(base, tmp_path / "run", model={"lora": None}, optimisation={"learning_rate": 1e-4})
    folder = trained(run)
    first, second = (load_file(folder / f"rounds/{number}/model/model.safetensors") for number in ("001", "002"))
    start = load_file(base / "model.safetensors")
    name = "model.layers.0.mlp.down_proj.weight"
    assert not torch.equal(start[name], first[name])
    assert not torch.equal(first[name], second[name])
    assert torch.equal(second[name], load_file(folder / "artifact/model.safetensors")[name])
    figures = [entry["kl_per_token"] for entry in history(folder) if "kept_share" in entry]
    assert figures[0] == 0 != figures[1]


def test_a_run_that_starts_from_an_adapter_measures_its_kl_from_it(base: Path, tmp_path: Path, meter: Meter) -> None:
    start = tiny.expert(tmp_path / "start", base, "academy", seed=1).folder
    folder = trained(metered(base, tmp_path / "run", model={"start": str(start)}))
    figures = [entry["kl_per_token"] for entry in history(folder) if "kept_share" in entry]
    assert figures[0] == 0
    assert 0 < abs(figures[1]) < 1  # from the base it would be several nats
