"""Quantised reward models over HTTP have the rewards of their dequantised weights in plain transformers."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf_files import write_gguf
from quantised_folders import (
    pack_awq,
    pack_fp8,
    pack_gptq,
    quantise_by_bitsandbytes,
    quantise_by_compressed_tensors,
    quantise_layers,
    write_exact,
    write_plain,
)
from serve.plain_models import make_talks, score_talks, serve_plain
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tureen_core.plain.dequantisers import KINDS

CLOSE = 1e-4
Load = Callable[[], Any]


def by_formula(pack: Callable[..., Any], **settings: Any) -> Callable[[Path, Path], Load]:
    """Pack the layers, and load the model with the weights of the published formula."""

    def write(source: Path, folder: Path) -> Load:
        exact = quantise_layers(source, folder, pack, **settings)
        return lambda: load(write_exact(source, folder.with_name("exact"), exact))

    return write


def by_bitsandbytes(**settings: Any) -> Callable[[Path, Path], Load]:
    def write(source: Path, folder: Path) -> Load:
        quantise_by_bitsandbytes(source, folder, **settings)
        return lambda: load(folder).dequantize()

    return write


def by_compressed_tensors(source: Path, folder: Path) -> Load:
    weights = {"num_bits": 4, "type": "int", "symmetric": False, "strategy": "group", "group_size": 32}
    quantise_by_compressed_tensors(source, folder, weights=weights)
    return lambda: load(folder)  # the library decompresses it in its first pass


def load(folder: Path) -> Any:
    return AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()


MODELS = {
    "bitsandbytes nf4": by_bitsandbytes(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    "bitsandbytes int8": by_bitsandbytes(load_in_8bit=True),
    "fp8": by_formula(pack_fp8, quant_method="fp8", weight_block_size=[32, 32]),
    "compressed-tensors": by_compressed_tensors,
    "gptq": by_formula(pack_gptq, quant_method="gptq", bits=4, group_size=32, desc_act=True),
    "awq": by_formula(pack_awq, quant_method="awq", bits=4, group_size=32, zero_point=True, version="gemm"),
}


@pytest.mark.parametrize("name", MODELS)
def test_http_answers_with_the_rewards_of_the_dequantised_weights(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kind = name.split()[0]
    pytest.importorskip(KINDS[kind].package)
    source, talks = write_plain(tmp_path / "plain"), make_talks()
    reference = MODELS[name](source, tmp_path / "quantised")
    with caplog.at_level("INFO"), serve_plain(tmp_path / "quantised", cache=tmp_path / "cache") as client:
        found = score_talks(client, talks)
    assert f"quantised is quantised ({kind}): it is served with its weights dequantised to float32" in caplog.text
    model, whole, tokens = reference(), load(source), AutoTokenizer.from_pretrained(source)
    texts = [tokens.apply_chat_template(talk, return_tensors="pt", return_dict=True) for talk in talks]
    with torch.no_grad():
        wanted, before = ([each(**text).logits.item() for text in texts] for each in (model, whole))
    assert [row["reward"] for row in found] == pytest.approx(wanted, abs=CLOSE)
    assert max(abs(a - b) for a, b in zip(wanted, before, strict=True)) > 10 * CLOSE  # the quantised one was served


def test_a_gguf_file_is_a_judge(tmp_path: Path) -> None:
    """A language model that the library ``gguf`` quantised judges as the model of its dequantised weights does."""
    exact = write_gguf(tmp_path / "gguf")
    talks = make_talks(turns=(1,))
    bodies = [{"prompt": talk[0]["content"], "candidates": [talk[1]["content"], "no"]} for talk in talks]
    found = []
    for folder in (tmp_path / "gguf", exact):
        with serve_plain(folder, form="gen-verifier", tokens=["no", "yes"], cache=tmp_path / "cache") as client:
            reply = client.post("/v1/score", json={"items": bodies})
            assert reply.status_code == 200, reply.text
            found.append(
                [each["scores"]["reward"]["raw"] for row in reply.json()["data"] for each in row["candidates"]]
            )
    assert found[0] == pytest.approx(found[1], abs=CLOSE)
    assert len({round(each, 3) for each in found[0]}) > 20
    shutil.rmtree(exact)
