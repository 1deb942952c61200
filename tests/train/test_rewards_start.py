"""Going on from an earlier stage: what of it is loaded, and every reason to refuse it."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file
from train.tiny_runs import reward_run
from transformers import AutoConfig, LlamaForCausalLM

from tureen_core.artifact import Artifact, ArtifactError
from tureen_core.base import load_tokenizer
from tureen_core.template import Renderer
from tureen_train.config import AttributesLoss, RecipeError, RewardRun
from tureen_train.networks.reward_reader import RewardReader
from tureen_train.rewards.start import make_model as start_from
from tureen_train.rewards.start import open_start

TALK = [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "the quick fox"}]
TARGETS = ["q_proj", "v_proj", "down_proj"]
SAME = {"rank": 4, "alpha": 8, "targets": TARGETS}  # as tiny.adapter's


@pytest.fixture
def general(base: Path, tmp_path: Path) -> Artifact:
    """An earlier stage's LoRA artifact."""
    return tiny.reward(tmp_path / "general", base, "general", seed=3)


def later(base: Path, folder: Path, begun: Path | None, lora: Any = SAME, **changes: Any) -> RewardRun:
    """A recipe that goes on from ``begun``, reading its reward where tiny's artifacts do."""
    reading = {**tiny.reading(base).model_dump(), **changes.pop("reading", {})}
    model = {"lora": lora, "start": None if begun is None else str(begun)}
    return reward_run(base, folder, model=model, reading=reading, **changes)


def start(run: RewardRun, base: Path) -> Any:
    return start_from(run, base, open_start(run, base))


def rewards_of(model: Any, base: Path) -> list[float]:
    ids = torch.tensor([Renderer(load_tokenizer(base), tiny.reading(base)).render_conversation(TALK).ids])
    with torch.no_grad():
        found: list[float] = model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).rewards.flatten().tolist()
    return found


def reward_of(model: Any, base: Path) -> float:
    (found,) = rewards_of(model, base)
    return found


def untied(base: Path, folder: Path, seed: int = 5) -> Path:
    """A base whose LM head is a tensor of its own."""
    torch.manual_seed(seed)
    config = AutoConfig.from_pretrained(base)
    config.tie_word_embeddings = False
    shutil.copytree(base, folder)
    LlamaForCausalLM(config).float().save_pretrained(folder)
    assert "lm_head.weight" in load_file(folder / "model.safetensors")
    return folder


# --------------------------------------------------------------------------- LoRA


@pytest.mark.parametrize("alpha", [8, 2, 16])
def test_an_adapter_goes_on_with_the_reward_it_had(base: Path, tmp_path: Path, general: Artifact, alpha: int) -> None:
    """Also where the recipe's alpha is another: the scale moves into B."""
    expected = RewardReader(general.folder, base, tiny.reading(base)).score_conversations([TALK])[0][0]
    model = start(later(base, tmp_path, general.folder, {**SAME, "alpha": alpha}), base)
    assert reward_of(model, base) == pytest.approx(expected, abs=1e-5)
    fresh = start(later(base, tmp_path, None), base)
    assert reward_of(fresh, base) != pytest.approx(expected, abs=1e-2)


@pytest.mark.parametrize(
    ("lora", "says"),
    [
        ({**SAME, "rank": 2}, "general has rank 4 .* model.lora.rank is 2"),
        ({**SAME, "targets": ["q_proj", "v_proj"]}, "general has .*down_proj.* which this recipe's LoRA lacks"),
        ({**SAME, "targets": [*TARGETS, "o_proj"]}, "general does not adapt .*o_proj"),
        (None, "general has lora weights; make model.lora agree"),
    ],
)
def test_an_adapter_of_another_shape_is_refused(
    base: Path, tmp_path: Path, general: Artifact, lora: Any, says: str
) -> None:
    with pytest.raises(RecipeError, match=says):
        start(later(base, tmp_path, general.folder, lora), base)


@pytest.mark.parametrize(
    ("reading", "says"),
    [
        ({"pooling": "mean"}, "reading.pooling 'eos', not 'mean'"),
        ({"eos": "none"}, "reading.eos 'append', not 'none'"),
        ({"bos": "none"}, "reading.bos 'add', not 'none'"),
        ({"template": "0" * 16}, "reading.template"),
    ],
)
def test_a_head_is_not_read_where_it_was_not_trained(
    base: Path, tmp_path: Path, general: Artifact, reading: dict[str, str], says: str
) -> None:
    with pytest.raises(RecipeError, match=says):
        start(later(base, tmp_path, general.folder, reading=reading), base)


def test_another_length_is_no_other_reading(base: Path, tmp_path: Path, general: Artifact) -> None:
    start(later(base, tmp_path, general.folder, reading={"max_length": 99}), base)


def test_another_base_is_refused(base: Path, tmp_path: Path, general: Artifact) -> None:
    other = tiny.base(tmp_path / "other", seed=9)
    with pytest.raises(RecipeError, match="general has another base"):
        start(later(other, tmp_path, general.folder), other)


