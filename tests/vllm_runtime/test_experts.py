"""Experts of others on vLLM, against the same on transformers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from foreign_experts import MERGED, save_lora, save_peft
from vllm_runtime.vllm_setup import SMALL

from tureen_serve.runtimes.catalogue import LoadedModels
from tureen_serve.runtimes.contract import Weights
from tureen_serve.runtimes.load import LoadOptions, load_models
from tureen_serve.settings import FamilyEntry

SOUPS: list[Weights] = [(("lora", 1.0),), (("dora", 1.0),), (("lora", 0.6), ("dora", 0.4)), ()]


@pytest.fixture(scope="module")
def family(base: Path, tmp_path_factory: pytest.TempPathFactory) -> FamilyEntry:
    """A LoRA of unequal ranks with rsLoRA, and a DoRA."""
    folder = tmp_path_factory.mktemp("experts")
    save_lora(base, folder / "lora", r=5, use_rslora=True, rank_pattern={"v_proj": 2})
    save_peft(base, folder / "dora", MERGED["dora"])
    experts: dict[str, Any] = {"lora": folder / "lora", "dora": {"path": folder / "dora", "energy": 0.999}}
    return FamilyEntry(name="tiny", base=str(base), experts=experts)


@pytest.fixture(scope="module")
def loaded(family: FamilyEntry) -> Iterator[dict[str, LoadedModels]]:
    options = {name: LoadOptions(runtime=name, dtype="float32", vllm=SMALL) for name in ("vllm", "transformers")}
    found = {name: load_models([], [family], each, probes=None) for name, each in options.items()}
    yield found
    for each in found.values():
        each.close()


@pytest.mark.parametrize("weights", SOUPS, ids=str)
def test_soups_are_those_of_transformers(loaded: dict[str, LoadedModels], weights: Weights) -> None:
    assert loaded["vllm"].failure is None
    mine, theirs = (loaded[name].policies[0].runtime for name in ("vllm", "transformers"))
    ids = (1, 40, 77, 103, 9, 150, 66, 31, 2)
    assert mine.likelihood(ids, 3, weights) == pytest.approx(theirs.likelihood(ids, 3, weights), abs=1e-4)
