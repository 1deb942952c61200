"""Whole tiny runs of Rewards-in-Context: their files, their statistics, kill and resume, and a policy that obeys."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from train import tiny_ric
from train.test_policies_training_rounds import break_call, broken, files_of
from train.tiny_ric import DOGS, FOXES, Seen, ric_run
from train.tiny_runs import history

from tureen_core.artifact import open_artifact
from tureen_core.base import load_tokenizer
from tureen_core.steering import TagSteering
from tureen_train.config import ExpertRun, RecipeError
from tureen_train.policies.ric import course
from tureen_train.policies.rollouts.sampler import ProcessSampler
from tureen_train.policies.rollouts.valuing import RewardError
from tureen_train.policies.run import train_policy

PAIRS, HELD = 8, 8  # of the 16 that a run has
NAMES = ["foxes", "dogs"]


def small(base: Path, folder: Path, **changes: Any) -> ExpertRun:
    """A run with a batch that divides neither its prompts nor its rows, and a checkpoint at each step."""
    folder.mkdir(exist_ok=True)
    return ric_run(base, folder, **{"sampling": {"batch": 3}, "watch": {"save_every": 1}, **changes})


def trained(run: ExpertRun, resume: bool = False) -> Path:
    assert train_policy(run, resume) is not None
    return Path(run.output)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    made = Seen()
    monkeypatch.setattr(tiny_ric, "seen", made)
    return made


@pytest.fixture(scope="module")
def straight(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Counter[str]]:
    """A run that nothing broke, and the answers that it rewarded."""
    with pytest.MonkeyPatch.context() as patch:
        made = Seen()
        patch.setattr(tiny_ric, "seen", made)
        folder = trained(small(base, tmp_path_factory.mktemp("straight")))
    return folder, made.answers


def find_steering(folder: Path) -> TagSteering:
    steering = open_artifact(folder / "artifact").manifest.steering
    assert isinstance(steering, TagSteering)
    return steering


def test_both_answers_of_a_pair_are_rows_with_their_own_rewards(straight: tuple[Path, Counter[str]]) -> None:
    folder, _ = straight
    steering = find_steering(folder)
    rows = lines(folder / "rounds/000/kept.jsonl")
    answers = [row["messages"][-1]["content"] for row in rows]
    assert len(answers) == 2 * PAIRS
    for at, name in enumerate(NAMES):
        counts = np.array([answer.count(name[:3]) for answer in answers], dtype=float)
        found = steering.objectives[at]
        assert (found.name, found.source) == (name, f"train.tiny_ric:count_{name}")
        assert (found.mean, found.deviation) == pytest.approx((counts.mean(), counts.std()))
        normalised = (counts - counts.mean()) / counts.std()
        assert [row["obtained"][name] for row in rows] == pytest.approx(normalised.tolist())
        assert found.low - 0.1 < normalised.min() <= found.low < found.high <= normalised.max() < found.high + 0.1
    for row in rows:
        assert list(row["obtained"]) == NAMES
        foxes, dogs = (round(value, 1) + 0.0 for value in row["obtained"].values())
        assert row["messages"][-2]["content"].endswith(f" <rm1_score> {foxes} <rm2_score> {dogs}")


def test_a_round_asks_for_rewards_and_learns_those_that_were_obtained(straight: tuple[Path, Counter[str]]) -> None:
    folder, _ = straight
    for number in (1, 2):
        place = folder / f"rounds/{number:03d}"
        asked = {row["id"]: row["desired"] for row in lines(place / "prompts.jsonl")}
        obtained = {row["prompt"]: row["rewards"][0]["values"] for row in lines(place / "rewards.jsonl")}
        assert len(asked) == 8  # none is dropped, although batches hold 3
        assert asked.keys() == obtained.keys()
        rows = lines(place / "kept.jsonl")
        own = [row for row in rows if row["from"] == f"round {number}"]
        assert [(row["desired"], row["obtained"]) for row in own] == [(asked[r["id"]], obtained[r["id"]]) for r in own]
        table = np.array([list(values.values()) for values in obtained.values()])
        least = np.quantile(table, 0.7, axis=0)
        assert len(own) == json.loads((place / "round.json").read_text())["kept"] == (table >= least).any(1).sum()
        original = [row for row in rows if row["from"] == "data"]
        assert 0 < len(original) <= 6
    told = Counter(row["from"] for row in rows)
    assert set(told) == {"round 1", "round 2", "data"}  # what is kept of earlier rounds is learnt again
    assert told["round 1"] == json.loads((folder / "rounds/001/round.json").read_text())["kept"]


def test_the_stages_have_their_own_rates(straight: tuple[Path, Counter[str]]) -> None:
    entries = [entry for entry in history(straight[0]) if "learning_rate" in entry]
    rates = {number: [each["learning_rate"] for each in entries if each["round"] == number] for number in range(3)}
    assert len(set(rates[0])) > 1
    assert set(rates[1]) == set(rates[2]) == {1e-3}
    assert [max(each["step"] for each in entries if each["round"] == number) for number in range(3)] == [4, 6, 8]


def test_the_artifact_is_a_policy_whose_probes_state_rewards(straight: tuple[Path, Counter[str]]) -> None:
    folder, _ = straight
    manifest = open_artifact(folder / "artifact").manifest
    assert (manifest.kind, manifest.weights) == ("policy", "lora")
    assert [each.name for each in manifest.objectives] == NAMES
    assert len(manifest.probes) == 3
    for probe in manifest.probes:
        assert "<rm2_score>" in probe.messages[-2]["content"]
        assert probe.logprob is not None
    assert {"reward_foxes_after", "reward_dogs_before"} <= manifest.training.metrics["heldout"].keys()


SEAMS: dict[str, tuple[object, str, int, bool]] = {
    "before the rewards of the data": (tiny_ric, "count_foxes", 0, False),
    "after the offline training": (course, "train_sft", 0, True),
    "between two answers of round 1": (ProcessSampler, "sample", 4, False),
    "before the rewards of round 1": (tiny_ric, "count_foxes", 1, False),
    "after the training of round 1": (course, "train_sft", 1, True),
    "between two answers of round 2": (ProcessSampler, "sample", 7, False),
    "after the training of round 2": (course, "train_sft", 2, True),
}
QUICK = {"between two answers of round 2"}


@pytest.mark.parametrize(
    "seam", [pytest.param(each, marks=() if each in QUICK else pytest.mark.long) for each in SEAMS]
)
def test_a_run_that_breaks_goes_on_to_the_same_files(
    seam: str, straight: tuple[Path, Counter[str]], base: Path, tmp_path: Path, seen: Seen
) -> None:
    folder, alone = straight
    run = small(base, tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        break_call(patch, *SEAMS[seam])
        broken(run)
    again = files_of(trained(run, resume=True))
    assert again == files_of(folder)
    assert seen.answers == alone  # nothing was rewarded twice


def test_prepared_rewards_are_shared_by_runs_on_the_same_data(base: Path, tmp_path: Path, seen: Seen) -> None:
    offline: dict[str, Any] = {"online": None, "prepared": str(tmp_path / "prepared")}
    run = small(base, tmp_path, policy=offline, output=str(tmp_path / "first"))
    first = trained(run)
    assert sum(seen.answers.values()) == 2 * PAIRS + 2 * HELD
    seen.answers.clear()
    second = trained(run.model_copy(update={"output": str(tmp_path / "second")}))
    assert sum(seen.answers.values()) == 2 * HELD  # only those to held-out prompts
    assert find_steering(first) == find_steering(second)
    other = small(base, tmp_path / "other", policy=offline, pairs=20)
    with pytest.raises(RecipeError, match="prepared was begun with another recipe"):
        train_policy(other)


def test_a_reward_that_fails_is_counted_and_left_out(base: Path, tmp_path: Path, seen: Seen) -> None:
    run = small(base, tmp_path, policy={"online": None})
    pairs = Path(run.data.train[0].path)
    pairs.write_text(pairs.read_text().replace('"chosen": "', '"chosen": "lost ', 1))
    folder = trained(run)
    about = json.loads((folder / "rounds/000/round.json").read_text())
    lost = [row for row in lines(folder / "rounds/prepared/rewards.jsonl") if row["rewards"][0]["total"] is None]
    assert len(lost) == about["left_out"].get("answers without a reward", 0) == 1
    assert about["kept"] == len(lines(folder / "rounds/000/kept.jsonl")) == 2 * PAIRS - 1
    account = json.loads((folder / "account.json").read_text())["rewards"]
    assert account["failed"]["foxes"] == {"train.tiny_ric:count_foxes returned None": 1}
    with pytest.raises(RewardError, match="1 of 16 answers of a batch have no reward"):
        train_policy(run.model_copy(update={"failed_share": 0.01, "output": str(tmp_path / "strict")}))


@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.long), 3])
def test_any_number_of_rewards(count: int, base: Path, tmp_path: Path) -> None:
    """The original has room for three, and leaves the third one's scores in its evaluation."""
    leaves = {"source": "function", "function": "train.tiny_ric:count_letters", "name": "letters"}
    rewards = [FOXES, DOGS, leaves][:count]
    online = {"rounds": 1, "keep": "pareto", "desired": "uniform"}
    folder = trained(small(base, tmp_path, rewards=rewards, online=online, optimisation={"max_steps": 1}))
    names = [each["name"] for each in rewards]
    assert find_steering(folder).names == names
    rows = lines(folder / "rounds/001/kept.jsonl")
    assert all(list(row["obtained"]) == names for row in rows)
    assert all(list(row["desired"]) == names for row in rows if row["from"] != "data")
    tags = [f"<rm{at}_score>" for at in range(1, count + 1)]
    assert all([word for word in row["messages"][-2]["content"].split() if "rm" in word] == tags for row in rows)


