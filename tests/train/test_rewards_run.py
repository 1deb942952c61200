"""Whole reward runs on a tiny model: what they leave behind, their variants, resuming, and DSP's three stages."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from scales import scale_of
from train.tiny_runs import BAD, GOOD, LORA, history, records, reward_run, untimed

from tureen_core.artifact import Artifact, open_artifact
from tureen_train.config import RecipeError, RewardRun, read_recipe
from tureen_train.networks.reward_reader import RewardReader
from tureen_train.rewards.run import train_reward

LEFT = {
    "recipe.yaml",
    "account.json",
    "model",
    "metrics.json",
    "data.json",
    "probes.json",
    "proof.json",
    "objectives.json",
    "versions.json",
    "history.jsonl",
    "loss.png",
    "accuracy.png",
    "reliability.png",
    "artifact",
    "report.md",
    "report.html",
    "checkpoints",
}


def train(run: RewardRun, resume: bool = False) -> Artifact:
    artifact = train_reward(run, resume)
    assert artifact is not None
    return artifact


def talk(answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": "prompt 0"}, {"role": "assistant", "content": f"{answer} 0"}]


def prefers_foxes(artifact: Artifact, base: Path) -> bool:
    lora = artifact.manifest.weights == "lora"
    reader = RewardReader(artifact.folder, base if lora else None, artifact.manifest.reading)
    good, bad = reader.score_conversations([talk(GOOD), talk(f"{BAD} 0")])
    return good[0] > bad[0]


@pytest.fixture(scope="module")
def learnt(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RewardRun, Artifact]:
    """A run long enough to learn its data."""
    folder = tmp_path_factory.mktemp("learnt")
    run = reward_run(base, folder, optimisation={"max_steps": 40}, watch={"eval_every": 20, "log_every": 5})
    return run, train(run)


def test_it_learns_what_it_is_shown(base: Path, learnt: tuple[RewardRun, Artifact]) -> None:
    run, artifact = learnt
    metrics = artifact.manifest.training.metrics["heldout"]
    before = next(entry for entry in history(Path(run.output)) if "eval_heldout_accuracy" in entry)
    assert metrics["accuracy"] > 0.9
    assert metrics["accuracy"] > before["eval_heldout_accuracy"]
    assert prefers_foxes(artifact, base)


def test_the_run_folder_explains_itself(learnt: tuple[RewardRun, Artifact]) -> None:
    run, artifact = learnt
    folder = Path(run.output)
    assert {path.name for path in folder.iterdir()} == LEFT
    resolved = read_recipe(str(folder / "recipe.yaml"))
    assert isinstance(resolved, RewardRun)
    assert resolved.reading.template == artifact.manifest.reading.template != ""
    assert resolved.model_copy(update={"reading": run.reading}) == run
    (provenance,) = json.loads((folder / "data.json").read_text()).values()
    assert provenance["kept"] == 24
    assert json.loads((folder / "versions.json").read_text())["transformers"].startswith("5.")
    assert json.loads((folder / "metrics.json").read_text())["heldout"]["pairs"] > 0


def test_it_is_judged_at_the_start_every_k_steps_and_at_the_end(learnt: tuple[RewardRun, Artifact]) -> None:
    run, artifact = learnt
    entries = history(Path(run.output))
    judged = [entry for entry in entries if "eval_heldout_accuracy" in entry]
    assert [entry["step"] for entry in judged] == [0, 20, 40, 40]
    assert judged[-1]["eval_heldout_margin"] == pytest.approx(
        artifact.manifest.training.metrics["heldout"]["margin"], abs=1e-6
    )
    assert [entry["step"] for entry in entries if "loss" in entry] == [1, 5, 10, 15, 20, 25, 30, 35, 40]


def test_the_scale_is_that_of_the_held_out_answers(learnt: tuple[RewardRun, Artifact]) -> None:
    _, artifact = learnt
    scale = scale_of(artifact.manifest.objectives[0])
    metrics = artifact.manifest.training.metrics["heldout"]
    assert scale.mean == pytest.approx(metrics["reward_mean"], abs=1e-4)
    assert scale.std == pytest.approx(metrics["reward_std"], abs=1e-4)
    assert scale.temperature > 0


def test_the_artifact_verifies_and_its_probes_are_held_out(learnt: tuple[RewardRun, Artifact], base: Path) -> None:
    _, artifact = learnt
    manifest = open_artifact(artifact.folder).manifest
    assert manifest.kind == "reward"
    assert manifest.objectives[0].name == "foxes"
    assert len(manifest.probes) == 4
    reader = RewardReader(artifact.folder, base, manifest.reading)
    again = reader.score_conversations([probe.messages for probe in manifest.probes])
    assert [row[0] for row in again] == pytest.approx([probe.scores["foxes"] for probe in manifest.probes], abs=1e-6)


# --------------------------------------------------------------------------- variants


@pytest.mark.parametrize(
    "model",
    [
        {"lora": LORA, "precision": "bf16"},
        {"lora": None, "precision": "fp32"},
        {"lora": None, "precision": "bf16"},
        {"lora": LORA, "gradient_checkpointing": True},
        {"lora": None, "gradient_checkpointing": True},
        {"lora": {**LORA, "top_layers": 1, "dropout": 0.1}, "attention": "eager"},
    ],
    ids=str,
)
def test_every_way_to_train_leaves_an_artifact_that_moved(base: Path, tmp_path: Path, model: dict[str, Any]) -> None:
    loss = {"lm_coefficient": 0.1, "lm_threshold": 0.5}
    run = reward_run(base, tmp_path, model=model, loss=loss, optimisation={"max_steps": 3, "accumulation": 2})
    artifact = train(run)
    assert artifact.manifest.weights == ("full" if model["lora"] is None else "lora")
    losses = [entry["loss"] for entry in history(Path(run.output)) if "loss" in entry]
    assert len(losses) == 3
    norms = [entry["grad_norm"] for entry in history(Path(run.output)) if "grad_norm" in entry]
    assert all(norm > 0 for norm in norms)


def test_checkpointing_does_not_change_what_is_learnt(base: Path, tmp_path: Path) -> None:
    losses = []
    for checkpointing in (False, True):
        begun = tmp_path / str(checkpointing)
        begun.mkdir()
        run = reward_run(base, begun, model={"gradient_checkpointing": checkpointing, "start": first(base, tmp_path)})
        train(run)
        losses.append([entry["loss"] for entry in history(Path(run.output)) if "loss" in entry])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def first(base: Path, folder: Path) -> str:
    """An artifact to start from, so that no random head stands between two runs."""
    path = folder / "first"
    if not path.is_dir():
        path.mkdir()
        train(reward_run(base, path, optimisation={"max_steps": 2}))
    return str(path / "run" / "artifact")


@pytest.mark.parametrize("lora", [LORA, None], ids=["lora", "full"])
def test_a_resumed_run_is_the_straight_run(base: Path, tmp_path: Path, lora: Any) -> None:
    """Saved at step 3 of 6 with its optimiser, schedule and random state, then gone on with."""
    shared: dict[str, Any] = {"model": {"lora": lora}, "watch": {"save_every": 3, "keep": 5}}
    straight = reward_run(base, tmp_path, optimisation={"max_steps": 6}, **shared)
    expected, log = train(straight), untimed(Path(straight.output))
    stop_after(Path(straight.output), 3)
    again = train(straight, resume=True)
    tensors = [load_file(next(artifact.folder.glob("*.safetensors"))) for artifact in (expected, again)]
    wanted = history_of(expected)
    assert wanted == pytest.approx(history_of(again), abs=1e-5)
    assert tensors[0].keys() == tensors[1].keys()
    assert [entry["step"] for entry in log if "loss" in entry] == [1, 2, 3, 4, 5, 6]
    for own, other in zip(untimed(Path(straight.output)), log, strict=True):
        assert own == pytest.approx(other, abs=1e-5)


def stop_after(folder: Path, step: int) -> None:
    """The folder as it was when the run was ended after ``step``."""
    import shutil

    for path in (folder / "checkpoints").iterdir():
        if int(path.name.removeprefix("checkpoint-")) > step:
            shutil.rmtree(path)
    shutil.rmtree(folder / "model")


def history_of(artifact: Artifact) -> list[float]:
    return [score for probe in artifact.manifest.probes for score in probe.scores.values()]


@pytest.mark.parametrize("lora", [LORA, None], ids=["lora", "full"])
def test_a_seed_decides_a_run_and_another_seed_another(base: Path, tmp_path: Path, lora: Any) -> None:
    """The new head and adapter too, whatever was drawn before."""
    scores = []
    for number, seed in enumerate((7, 7, 8)):
        torch.rand(number + 1)
        run = reward_run(
            base,
            tmp_path,
            model={"lora": lora},
            optimisation={"max_steps": 2, "seed": seed},
            watch={"eval_at_start": False},
            output=str(tmp_path / str(number)),
        )
        scores.append(history_of(train(run)))
    assert scores[0] == scores[1]
    assert scores[0] != pytest.approx(scores[2], abs=1e-3)


def test_nothing_to_resume_is_told(base: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"--resume: there is no whole checkpoint in .*; set watch\.save_every"):
        train_reward(reward_run(base, tmp_path), resume=True)


# --------------------------------------------------------------------------- data


def test_several_named_files_are_judged_beside_each_other(base: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    path, other = records(tmp_path), records(tmp_path / "b", count=30, widest=2)
    run = reward_run(
        base,
        tmp_path,
        data={"train": [{"path": str(path)}], "eval": {"lists": {"path": str(path)}, "pairs": {"path": str(other)}}},
        optimisation={"max_steps": 2, "eval_batch": 3},
    )
    metrics = train(run).manifest.training.metrics
    assert list(metrics) == ["lists", "pairs"]
    assert metrics["lists"]["pairs"] > metrics["pairs"]["pairs"] > 0


def test_without_held_out_prompts_there_are_no_figures_and_the_scale_is_raw(base: Path, tmp_path: Path) -> None:
    run = reward_run(base, tmp_path, data={"holdout": 0}, optimisation={"max_steps": 2})
    manifest = train(run).manifest
    assert manifest.training.metrics == {}
    assert manifest.objectives[0].calibration is None
    assert manifest.probes
    assert "no calibration: it is served raw" in (Path(run.output) / "artifact" / "README.md").read_text()
    assert "Without a calibration, since no answers were held out" in (Path(run.output) / "report.md").read_text()
    assert not (Path(run.output) / "accuracy.png").exists()


def test_nothing_to_train_on_is_told(base: Path, tmp_path: Path) -> None:
    (tmp_path / "records.json").write_text("[]")
    empty = tmp_path / "empty.json"
    empty.write_text('[{"text": ["\\n\\nHuman: a\\n\\nAssistant: b"], "score": []}]')
    data = {"train": [{"path": str(empty)}]}
    with pytest.raises(RecipeError, match=r"1 of 1 records of .*empty\.json are dropped \(1 lengths differ\)"):
        train_reward(reward_run(base, tmp_path, data=data))
    with pytest.raises(RecipeError, match=r"data\.train: no record"):
        train_reward(reward_run(base, tmp_path, data={**data, "most_dropped": 1}))


def test_another_template_than_the_bases_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"reading\.template: is 0123"):
        train_reward(reward_run(base, tmp_path, reading={"template": "0123"}))


# --------------------------------------------------------------------------- DSP's stages


@pytest.mark.parametrize("lora", [LORA, None], ids=["lora", "full"])
def test_base_to_general_to_customised(base: Path, tmp_path: Path, lora: Any) -> None:
    """Each stage begins where the one before ended: its evaluation at the start is the other's at the end."""
    general = reward_run(
        base, tmp_path, name="grft", model={"lora": lora}, output=str(tmp_path / "grft"), optimisation={"max_steps": 6}
    )
    first_stage = train(general)
    customised = reward_run(
        base,
        tmp_path,
        name="crft",
        model={"lora": lora, "start": str(first_stage.folder)},
        output=str(tmp_path / "crft"),
        loss={"lm_coefficient": 0.1},
        optimisation={"max_steps": 2, "learning_rate": 1e-4},
    )
    second_stage = train(customised)
    began = next(entry for entry in history(tmp_path / "crft") if "eval_heldout_margin" in entry)
    ended = first_stage.manifest.training.metrics["heldout"]
    assert began["eval_heldout_margin"] == pytest.approx(ended["margin"], abs=1e-4)
    assert began["eval_heldout_reward_mean"] == pytest.approx(ended["reward_mean"], abs=1e-4)
    recipe = yaml.safe_load((tmp_path / "crft" / "recipe.yaml").read_text())
    assert recipe["model"]["start"] == str(first_stage.folder)
    assert second_stage.manifest.version != first_stage.manifest.version
    assert second_stage.manifest.base == first_stage.manifest.base