def test_a_changed_artifact_is_refused(base: Path, tmp_path: Path, general: Artifact) -> None:
    (general.folder / "stray.txt").write_text("?")
    with pytest.raises(ArtifactError, match=r"stray\.txt"):
        start(later(base, tmp_path, general.folder), base)


# --------------------------------------------------------------------------- all weights


def classifier(base: Path, folder: Path) -> Artifact:
    """A full reward artifact over a base's weights."""
    from tureen_core.artifact import Manifest, Objective, seal_artifact
    from tureen_train.runs.reward_artifact import write_classifier

    model = start(later(base, folder, None, lora=None), base)
    model.save_pretrained(folder / "saved")
    out = folder / "full"
    out.mkdir()
    write_classifier(folder / "saved", out, base)
    reading = tiny.reading(base)
    return seal_artifact(
        out, Manifest(kind="reward", name="full", weights="full", objectives=[Objective(name="full")], reading=reading)
    )


@pytest.mark.parametrize("tied", [True, False])
def test_all_weights_go_on_with_their_head(base: Path, tmp_path: Path, tied: bool) -> None:
    root = base if tied else untied(base, tmp_path / "untied")
    begun = classifier(root, tmp_path)
    expected = RewardReader(begun.folder, None, tiny.reading(root)).score_conversations([TALK])[0][0]
    model = start(later(root, tmp_path, begun.folder, lora=None), root)
    assert reward_of(model, root) == pytest.approx(expected, abs=1e-6)
    with pytest.raises(RecipeError, match="full has full weights"):
        start(later(root, tmp_path, begun.folder), root)


def test_a_classifiers_head_is_kept_or_renewed_as_the_recipe_says(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = classifier(base, tmp_path).folder
    expected = RewardReader(root, None, tiny.reading(base)).score_conversations([TALK])[0][0]

    def begin(head: str, lora: Any = SAME) -> RewardRun:
        run = later(root, tmp_path, None, lora)
        other = run.optimisation.model_copy(update={"seed": 11})  # a new head is not the one of the classifier
        return run.model_copy(update={"model": run.model.model_copy(update={"head": head}), "optimisation": other})

    caplog.set_level("INFO", "tureen.train")
    assert reward_of(start(begin("auto"), root), base) == pytest.approx(expected, abs=1e-5)
    assert f"the score head is taken from {begin('auto').model.base}" in caplog.text
    caplog.clear()
    new = reward_of(start(begin("random", None), root), base)
    assert new != pytest.approx(expected, abs=1e-3)
    assert "the score head is new" in caplog.text
    with pytest.raises(RecipeError, match="has no score head; set it to random"):
        start(begin("base"), base)
    two = begin("auto").model_copy(update={"loss": AttributesLoss(method="attributes", attributes=["a", "b"])})
    with pytest.raises(RecipeError, match=r"has 1 rows, and this run trains 2; set it to random"):
        start(two, root)
    renewed = two.model_copy(update={"model": two.model.model_copy(update={"head": "random"})})
    model = start(renewed, root)
    model.save_pretrained(tmp_path / "two")
    (read,) = RewardReader(tmp_path / "two", root, tiny.reading(base), objectives=2).score_conversations([TALK])
    assert len(read) == 2
    assert read == pytest.approx(rewards_of(model, base), abs=1e-5)


def test_an_untied_lm_head_is_the_bases_where_a_classifier_brought_none(base: Path, tmp_path: Path) -> None:
    root = untied(base, tmp_path / "untied")
    begun = classifier(root, tmp_path)
    assert "lm_head.weight" not in load_file(begun.folder / "model.safetensors")
    model = start(later(root, tmp_path, begun.folder, lora=None, loss={"lm_coefficient": 0.1}), root)
    assert torch.equal(model.lm_head.weight, load_file(root / "model.safetensors")["lm_head.weight"])
    assert model.lm_head.weight.requires_grad


def test_an_untied_lm_head_that_nothing_needs_is_not_trained(base: Path, tmp_path: Path) -> None:
    root = untied(base, tmp_path / "untied")
    idle = start(later(root, tmp_path, None, lora=None), root)
    assert [name for name, weight in idle.named_parameters() if not weight.requires_grad] == ["lm_head.weight"]
    busy = start(later(root, tmp_path, None, lora=None, loss={"lm_coefficient": 0.1}), root)
    assert all(weight.requires_grad for weight in busy.parameters())


def test_a_tied_lm_head_is_always_trained(base: Path, tmp_path: Path) -> None:
    model = start(later(base, tmp_path, None, lora=None), base)
    assert all(weight.requires_grad for weight in model.parameters())
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_imitation_without_any_lm_head_is_refused(base: Path, tmp_path: Path) -> None:
    root = untied(base, tmp_path / "untied")
    begun = classifier(root, tmp_path)
    shutil.copyfile(begun.folder / "model.safetensors", root / "model.safetensors")
    with pytest.raises(RecipeError, match=r"loss\.lm_coefficient: .* so nothing can be imitated; set it to 0"):
        start(later(root, tmp_path, begun.folder, lora=None, loss={"lm_coefficient": 0.1}), root)
