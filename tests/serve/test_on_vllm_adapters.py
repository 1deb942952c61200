"""Soups as folders for vLLM, read back by the core and by PEFT, and the names that carry their weights."""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from serve.experts import NAMES, causal, stack
from torch import Tensor

from tureen.errors import ServerFault
from tureen_core.adapter_files import read_adapter
from tureen_core.lora import Adapter, LoraPair, SoupError
from tureen_core.peft_config import CONFIG
from tureen_core.preference import NAME, normalise_weights
from tureen_core.soup import Semantics, Stack, compute_delta, concatenate_adapters, pad_ranks, spread_weights
from tureen_serve.runtimes.contract import Weights
from tureen_serve.runtimes.on_vllm.adapters import (
    GATE,
    GATE_NUMBER,
    RANKS,
    AdapterReference,
    Adapters,
    GatedAdapters,
    MergedAdapters,
    find_gate_obstacle,
    format_gate_name,
    parse_gate_name,
    round_up_rank,
)

QUERY, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"
SOUPS: list[Weights] = [
    (("academy", 1.0),),
    (("academy", 0.6), ("poetry", 0.4)),
    (("academy", 0.2), ("business", -0.7), ("poetry", 1.5)),
]
SEMANTICS: tuple[Semantics, ...] = ("delta", "factor")
untimed = settings(deadline=None, max_examples=50)


def uneven() -> Stack:
    """Experts of unequal ranks and scales: one adapts no query, one no down projection."""
    wide = tiny.adapter("academy", 0, rank=5)
    downs = only(tiny.adapter("business", 1, rank=2, scale=0.5), "down_proj")
    queries = only(tiny.adapter("poetry", 2, rank=3, scale=1.0), "q_proj")
    return concatenate_adapters([wide, downs, queries])


def only(adapter: Adapter, target: str) -> Adapter:
    return Adapter(adapter.name, {path: pair for path, pair in adapter.modules.items() if path.endswith(target)})


def gated(of: Stack, folder: Path, dtype: torch.dtype = torch.float32) -> GatedAdapters:
    return GatedAdapters(of, "tiny", dtype, folder)


def merged(of: Stack, folder: Path, slots: int = 4, kept: int = 16, **options: Any) -> MergedAdapters:
    return MergedAdapters(of, "tiny", torch.float32, folder, slots, kept, **options)


def asked(adapters: Adapters, weights: Weights, semantics: Semantics = "delta") -> AdapterReference:
    found = adapters.make_reference(weights, semantics)
    assert found is not None
    return found


def written(reference: AdapterReference) -> dict[str, LoraPair]:
    """What the core reads in a folder."""
    adapter, extras = read_adapter(reference.folder, reference.name)
    assert extras == {}
    return dict(adapter.modules)


def config(reference: AdapterReference) -> Any:
    return json.loads((reference.folder / CONFIG).read_text())


def product(pair: LoraPair) -> Tensor:
    return pair.scale * (pair.b @ pair.a)


def same_soup(found: Mapping[str, Tensor], of: Stack, weights: Weights, semantics: Semantics = "delta") -> None:
    """ΔW of every module; a module that a folder leaves out is one that nothing is added to."""
    assert set(found) <= set(of.modules)
    for path, stacked in of.modules.items():
        expected = compute_delta(stacked, of.order_weights(dict(weights)), semantics)
        torch.testing.assert_close(found.get(path, torch.zeros_like(expected)), expected, rtol=1e-5, atol=1e-6)


# --------------------------------------------------------------------------- under the gate


def weighed(reference: AdapterReference, adapters: GatedAdapters, a: Tensor, b: Tensor) -> Tensor:
    """ΔW as a gated engine computes it: the row that the name says, between B and A of the one folder."""
    gate = parse_gate_name(reference.name)
    assert gate is not None
    weights, semantics = gate
    row = torch.tensor([weights.get(name, 0.0) for name in adapters.names])
    if semantics == "delta":
        return b @ (spread_weights(row, adapters.ranks)[:, None] * a)
    parts = a.unflatten(0, (len(row), -1)), b.unflatten(1, (len(row), -1))
    averaged: Tensor = (parts[1] * row[:, None]).sum(1) @ (parts[0] * row[:, None, None]).sum(0)
    return averaged


