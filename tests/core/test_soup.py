"""The algebra of soups against sums of B·A written out in float64."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import tiny
import torch
from core.adapters import pair
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from tureen_core.adapter_files import read_adapter, write_adapter
from tureen_core.checkpoint_merge import merge_checkpoint
from tureen_core.lora import Adapter, LoraPair, SoupError
from tureen_core.soup import (
    Semantics,
    Stack,
    StackedPair,
    apply_gate,
    compute_delta,
    concatenate_adapters,
    merge_adapter,
    pad_ranks,
    spread_weights,
)

SHAPES = {"model.layers.0.self_attn.q_proj": (6, 4), "model.layers.0.mlp.down_proj": (5, 7), "model.norm_proj": (3, 3)}
Kitchen = tuple[list[Adapter], dict[str, float]]


@st.composite
def kitchens(draw: st.DrawFn, equal: bool = False) -> Kitchen:
    """Up to four experts with weights: unequal ranks, scales and modules, or all equal (as ``factor`` needs)."""
    names = [f"expert{index}" for index in range(draw(st.integers(1, 4)))]
    common = draw(st.integers(1, 5)), draw(st.floats(0.1, 4))
    adapters = []
    for index, name in enumerate(names):
        paths = sorted(SHAPES) if equal else draw(st.lists(st.sampled_from(sorted(SHAPES)), min_size=1, unique=True))
        rank, scale = common if equal else (draw(st.integers(1, 5)), draw(st.floats(0.1, 4)))
        seeds = [draw(st.integers(0, 9999)) + 10_000 * index for _ in paths]
        modules = {
            path: pair(rank if equal else rank + seed % 2, SHAPES[path], scale, seed)
            for path, seed in zip(paths, seeds, strict=True)
        }
        adapters.append(Adapter(name, modules))
    weights = draw(st.dictionaries(st.sampled_from(names), st.floats(-3, 3, width=32)))
    return adapters, weights


def reference(
    adapters: Sequence[Adapter], weights: Mapping[str, float], path: str, semantics: Semantics = "delta"
) -> tuple[Tensor, float]:
    """ΔW in float64 from the definition, and the size of the terms that it is a sum of."""
    terms = [(weights.get(each.name, 0.0), each.modules[path]) for each in adapters if path in each.modules]
    if semantics == "delta":
        parts = [weight * each.scale * (each.b.double() @ each.a.double()) for weight, each in terms]
    else:
        parts = [
            left * right * one.scale * (one.b.double() @ other.a.double())
            for left, one in terms
            for right, other in terms
        ]
    return sum(parts, torch.zeros(SHAPES[path], dtype=torch.float64)), 1.0 + sum(float(p.abs().max()) for p in parts)


def close(found: Tensor, expected: tuple[Tensor, float]) -> None:
    torch.testing.assert_close(found.double(), expected[0], rtol=1e-5, atol=3e-6 * expected[1])


def through_gate(stack: Stack, path: str, weights: Mapping[str, float], semantics: Semantics, x: Tensor) -> Tensor:
    """What a runtime adds beside a Linear: B_cat · mix(A_cat · x)."""
    stacked = stack.modules[path]
    return (
        apply_gate(x @ stacked.a.T, torch.tensor(stack.order_weights(weights)), stacked.ranks, semantics) @ stacked.b.T
    )


def product(adapter: Adapter, path: str) -> Tensor:
    if path not in adapter.modules:
        return torch.zeros(SHAPES[path])
    low = adapter.modules[path]
    return low.scale * (low.b.double() @ low.a.double())


def check_every_form(kitchen: Kitchen, semantics: Semantics) -> None:
    adapters, weights = kitchen
    stack = concatenate_adapters(adapters)
    merged = merge_adapter(stack, weights, "soup", semantics)
    base = {f"{path}.weight": torch.randn(shape) for path, shape in SHAPES.items()}
    with TemporaryDirectory() as folder:
        source, out = Path(folder, "base"), Path(folder, "out")
        source.mkdir()
        save_file(base, source / "model.safetensors")
        merge_checkpoint(source, stack, weights, out, semantics)
        written = load_file(out / "model.safetensors")
    for path in stack.modules:
        expected = reference(adapters, weights, path, semantics)
        close(compute_delta(stack.modules[path], stack.order_weights(weights), semantics), expected)
        close(through_gate(stack, path, weights, semantics, torch.eye(SHAPES[path][1])).T, expected)
        close(product(merged, path), expected)
        close(written[f"{path}.weight"] - base[f"{path}.weight"], expected)
    for path in set(SHAPES) - set(stack.modules):
        assert torch.equal(written[f"{path}.weight"], base[f"{path}.weight"])


@settings(max_examples=60)
@given(kitchens())
def test_gate_explicit_merge_and_checkpoint_agree_on_delta(kitchen: Kitchen) -> None:
    check_every_form(kitchen, "delta")


@settings(max_examples=60)
@given(kitchens(equal=True))
def test_gate_explicit_merge_and_checkpoint_agree_on_factor(kitchen: Kitchen) -> None:
    check_every_form(kitchen, "factor")


@given(kitchens(), st.floats(-2, 2), st.floats(-2, 2))
def test_delta_is_linear_in_the_weights(kitchen: Kitchen, p: float, q: float) -> None:
    adapters, one = kitchen
    other = {adapter.name: 0.5 + index for index, adapter in enumerate(adapters)}
    stack = concatenate_adapters(adapters)
    both = {name: p * one.get(name, 0) + q * other[name] for name in other}
    for path, stacked in stack.modules.items():
        parts = p * compute_delta(stacked, stack.order_weights(one)) + q * compute_delta(
            stacked, stack.order_weights(other)
        )
        size = reference(adapters, one, path)[1] + reference(adapters, other, path)[1]
        torch.testing.assert_close(
            compute_delta(stacked, stack.order_weights(both)), parts, rtol=1e-4, atol=1e-5 * size
        )


@given(kitchens(), st.data())
def test_a_unit_weight_is_one_expert(kitchen: Kitchen, data: st.DataObject) -> None:
    adapters, _ = kitchen
    chosen = data.draw(st.sampled_from(adapters))
    merged = merge_adapter(concatenate_adapters(adapters), {chosen.name: 1.0}, "soup")
    assert set(merged.modules) == set(chosen.modules)
    for path, low in chosen.modules.items():
        assert merged.modules[path].rank == low.rank
        close(product(merged, path), reference([chosen], {chosen.name: 1.0}, path))


@given(kitchens())
def test_zero_weights_are_the_base(kitchen: Kitchen) -> None:
    adapters, _ = kitchen
    stack = concatenate_adapters(adapters)
    assert merge_adapter(stack, {}, "soup").modules == {}
    for path, stacked in stack.modules.items():
        assert not compute_delta(stacked, stack.order_weights({})).any()
        assert not through_gate(stack, path, {}, "delta", torch.randn(2, SHAPES[path][1])).any()


@given(kitchens())
def test_an_expert_subtracted_from_itself_leaves_the_base(kitchen: Kitchen) -> None:
    adapters, _ = kitchen
    twin = Adapter("twin", adapters[0].modules)
    stack = concatenate_adapters([adapters[0], twin])
    for path, stacked in stack.modules.items():
        found = compute_delta(stacked, stack.order_weights({adapters[0].name: 2.0, "twin": -2.0}))
        close(found, (torch.zeros(SHAPES[path], dtype=torch.float64), reference([twin], {"twin": 4.0}, path)[1]))


@pytest.mark.parametrize("semantics", ["delta", "factor"])
def test_every_row_of_a_batch_has_its_own_soup(semantics: Semantics) -> None:
    """``[B, T, in]`` with a weight vector for each sequence, or each token: no row sees another's weights."""
    path = "model.layers.0.mlp.down_proj"
    adapters = [Adapter(name, {path: pair(3, SHAPES[path], 2.0, seed)}) for seed, name in enumerate("abc")]
    stacked = concatenate_adapters(adapters).modules[path]
    rows = torch.tensor([[1.0, 0, 0], [0.2, 0.3, 0.5], [0, 0, 0], [-1, 2, 0]])
    x = torch.randn(4, 5, SHAPES[path][1])
    together = apply_gate(x @ stacked.a.T, rows[:, None, :], stacked.ranks, semantics) @ stacked.b.T
    per_token = apply_gate(x @ stacked.a.T, rows[:, None, :].expand(4, 5, 3), stacked.ranks, semantics) @ stacked.b.T
    for index, row in enumerate(rows):
        alone = x[index].double() @ compute_delta(stacked, row.tolist(), semantics).double().T
        torch.testing.assert_close(together[index].double(), alone, rtol=1e-5, atol=1e-5)
    assert torch.equal(together, per_token)


