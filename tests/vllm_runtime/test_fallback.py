"""One LoRA for each weight vector: exact too, bounded on disk, and taken where the gate cannot be trusted."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from serve.experts import NAMES, stack, texts
from vllm_runtime.vllm_setup import SMALL, runtime
from vllm_runtime.vllm_writing import EIGHT, expected, job, told, write

from tureen_core.base import load_tokenizer
from tureen_serve.runtimes.on_vllm import models as vllm_models
from tureen_serve.runtimes.on_vllm.adapters import GatedAdapters
from tureen_serve.runtimes.on_vllm.engine_arguments import divide_memory
from tureen_serve.runtimes.sources import LoadError

pytestmark = pytest.mark.anyio


class Confused(GatedAdapters):
    """A gate whose experts stand in another order than their factors."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.names = self.names[::-1]


async def test_a_gate_that_fails_its_test_gives_way_to_one_lora_a_vector(
    base: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(vllm_models, "GatedAdapters", Confused)
    made = runtime()
    made.reserve_memory(["tiny"])
    with caplog.at_level(logging.WARNING):
        (generator,) = made.load_base(base, load_tokenizer(base), [], {"tiny": stack(NAMES)}).families
    try:
        assert "tiny: one LoRA for each weight vector, since the gate differs from merged adapters by" in caplog.text
        assert generator.description == "vLLM, one LoRA for each weight vector"
        jobs = [job(ids, weights) for ids, weights in zip(texts([40, 7, 33, 64, 5, 21, 90, 12]), EIGHT, strict=True)]
        for asked, deltas in zip(jobs, await write(generator, jobs), strict=True):
            tokens, found = told(deltas)
            torch.testing.assert_close(found, expected(base, asked, tokens), atol=1e-4, rtol=0)
        many = [job(texts([9])[0], (("academy", round(0.04 * number, 6)),), max_tokens=4) for number in range(1, 25)]
        assert all(told(deltas)[0] for deltas in await write(generator, many))  # far more than folders are kept
        await write(generator, jobs[:1])
        assert len(list((Path(made._files.name) / "tiny").iterdir())) <= 4 * SMALL.adapters + 1  # the gate's own
    finally:
        generator.close()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"gate": "off"}, "the gate is switched off"),
        ({}, "the gate was not tested with vLLM 9.9.9, but with 0.25.0, "),
    ],
)
def test_the_gate_is_not_taken_on_trust(change: dict[str, Any], reason: str) -> None:
    made = runtime(SMALL.model_copy(update=change))
    made.version = "9.9.9+cpu"
    assert made._find_engine_obstacle().startswith(reason)


def test_a_proven_version_has_the_gate() -> None:
    assert runtime()._find_engine_obstacle() is None


def test_memory_is_shared_out() -> None:
    assert divide_memory(["a", "b", "c"], {}) == pytest.approx({"a": 0.3, "b": 0.3, "c": 0.3})
    assert divide_memory(["a", "b", "c"], {"b": 0.5}) == pytest.approx({"a": 0.2, "b": 0.5, "c": 0.2})
    assert divide_memory(["a", "b"], {"a": 0.25, "b": 0.75}) == {"a": 0.25, "b": 0.75}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"d": 0.1}, "vllm.memory.d: no engine has this name; use a, b"),
        ({"a": 0.7, "b": 0.6}, r"0.7 \(a\) \+ 0.6 \(b\) is 1.3 of a GPU; lower them, the sum may be at most 1"),
        ({"a": 0.95}, "0.95 of a GPU, and b needs some too"),
    ],
)
def test_shares_that_do_not_add_up_are_refused(given: dict[str, float], said: str) -> None:
    with pytest.raises(LoadError, match=said):
        divide_memory(["a", "b"], given)


def test_what_vllm_refuses_is_said_at_load(base: Path) -> None:
    made = runtime(SMALL.model_copy(update={"context": 10**6}))
    made.reserve_memory(["tiny"])
    with pytest.raises(LoadError, match="vLLM cannot start tiny: .*max_model_len"):
        made.load_base(base, load_tokenizer(base), [], {"tiny": stack(NAMES)})


def test_another_device_is_refused() -> None:
    with pytest.raises(LoadError, match="CUDA_VISIBLE_DEVICES"):
        vllm_models.VllmRuntime("float32", "tpu:3", runtime()._limits, SMALL)