def in_core(reference: AdapterReference) -> dict[str, tuple[Tensor, Tensor]]:
    """A and B of every module as the core reads them."""
    pairs = written(reference)
    assert {pair.scale for pair in pairs.values()} == {1.0}
    return {path: (pair.a, pair.b) for path, pair in pairs.items()}


def in_peft(reference: AdapterReference, base: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """A and B of every module as PEFT lays them beside a model."""
    model = PeftModel.from_pretrained(causal(base), reference.folder)
    layers = {path: model.base_model.model.get_submodule(path) for path in written(reference)}
    assert all(layer.scaling == {"default": 1.0} for layer in layers.values())
    return {
        path: (layer.lora_A["default"].weight.detach(), layer.lora_B["default"].weight.detach())
        for path, layer in layers.items()
    }


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.base(tmp_path_factory.mktemp("adapters") / "base")


@pytest.mark.parametrize(("of", "semantics"), [(stack, "delta"), (uneven, "delta"), (stack, "factor")])
def test_the_one_folder_under_a_names_row_is_the_soup(
    of: Callable[[], Stack], semantics: Semantics, base: Path, tmp_path: Path
) -> None:
    adapters = gated(of(), tmp_path)
    first = asked(adapters, SOUPS[0])
    for factors in (in_core(first), in_peft(first, base)):
        assert set(factors) == set(of().modules)
        for weights in SOUPS:
            reference = asked(adapters, weights, semantics)
            found = {path: weighed(reference, adapters, a, b) for path, (a, b) in factors.items()}
            same_soup(found, of(), weights, semantics)


def test_the_gate_has_one_layout_for_all_modules(tmp_path: Path) -> None:
    adapters = gated(uneven(), tmp_path)
    assert adapters.names == NAMES
    assert adapters.ranks == (5, 2, 3)
    assert adapters.rank == 10
    assert (adapters.supports_factor, gated(stack(), tmp_path / "even").supports_factor) == (False, True)
    pairs = written(asked(adapters, SOUPS[0]))
    assert set(pairs) == set(uneven().modules)
    assert {pair.rank for pair in pairs.values()} == {10}
    assert not pairs[QUERY].b[:, 5:7].any()  # business adapts no query
    assert not pairs[DOWN].b[:, 7:].any()  # poetry no down projection


def test_every_soup_is_the_same_adapter_under_another_name(tmp_path: Path) -> None:
    adapters = gated(stack(), tmp_path)
    (folder,) = tmp_path.iterdir()
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    references = [asked(adapters, weights, semantics) for weights in SOUPS for semantics in SEMANTICS]
    assert {(each.number, each.folder) for each in references} == {(GATE_NUMBER, folder)}
    assert len({each.name for each in references}) == len(SOUPS) * len(SEMANTICS)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert (adapters.slots, adapters.gated) == (1, True)


def test_the_bare_base_passes_without_the_gate(tmp_path: Path) -> None:
    adapters = gated(stack(), tmp_path)
    assert adapters.make_reference((), "delta") is None
    assert adapters.make_reference((), "factor") is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_folder_says_what_vllm_reads_in_it(dtype: torch.dtype, tmp_path: Path) -> None:
    adapters = gated(uneven(), tmp_path, dtype)
    reference = asked(adapters, SOUPS[0])
    assert adapters.targets == ("down_proj", "q_proj", "v_proj")
    assert config(reference)["base_model_name_or_path"] == "tiny"
    assert config(reference)["r"] == config(reference)["lora_alpha"] == adapters.rank
    assert {pair.a.dtype for pair in written(reference).values()} == {dtype}
    for path, stacked in pad_ranks(uneven()).modules.items():
        assert torch.equal(written(reference)[path].b, stacked.b.to(dtype))


# --------------------------------------------------------------------------- the name of a soup


@st.composite
def canonical(draw: st.DrawFn) -> Weights:
    """What a request's weights are once they are normalised."""
    names = draw(st.lists(st.from_regex(NAME, fullmatch=True), min_size=1, max_size=6, unique=True))
    if draw(st.booleans()):
        given = draw(st.lists(st.floats(0.001, 1e6), min_size=len(names), max_size=len(names)))
        return tuple(normalise_weights(dict(zip(names, given, strict=True)), names).items())
    given = draw(st.lists(st.floats(-16, 16), min_size=len(names), max_size=len(names)))
    return tuple(normalise_weights(dict(zip(names, given, strict=True)), names, "none").items())


@untimed
@given(canonical(), st.sampled_from(SEMANTICS))
def test_a_name_says_the_weights_to_the_last_digit(weights: Weights, semantics: Semantics) -> None:
    assert parse_gate_name(format_gate_name(weights, semantics)) == (dict(weights), semantics)


def test_a_name_can_be_read_by_people() -> None:
    assert format_gate_name((("academy", 0.6), ("business", 0.4)), "delta") == "gate:delta:academy=0.6,business=0.4"
    assert format_gate_name((("poetry", -16.0),), "factor") == "gate:factor:poetry=-16"
    assert format_gate_name((("poetry", 1e-6),), "factor") == "gate:factor:poetry=0.000001"


def test_the_bare_base_has_a_name_of_its_own_for_the_cache() -> None:
    assert parse_gate_name(format_gate_name((), "delta")) == ({}, "delta")


@pytest.mark.parametrize("name", ["", "academy", "4f0c1a2b3c4d", "gates:delta:academy=1", "my:gate:delta:academy=1"])
def test_any_other_adapter_is_none_of_the_gates(name: str) -> None:
    assert parse_gate_name(name) is None


@pytest.mark.parametrize(
    "rest",
    [
        "",
        ":",
        ":median:academy=1",
        ":delta:academy",
        ":delta:0.5",
        ":delta:academy=",
        ":delta:academy=a",
        ":delta:a=1=2",
    ],
)
def test_a_spoilt_name_is_a_fault_and_no_other_soup(rest: str) -> None:
    with pytest.raises(ServerFault, match="is not a valid name of a gate") as caught:
        parse_gate_name(f"{GATE}{rest}")
    assert caught.value.code == "runtime_failed"


# --------------------------------------------------------------------------- one adapter a vector


@pytest.mark.parametrize("weights", SOUPS, ids=str)
@pytest.mark.parametrize("of", [stack, uneven])
def test_a_merged_folder_is_the_soup(of: Callable[[], Stack], weights: Weights, tmp_path: Path) -> None:
    adapters = merged(of(), tmp_path)
    pairs = written(asked(adapters, weights))
    same_soup({path: product(pair) for path, pair in pairs.items()}, of(), weights)
    assert max(pair.rank for pair in pairs.values()) <= adapters.rank
    assert {path.rpartition(".")[2] for path in pairs} <= set(adapters.targets)


@pytest.mark.parametrize("weights", SOUPS, ids=str)
def test_a_merged_folder_averages_factors(weights: Weights, tmp_path: Path) -> None:
    pairs = written(asked(merged(stack(), tmp_path), weights, "factor"))
    same_soup({path: product(pair) for path, pair in pairs.items()}, stack(), weights, "factor")
    assert {pair.rank for pair in pairs.values()} == {4}


def test_peft_opens_a_merged_folder(base: Path, tmp_path: Path) -> None:
    reference = asked(merged(uneven(), tmp_path), SOUPS[2])
    model = PeftModel.from_pretrained(causal(base), reference.folder)
    deltas = {
        path: model.base_model.model.get_submodule(path).get_delta_weight("default").detach()
        for path in written(reference)
    }
    same_soup(deltas, uneven(), SOUPS[2])


def test_a_merged_adapter_is_no_larger_than_its_largest_module(tmp_path: Path) -> None:
    adapters = merged(uneven(), tmp_path)
    assert (adapters.rank, adapters.gated) == (8, False)  # 5 + 3 on queries; the gate's one layout needs 10
    assert adapters.targets == gated(uneven(), tmp_path).targets == ("down_proj", "q_proj", "v_proj")
    everybody = asked(adapters, SOUPS[2])
    assert config(everybody)["r"] == adapters.rank


def test_factors_that_cannot_be_averaged_are_refused_and_nothing_is_kept_of_them(tmp_path: Path) -> None:
    adapters = merged(uneven(), tmp_path)
    for _ in range(2):
        with pytest.raises(SoupError, match="averaging factors needs equal ranks"):
            adapters.make_reference(SOUPS[1], "factor")
    assert list(tmp_path.iterdir()) == []
    assert asked(adapters, SOUPS[1]).folder.is_dir()


def test_a_soup_that_is_known_is_not_written_again(tmp_path: Path) -> None:
    adapters = merged(stack(), tmp_path)
    first = asked(adapters, SOUPS[1])
    (first.folder / CONFIG).unlink()
    assert asked(adapters, SOUPS[1]) == first
    assert not (first.folder / CONFIG).exists()
    assert list(tmp_path.iterdir()) == [first.folder]


def test_each_semantics_is_a_soup_of_its_own(tmp_path: Path) -> None:
    adapters = merged(stack(), tmp_path)
    delta, factor = asked(adapters, SOUPS[1]), asked(adapters, SOUPS[1], "factor")
    assert delta.number != factor.number
    assert delta.name != factor.name
    assert delta.folder != factor.folder


def exists(references: Sequence[AdapterReference]) -> list[bool]:
    return [each.folder.exists() for each in references]


def test_the_least_recently_used_folder_is_unlinked(tmp_path: Path) -> None:
    adapters = merged(stack(), tmp_path, slots=1, kept=2)
    one, two = asked(adapters, SOUPS[0]), asked(adapters, SOUPS[1])
    asked(adapters, SOUPS[0])
    three = asked(adapters, SOUPS[2])
    assert exists([one, two, three]) == [True, False, True]
    assert asked(adapters, SOUPS[0]) == one
    assert set(tmp_path.iterdir()) == {one.folder, three.folder}


def test_as_many_folders_stay_as_a_batch_may_hold(tmp_path: Path) -> None:
    adapters = merged(stack(), tmp_path, slots=3, kept=1)
    assert adapters.kept == 3
    assert exists([asked(adapters, weights) for weights in SOUPS]) == [True] * 3


def test_no_number_is_ever_used_twice(tmp_path: Path) -> None:
    adapters = merged(stack(), tmp_path, slots=1, kept=1)
    references = [asked(adapters, weights) for weights in SOUPS * 3]
    numbers = [each.number for each in references]
    assert len(set(numbers)) == len(numbers)
    assert GATE_NUMBER not in numbers  # the gate's test has both kinds in one engine
    assert len({each.folder for each in references}) == len(numbers)
    assert {each.name for each in references[:3]} == {each.name for each in references[3:6]}
    assert exists(references) == [False] * 8 + [True]


def test_threads_that_ask_at_once_are_given_the_same(tmp_path: Path) -> None:
    adapters, soups, threads = merged(stack(), tmp_path), [((name, 0.5),) for name in NAMES] + SOUPS, 6
    start = Barrier(threads, timeout=20)

    def ask(first: int) -> dict[int, AdapterReference]:
        start.wait()
        places = [(first + step) % len(soups) for step in range(len(soups))]
        return {place: asked(adapters, soups[place]) for place in places}

    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(ask, range(threads)))
    assert all(each == found[0] for each in found)
    assert len({each.number for each in found[0].values()}) == len(soups) == len(list(tmp_path.iterdir()))
    for place, reference in found[0].items():
        same_soup({path: product(pair) for path, pair in written(reference).items()}, stack(), soups[place])


