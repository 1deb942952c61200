"""Which folders are read as experts and how, and what is told of folders that cannot be opened."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from core.adapters import edit_config
from foreign_experts import LORAS, MERGED, open_base, save_full, save_lora, save_peft
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from tureen_core.experts.opened_models import (
    attach_adapter,
    find_method,
    merge_adapter_into,
    open_model,
    read_named_base,
)
from tureen_core.lora import SoupError

WEIGHTS = "adapter_model.safetensors"
CPU = torch.device("cpu")


def rewrite(file: Path, change: Any) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.mark.filterwarnings("ignore:.*tied layer", "ignore:Setting `save_embedding_layers`")
@pytest.mark.parametrize("kind", LORAS)
def test_a_lora_of_any_shape_is_plain(base: Path, tmp_path: Path, kind: str) -> None:
    save_lora(base, tmp_path, **LORAS[kind])
    assert find_method(tmp_path, "funny") == "lora"


@pytest.mark.parametrize("kind", MERGED)
def test_other_adapters_are_merged(base: Path, tmp_path: Path, kind: str) -> None:
    save_peft(base, tmp_path, MERGED[kind])
    assert find_method(tmp_path, "funny") == "merged"


def test_a_model_is_whole_and_names_no_base(base: Path, tmp_path: Path) -> None:
    assert find_method(base, "funny") == "full"
    assert read_named_base(base) is None
    save_lora(base, tmp_path)
    assert read_named_base(tmp_path) == str(base)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"init_lora_weights": "pissa"}, "'pissa' changes the base weights; save it again with .*weight_conversion"),
        ({"init_lora_weights": "olora"}, "'olora' changes the base weights; save it again"),
        ({"bias": "all"}, "trained biases"),
        ({"lora_bias": True}, "lora_bias is set"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is set"),
        ({"use_dora": True, "trainable_token_indices": [3]}, "trainable_token_indices is set"),
        ({"use_dora": True, "some_new_option": 1}, "sets some_new_option, which is not known here"),
        ({"peft_type": "PREFIX_TUNING"}, "not of PREFIX_TUNING"),
    ],
)
def test_an_adapter_that_is_no_part_of_a_soup_is_refused(
    base: Path, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    save_lora(base, tmp_path)
    edit_config(tmp_path, **changes)
    with pytest.raises(SoupError, match=f"funny: .*{says}"):
        find_method(tmp_path, "funny")


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SoupError, match=r"neither a PEFT adapter \(adapter_config.json\) nor a model"):
        find_method(tmp_path, "funny")


# --------------------------------------------------------------------------- adapters


def test_an_adapter_that_lacks_a_tensor_is_refused(base: Path, tmp_path: Path) -> None:
    save_lora(base, tmp_path)
    rewrite(tmp_path / WEIGHTS, lambda tensors: tensors.pop(min(key for key in tensors if "lora_B" in key)))
    with pytest.raises(SoupError, match=r"funny: the adapter is not whole.*layers.0.mlp.down_proj.lora_B"):
        attach_adapter(open_base(base), tmp_path, "funny")


def test_an_adapter_with_a_tensor_that_peft_leaves_out_is_refused(base: Path, tmp_path: Path) -> None:
    save_peft(base, tmp_path, MERGED["loha"])
    extra = "base_model.model.model.layers.7.mlp.down_proj.hada_w1_a"
    rewrite(tmp_path / WEIGHTS, lambda tensors: tensors.update({extra: torch.zeros(2, 2)}))
    with pytest.raises(SoupError, match=r"it holds .*layers.7.mlp.down_proj.*, which nothing reads"):
        merge_adapter_into(open_base(base), tmp_path, "funny")


def test_an_adapter_of_another_base_is_refused(base: Path, tmp_path: Path) -> None:
    save_peft(base, tmp_path, MERGED["dora"])
    rewrite(tmp_path / WEIGHTS, lambda tensors: tensors.update({key: each[:1] for key, each in tensors.items()}))
    with pytest.raises(SoupError, match="funny: PEFT cannot open .* on this base: .*size mismatch"):
        merge_adapter_into(open_base(base), tmp_path, "funny")


def test_an_adapter_in_a_pickle_is_refused(base: Path, tmp_path: Path) -> None:
    model = save_peft(base, tmp_path, MERGED["loha"])
    (tmp_path / WEIGHTS).unlink()
    torch.save({key: each for key, each in model.state_dict().items() if "hada" in key}, tmp_path / "adapter_model.bin")
    with pytest.raises(SoupError, match="funny: PEFT cannot open"):
        attach_adapter(open_base(base), tmp_path, "funny")


# --------------------------------------------------------------------------- models


def test_a_model_opens_in_float32_whatever_it_was_saved_in(base: Path, tmp_path: Path) -> None:
    open_base(base).bfloat16().save_pretrained(tmp_path)
    assert open_model(tmp_path, "funny", CPU).dtype == torch.float32


def test_a_model_without_a_tensor_is_refused(base: Path, tmp_path: Path) -> None:
    save_full(base, tmp_path)
    rewrite(tmp_path / "model.safetensors", lambda tensors: tensors.pop("model.norm.weight"))
    with pytest.raises(SoupError, match="funny: .* is no causal model: missing tensor model.norm.weight"):
        open_model(tmp_path, "funny", CPU)


def test_a_reward_model_is_no_expert(base: Path, tmp_path: Path) -> None:
    AutoModelForSequenceClassification.from_pretrained(base, num_labels=1).save_pretrained(tmp_path)
    with pytest.raises(SoupError, match="is no causal model: unexpected tensor score.weight"):
        open_model(tmp_path, "funny", CPU)


def test_a_model_of_an_unknown_kind_is_refused(base: Path, tmp_path: Path) -> None:
    save_full(base, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "martian"}))
    with pytest.raises(SoupError, match="is no model that AutoModelForCausalLM opens: .*martian"):
        open_model(tmp_path, "funny", CPU)
