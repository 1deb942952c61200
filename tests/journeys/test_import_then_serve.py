"""An expert that others trained, imported by the command and served beside one that is read as it is."""

from pathlib import Path

import pytest
import tiny
from foreign_experts import MERGED, save_lora, save_peft
from typer.testing import CliRunner

from tureen_serve.__main__ import app as serve
from tureen_serve.runtimes.load import LoadOptions, load_models
from tureen_serve.settings import FamilyEntry
from tureen_train.__main__ import app as train

FLOAT32 = LoadOptions(dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, two adapters of others, and the artifacts that the command makes of them."""
    folder = tmp_path_factory.mktemp("shelf")
    base = tiny.base(folder / "base")
    save_peft(base, folder / "dora", MERGED["dora"])
    save_lora(base, folder / "lora", 2, use_rslora=True)
    for name in ("dora", "lora"):
        command = ["import", "--expert", folder / name, folder / f"{name}-artifact", "--base", base]
        more = ["--objective", name, "--family", "tiny", "--licence", "MIT", "--energy", "0.99"]
        result = CliRunner().invoke(train, [*map(str, command), *more])
        assert result.exit_code == 0, result.output
    return folder


@pytest.mark.parametrize("name", ["dora", "lora"])
def test_the_server_proves_the_artifact(shelf: Path, name: str) -> None:
    command = ["check", str(shelf / f"{name}-artifact"), "--dtype", "float32", "--runtime", "transformers"]
    result = CliRunner().invoke(serve, command)
    assert result.exit_code == 0, result.output
    assert "holds" in result.output


def test_it_may_stand_beside_one_that_is_served_as_it_is(shelf: Path) -> None:
    entry = FamilyEntry(name="tiny", experts=[shelf / "dora-artifact", {"path": shelf / "lora", "name": "lora"}])
    loaded = load_models([], [entry], FLOAT32, probes=None)
    assert loaded.failure is None
    assert list(loaded.policies[0].family.experts) == ["dora", "lora"]


def test_a_lora_has_the_same_fingerprint_imported_or_as_it_is(shelf: Path) -> None:
    families = [
        FamilyEntry(name="tiny", base=str(shelf / "base"), experts={"lora": shelf / folder})
        for folder in ("lora", "lora-artifact")
    ]
    found = {load_models([], [each], FLOAT32).policies[0].family.fingerprint for each in families}
    assert len(found) == 1
