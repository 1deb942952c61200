"""Sealing an artifact, and every way in which an opened one is refused."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from core.artifact_folders import WEIGHTS, manifest_of, reseal, reseal_unchecked, retensor, rewrite
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from tureen_core.artifact import (
    MANIFEST,
    Artifact,
    ArtifactError,
    Probe,
    open_artifact,
    read_gate,
    read_manifest,
    read_weights,
    seal_artifact,
)
from tureen_core.gate import GATE, write_gate
from tureen_core.heads import GatedHead


@pytest.fixture
def reward(base: Path, tmp_path: Path) -> Artifact:
    return tiny.reward(tmp_path / "helpful", base, "helpful", 3, ["helpful", "brief"])


# --------------------------------------------------------------------------- what is right


def test_an_artifact_opens_as_it_was_sealed(reward: Artifact) -> None:
    again = open_artifact(reward.folder)
    assert again.manifest == reward.manifest
    assert again.name == "helpful"
    assert set(again.manifest.files) == {WEIGHTS, "adapter_config.json"}
    assert again.manifest.version == again.manifest.identity()[:12]
    assert again.fingerprint("float32") == reward.fingerprint("float32")


def test_its_weights_are_those_that_were_written(reward: Artifact) -> None:
    adapter, head = read_weights(reward)
    expected = tiny.adapter("helpful", 3).modules
    assert set(adapter.modules) == set(expected)
    for path, low in adapter.modules.items():
        torch.testing.assert_close(low.scale * low.b @ low.a, 2.0 * expected[path].b @ expected[path].a)
    assert head is not None
    assert head.shape == (2, 32)
    assert torch.equal(head, torch.randn(2, 32, generator=torch.Generator().manual_seed(1003)))


def test_an_expert_has_no_head(base: Path, tmp_path: Path) -> None:
    adapter, head = read_weights(tiny.expert(tmp_path / "academy", base, "academy", 1))
    assert head is None
    assert len(adapter.modules) == 6


def test_a_relative_folder_is_found(reward: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(reward.folder.parent)
    assert open_artifact(Path("helpful")).folder == reward.folder.resolve()


def test_a_model_card_may_be_rewritten(reward: Artifact) -> None:
    (reward.folder / "README.md").write_text("# Helpful\n")
    assert open_artifact(reward.folder).manifest == reward.manifest


def test_what_transformers_leaves_beside_a_model_is_passed_over(reward: Artifact) -> None:
    for name in ("training_args.bin", "optimizer.pt"):
        (reward.folder / name).write_bytes(b"pickled")
    assert open_artifact(reward.folder).manifest == reward.manifest
    assert reseal(reward.folder).manifest.files == reward.manifest.files


def test_files_in_subfolders_are_covered(reward: Artifact) -> None:
    (reward.folder / "plots").mkdir()
    (reward.folder / "plots" / "loss.png").write_bytes(b"png")
    (reward.folder / "plots" / "README.md").write_text("not the card")
    assert {"plots/loss.png", "plots/README.md"} < set(reseal(reward.folder).manifest.files)


# --------------------------------------------------------------------------- one thing wrong


def flip(folder: Path) -> None:
    path = folder / WEIGHTS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def link(folder: Path) -> None:
    path = folder / WEIGHTS
    shutil.move(path, folder.parent / "elsewhere.safetensors")
    path.symlink_to(folder.parent / "elsewhere.safetensors")


def linked_folder(folder: Path) -> None:
    (folder / "more").symlink_to(folder.parent)


def recalibrate(folder: Path) -> None:
    objectives = manifest_of(folder)["objectives"]
    objectives[0]["calibration"]["mean"] += 1.0
    rewrite(folder, objectives=objectives)


def redirect(folder: Path) -> None:
    rewrite(folder, base=manifest_of(folder)["base"] | {"digest": "0" * 64})


def nan_probe(folder: Path) -> None:
    text = (folder / MANIFEST).read_text().replace('"probes": []', '"probes": [{"messages": [], "scores": {"a": NaN}}]')
    (folder / MANIFEST).write_text(text)


def shard_elsewhere(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "../other/model.safetensors"}})
    )
    reseal_unchecked(folder)


def vocabulary_elsewhere(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"vocab": "/etc/passwd"}))
    reseal_unchecked(folder)


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "config.json")
    rewrite(folder, files=manifest_of(folder)["files"] | {"config.json": "0" * 64})


TAMPERS: list[tuple[Callable[[Path], Any], str]] = [
    (flip, "adapter_model.safetensors has changed since it was exported"),
    (lambda folder: (folder / WEIGHTS).unlink(), f"{WEIGHTS} is in the manifest and not in the folder"),
    (lambda folder: (folder / "more.json").write_text("{}"), "more.json is in the folder and not in the manifest"),
    (lambda folder: (folder / ".hidden").write_text(""), ".hidden is in the folder and not in the manifest"),
    (lambda folder: (folder / "adapter.bin").write_bytes(b""), "adapter.bin may hold pickled code"),
    (lambda folder: (folder / "OPTIMIZER.PT").write_bytes(b""), "OPTIMIZER.PT may hold pickled code"),
    (link, "adapter_model.safetensors is a link; copy the file"),
    (linked_folder, "more is a link"),
    (pipe, "config.json is neither a file nor a folder"),
    (shard_elsewhere, "index.json names '../other/model.safetensors', which is no file of this folder"),
    (vocabulary_elsewhere, "tokenizer_config.json names the file '/etc/passwd' in `vocab`"),
    (lambda folder: rewrite(folder, files={"../keys": "0" * 64}), r"tureen.json: files\..*: .*not in the artifact's"),
    (lambda folder: (folder / MANIFEST).unlink(), "has no tureen.json, so it is no artifact"),
    (lambda folder: (folder / MANIFEST).write_text("{"), "tureen.json: the manifest: Invalid JSON"),
    (lambda folder: rewrite(folder, colour="red"), "tureen.json: colour: Extra inputs are not permitted"),
    (lambda folder: rewrite(folder, format=2), "tureen.json: format: Input should be 1"),
    (lambda folder: rewrite(folder, name=""), "tureen.json: name: .*use 1 to 64"),
    (lambda folder: rewrite(folder, files={}), "is in the folder and not in the manifest"),
    (lambda folder: rewrite(folder, version="0" * 12), "the manifest was edited: its version 000000000000"),
    (recalibrate, "the manifest was edited"),
    (redirect, "the manifest was edited"),
    (nan_probe, r"tureen.json: probes\.0\.scores\.a: Input should be a finite number"),
]


@pytest.mark.parametrize(("tamper", "message"), TAMPERS, ids=[message for _, message in TAMPERS])
def test_one_thing_changed_is_one_sentence(tamper: Callable[[Path], Any], message: str, reward: Artifact) -> None:
    tamper(reward.folder)
    with pytest.raises(ArtifactError, match=message):
        open_artifact(reward.folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": None}, r"the score head \(score\.weight\) is missing; export the artifact again"),
        ({"head": torch.ones(1, 32)}, r"the head is \[1, 32\] and the objectives need 2 rows"),
        ({"head": torch.ones(32)}, r"the head is \[32\] and the objectives need 2 rows"),
        ({"head": torch.full((2, 32), torch.nan)}, "the score head holds a value that is not finite"),
        ({"base_model.model.score.bias": torch.ones(2)}, r"unexpected tensor score\.bias"),
        ({"base_model.model.classifier.weight": torch.ones(2, 32)}, "unexpected tensor .*classifier.weight"),
        (
            {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": torch.full((4, 32), torch.inf)},
            r"layers\.0\.self_attn\.q_proj holds a value that is not finite",
        ),
        ({"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": None}, "q_proj has lora_B only"),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_wrong_tensors_are_refused_though_every_digest_fits(
    changes: dict[str, Tensor | None], message: str, reward: Artifact
) -> None:
    retensor(reward.folder / WEIGHTS, changes)
    with pytest.raises(ArtifactError, match=message):
        reseal(reward.folder)
    with pytest.raises(ArtifactError, match=message):
        open_artifact(reward.folder)


def test_more_rows_than_objectives_are_rows_nobody_reads(reward: Artifact) -> None:
    retensor(reward.folder / WEIGHTS, {"head": torch.ones(5, 32)})
    _, head = read_weights(reseal(reward.folder))
    assert head is not None
    assert head.shape == (5, 32)


def test_an_expert_with_a_head_is_refused(base: Path, tmp_path: Path) -> None:
    artifact = tiny.expert(tmp_path / "academy", base, "academy", 1)
    retensor(artifact.folder / WEIGHTS, {"head": torch.ones(1, 32)})
    with pytest.raises(ArtifactError, match=r"unexpected tensor base_model\.model\.score\.weight"):
        reseal(artifact.folder)


def test_another_kind_of_lora_is_refused(reward: Artifact) -> None:
    path = reward.folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"use_dora": True}))
    with pytest.raises(ArtifactError, match="helpful: use_dora is set"):
        reseal(reward.folder)


@pytest.mark.parametrize("missing", [WEIGHTS, "adapter_config.json"])
def test_an_artifact_sealed_without_a_file_is_refused(missing: str, reward: Artifact) -> None:
    (reward.folder / missing).unlink()
    with pytest.raises(ArtifactError, match=f"has no {missing}"):
        reseal(reward.folder)


def test_a_pickle_is_not_sealed(reward: Artifact) -> None:
    (reward.folder / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(ArtifactError, match="may hold pickled code"):
        reseal(reward.folder)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"nowhere has no tureen\.json"):
        open_artifact(tmp_path / "nowhere")


# --------------------------------------------------------------------------- the fingerprint


def test_the_fingerprint_is_of_the_weights_and_the_dtype(base: Path, tmp_path: Path, reward: Artifact) -> None:
    twin = tiny.reward(tmp_path / "twin", base, "helpful", 3, ["helpful", "brief"])
    other = tiny.reward(tmp_path / "other", base, "helpful", 4, ["helpful", "brief"])
    assert twin.fingerprint("float32") == reward.fingerprint("float32")
    assert other.fingerprint("float32") != reward.fingerprint("float32")
    assert reward.fingerprint("bfloat16") != reward.fingerprint("float32")
    assert len(reward.fingerprint("float32")) == 16


def test_probes_and_figures_do_not_touch_the_fingerprint(reward: Artifact) -> None:
    probes = [Probe(messages=[{"role": "user", "content": "hi"}], scores={"helpful": 1.5})]
    again = seal_artifact(
        reward.folder, reward.manifest.model_copy(update={"probes": probes, "tolerance": {"float32": 1e-4}})
    )
    assert again.fingerprint("float32") == reward.fingerprint("float32")
    assert open_artifact(reward.folder).manifest.probes == probes


# --------------------------------------------------------------------------- gates


@pytest.fixture
def gated(base: Path, tmp_path: Path) -> Artifact:
    return tiny.gated(tmp_path / "overall", base, "overall", 3, ["helpful", "brief"])


def test_a_gated_artifact_gives_its_gate_and_others_none(gated: Artifact, reward: Artifact) -> None:
    assert open_artifact(gated.folder) == gated
    gate = read_gate(gated)
    assert gate is not None
    assert (gate.hidden, gate.rewards) == (32, 2)
    assert gate.transform.tolist() == [[1.0, 0.0], [-0.25, 0.0]]
    assert read_gate(reward) is None


def test_other_libraries_read_the_attributes_of_a_gated_artifact(gated: Artifact, base: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    opened = PeftModel.from_pretrained(model, gated.folder)
    with torch.no_grad():
        logits = opened(input_ids=torch.tensor([[5, 6, 7]])).logits
    assert logits.shape == (1, 2)
    head = read_weights(gated)[1]
    assert head is not None
    assert torch.equal(opened.base_model.model.score.modules_to_save["default"].weight, head)


def test_a_gate_is_part_of_what_is_verified(gated: Artifact) -> None:
    (gated.folder / GATE).unlink()
    with pytest.raises(ArtifactError, match=r"gate\.safetensors is in the manifest and not in the folder"):
        open_artifact(gated.folder)
    with pytest.raises(ArtifactError, match=r"overall: gate\.safetensors is missing"):
        reseal(gated.folder)


def test_a_gate_that_nobody_announced_is_refused(gated: Artifact) -> None:
    rewrite(gated.folder, gated=False, objectives=[{"name": "helpful"}])
    with pytest.raises(ArtifactError, match="belongs to a gated model; say gated: true"):
        reseal(gated.folder)


@pytest.mark.parametrize("sizes", [(16, 2), (32, 3)], ids=str)
def test_a_gate_of_another_shape_than_the_head_is_refused(sizes: tuple[int, int], gated: Artifact) -> None:
    write_gate(GatedHead(*sizes, width=4, depth=1), gated.folder)
    with pytest.raises(
        ArtifactError, match=rf"{sizes[1]} rewards of {sizes[0]} hidden units and the head is \[2, 32\]"
    ):
        reseal(gated.folder)


def test_the_overall_column_is_the_first_that_the_head_has_not(gated: Artifact) -> None:
    retensor(gated.folder / WEIGHTS, {"head": torch.ones(3, 32)})
    with pytest.raises(ArtifactError, match=r"the head is \[3, 32\] and the objectives need 2 rows"):
        reseal(gated.folder)


def test_a_full_checkpoint_may_be_gated(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "full"
    tiny.full_reward(folder, base, "helpful", 1)
    write_gate(GatedHead(32, 1, width=4, depth=1), folder)
    rewrite(folder, gated=True, objectives=[{"name": "helpful"}, {"name": "overall", "column": 1}])
    gate = read_gate(reseal(folder))
    assert gate is not None
    assert gate.rewards == 1
    write_gate(GatedHead(16, 1, width=4, depth=1), folder)
    with pytest.raises(ArtifactError, match="1 rewards of 16 hidden units"):
        reseal(folder)


def test_a_snapshot_of_the_hub_links_to_its_blobs_and_nowhere_else(reward: Artifact, tmp_path: Path) -> None:
    folder, blobs = tmp_path / "models--org--name" / "snapshots" / "abc", tmp_path / "models--org--name" / "blobs"
    folder.mkdir(parents=True)
    blobs.mkdir()
    for path in reward.folder.iterdir():
        shutil.copyfile(path, blobs / path.name)
        (folder / path.name).symlink_to(f"../../blobs/{path.name}")
    assert open_artifact(folder).manifest == reward.manifest
    weights = folder / "adapter_model.safetensors"
    weights.unlink()
    weights.symlink_to(reward.folder / weights.name)
    with pytest.raises(ArtifactError, match=r"adapter_model\.safetensors is a link; copy the file"):
        open_artifact(folder)


def test_a_reward_that_does_not_say_how_its_texts_end_is_refused(tmp_path: Path) -> None:
    reading = {"pooling": "eos", "template": "0" * 16}
    manifest = {
        "kind": "reward",
        "name": "mine",
        "weights": "full",
        "objectives": [{"name": "mine"}],
        "reading": reading,
    }
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=r"reading\.eos: say whether EOS ends a text: `none` for models of"):
        read_manifest(tmp_path)
    (tmp_path / MANIFEST).write_text(json.dumps({**manifest, "reading": {**reading, "eos": "none"}}))
    assert read_manifest(tmp_path).reading.eos == "none"