def test_the_bare_base_has_no_adapter_where_it_may_go_without(tmp_path: Path) -> None:
    assert merged(stack(), tmp_path).make_reference((), "delta") is None
    assert list(tmp_path.iterdir()) == []


def test_else_the_bare_base_is_an_adapter_of_zeros(base: Path, tmp_path: Path) -> None:
    adapters = merged(uneven(), tmp_path, bare=False)
    reference = asked(adapters, ())
    pairs = written(reference)
    assert set(pairs) == set(uneven().modules)
    assert not any(pair.a.any() or pair.b.any() for pair in pairs.values())
    assert asked(adapters, ()) == reference
    ids = torch.arange(3, 19).view(2, 8)
    with torch.no_grad():
        plain = causal(base)(ids).logits
        found = PeftModel.from_pretrained(causal(base), reference.folder)(ids).logits
    assert torch.equal(found, plain)


# --------------------------------------------------------------------------- what the gate takes


@pytest.mark.parametrize(("rank", "padded"), [(1, 8), (8, 8), (9, 16), (65, 128), (257, 320), (321, 512), (512, 512)])
def test_a_rank_is_padded_to_the_next_that_vllm_has(rank: int, padded: int) -> None:
    assert round_up_rank(rank) == padded


def test_a_rank_beyond_all_has_no_padding() -> None:
    assert round_up_rank(RANKS[-1] + 1) is None


