"""``tureen-serve check`` of plain models."""

import json
from pathlib import Path

import fsspec
import plain_folders
import pytest
from typer.testing import CliRunner

from tureen_serve.__main__ import app

RUN = CliRunner()
FLOAT32 = ("--dtype", "float32", "--device", "cpu", "--runtime", "transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain model with two labels without names."""
    return plain_folders.classifier(tmp_path_factory.mktemp("plain") / "two", labels=2)


def test_a_plain_model_is_compared_with_plain_transformers(folder: Path) -> None:
    result = RUN.invoke(app, ["check", str(folder), "--objectives", "good,safe", *FLOAT32])
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "form: sequence-classification" in said
    assert "runtime: transformers" in said
    assert "largest difference: " in said
    told = json.loads(RUN.invoke(app, ["check", str(folder), "--objectives", "good,safe", *FLOAT32, "--json"]).output)
    assert (told["holds"], told["form"]) == (True, "sequence-classification")
    assert {each["objective"] for each in told["proofs"]} == {"good", "safe"}
    assert len(told["proofs"]) == 24


def test_a_difference_ends_with_code_1(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tureen_core.plain.linear_heads.open_classifier", lambda *_, **__: lambda ids: [0.0, float(len(ids))]
    )
    result = RUN.invoke(app, ["check", str(folder), *FLOAT32])
    assert result.exit_code == 1
    assert "differs" in result.output


def test_what_an_error_asks_for_by_name_works(tmp_path: Path) -> None:
    folder = plain_folders.classifier(tmp_path / "one")
    (folder / "chat_template.jinja").unlink()
    refused = RUN.invoke(app, ["check", str(folder), *FLOAT32])
    assert refused.exit_code == 1
    assert "--template FILE" in refused.output
    assert "|chatml|hh" in refused.output
    assert RUN.invoke(app, ["check", str(folder), "--template", "chatml", *FLOAT32]).exit_code == 0
    wrong = RUN.invoke(app, ["check", str(folder), "--template", "chatml", "--form", "nothing", *FLOAT32])
    assert "use one of openrlhf, sequence-classification," in " ".join(wrong.output.split())


def test_a_model_behind_a_url(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.filesystem("memory").put(str(folder), "/bucket/checked", recursive=True)
    monkeypatch.setenv("TUREEN_CACHE", str(tmp_path))
    assert RUN.invoke(app, ["check", "memory://bucket/checked", *FLOAT32]).exit_code == 0
    assert list(tmp_path.glob("sources/*/*/checked/model.safetensors"))
