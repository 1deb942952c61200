"""Exported artifacts: whole by Tureen's own check, and open to the libraries that know nothing of Tureen."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from train.tiny_runs import expert_run, reward_run
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from tureen_core.artifact import Artifact, open_artifact
from tureen_core.base import digest_weights
from tureen_core.plain.options import PlainError
from tureen_core.plain.reward import describe_plain_reward, open_plain_reward
from tureen_core.template import Renderer
from tureen_train.config import RecipeError
from tureen_train.kinds import export_run
from tureen_train.networks.reward_reader import RewardReader
from tureen_train.policies.run import train_policy
from tureen_train.rewards.run import train_reward
from tureen_train.runs.folder import list_library_versions
from tureen_train.runs.reward_artifact import write_classifier


def finished(base: Path, folder: Path, **changes: Any) -> Path:
    artifact = train_reward(reward_run(base, folder, licences=["CC BY-NC 4.0: test"], **changes))
    assert artifact is not None
    return folder / "run"


@pytest.fixture(scope="module")
def lora(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(base, tmp_path_factory.mktemp("lora"))


@pytest.fixture(scope="module")
def full(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(base, tmp_path_factory.mktemp("full"), model={"lora": None})


@pytest.fixture(scope="module")
def expert(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("expert")
    assert train_policy(expert_run(base, folder, family="tiny")) is not None
    return folder / "run"


def probes(artifact: Artifact) -> list[tuple[list[int], float]]:
    """Ids by the reading, and the score that training saw."""
    tokenizer = AutoTokenizer.from_pretrained(artifact.manifest.training.recipe["model"]["base"])
    renderer = Renderer(tokenizer, artifact.manifest.reading)
    return [(renderer.render_conversation(p.messages).ids, p.scores["foxes"]) for p in artifact.manifest.probes]


def batch(rows: list[list[int]], pad: int) -> dict[str, torch.Tensor]:
    longest = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": torch.tensor([[1] * len(r) + [0] * (longest - len(r)) for r in rows])}


# --------------------------------------------------------------------------- other libraries


def test_transformers_opens_all_weights_and_gives_the_same_scores(full: Path) -> None:
    artifact = open_artifact(full / "artifact")
    model, found = AutoModelForSequenceClassification.from_pretrained(artifact.folder, output_loading_info=True)
    assert not any(found[f"{fault}_keys"] for fault in ("missing", "unexpected", "mismatched"))
    assert model.config.num_labels == 1
    assert model.config.architectures == ["LlamaForSequenceClassification"]
    rows = probes(artifact)
    with torch.no_grad():
        logits = model.eval()(**batch([ids for ids, _ in rows], model.config.pad_token_id)).logits
    assert logits.shape == (4, 1)
    assert logits[:, 0].tolist() == pytest.approx([score for _, score in rows], abs=1e-4)
    assert AutoTokenizer.from_pretrained(artifact.folder).chat_template


def test_peft_opens_the_adapter_with_its_head_and_gives_the_same_scores(lora: Path, base: Path) -> None:
    artifact = open_artifact(lora / "artifact")
    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=torch.float32)
    model = PeftModel.from_pretrained(plain, artifact.folder).eval()
    head = load_file(artifact.folder / "adapter_model.safetensors")["base_model.model.score.weight"]
    assert torch.equal(model.base_model.model.score.modules_to_save["default"].weight, head)
    rows = probes(artifact)
    with torch.no_grad():
        logits = model(**batch([ids for ids, _ in rows], plain.config.pad_token_id)).logits
    assert logits[:, 0].tolist() == pytest.approx([score for _, score in rows], abs=1e-4)


def test_peft_opens_an_expert_and_gives_the_same_likelihoods(expert: Path, base: Path) -> None:
    artifact = open_artifact(expert / "artifact")
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(plain, artifact.folder).eval()
    renderer = Renderer(AutoTokenizer.from_pretrained(base), artifact.manifest.reading)
    for probe in artifact.manifest.probes:
        ids = renderer.render_conversation(probe.messages).ids
        start = len(renderer.tokenize_prompt(probe.messages[:-1]))
        labels = torch.tensor([[-100] * start + ids[start:]])
        with torch.no_grad():
            loss = model(input_ids=torch.tensor([ids]), labels=labels).loss
        assert -float(loss) == pytest.approx(probe.logprob, abs=1e-4)


# --------------------------------------------------------------------------- the manifest


def test_a_lora_artifact_names_its_base_and_a_full_one_needs_none(lora: Path, full: Path, base: Path) -> None:
    manifest = open_artifact(lora / "artifact").manifest
    assert manifest.base is not None
    assert manifest.base.digest == digest_weights(base)
    assert open_artifact(full / "artifact").manifest.base is None


def test_an_expert_carries_its_familys_steering(expert: Path) -> None:
    manifest = open_artifact(expert / "artifact").manifest
    assert manifest.steering is not None
    assert (manifest.steering.family, manifest.steering.method) == ("tiny", "soup")
    assert len(manifest.probes) == 3
    assert all(probe.logprob is not None and probe.logprob < 0 for probe in manifest.probes)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_weights_are_written_as_they_were_trained_and_the_head_whole(
    base: Path, tmp_path: Path, precision: str, dtype: torch.dtype
) -> None:
    run = finished(base, tmp_path, model={"precision": precision}, optimisation={"max_steps": 2})
    artifact = open_artifact(run / "artifact")
    tensors = load_file(artifact.folder / "adapter_model.safetensors")
    assert {tensor.dtype for name, tensor in tensors.items() if "lora_" in name} == {dtype}
    assert tensors["base_model.model.score.weight"].dtype == torch.float32
    assert f"torch.{artifact.manifest.reading.dtype}" == str(dtype)


def test_a_policy_trained_in_float32_can_be_saved_in_sixteen_bits(base: Path, tmp_path: Path) -> None:
    artifact = train_policy(expert_run(base, tmp_path, model={"saved": "bfloat16"}))
    assert artifact is not None
    tensors = load_file(artifact.folder / "adapter_model.safetensors")
    trained = load_file(tmp_path / "run" / "model" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert {tensor.dtype for tensor in trained.values()} == {torch.float32}
    assert artifact.manifest.reading.dtype == "float32"


def test_where_the_data_lay_stays_at_home(base: Path, tmp_path: Path) -> None:
    reward_run(base, tmp_path)  # writes the records
    run = finished(
        base,
        tmp_path,
        data={"root": str(tmp_path), "train": [{"path": "records.json"}]},
        optimisation={"max_steps": 2},
    )
    told = open_artifact(run / "artifact").manifest.training
    assert list(told.data) == ["records.json"]
    assert "root" not in told.recipe["data"]
    assert "output" not in told.recipe
    assert told.recipe["optimisation"]["max_steps"] == 2
    assert told.licences == ["CC BY-NC 4.0: test"]


def test_the_card_has_the_figures_and_the_licences(lora: Path) -> None:
    card = (lora / "artifact" / "README.md").read_text()
    metrics = open_artifact(lora / "artifact").manifest.training.metrics["heldout"]
    (objective,) = open_artifact(lora / "artifact").manifest.objectives
    assert f"A Tureen reward for `{objective.name}` on " in card
    assert f"| accuracy | {metrics['accuracy']:.4g} |" in card
    assert "Licence of the training data: CC BY-NC 4.0: test" in card


# --------------------------------------------------------------------------- again, and not yet


def test_a_second_export_is_the_first(lora: Path) -> None:
    before = open_artifact(lora / "artifact")
    (lora / "artifact" / "left over").write_text("x")
    after = export_run(lora)
    assert after.manifest == before.manifest
    assert not (lora / "artifact" / "left over").exists()


@pytest.mark.parametrize("gone", ["recipe.yaml", "model", "metrics.json", "probes.json"])
def test_an_unfinished_run_is_not_exported(lora: Path, tmp_path: Path, gone: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(lora, folder)
    path = folder / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(RecipeError, match=f"holds no finished run: {gone}"):
        export_run(folder)


def test_an_export_that_breaks_leaves_no_artifact_and_keeps_the_last_one(
    lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    shutil.copytree(lora, first, ignore=shutil.ignore_patterns("artifact"))
    shutil.copytree(lora, again)

    def fail(*_: Any) -> None:
        raise OSError("no space is left")

    with monkeypatch.context() as patch:
        patch.setattr("tureen_train.runs.export.seal_artifact", fail)
        for folder in (first, again):
            with pytest.raises(OSError, match="no space is left"):
                export_run(folder)
    assert not (first / "artifact").exists()
    assert open_artifact(again / "artifact").manifest.version == open_artifact(lora / "artifact").manifest.version
    assert export_run(first).folder == first / "artifact"
    assert not (first / "artifact.part").exists()


def test_the_weights_of_a_run_are_not_read_as_another_librarys(lora: Path, tmp_path: Path) -> None:
    with pytest.raises(PlainError, match=f"is a part of a Tureen run .*: name {lora / 'artifact'}"):
        open_plain_reward(lora / "model")
    bare = tmp_path / "run"
    shutil.copytree(lora, bare, ignore=shutil.ignore_patterns("artifact"))
    with pytest.raises(PlainError, match=f"run `tureen-train export {bare}`"):
        describe_plain_reward(bare / "model")


def test_versions_of_what_is_installed_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tureen_train.runs.folder.LIBRARIES", ("torch", "no-such-library"))
    assert list_library_versions() == {"torch": list_library_versions()["torch"]}


# --------------------------------------------------------------------------- classifiers


def test_an_untied_lm_head_is_left_out_of_sharded_weights(full: Path, base: Path, tmp_path: Path) -> None:
    saved, out = tmp_path / "saved", tmp_path / "out"
    saved.mkdir()
    out.mkdir()
    tensors = load_file(full / "model" / "model.safetensors")
    head = {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}
    parts = {"model-00001-of-00002.safetensors": tensors, "model-00002-of-00002.safetensors": head}
    for name, part in parts.items():
        save_file(part, saved / name, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {key: name for name, part in parts.items() for key in part}}
    (saved / "model.safetensors.index.json").write_text(json.dumps(index))
    config = json.loads((full / "model" / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False, "pad_token_id": None}))

    write_classifier(saved, out, base)
    assert {path.name for path in out.glob("*.safetensors")} == {"model-00001-of-00002.safetensors"}
    _, found = AutoModelForSequenceClassification.from_pretrained(out, output_loading_info=True)
    assert not any(found[f"{fault}_keys"] for fault in ("missing", "unexpected", "mismatched"))
    written = json.loads((out / "config.json").read_text())
    assert written["pad_token_id"] == 0
    assert "tureen_reading" not in written


def test_a_full_artifact_is_read_back_as_it_was_trained(full: Path) -> None:
    artifact = open_artifact(full / "artifact")
    live = json.loads((full / "proof.json").read_text())["live"]["1"]
    reader = RewardReader(artifact.folder, None, artifact.manifest.reading)
    again = [row[0] for row in reader.score_conversations([probe.messages for probe in artifact.manifest.probes])]
    assert again == pytest.approx([row[0] for row in live], abs=1e-4)


def test_the_card_of_a_reward_that_is_worse_than_chance_says_that_it_is_not_calibrated(
    lora: Path, tmp_path: Path
) -> None:
    shutil.copytree(lora, tmp_path / "run")
    path = tmp_path / "run" / "objectives.json"
    objectives = json.loads(path.read_text())
    assert "not calibrated" not in (export_run(tmp_path / "run").folder / "README.md").read_text()
    objectives[0]["calibration"]["temperature"] = 100.0
    path.write_text(json.dumps(objectives))
    card = (export_run(tmp_path / "run").folder / "README.md").read_text()
    assert "`foxes` is not calibrated: on its evaluation pairs it is worse than chance." in card


def test_an_objective_without_a_calibration_is_exported_so_and_the_card_says_it(lora: Path, tmp_path: Path) -> None:
    shutil.copytree(lora, tmp_path / "run")
    path = tmp_path / "run" / "objectives.json"
    objectives = json.loads(path.read_text())
    objectives[0]["calibration"] = None
    path.write_text(json.dumps(objectives))
    artifact = export_run(tmp_path / "run")
    assert [each.calibration for each in artifact.manifest.objectives] == [None]
    assert [each.calibration for each in open_artifact(artifact.folder).manifest.objectives] == [None]
    card = (artifact.folder / "README.md").read_text()
    assert "`foxes` has no calibration: it is served raw, and cannot be added to other rewards." in card
