"""Differences of whole models: their energy against float64 decompositions, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_experts import open_base

from tureen_core.experts.low_rank import RankChoice
from tureen_core.experts.weight_differences import Approximation, approximate_difference
from tureen_core.lora import SoupError

Q, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"
NORM, EMBEDDING = "model.norm.weight", "model.embed_tokens.weight"


def moved(base: Path, sizes: dict[str, float]) -> Any:
    """The base with noise in these weights."""
    torch.manual_seed(3)
    model = open_base(base)
    for name, size in sizes.items():
        weight = model.get_parameter(name)
        weight.data += size * torch.randn_like(weight)
    return model


def delta(base: Path, tuned: Any, name: str) -> torch.Tensor:
    found: torch.Tensor = tuned.state_dict()[name].double() - open_base(base).state_dict()[name].double()
    return found


def difference(base: Path, tuned: Any, choice: RankChoice) -> Approximation:
    return approximate_difference(open_base(base), tuned, choice, "funny")


def test_energies_are_those_of_the_decompositions(base: Path) -> None:
    tuned = moved(base, {f"{Q}.weight": 0.1, f"{DOWN}.weight": 0.02, NORM: 0.05})
    deltas = {path: delta(base, tuned, f"{path}.weight") for path in (Q, DOWN)}
    kept = {path: float(torch.linalg.svdvals(each)[:6].square().sum()) for path, each in deltas.items()}
    whole = {path: float(each.square().sum()) for path, each in deltas.items()}
    outside = float(delta(base, tuned, NORM).square().sum())
    found = difference(base, tuned, RankChoice(rank=6, accept=0.0))
    total = sum(whole.values()) + outside
    assert found.figures == pytest.approx(
        {
            "energy": sum(kept.values()) / total,
            "lowest_module_energy": min(kept[path] / whole[path] for path in deltas),
            "outside_energy": outside / total,
            "largest_rank": 6,
        }
    )
    assert set(found.adapter.modules) == {Q, DOWN}
    for path, pair in found.adapter.modules.items():
        lost = float((deltas[path] - pair.b.double() @ pair.a.double()).square().sum())
        assert lost == pytest.approx(whole[path] - kept[path], rel=1e-5)


def test_every_module_captures_the_energy_that_is_asked(base: Path) -> None:
    found = difference(base, moved(base, {f"{Q}.weight": 0.1, f"{DOWN}.weight": 1e-4}), RankChoice(energy=0.8))
    assert 0.8 <= found.figures["lowest_module_energy"] <= found.figures["energy"]


def test_the_share_that_no_lora_holds_is_told_and_refused(base: Path, caplog: pytest.LogCaptureFixture) -> None:
    tuned = moved(base, {f"{Q}.weight": 0.05, EMBEDDING: 0.05})
    with pytest.raises(SoupError) as caught:
        difference(base, tuned, RankChoice(energy=0.99))
    for part in ("outside of linear layers, most of it in model.embed_tokens.weight", "no rank can capture that"):
        assert part in str(caught.value)
    asked = float(str(caught.value).rpartition("--accept-energy ")[2])
    with caplog.at_level("INFO"):
        found = difference(base, tuned, RankChoice(energy=0.99, accept=asked))
    assert asked <= found.figures["energy"] < asked + 0.001
    assert f"{found.figures['outside_energy']:.4f} is outside of linear layers" in caplog.text


def test_a_tied_head_counts_once_and_an_untied_one_for_itself(base: Path) -> None:
    tied = moved(base, {f"{Q}.weight": 0.05, EMBEDDING: 0.05})
    untied = moved(base, {f"{Q}.weight": 0.05, EMBEDDING: 0.05})
    untied.lm_head.weight = torch.nn.Parameter(open_base(base).lm_head.weight.detach() + 0.1)
    energy = {name: float(delta(base, tied, name).square().sum()) for name in (f"{Q}.weight", EMBEDDING)}
    head = 0.01 * tied.lm_head.weight.numel()
    every = RankChoice(energy=1.0, accept=0.0)
    once = energy[EMBEDDING] / sum(energy.values())
    assert difference(base, tied, every).figures["outside_energy"] == pytest.approx(once, rel=1e-4)
    twice = (energy[EMBEDDING] + head) / (sum(energy.values()) + head)
    assert difference(base, untied, every).figures["outside_energy"] == pytest.approx(twice, rel=1e-4)


def test_a_low_rank_is_refused_with_what_would_do(base: Path) -> None:
    tuned = moved(base, {f"{Q}.weight": 0.1})
    with pytest.raises(SoupError, match=r"rank 2 at most in 1 modules capture 0\.\d+ .*; 0.95 is asked: raise --rank"):
        difference(base, tuned, RankChoice(rank=2))
    assert difference(base, tuned, RankChoice(rank=2, accept=0.05)).figures["largest_rank"] == 2


def resize(model: Any) -> None:
    model.model.embed_tokens.weight = torch.nn.Parameter(torch.zeros(400, 32))


def spoil(model: Any) -> None:
    model.get_parameter(f"{Q}.weight").data[0, 0] = float("nan")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda model: None, "it differs from the base in nothing"),
        (lambda model: model.get_parameter(NORM).data.add_(0.1), "only in weights that no LoRA holds"),
        (resize, r"model.embed_tokens.weight is \[400, 32\] and the base's is \[\d+, 32\]"),
        (spoil, "a weight holds a value that is not finite"),
        (lambda model: setattr(model.config, "rms_norm_eps", 0.5), "rms_norm_eps in config.json is 0.5, and the base"),
        (lambda model: setattr(model.config, "num_key_value_heads", 1), "num_key_value_heads in config.json is 1"),
    ],
)
def test_what_is_no_fine_tune_of_the_base_is_refused(base: Path, change: Callable[[Any], Any], says: str) -> None:
    tuned = open_base(base)
    change(tuned)
    with pytest.raises(SoupError, match=f"funny: .*{says}"):
        difference(base, tuned, RankChoice())


def test_settings_that_change_nothing_may_differ(base: Path) -> None:
    tuned = moved(base, {f"{Q}.weight": 0.1})
    tuned.config.use_cache, tuned.config.pad_token_id, tuned.config.attention_dropout = False, 7, 0.1
    assert difference(base, tuned, RankChoice()).figures["energy"] >= 0.95