def test_tags_can_be_tokens_of_their_own_with_trained_embeddings(base: Path, tmp_path: Path) -> None:
    changes = {"model": {"lora": None}, "optimisation": {"learning_rate": 1e-3, "max_steps": 2}}
    folder = trained(small(base, tmp_path, policy={"tokens": "special"}, online={"rounds": 1}, **changes))
    artifact = open_artifact(folder / "artifact")
    assert (artifact.manifest.kind, artifact.manifest.weights) == ("policy", "full")
    tokenizer, before = load_tokenizer(artifact.folder), load_tokenizer(base)
    new = [tokenizer.convert_tokens_to_ids(f"<rm{at}_score>") for at in (1, 2)]
    assert new == [len(before), len(before) + 1]
    found = tokenizer("why? <rm1_score> 0.4 <rm2_score> -1.2", add_special_tokens=False)["input_ids"]
    assert [each for each in found if each in new] == new
    assert not set(new) & set(tokenizer.all_special_ids)  # a control mark would be hidden in a message
    start, end = (
        load_file(place / "model.safetensors")["model.embed_tokens.weight"]
        for place in (folder / "rounds/base", artifact.folder)
    )
    parts = before("<rm1_score>", add_special_tokens=False)["input_ids"]
    assert start[new[0]].tolist() == pytest.approx(start[parts].mean(0).tolist(), abs=1e-6)
    assert all(not np.array_equal(start[each].numpy(), end[each].numpy()) for each in new)


def test_a_policy_obeys_its_tags(base: Path, tmp_path: Path) -> None:
    """Foxes and dogs that are asked for are written, on 32 prompts that were held out; before there are none."""
    wide = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    run = ric_run(
        base,
        tmp_path,
        pairs=128,
        policy={"online": None},
        sampling={"max_tokens": 16, "batch": 128, "temperature": 0.1},
        optimisation={"max_steps": 200, "batch": 16, "warmup": 0.05},
        model={"lora": {"rank": 16, "alpha": 32, "targets": wide}},
        watch={"log_every": 50},
    )
    found = open_artifact(trained(run) / "artifact").manifest.training.metrics["heldout"]
    for name in NAMES:
        assert found[f"follows_{name}_after"] > 0.6
        assert abs(found.get(f"follows_{name}_before", 0.0)) < 0.45
