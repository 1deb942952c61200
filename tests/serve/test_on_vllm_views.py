"""Full reward checkpoints without their heads, opened by transformers as what vLLM will take them for."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from tureen_core.artifact import Artifact, open_artifact, read_head_tensors
from tureen_core.gate import write_gate
from tureen_core.heads import GatedHead
from tureen_serve.runtimes.footprint import count_weights
from tureen_serve.runtimes.on_vllm.views import (
    INDEX,
    find_causal_architecture,
    keep_headless_view,
    write_headless_view,
)

SCORE = "score.weight"
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("views")
    return tiny.full_reward(folder / "judge", tiny.base(folder / "base"), "judge", 5)


def sharded(reward: Artifact, folder: Path, size: str | int) -> Path:
    """The reward's checkpoint in shards of at most ``size`` bytes."""
    model = AutoModelForSequenceClassification.from_pretrained(reward.folder, dtype=torch.float32)
    model.save_pretrained(folder, max_shard_size=size)
    return folder


def keys(path: Path) -> set[str]:
    with safe_open(path, framework="pt") as shard:
        return set(shard.keys())


def all_keys(folder: Path) -> set[str]:
    return set().union(*(keys(path) for path in folder.glob("*.safetensors")))


def configuration(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return found


def weight_map(folder: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((folder / INDEX).read_text())["weight_map"]
    return found


def opened(kind: Any, folder: Path) -> Any:
    """The model, if nothing is missing in the folder and nothing left over."""
    model, told = kind.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(told[f"{fault}_keys"] for fault in ("missing", "unexpected", "mismatched"))
    return model.eval()


def states(model: Any) -> Tensor:
    """The last hidden states of two texts."""
    backbone = getattr(model, "model", model)
    with torch.no_grad():
        found: Tensor = backbone(torch.arange(3, 27).view(2, 12)).last_hidden_state
    return found


def rewarding(folder: Path) -> Tensor:
    """Hidden states under the head, in the checkpoint as it is."""
    return states(opened(AutoModelForSequenceClassification, folder))


@pytest.mark.parametrize("kind", [AutoModelForCausalLM, AutoModel])
def test_a_view_opens_as_the_backbone(kind: Any, reward: Artifact, tmp_path: Path) -> None:
    out = write_headless_view(reward.folder, tmp_path / "deep" / "view")
    assert out == tmp_path / "deep" / "view"
    model = opened(kind, out)
    assert type(model).__name__ == {AutoModelForCausalLM: "LlamaForCausalLM", AutoModel: "LlamaModel"}[kind]
    assert torch.equal(states(model), rewarding(reward.folder))


def test_the_head_is_gone_and_all_else_is_there(reward: Artifact, tmp_path: Path) -> None:
    out = write_headless_view(reward.folder, tmp_path / "view")
    before, after = load_file(reward.folder / WEIGHTS), load_file(out / WEIGHTS)
    assert set(before) - set(after) == {SCORE}
    assert read_head_tensors(out) == {}
    for key, tensor in after.items():
        assert torch.equal(tensor, before[key])
    assert {path.name for path in out.iterdir()} == {path.name for path in reward.folder.iterdir()}
    with safe_open(out / WEIGHTS, framework="pt") as shard:
        assert shard.metadata() == {"format": "pt"}


def test_a_gate_is_left_out(reward: Artifact, tmp_path: Path) -> None:
    """vLLM reads every safetensors file of a folder."""
    shutil.copytree(reward.folder, tmp_path / "gated")
    write_gate(GatedHead(32, 1, width=4), tmp_path / "gated")
    view = write_headless_view(tmp_path / "gated", tmp_path / "view")
    assert [path.name for path in view.glob("*.safetensors")] == [WEIGHTS]


def test_only_what_holds_the_head_or_names_it_is_a_copy(reward: Artifact, tmp_path: Path) -> None:
    out = write_headless_view(reward.folder, tmp_path / "view")
    assert {path.name for path in out.iterdir() if not path.is_symlink()} == {"config.json", WEIGHTS}
    for path in out.iterdir():
        if path.is_symlink():
            assert path.readlink() == reward.folder / path.name
    assert AutoTokenizer.from_pretrained(out).encode("why do leaves fall?")


def test_the_checkpoint_itself_is_left_as_it_was(reward: Artifact, tmp_path: Path) -> None:
    write_headless_view(reward.folder, tmp_path / "view")
    assert open_artifact(reward.folder) == reward  # checks every digest
    assert set(read_head_tensors(reward.folder)) == {SCORE}


def test_links_hold_from_anywhere(reward: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(reward.folder.parent)
    out = write_headless_view(Path(reward.folder.name), tmp_path / "view")
    monkeypatch.chdir(tmp_path)
    assert all(path.is_file() for path in out.iterdir())


def test_a_view_is_not_laid_over_another(reward: Artifact, tmp_path: Path) -> None:
    write_headless_view(reward.folder, tmp_path / "view")
    with pytest.raises(FileExistsError):
        write_headless_view(reward.folder, tmp_path / "view")


def test_the_configuration_says_a_causal_model_and_nothing_else_new(reward: Artifact, tmp_path: Path) -> None:
    out = write_headless_view(reward.folder, tmp_path / "view")
    before = configuration(reward.folder)
    assert before["architectures"] == ["LlamaForSequenceClassification"]
    assert configuration(out) == before | {"architectures": ["LlamaForCausalLM"]}


def test_of_shards_only_the_one_with_the_head_is_copied(reward: Artifact, tmp_path: Path) -> None:
    folder = sharded(reward, tmp_path / "sharded", "40KB")
    out = write_headless_view(folder, tmp_path / "view")
    shards = {path.name: path for path in out.glob("*.safetensors")}
    assert len(shards) > 2
    (copy,) = [name for name, path in shards.items() if not path.is_symlink()]
    assert copy == weight_map(folder)[SCORE]
    assert keys(shards[copy]) == keys(folder / copy) - {SCORE} != set()
    assert torch.equal(states(opened(AutoModelForCausalLM, out)), rewarding(folder))


@pytest.mark.parametrize("size", ["40KB", 100])
def test_the_index_names_what_is_there(size: str | int, reward: Artifact, tmp_path: Path) -> None:
    folder = sharded(reward, tmp_path / "sharded", size)
    out = write_headless_view(folder, tmp_path / "view")
    assert weight_map(out) == {key: file for key, file in weight_map(folder).items() if key != SCORE}
    assert set(weight_map(out)) == all_keys(out)
    assert SCORE in all_keys(folder)


@pytest.mark.parametrize("kind", [AutoModelForCausalLM, AutoModel])
def test_a_shard_that_held_the_head_alone_is_not_missed(kind: Any, reward: Artifact, tmp_path: Path) -> None:
    folder = sharded(reward, tmp_path / "sharded", 100)
    alone = weight_map(folder)[SCORE]
    assert keys(folder / alone) == {SCORE}
    out = write_headless_view(folder, tmp_path / "view")
    assert alone not in weight_map(out).values()
    assert torch.equal(states(opened(kind, out)), rewarding(folder))


def test_the_head_is_known_by_its_place_not_by_a_likeness(tmp_path: Path) -> None:
    names = ["score.weight", "score.bias", "scorer.weight", "model.score.weight"]
    folder = tmp_path / "odd"
    folder.mkdir()
    save_file({name: torch.ones(2) for name in names}, folder / WEIGHTS)
    (folder / "config.json").write_text('{"architectures": ["LlamaForSequenceClassification"]}')
    assert all_keys(write_headless_view(folder, tmp_path / "view")) == {"scorer.weight", "model.score.weight"}


@pytest.mark.parametrize("size", ["1GB", "40KB"])
def test_weights_are_counted_over_all_shards(size: str, reward: Artifact, tmp_path: Path) -> None:
    folder = sharded(reward, tmp_path / "sharded", size)
    model = opened(AutoModelForSequenceClassification, folder)
    assert count_weights(folder) == model.num_parameters()
    assert (
        count_weights(write_headless_view(folder, tmp_path / "view"))
        == model.num_parameters() - model.score.weight.numel()
    )


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("llama", "LlamaForCausalLM"),
        ("qwen3", "Qwen3ForCausalLM"),
        ("gemma3_text", "Gemma3ForCausalLM"),
        ("gpt2", "GPT2LMHeadModel"),
        ("deberta-v2", None),
        (None, None),
    ],
)
def test_the_causal_architecture_is_the_one_that_transformers_names(
    kind: str | None, expected: str | None, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind} if kind else {}))
    assert find_causal_architecture(tmp_path) == expected


def test_a_view_is_written_once_into_the_cache(
    reward: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(reward.folder, tmp_path / "judge"))
    first = keep_headless_view(folder, tmp_path / "cache")
    assert first.is_relative_to(tmp_path / "cache" / "views")
    assert SCORE not in all_keys(first)
    monkeypatch.setattr("tureen_serve.runtimes.on_vllm.views._copy_backbone", None)
    assert keep_headless_view(folder, tmp_path / "cache") == first
    monkeypatch.undo()
    others = []
    for number in range(2):
        os.utime(folder / WEIGHTS, (number, number))
        others.append(keep_headless_view(folder, tmp_path / "cache"))
    assert len({first, *others}) == 3
    assert [each.is_dir() for each in (first, *others)] == [False, True, True]


def test_a_view_that_cannot_be_written_leaves_nothing(
    reward: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("no room")

    monkeypatch.setattr("tureen_serve.runtimes.on_vllm.views._copy_backbone", fail)
    with pytest.raises(OSError, match="no room"):
        keep_headless_view(reward.folder, tmp_path)
    assert list((tmp_path / "views").glob("*/*")) == []
