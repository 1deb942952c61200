"""What a policy starts from: its base, an adapter that fits, or whole weights; anything else is refused by name."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from train.tiny_runs import expert_run
from transformers import AutoModelForCausalLM

from tureen_core.adapter_files import write_adapter
from tureen_core.artifact import ArtifactError
from tureen_core.lora import SoupError
from tureen_core.soup import concatenate_adapters, merge_adapter
from tureen_train.config import RecipeError
from tureen_train.policies.opening import open_policy, open_start

SAME: dict[str, Any] = {"rank": 4, "alpha": 8, "targets": ["q_proj", "v_proj", "down_proj"]}
IDS = torch.tensor([[5, 6, 7, 8]])


@pytest.fixture(scope="module")
def artifact(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.expert(tmp_path_factory.mktemp("start") / "general", base, "general", seed=4).folder


def read(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(input_ids=IDS).logits
    return logits


def test_without_a_start_the_policy_is_its_base(base: Path, tmp_path: Path) -> None:
    plain = read(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32))
    for lora in (SAME, None):
        run = expert_run(base, tmp_path, model={"lora": lora})
        assert open_start(run, base) is None
        model = open_policy(run, base)
        assert torch.equal(read(model), plain)
        trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
        assert all("lora_" in name for name in trained) if lora else len(trained) == len(list(model.parameters()))


def test_a_new_adapter_follows_from_the_seed(base: Path, tmp_path: Path) -> None:
    def first(seed: int) -> torch.Tensor:
        model = open_policy(expert_run(base, tmp_path, optimisation={"seed": seed}), base)
        found: torch.Tensor = next(weight for name, weight in model.named_parameters() if "lora_A" in name)
        return found

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


@pytest.mark.parametrize("alpha", [8, 2])
@pytest.mark.parametrize("kind", ["artifact", "peft"])
def test_an_adapter_goes_on_whatever_the_recipes_scale(
    base: Path, tmp_path: Path, artifact: Path, kind: str, alpha: float
) -> None:
    """In the folder that PEFT saves the scale is apart from B; in an artifact it is in B."""
    start = artifact
    if kind == "peft":
        start = tmp_path / "peft"
        start.mkdir()
        shutil.copy(artifact / "adapter_config.json", start)
        shutil.copy(artifact / "adapter_model.safetensors", start)
    expected = tiny.adapter("general", 4)
    run = expert_run(base, tmp_path, model={"lora": {**SAME, "alpha": alpha}, "start": str(start)})
    model = open_policy(run, base, open_start(run, base))
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    for path, pair in expected.modules.items():
        plain.get_submodule(path).weight.data += pair.scale * pair.b @ pair.a
    assert torch.allclose(read(model), read(plain), atol=1e-4)
    model.save_pretrained(tmp_path / "saved")
    again = expert_run(base, tmp_path, model={"lora": SAME, "start": str(tmp_path / "saved")})
    assert torch.allclose(read(open_policy(again, base, open_start(again, base))), read(plain), atol=1e-4)


@pytest.mark.parametrize(
    ("lora", "says"),
    [
        ({**SAME, "rank": 2}, r"model\.start: general has rank 4 at .*, and model\.lora\.rank is 2"),
        (
            {**SAME, "targets": ["q_proj", "v_proj"]},
            r"model\.start: general has .*down_proj.* LoRA lacks",
        ),
        ({**SAME, "targets": [*SAME["targets"], "o_proj"]}, r"model\.start: general does not adapt .*o_proj"),
        ({**SAME, "top_layers": 1}, r"model\.start: general has .*layers\.0.* which this recipe's LoRA lacks"),
    ],
)
def test_an_adapter_of_another_shape_is_refused(
    base: Path, tmp_path: Path, artifact: Path, lora: dict[str, Any], says: str
) -> None:
    run = expert_run(base, tmp_path, model={"lora": lora, "start": str(artifact)})
    with pytest.raises(RecipeError, match=says):
        open_policy(run, base, open_start(run, base))


def test_an_adapter_of_another_base_is_refused(base: Path, tmp_path: Path, artifact: Path) -> None:
    other = tiny.base(tmp_path / "other", seed=9)
    run = expert_run(other, tmp_path, model={"start": str(artifact)})
    with pytest.raises(RecipeError, match=r"model\.start: general has another base than .*other"):
        open_start(run, other)
    write_adapter(tiny.adapter("mine", 1), tmp_path / "peft", str(base), torch.float32)
    run = expert_run(other, tmp_path, model={"start": str(tmp_path / "peft")})
    with pytest.raises(RecipeError, match=r"it was trained on .*base.*, whose weights are not those of .*other"):
        open_start(run, other)


def test_a_base_that_is_not_here_cannot_be_compared_and_is_told(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    write_adapter(tiny.adapter("mine", 1), tmp_path / "peft", "someones/model", torch.float32)
    run = expert_run(base, tmp_path, model={"start": str(tmp_path / "peft")})
    assert open_start(run, base) is not None
    assert "trained on someones/model, which is not on this machine" in caplog.text


def test_what_is_no_expert_or_damaged_is_refused(base: Path, tmp_path: Path, artifact: Path) -> None:
    reward = tiny.reward(tmp_path / "reward", base, "judge", seed=1).folder
    run = expert_run(base, tmp_path, model={"start": str(reward)})
    with pytest.raises(RecipeError, match=r"model\.start: judge is a reward"):
        open_start(run, base)
    broken = shutil.copytree(artifact, tmp_path / "broken")
    tensors = load_file(broken / "adapter_model.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, broken / "adapter_model.safetensors")
    with pytest.raises(ArtifactError, match="has changed since it was exported"):
        open_start(expert_run(base, tmp_path, model={"start": str(broken)}), base)
    with pytest.raises(SoupError, match="has no adapter_config.json"):
        open_start(expert_run(base, tmp_path, model={"start": str(tmp_path / "nothing")}), base)


def test_a_merged_expert_can_be_a_start(base: Path, tmp_path: Path) -> None:
    """Its rank is the sum of the ranks."""
    both = [tiny.adapter(name, seed) for seed, name in enumerate(("a", "b"))]
    merged = merge_adapter(concatenate_adapters(both), {"a": 0.5, "b": 0.5}, "merged")
    write_adapter(merged, tmp_path / "merged", str(base), torch.float32)
    run = expert_run(base, tmp_path, model={"lora": {**SAME, "rank": 8}, "start": str(tmp_path / "merged")})
    assert open_policy(run, base, open_start(run, base)) is not None


def test_a_base_without_an_lm_head_is_refused(base: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base, tie_word_embeddings=False)
    model.base_model.save_pretrained(tmp_path / "headless")
    headless = tmp_path / "headless"
    with pytest.raises(RecipeError, match=r"model\.base: .*headless has no lm_head\.weight"):
        open_policy(expert_run(headless, tmp_path, model={"lora": None}), headless)
