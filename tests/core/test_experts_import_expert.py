"""Imported experts against PEFT's own forward and the whole models that they come from."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from foreign_experts import LORAS, MERGED, logits, open_base, save_full, save_lora, save_peft
from safetensors.torch import load_file, save_file
from torch import Tensor

from tureen_core.adapter_files import read_adapter
from tureen_core.artifact import Artifact, open_artifact, read_weights
from tureen_core.base import digest_weights
from tureen_core.experts.import_expert import ExpertCard, import_expert
from tureen_core.experts.low_rank import RankChoice
from tureen_core.lora import SoupError

EXACT = RankChoice(energy=1.0, accept=0.999)
CARD = ExpertCard("funny", "humour", "tiny", "base", licences=("MIT",))
TIED = pytest.mark.filterwarnings("ignore:.*tied layer", "ignore:Setting `save_embedding_layers`")


def imported(source: Path, base: Path, choice: RankChoice = EXACT, card: ExpertCard = CARD) -> Artifact:
    return import_expert(source, source.parent / f"{source.name}-artifact", base, card, choice)


@torch.no_grad()
def summed(base: Path, artifact: Artifact) -> Tensor:
    """Logits of the base with W + s·B·A in every adapted module, summed in float64: neither PEFT nor our gate."""
    model: Any = open_base(base)
    for path, pair in read_weights(artifact)[0].modules.items():
        module = model.get_submodule(path)
        delta = pair.scale * (pair.b.double() @ pair.a.double())
        module.weight = torch.nn.Parameter((module.weight.double() + delta).float())
    return logits(model)


@TIED
@pytest.mark.parametrize("kind", LORAS)
def test_a_lora_of_any_shape_is_what_peft_computes(base: Path, tmp_path: Path, kind: str) -> None:
    wanted = logits(save_lora(base, tmp_path / "funny", **LORAS[kind]))
    artifact = imported(tmp_path / "funny", base)
    torch.testing.assert_close(summed(base, artifact), wanted, atol=1e-4, rtol=0)
    assert float((logits(open_base(base)) - wanted).abs().max()) > 0.05
    figures = artifact.manifest.training.metrics["import"]
    assert figures["energy"] == 1.0
    assert figures["difference"] < 1e-6 < figures["effect"]


@pytest.mark.parametrize("kind", MERGED)
def test_an_adapter_that_peft_merges_is_what_peft_computes(base: Path, tmp_path: Path, kind: str) -> None:
    wanted = logits(save_peft(base, tmp_path / "funny", MERGED[kind]))
    artifact = imported(tmp_path / "funny", base)
    torch.testing.assert_close(summed(base, artifact), wanted, atol=1e-4, rtol=0)
    assert float((logits(open_base(base)) - wanted).abs().max()) > 0.01
    assert artifact.manifest.training.recipe["import"]["method"] == "merged"


def test_a_whole_model_is_what_it_computes(base: Path, tmp_path: Path) -> None:
    wanted = logits(save_full(base, tmp_path / "funny"))
    artifact = imported(tmp_path / "funny", base)
    torch.testing.assert_close(summed(base, artifact), wanted, atol=1e-4, rtol=0)
    assert float((logits(open_base(base)) - wanted).abs().max()) > 0.05


def test_an_approximation_tells_what_it_captures_and_how_far_it_reads_from_the_source(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = logits(save_full(base, tmp_path / "funny"))
    with caplog.at_level("INFO"):
        artifact = imported(tmp_path / "funny", base, RankChoice(rank=12, accept=0.5))
    figures = artifact.manifest.training.metrics["import"]
    assert figures["largest_rank"] == 12
    assert 0.5 < figures["energy"] < 0.95
    assert 0 < figures["difference"] < figures["effect"]
    assert f"capture {figures['energy']:.4f} of the difference's energy" in caplog.text
    assert f"differ from the source's by {figures['difference']:.3g} nats" in caplog.text
    bare, found = logits(open_base(base)), summed(base, artifact)
    assert 1e-3 < float((found - wanted).norm()) < float((bare - wanted).norm())
    assert artifact.manifest.training.recipe["import"] == {
        "source": "funny",
        "method": "full",
        "rank": 12,
        "energy": 0.95,
        "accept": 0.5,
    }


def test_too_little_energy_is_refused_and_nothing_is_written(base: Path, tmp_path: Path) -> None:
    save_full(base, tmp_path / "funny")
    with pytest.raises(SoupError, match=r"funny: .*0.95 is asked: raise --rank or --energy, or accept it with"):
        imported(tmp_path / "funny", base, RankChoice(rank=3))
    assert not (tmp_path / "funny-artifact").exists()


def test_the_artifact_is_an_ordinary_one(base: Path, tmp_path: Path) -> None:
    save_lora(base, tmp_path / "funny", use_rslora=True)
    manifest = open_artifact(imported(tmp_path / "funny", base).folder).manifest
    assert (manifest.kind, manifest.name, manifest.weights) == ("expert", "funny", "lora")
    assert [each.name for each in manifest.objectives] == ["humour"]
    assert manifest.steering is not None
    assert manifest.steering.family == "tiny"
    assert manifest.base is not None
    assert manifest.base.digest == digest_weights(base)
    assert manifest.training.licences == ["MIT"]
    assert manifest.reading == tiny.reading(base, max_length=1024)
    assert len({probe.logprob for probe in manifest.probes}) == len(manifest.probes) >= 4
    assert all("logprob@0" in probe.scores for probe in manifest.probes)


def test_the_same_source_gives_the_same_version_again(base: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_lora(base, tmp_path / name)
    found = [imported(tmp_path / name, base).manifest for name in ("one", "two")]
    assert found[0].version == found[1].version


# --------------------------------------------------------------------------- refused


def saved_modules(base: Path, folder: Path, change: float) -> Path:
    """A LoRA with a copy of the norm and of the embedding beside it, the latter changed."""
    save_lora(base, folder, modules_to_save=["norm", "embed_tokens"])
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    tensors["base_model.model.model.embed_tokens.weight"][3, 2] += change
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


@TIED
def test_whole_modules_may_be_saved_if_they_are_the_bases(base: Path, tmp_path: Path) -> None:
    artifact = imported(saved_modules(base, tmp_path / "funny", 0.0), base)
    assert {path.rpartition(".")[2] for path in read_weights(artifact)[0].modules} == {"q_proj", "v_proj", "down_proj"}
    with pytest.raises(SoupError, match="the whole trained module model.embed_tokens is not the base's"):
        imported(saved_modules(base, tmp_path / "other", 0.1), base)


@TIED
def test_whole_modules_in_half_precision_are_the_bases_too(base: Path, tmp_path: Path) -> None:
    folder = saved_modules(base, tmp_path / "funny", 0.0)
    file = folder / "adapter_model.safetensors"
    halves = {key: each.bfloat16() for key, each in load_file(file).items()}
    save_file(halves, file, metadata={"format": "pt"})
    own = open_base(base).state_dict()
    assert len(read_adapter(folder, "funny", base=own)[0].modules) == 6


@TIED
def test_a_lora_of_the_embeddings_is_refused(base: Path, tmp_path: Path) -> None:
    save_lora(base, tmp_path / "funny", target_modules=["q_proj", "embed_tokens"])
    with pytest.raises(SoupError, match="lora_embedding_A of shape .*: LoRA on embeddings"):
        imported(tmp_path / "funny", base)


@pytest.mark.parametrize("hidden", [32, 64])
def test_another_base_is_refused(base: Path, tmp_path: Path, hidden: int) -> None:
    other = tiny.base(tmp_path / "other", seed=5, hidden=hidden)
    save_lora(other, tmp_path / "funny")
    says = "was trained on .*other, whose weights are not those of base"
    with pytest.raises(SoupError, match=f"funny: it {says}"):
        imported(tmp_path / "funny", base)
    rename_base(tmp_path / "funny", "somewhere/else")
    if hidden != 32:
        with pytest.raises(SoupError, match=r"it adapts model.layers.0.mlp.down_proj as \[64, 128\], and the base has"):
            imported(tmp_path / "funny", base)


def rename_base(folder: Path, name: str) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": name}))


def test_a_base_that_is_not_here_is_told(base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_lora(base, tmp_path / "funny")
    rename_base(tmp_path / "funny", "somewhere/else")
    with caplog.at_level("INFO"):
        imported(tmp_path / "funny", base)
    assert "funny: it was trained on somewhere/else, which is not on this machine" in caplog.text


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("model.layers.1.", "model.layers.9.", "layers.9.*, and the base has no such module: give its own base"),
        ("model.layers.", "layers.", "adapts layers.0.*: save it from AutoModelForCausalLM"),
        ("self_attn.q_proj", "self_attn", "self_attn is a LlamaAttention; only Linear modules can be souped"),
    ],
)
def test_a_module_that_the_base_lacks_is_refused(base: Path, tmp_path: Path, old: str, new: str, says: str) -> None:
    save_lora(base, tmp_path / "funny")
    file = tmp_path / "funny/adapter_model.safetensors"
    save_file({key.replace(old, new): each for key, each in load_file(file).items()}, file, metadata={"format": "pt"})
    with pytest.raises(SoupError, match=f"funny: .*{says}"):
        imported(tmp_path / "funny", base)


def test_a_value_that_is_not_finite_is_refused(base: Path, tmp_path: Path) -> None:
    save_lora(base, tmp_path / "funny")
    file = tmp_path / "funny/adapter_model.safetensors"
    tensors = load_file(file)
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(SoupError, match=r"funny: model.layers.0.mlp.down_proj holds a value that is not finite"):
        imported(tmp_path / "funny", base)


def test_another_chat_template_beside_the_source_is_told(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_lora(base, tmp_path / "funny")
    tok = tiny.tokenizer()
    tok.save_pretrained(tmp_path / "funny")
    imported(tmp_path / "funny", base)
    assert "another chat template" not in caplog.text
    tok.chat_template = tiny.TOOLS
    tok.save_pretrained(tmp_path / "funny")
    import_expert(tmp_path / "funny", tmp_path / "again", base, CARD)
    assert "funny: its folder has another chat template than the base" in caplog.text
