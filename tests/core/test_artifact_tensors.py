"""Full checkpoints against the architecture that they name."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from core.artifact_folders import retensor
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from tureen_core.adapter_files import write_adapter
from tureen_core.artifact import (
    Artifact,
    ArtifactError,
    Manifest,
    Objective,
    open_artifact,
    seal_artifact,
)
from tureen_core.steering import PromptSteering, Sentence


def full(folder: Path, base: Path, rows: int = 2) -> Path:
    """A whole classifier with ``rows`` rewards."""
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_pretrained(base, num_labels=rows).save_pretrained(folder)
    return folder


def seal_full(folder: Path, base: Path, **changes: Any) -> Artifact:
    fields: dict[str, Any] = {
        "kind": "reward",
        "name": "whole",
        "weights": "full",
        "objectives": [Objective(name="helpful"), Objective(name="brief", column=1)],
        "reading": tiny.reading(base),
        **changes,
    }
    return seal_artifact(folder, Manifest(**fields))


def test_a_full_checkpoint_opens(base: Path, tmp_path: Path) -> None:
    sealed = seal_full(full(tmp_path / "whole", base), base)
    assert open_artifact(sealed.folder).fingerprint("float32") == sealed.fingerprint("float32")


def test_a_full_checkpoint_in_shards_opens(base: Path, tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(full(tmp_path / "one", base))
    model.save_pretrained(tmp_path / "many", max_shard_size="40KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    seal_full(tmp_path / "many", base)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score.weight": None}, r"the score head \(score\.weight\) is missing"),
        ({"score.weight": torch.ones(1, 32)}, r"the head is \[1, 32\] and the objectives need 2 rows"),
        ({"score.weight": torch.ones(3, 32)}, r"mismatched tensor .*score\.weight"),
        ({"score.weight": torch.full((2, 32), torch.nan)}, "the score head holds a value that is not finite"),
        ({"score.bias": torch.ones(2)}, r"unexpected tensor score\.bias"),
        ({"model.norm.weight": None}, r"missing tensor model\.norm\.weight"),
        ({"lm_head.weight": torch.ones(320, 32)}, r"unexpected tensor lm_head\.weight"),
        ({"model.norm.weight": torch.ones(31)}, r"mismatched tensor .*model\.norm\.weight"),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_every_tensor_of_a_full_checkpoint_has_its_place(
    changes: dict[str, Tensor | None], message: str, base: Path, tmp_path: Path
) -> None:
    folder = full(tmp_path / "whole", base)
    retensor(folder / "model.safetensors", changes)
    with pytest.raises(ArtifactError, match=f"^whole: {message}"):
        seal_full(folder, base)


def test_a_causal_checkpoint_is_no_reward_model(base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "whole")
    with pytest.raises(ArtifactError, match="the score head .* is missing"):
        seal_full(tmp_path / "whole", base)


def test_a_full_policy_is_a_causal_checkpoint(base: Path, tmp_path: Path) -> None:
    """The base's head is tied, so that no file holds ``lm_head.weight``; nothing is missing."""
    AutoModelForCausalLM.from_pretrained(base).save_pretrained(tmp_path / "whole")
    said = [Sentence(objective="brief", text="Be brief.")]
    steering = PromptSteering(family="tiny", sentences=said)
    changes = {"kind": "policy", "steering": steering, "objectives": [Objective(name="brief")]}
    assert seal_full(tmp_path / "whole", base, **changes).manifest.weights == "full"
    shutil.rmtree(tmp_path / "whole")
    with pytest.raises(ArtifactError, match=r"whole: unexpected tensor score\.weight"):
        seal_full(full(tmp_path / "whole", base), base, **changes)


def test_a_full_checkpoint_that_is_no_safetensors_is_refused(base: Path, tmp_path: Path) -> None:
    folder = full(tmp_path / "whole", base)
    (folder / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(ArtifactError, match="whole: not a checkpoint that"):
        seal_full(folder, base)


@pytest.mark.parametrize("content", [None, "{", '{"model_type": "nobody-knows"}'])
def test_a_full_checkpoint_needs_a_configuration(content: str | None, base: Path, tmp_path: Path) -> None:
    folder = full(tmp_path / "whole", base)
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_text(content)
    with pytest.raises(ArtifactError, match="whole: not a checkpoint that AutoModelForSequenceClassification opens"):
        seal_full(folder, base)


def test_a_full_artifact_of_lora_files_is_refused(base: Path, tmp_path: Path) -> None:
    write_adapter(tiny.adapter("x", 0), tmp_path / "whole", "tiny", extras={"score.weight": torch.ones(2, 32)})
    with pytest.raises(ArtifactError, match=r"adapter_config\.json does not belong beside full weights"):
        seal_full(tmp_path / "whole", base)