def expert(name: str, ranks: Mapping[str, int]) -> Adapter:
    """Adapts layers of one input and one output."""
    return Adapter(
        name, {path: LoraPair(torch.ones(rank, 1), torch.ones(1, rank), 1.0) for path, rank in ranks.items()}
    )


def test_dense_experts_can_be_gated() -> None:
    assert find_gate_obstacle(stack()) is None
    assert find_gate_obstacle(uneven()) is None
    assert find_gate_obstacle(concatenate_adapters([expert("a", {DOWN: 256}), expert("b", {DOWN: 256})])) is None
    assert (
        find_gate_obstacle(concatenate_adapters([expert("a", {"model.layers.0.mlp.shared_experts.up_proj": 4})]))
        is None
    )


def test_the_experts_of_a_mixture_cannot_be_gated() -> None:
    path = "model.layers.3.mlp.experts.7.up_proj"
    reason = find_gate_obstacle(concatenate_adapters([expert("a", {QUERY: 4, path: 4}), expert("b", {QUERY: 4})]))
    assert reason is not None
    assert reason.startswith(f"{path} is an expert of a mixture")


def test_more_rank_than_vllm_takes_cannot_be_gated() -> None:
    """What counts is the one layout, though no module alone has that much."""
    reason = find_gate_obstacle(
        concatenate_adapters([expert("a", {QUERY: 256, DOWN: 8}), expert("b", {QUERY: 8, DOWN: 257})])
    )
    assert reason == "the experts have rank 513 together, and vLLM's largest is 512"


def test_a_folder_that_a_waiting_request_needs_stays(tmp_path: Path) -> None:
    """However many vectors come meanwhile; it goes when it is the oldest that nobody holds."""
    adapters = MergedAdapters(stack(), "base", torch.float32, tmp_path, slots=1, kept=2)
    vectors = [(("academy", round(0.1 * number, 6)),) for number in range(1, 7)]
    with adapters.hold_folder(vectors[0], "delta"):
        first = adapters.make_reference(vectors[0], "delta")
        assert first is not None
        for weights in vectors[1:]:
            adapters.make_reference(weights, "delta")
        assert first.folder.is_dir()
        assert adapters.make_reference(vectors[0], "delta") == first
        assert len(list(tmp_path.iterdir())) == 2
    for weights in vectors[1:4]:
        adapters.make_reference(weights, "delta")
    assert not first.folder.exists()
