"""LoRA reward adapters that PEFT saved: scored as the merged model is, on the weights of one base."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from client.standin import serving
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from serve.layouts import make_conversations
from torch import Tensor
from transformers import AutoModel, AutoModelForSequenceClassification

from tureen import Client
from tureen_core.base import load_tokenizer
from tureen_core.plain.options import PlainError
from tureen_serve.app import create_app
from tureen_serve.runtimes.load import LoadOptions, load_models
from tureen_serve.runtimes.sources import open_source
from tureen_serve.settings import RewardEntry, Settings

NAMES = ("current", "early", "factory")
HEAD = "base_model.model.score.weight"


def write_adapter(folder: Path, base: Path, seed: int, **changes: Any) -> Path:
    """An adapter as TRL's ``RewardTrainer`` saves one, with random weights."""
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    options: dict[str, Any] = {"r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "down_proj"], **changes}
    adapted = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", modules_to_save=["score"], **options))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name or "score" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.save_pretrained(folder)
    return folder


def change_tensors(folder: Path, **changes: Tensor | None) -> None:
    """Replace tensors of an adapter; None removes one."""
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path) | changes
    save_file({name: each for name, each in tensors.items() if each is not None}, path, {"format": "pt"})


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Adapters in three layouts; each names a base in a folder of its own."""
    root = tmp_path_factory.mktemp("adapters")
    tiny.base(root / "base")
    found = {}
    for seed, name in enumerate(NAMES):
        shutil.copytree(root / "base", root / f"base-{name}")
        found[name] = write_adapter(root / name, root / f"base-{name}", seed)
    head = load_file(found["early"] / "adapter_model.safetensors")[HEAD]
    change_tensors(found["early"], **{HEAD: None, "base_model.model.score.modules_to_save.weight": head})
    head = load_file(found["factory"] / "adapter_model.safetensors")[HEAD]
    change_tensors(found["factory"], **{HEAD: None})
    own = {"v_head.summary.weight": head, "v_head.summary.bias": torch.tensor([1.5])}
    save_file(own, found["factory"] / "value_head.safetensors", {"format": "pt"})
    config = json.loads((found["factory"] / "adapter_config.json").read_text())
    config |= {"task_type": "CAUSAL_LM", "modules_to_save": None}
    (found["factory"] / "adapter_config.json").write_text(json.dumps(config))
    return found


def entries(folders: dict[str, Path]) -> list[RewardEntry]:
    return [RewardEntry(path=folder, name=name) for name, folder in folders.items()]


@pytest.fixture(scope="module")
def client(folders: dict[str, Path]) -> Iterator[Client]:
    settings = Settings(rewards=entries(folders), dtype="float32", device="cpu")
    with serving(create_app(settings), lifespan="on") as address, Client(address) as found:
        found.wait_until_ready(100)
        yield found


@pytest.mark.parametrize("name", NAMES)
def test_http_answers_with_the_rewards_of_the_merged_model(client: Client, folders: dict[str, Path], name: str) -> None:
    base = folders[name].parent / "base"
    files = folders[name].glob("*.safetensors")
    tensors = {key: each.double() for file in files for key, each in load_file(file).items()}
    model = AutoModel.from_pretrained(base, dtype=torch.float64)
    for key, a in tensors.items():
        if ".lora_A." in key:
            path = key.removeprefix("base_model.model.model.").removesuffix(".lora_A.weight")
            model.get_submodule(path).weight.data += 12 / 4 * tensors[key.replace("lora_A", "lora_B")] @ a
    head = next(each for key, each in tensors.items() if "score" in key or key == "v_head.summary.weight")
    bias = 1.5 if name == "factory" else 0.0
    tokenizer, conversations, wanted = load_tokenizer(base), make_conversations(), []
    for turns in conversations:
        ids = tokenizer(tokenizer.apply_chat_template(turns, tokenize=False), add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            wanted.append(float(head @ model(torch.tensor([ids])).last_hidden_state[0, -1] + bias))
    items = client.score([{"messages": turns} for turns in conversations], rewards=[name]).data
    found = [item.candidates[0].scores[name].raw for item in items if item.candidates[0].scores]
    assert found == pytest.approx(wanted, abs=1e-4)
    assert len({round(each, 3) for each in wanted}) > 40


def test_adapters_share_the_weights_of_copies_of_their_base(folders: dict[str, Path]) -> None:
    loaded = load_models(entries(folders), [], LoadOptions(dtype="float32", device="cpu"))
    assert [len(each.rewards) for each in loaded.backbones] == [3]


def test_a_base_is_asked_for_and_taken(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["current"], tmp_path / "moved")
    path = tmp_path / "moved/adapter_config.json"
    config = json.loads(path.read_text()) | {"base_model_name_or_path": "somebody/some-base"}
    path.write_text(json.dumps(config))
    with pytest.raises(PlainError, match="'somebody/some-base' is not on this machine: .* --adapter-base FOLDER"):
        open_source(RewardEntry(path=tmp_path / "moved"))
    base = folders["current"].parent / "base"
    artifact = open_source(RewardEntry(path=tmp_path / "moved", adapter_base=str(base)))
    assert artifact.manifest.base is not None
    assert artifact.manifest.base.model == str(base)


def damaged(folders: dict[str, Path], folder: Path, **changes: Any) -> RewardEntry:
    shutil.copytree(folders["current"], folder)
    change_tensors(folder, **changes)
    return RewardEntry(path=folder)


def test_a_head_that_is_missing_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(PlainError, match=r"no head \(score.weight\)"):
        open_source(damaged(folders, tmp_path / "headless", **{HEAD: None}))


def test_a_head_of_another_width_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(PlainError, match="the head reads 16 units and the model has 32"):
        open_source(damaged(folders, tmp_path / "narrow", **{HEAD: torch.ones(1, 16)}))


def test_a_value_that_is_not_finite_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(PlainError, match="holds a value that is not finite"):
        open_source(damaged(folders, tmp_path / "nan", **{HEAD: torch.full((1, 32), float("nan"))}))


def test_a_base_of_another_width_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    other = tiny.base(tmp_path / "other", hidden=64)
    with pytest.raises(PlainError, match="name the right one with --adapter-base|the head reads 32 units"):
        open_source(RewardEntry(path=folders["current"], adapter_base=str(other)))


def test_dora_is_refused_with_the_soups_sentence(folders: dict[str, Path], tmp_path: Path) -> None:
    base = folders["current"].parent / "base"
    folder = write_adapter(tmp_path / "dora", base, 9, use_dora=True)
    with pytest.raises(PlainError, match="DoRA rescales the merged weight, so it is not a sum of low-rank terms"):
        open_source(RewardEntry(path=folder))


def test_a_base_for_a_whole_model_is_refused(folders: dict[str, Path]) -> None:
    base = folders["current"].parent / "base"
    with pytest.raises(PlainError, match="base is no adapter; leave it out"):
        open_source(RewardEntry(path=base, adapter_base=str(base)))
