"""GGUF files: all of a language model is read, or it is refused with the reason."""

import shutil
from pathlib import Path

import pytest
import torch
from gguf_files import write_gguf
from safetensors.torch import load_file

from tureen_core.plain.options import PlainError, PlainOptions
from tureen_core.plain.quantised import dequantise_folder
from tureen_core.plain.reward import open_plain_reward


def test_the_weights_are_those_of_the_library(tmp_path: Path) -> None:
    exact = write_gguf(tmp_path / "judge")
    copy = dequantise_folder(tmp_path / "judge", tmp_path / "cache")
    found, wanted = load_file(copy / "model.safetensors"), load_file(exact / "model.safetensors")
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name].float()) for name in wanted)
    assert copy.name == "judge"
    assert {path.name for path in copy.glob("*token*")} == {path.name for path in exact.glob("*token*")}
    assert dequantise_folder(tmp_path / "judge", tmp_path / "cache") == copy


def test_a_language_model_without_a_form_is_asked_for_one(tmp_path: Path) -> None:
    write_gguf(tmp_path / "judge")
    with pytest.raises(PlainError, match=r"judge: Qwen2ForCausalLM is a language model without a reward head"):
        open_plain_reward(tmp_path / "judge", cache=tmp_path / "cache")


def test_a_tokenizer_is_asked_for(tmp_path: Path) -> None:
    write_gguf(tmp_path / "judge")
    for path in (tmp_path / "judge").glob("*token*"):
        path.unlink()
    with pytest.raises(PlainError, match=r"judge: there is no tokenizer in .*; name its folder with --tokenizer"):
        open_plain_reward(tmp_path / "judge", PlainOptions(form="gen-verifier"), cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("more", "lost", "reason"),
    [
        (("cls.output.weight",), "", r"has a head of llama\.cpp \(cls\.output\.weight\), which transformers does not"),
        (("rope_freqs.weight",), "", r"has factors of rotary positions \(rope_freqs\.weight\)"),
        (("blk.0.strange.weight",), "", r"transformers reads \d+ of the \d+ numbers of this GGUF file"),
        ((), "blk.1.ffn_up.weight", r"the weight model\.layers\.1\.mlp\.up_proj\.weight is missing, .* at random"),
    ],
)
def test_what_transformers_does_not_read_is_refused(
    more: tuple[str, ...], lost: str, reason: str, tmp_path: Path
) -> None:
    write_gguf(tmp_path / "judge", *more, lost=lost)
    with pytest.raises(PlainError, match=rf"model\.gguf: ?.*{reason}|model\.gguf {reason}"):
        dequantise_folder(tmp_path / "judge", tmp_path / "cache")
    assert not (tmp_path / "cache").exists() or not list((tmp_path / "cache").rglob("config.json"))


def test_one_file_is_asked_for(tmp_path: Path) -> None:
    write_gguf(tmp_path / "judge")
    shutil.copyfile(tmp_path / "judge" / "model.gguf", tmp_path / "judge" / "second.gguf")
    with pytest.raises(PlainError, match="judge holds 2 GGUF files; move one of them to a folder of its own"):
        dequantise_folder(tmp_path / "judge", tmp_path / "cache")
    (tmp_path / "judge" / "second.gguf").write_bytes(b"GGUF")
    (tmp_path / "judge" / "model.gguf").unlink()
    with pytest.raises(PlainError, match=r"second\.gguf cannot be read: .*; copy it again"):
        dequantise_folder(tmp_path / "judge", tmp_path / "cache")