def unit_experts() -> list[Adapter]:
    """A1 = [1 0], B1 = [1; 0], A2 = [0 1], B2 = [0; 1]."""
    one = LoraPair(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0], [0.0]]), 1.0)
    two = LoraPair(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0], [1.0]]), 1.0)
    return [Adapter("one", {"m": one}), Adapter("two", {"m": two})]


def test_averaging_products_is_not_averaging_factors() -> None:
    stack = concatenate_adapters(unit_experts())
    half = stack.order_weights({"one": 0.5, "two": 0.5})
    assert compute_delta(stack.modules["m"], half, "delta").tolist() == [[0.5, 0.0], [0.0, 0.5]]
    assert compute_delta(stack.modules["m"], half, "factor").tolist() == [[0.25, 0.25], [0.25, 0.25]]


def test_factor_is_quadratic_in_one_experts_weight() -> None:
    stack = concatenate_adapters(unit_experts())
    half = stack.order_weights({"one": 0.5})
    assert compute_delta(stack.modules["m"], half, "delta")[0, 0] == 0.5
    assert compute_delta(stack.modules["m"], half, "factor")[0, 0] == 0.25


def test_both_semantics_agree_where_all_share_one_a() -> None:
    path = "model.layers.0.mlp.down_proj"
    first = pair(3, SHAPES[path], 2.0, 0)
    others = [LoraPair(first.a, torch.randn(5, 3), 2.0) for _ in range(2)]
    adapters = [Adapter(str(i), {path: low}) for i, low in enumerate([first, *others])]
    stack = concatenate_adapters(adapters)
    row = stack.order_weights({"0": 0.5, "1": 0.3, "2": 0.2})
    stacked = stack.modules[path]
    torch.testing.assert_close(compute_delta(stacked, row, "factor"), compute_delta(stacked, row, "delta"))


