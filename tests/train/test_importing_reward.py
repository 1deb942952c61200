"""A plain reward model becomes an artifact that scores alike, whatever its form."""

from collections.abc import Callable
from pathlib import Path

import classifiers
import plain_folders
import pytest
import tiny
from safetensors.torch import load_file
from serve.layouts import LAYOUTS
from serve.plain_models import make_talks, score_talks, serve_plain
from serve.reward_adapters import write_adapter
from typer.testing import CliRunner, Result

from tureen_core import base
from tureen_core.artifact import HEAD_FILE, open_artifact
from tureen_train.__main__ import app

TALKS = make_talks(12, seed=3)
MODELS: dict[str, Callable[[Path], Path]] = {
    "linear": plain_folders.classifier,
    "sigmoid": lambda folder: plain_folders.classifier(
        folder, labels=3, problem_type="multi_label_classification", tokenizer={"pad_token": "<|im_end|>"}
    ),
    "normalised": plain_folders.openrlhf,
    "armorm": lambda folder: LAYOUTS["armorm"](folder).folder,
    "internlm2": lambda folder: LAYOUTS["internlm2"](folder).folder,
    "value-head": lambda folder: LAYOUTS["value-head"](folder).folder,
    "encoder": lambda folder: classifiers.write_model(folder, "bert"),
}
TOLD = {"encoder": ("--template", "answer")}
WITHOUT_HEAD_FILE = ("linear", "encoder")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let converted models go to a folder of the test."""
    monkeypatch.setattr(base, "CACHE", tmp_path_factory.mktemp("cache"))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["import", *map(str, arguments)])


@pytest.mark.parametrize("name", MODELS)
def test_the_artifact_scores_as_the_plain_folder(name: str, tmp_path: Path) -> None:
    folder = MODELS[name](tmp_path / name)
    told = TOLD.get(name, ())
    result = run(folder, tmp_path / "sealed", "--licence", "MIT", *told)
    assert result.exit_code == 0, result.output
    artifact = open_artifact(tmp_path / "sealed")
    assert (artifact.folder / HEAD_FILE).exists() is (name not in WITHOUT_HEAD_FILE)
    assert len(artifact.manifest.probes) > 3
    with serve_plain(folder, **{told[0].removeprefix("--"): told[1]} if told else {}) as client:
        expected = score_talks(client, TALKS)
    with serve_plain(artifact.folder) as client:
        assert score_talks(client, TALKS) == expected
        (card, *_) = client.get("/v1/models").json()["data"]
    assert card["calibrated"] is False


def test_the_manifest_tells_the_origin_and_the_weights_are_the_same(tmp_path: Path) -> None:
    folder = plain_folders.openrlhf(tmp_path / "theirs")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    assert run(folder, tmp_path / "sealed", "--objectives", "good", "--max-length", "128").exit_code == 0
    manifest = open_artifact(tmp_path / "sealed").manifest
    assert manifest.training.recipe["import"] == {
        "source": "theirs",
        "form": "openrlhf",
        "options": {"objectives": ["good"], "max_length": 128},
    }
    assert manifest.training.licences == ["apache-2.0"]
    assert (manifest.name, [each.name for each in manifest.objectives]) == ("theirs", ["good"])
    before, after = (load_file(each / "model.safetensors") for each in (folder, tmp_path / "sealed"))
    del before["value_head.weight"]
    assert before.keys() == after.keys()
    assert all(before[key].equal(after[key]) for key in before)
    card = (tmp_path / "sealed" / "README.md").read_text()
    assert "imported from `theirs` (form `openrlhf`)" in card
    assert "not calibrated" in card


def test_only_an_artifact_is_overwritten(tmp_path: Path) -> None:
    folder = plain_folders.classifier(tmp_path / "theirs")
    out = tmp_path / "sealed"
    assert run(folder, out, "--licence", "MIT").exit_code == 0
    assert "replace it with --overwrite" in run(folder, out, "--licence", "MIT").output
    assert run(folder, out, "--licence", "MIT", "--objectives", "good", "--overwrite").exit_code == 0
    assert open_artifact(out).manifest.objectives[0].name == "good"
    result = run(folder, folder, "--licence", "MIT", "--overwrite")
    assert result.exit_code == 1
    assert "is no artifact, which --overwrite could replace" in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sealed", "theirs"]


def test_what_cannot_be_imported_is_a_sentence(tmp_path: Path) -> None:
    folder, out = plain_folders.classifier(tmp_path / "theirs"), tmp_path / "sealed"
    for arguments, reason in (
        ((folder, out), "say it with --licence"),
        (
            (folder, out, "--objective", "a"),
            "--objective is for experts: give --expert, or leave it out; for the names",
        ),
        ((folder, out, "--expert", "--max-length", "64"), "--max-length is for reward models"),
        ((folder, out, "--expert", "--from", "pickle"), "--from is for reward models"),
        ((tmp_path / "none", out, "--licence", "MIT"), "there is no folder"),
        ((folder, out, "--licence", "MIT", "--max-length", "few"), "--max-length: "),
        ((folder, out, "--licence", "MIT", "--from", "pickle"), "leave out --from pickle"),
    ):
        result = run(*arguments)
        assert result.exit_code != 0
        assert reason in result.output
        assert not out.exists()


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A LoRA adapter with a reward head, as TRL saves one, whose base is beside it."""
    folder = write_adapter(tmp_path / "lora", tiny.base(tmp_path / "base"), seed=3)
    tiny.tokenizer().save_pretrained(folder)
    return folder


def test_an_adapter_becomes_a_lora_artifact_on_its_base(adapter: Path, tmp_path: Path) -> None:
    result = run(adapter, tmp_path / "sealed", "--licence", "MIT")
    assert result.exit_code == 0, result.output
    manifest = open_artifact(tmp_path / "sealed").manifest
    assert manifest.weights == "lora"
    assert manifest.base is not None
    assert Path(manifest.base.model) == tmp_path / "base"
    assert "reward@0" in manifest.probes[0].scores
    with serve_plain(adapter) as client:
        expected = [row["reward"] for row in score_talks(client, TALKS)]
    with serve_plain(tmp_path / "sealed") as client:
        assert [row["reward"] for row in score_talks(client, TALKS)] == pytest.approx(expected, abs=1e-5)


def test_an_adapter_with_another_template_is_refused(adapter: Path, tmp_path: Path) -> None:
    result = run(adapter, tmp_path / "sealed", "--licence", "MIT", "--template", "hh")
    assert result.exit_code == 1
    assert "is not that of its base; merge the adapter" in result.output
    assert not (tmp_path / "sealed").exists()
