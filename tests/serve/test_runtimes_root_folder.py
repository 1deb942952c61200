"""A plain folder in a root: what is known of it, when it is read again, and which flag it needs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import classifiers
import judging
import plain_folders
import pytest
import quantised_folders
import tiny
import torch
from serve.reward_adapters import write_adapter

from tureen_core.base import load_tokenizer
from tureen_core.calibration import Calibration
from tureen_serve.runtimes import root_folder
from tureen_serve.runtimes.footprint import count_weights
from tureen_serve.runtimes.root_folder import Source, UnusableFolder, compute_state, read_folder


def read(folder: Path, before: Source | UnusableFolder | None = None) -> Source:
    found = read_folder(folder, before)
    assert isinstance(found, Source), found
    return found


def refuse(folder: Path, before: Source | UnusableFolder | None = None) -> UnusableFolder:
    found = read_folder(folder, before)
    assert isinstance(found, UnusableFolder), found
    return found


def test_a_plain_model_is_offered_uncalibrated_by_its_folders_name(tmp_path: Path) -> None:
    found = read(plain_folders.classifier(tmp_path / "trl reward"))
    assert (found.plain, found.names, found.base) == (True, ("trl-reward",), None)
    (offer,) = found.offers
    assert (offer.name, offer.calibration) == ("trl-reward", None)
    assert found.manifest.reading.max_length == 512
    assert found.fingerprint("float32") is None
    assert found.state == compute_state(tmp_path / "trl reward")


def test_an_artifact_has_its_fingerprint_and_scale(tmp_path: Path) -> None:
    artifact = tiny.reward(tmp_path / "calm", tiny.base(tmp_path / "base"), "calm", 1)
    found = read(tmp_path / "calm")
    assert (found.plain, found.fingerprint("float32")) == (False, artifact.fingerprint("float32"))
    assert found.offers[0].calibration == Calibration()


def test_a_folder_without_a_configuration_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/model.safetensors").touch()
    assert read_folder(tmp_path / "notes") is None


def test_quantised_weights_are_not_measured_by_their_packed_numbers(tmp_path: Path) -> None:
    source = quantised_folders.write_plain(tmp_path / "plain")
    settings = {"quant_method": "gptq", "bits": 4, "group_size": 32}
    quantised_folders.quantise_layers(source, tmp_path / "packed", quantised_folders.pack_gptq, **settings)
    assert count_weights(tmp_path / "packed") < count_weights(source) / 2
    reason = refuse(tmp_path / "packed").reason
    assert "packed is quantised (gptq, by `quantization_config` of config.json), and is not loaded on demand" in reason
    assert f"`tureen-train import {tmp_path}/packed OUT`" in reason
    assert "have no flags" not in reason


# --------------------------------------------------------------------------- flags


def write_encoder(folder: Path) -> None:
    classifiers.write_model(folder, "bert")


def write_pad_at_the_end(folder: Path) -> None:
    plain_folders.classifier(folder, tokenizer=plain_folders.PADS_WITH_EOS)
    tok = load_tokenizer(folder, own_pad=False)
    tok.chat_template = tiny.CHATML.replace("'<|im_end|>\n'", "'<|im_end|>'")
    tok.save_pretrained(folder)


def write_judge(folder: Path) -> None:
    judging.write_language_model(folder)


def write_wrong_labels(folder: Path) -> None:
    plain_folders.classifier(folder, labels=2)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"id2label": {"0": "a", "1": "b", "2": "c"}}))


def write_other_tokenizer(folder: Path) -> None:
    plain_folders.classifier(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 100}))


def write_other_mark(folder: Path) -> None:
    judging.write_qwen(folder)
    judging.write_tokenizer(folder)


@pytest.mark.parametrize(
    ("write", "flag"),
    [
        (write_encoder, "--template"),
        (write_pad_at_the_end, "--pooling"),
        (write_judge, "--form"),
        (write_wrong_labels, "--objectives"),
        (write_other_tokenizer, "--tokenizer"),
        (write_other_mark, "--step-mark"),
    ],
)
def test_a_flag_that_is_needed_is_told_with_a_way_to_give_it(
    tmp_path: Path, write: Callable[[Path], None], flag: str
) -> None:
    folder = tmp_path / "model"
    write(folder)
    found = refuse(folder)
    assert found.reason.startswith("model: ")
    assert found.reason.endswith(
        f"Folders in the rewards root have no flags: serve it with `--reward {folder} {flag} ...`, or make it an "
        f"artifact with `tureen-train import {folder} OUT {flag} ...`"
    )
    assert refuse(folder, found) is found  # it is read again only when it has changed


def test_other_reasons_are_told_without_a_flag(tmp_path: Path) -> None:
    plain_folders.classifier(tmp_path / "pickled")
    torch.save({}, tmp_path / "pickled/pytorch_model.bin")
    (tmp_path / "pickled/model.safetensors").unlink()
    reason = refuse(tmp_path / "pickled").reason
    assert f"convert them with `tureen-train import {tmp_path}/pickled OUT --from pickle`" in reason
    assert "have no flags" not in reason


# --------------------------------------------------------------------------- copies and changes


def test_a_plain_folder_that_is_half_copied_is_not_offered(tmp_path: Path) -> None:
    folder = plain_folders.classifier(tmp_path / "model")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for length in (0, 5, len(whole) - 1):
        weights.write_bytes(whole[:length])
        assert "model.safetensors cannot be read" in refuse(folder).reason, length
    weights.write_bytes(whole)
    index = folder / "model.safetensors.index.json"
    for text in ('{"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}', '{"weight_ma', "[]"):
        index.write_text(text)
        assert refuse(folder).reason.endswith("is missing; is it still being copied?"), text
    index.unlink()
    assert read(folder)


def test_a_strange_file_costs_only_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Panic(BaseException):
        """As PyO3 raises for a panic in Rust code."""

    folder = plain_folders.classifier(tmp_path / "model")
    for error in (Panic("index out of bounds"), KeyError("rope")):

        def fail(*_: object, error: BaseException = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(root_folder, "describe_plain_reward", fail)
        reason = refuse(folder).reason
        assert reason == f"model cannot be read ({type(error).__name__}: {error})"
    (folder / "tokenizer.json").write_text("{}")
    monkeypatch.undo()
    assert refuse(folder).reason.startswith("model")


def test_a_missing_base_may_come_later(tmp_path: Path) -> None:
    base = tiny.base(tmp_path / "base")
    adapter = write_adapter(tmp_path / "warm", base, 1)
    away = base.rename(tmp_path / "away")
    missing = refuse(adapter)
    assert f"its base '{base}' is not on this machine" in missing.reason
    assert "--adapter-base" in missing.reason
    assert refuse(adapter, missing) == missing
    away.rename(base)
    found = read(adapter, missing)
    assert (found.names, found.base) == (("warm",), base)
    base.rename(away)
    assert isinstance(read_folder(adapter, found), UnusableFolder)


def test_an_adapter_is_another_model_when_its_base_changes(tmp_path: Path) -> None:
    base = tiny.base(tmp_path / "base")
    found = read(write_adapter(tmp_path / "warm", base, 1))
    assert read(tmp_path / "warm", found) is found
    tiny.base(tmp_path / "other", 2)
    shutil.copy(tmp_path / "other/model.safetensors", base / "model.safetensors")
    changed = read(tmp_path / "warm", found)
    assert changed.state != found.state
    assert read(tmp_path / "warm", changed) is changed