def test_the_gate_is_the_weights_over_the_ranks() -> None:
    assert spread_weights(torch.tensor([0.5, -1.0, 2.0]), (2, 0, 1)).tolist() == [0.5, 0.5, 2.0]
    batch = spread_weights(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), (1, 2))
    assert batch.tolist() == [[1, 2, 2], [3, 4, 4]]


def test_half_precision_experts_are_stacked_in_float32() -> None:
    low = pair(4, (6, 4), 3.0, 0)
    half = LoraPair(low.a.bfloat16(), low.b.bfloat16(), 3.0)
    stacked = concatenate_adapters([Adapter("a", {"m": half})]).modules["m"]
    assert stacked.a.dtype == stacked.b.dtype == torch.float32
    torch.testing.assert_close(compute_delta(stacked, [1.0]), 3.0 * half.b.float() @ half.a.float())


def test_a_row_is_in_gate_order_and_refuses_strangers() -> None:
    stack = concatenate_adapters(unit_experts())
    assert stack.order_weights({"two": 0.5}) == [0.0, 0.5]
    with pytest.raises(SoupError, match="no expert is called 'three'; there are one, two"):
        stack.order_weights({"three": 1.0})


def test_what_cannot_be_stacked() -> None:
    with pytest.raises(SoupError, match="two experts have one name: a, a"):
        concatenate_adapters([tiny.adapter("a", 0), tiny.adapter("a", 1)])
    with pytest.raises(SoupError, match=r"mlp\.down_proj as layers of different shapes"):
        concatenate_adapters([tiny.adapter("a", 0), tiny.adapter("b", 1, hidden=16)])


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (tiny.adapter("b", 1, rank=2), r"ranks \(4, 2\)"),
        (tiny.adapter("b", 1, scale=1.0), r"scales \(2.0, 1.0\)"),
        (Adapter("b", {"model.layers.0.mlp.down_proj": pair(4, (32, 64), 2.0, 0)}), r"ranks \(4, 0\)"),
    ],
)
def test_factor_is_refused_where_it_has_no_meaning(other: Adapter, reason: str, base: Path, tmp_path: Path) -> None:
    stack = concatenate_adapters([tiny.adapter("a", 0), other])
    assert stack.find_factor_obstacle() is not None
    with pytest.raises(SoupError, match=reason):
        merge_adapter(stack, {"a": 0.5, "b": 0.5}, "soup", "factor")
    with pytest.raises(SoupError, match="averaging factors"):
        merge_checkpoint(base, stack, {"a": 1.0}, tmp_path / "out", "factor")
    assert not (tmp_path / "out").exists()
    stacked = stack.modules["model.layers.1.self_attn.q_proj"]
    with pytest.raises(SoupError, match="averaging factors needs equal"):
        compute_delta(stacked, [0.5, 0.5], "factor")


def test_ranks_whose_sum_divides_evenly_are_not_mistaken_for_equal_ones() -> None:
    with pytest.raises(SoupError, match=r"equal ranks, not \(2, 1, 3\)"):
        apply_gate(torch.randn(1, 6), torch.ones(3), (2, 1, 3), "factor")


def test_equal_experts_have_factors() -> None:
    assert concatenate_adapters([tiny.adapter("a", 0), tiny.adapter("b", 1)]).find_factor_obstacle() is None


# --------------------------------------------------------------------------- one layout for all modules


def in_float64(stacked: StackedPair, row: Sequence[float], semantics: Semantics = "delta") -> Tensor:
    """What :func:`explicit` computes, without its rounding."""
    return (
        stacked.b.double()
        @ apply_gate(stacked.a.double().T, torch.tensor(row, dtype=torch.float64), stacked.ranks, semantics).T
    )


def same_in_float64(stack: Stack, row: Sequence[float], semantics: Semantics = "delta") -> None:
    for path, stacked in pad_ranks(stack).modules.items():
        found, expected = in_float64(stacked, row, semantics), in_float64(stack.modules[path], row, semantics)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@given(kitchens())
def test_an_even_stack_is_the_same_soup(kitchen: Kitchen) -> None:
    adapters, weights = kitchen
    stack = concatenate_adapters(adapters)
    same_in_float64(stack, stack.order_weights(weights))
    for path, stacked in pad_ranks(stack).modules.items():
        close(compute_delta(stacked, stack.order_weights(weights)), reference(adapters, weights, path))


@given(kitchens())
def test_an_even_stack_has_one_layout_as_narrow_as_can_be(kitchen: Kitchen) -> None:
    adapters, _ = kitchen
    flat = pad_ranks(concatenate_adapters(adapters))
    widest = tuple(max(low.rank for low in adapter.modules.values()) for adapter in adapters)
    assert flat.names == tuple(adapter.name for adapter in adapters)
    for path, stacked in flat.modules.items():
        assert stacked.ranks == widest
        assert stacked.a.shape == (sum(widest), SHAPES[path][1])
        assert stacked.b.shape == (SHAPES[path][0], sum(widest))


@given(kitchens())
def test_to_even_out_an_even_stack_changes_nothing(kitchen: Kitchen) -> None:
    once = pad_ranks(concatenate_adapters(kitchen[0]))
    twice = pad_ranks(once)
    assert twice.names == once.names
    assert all(stacked is once.modules[path] for path, stacked in twice.modules.items())
    assert set(twice.modules) == set(once.modules)


def test_an_expert_keeps_its_ranks_and_its_scale_where_others_are_absent_or_narrower() -> None:
    left, right, _ = sorted(SHAPES)
    adapters = [
        Adapter("one", {left: pair(4, SHAPES[left], 2.0, 0), right: pair(2, SHAPES[right], 2.0, 1)}),
        Adapter("two", {right: pair(3, SHAPES[right], 0.5, 2)}),
        Adapter("three", {left: pair(1, SHAPES[left], 1.0, 3)}),
    ]
    flat = pad_ranks(concatenate_adapters(adapters))
    assert {path: (stacked.ranks, stacked.scales) for path, stacked in flat.modules.items()} == {
        left: ((4, 3, 1), (2.0, 0.0, 1.0)),
        right: ((4, 3, 1), (2.0, 0.5, 0.0)),
    }
    for each in adapters:
        for path, stacked in flat.modules.items():
            close(
                compute_delta(stacked, flat.order_weights({each.name: 1.0})), reference([each], {each.name: 1.0}, path)
            )


def test_factors_average_the_same_where_only_modules_differ_in_rank() -> None:
    """Equal ranks and scales within each module, other ranks in the next: still factorable, and zeros add nothing."""
    ranks = dict(zip(sorted(SHAPES), (2, 5, 3), strict=True))
    adapters = [
        Adapter(name, {path: pair(rank, SHAPES[path], 1.5, seed + rank) for path, rank in ranks.items()})
        for seed, name in ((0, "a"), (10, "b"), (20, "c"))
    ]
    stack, weights = concatenate_adapters(adapters), {"a": 0.5, "b": -0.2, "c": 0.7}
    assert stack.find_factor_obstacle() is None
    assert {stacked.ranks for stacked in pad_ranks(stack).modules.values()} == {(5, 5, 5)}
    same_in_float64(stack, stack.order_weights(weights), "factor")
    for path, stacked in pad_ranks(stack).modules.items():
        close(
            compute_delta(stacked, stack.order_weights(weights), "factor"), reference(adapters, weights, path, "factor")
        )


# --------------------------------------------------------------------------- as one LoRA on disk


def test_a_soup_written_as_one_lora_reads_back_as_the_soup(tmp_path: Path) -> None:
    stack = concatenate_adapters([tiny.adapter("a", 1), tiny.adapter("b", 2)])
    soup = merge_adapter(stack, {"a": 0.25, "b": -2.0}, "soup")
    write_adapter(soup, tmp_path, "tiny")
    back, extras = read_adapter(tmp_path, "soup")
    assert extras == {}
    again = concatenate_adapters([back])
    for path, stacked in stack.modules.items():
        torch.testing.assert_close(
            compute_delta(again.modules[path], [1.0]),
            compute_delta(stacked, stack.order_weights({"a": 0.25, "b": -2.0})),
        )
