"""What a hostile folder names outside of itself, and that no code and no pickle of a model is run."""

import ast
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import tiny
from core.artifact_folders import reseal_unchecked
from transformers import AutoTokenizer

import tureen_core
import tureen_serve
from tureen_core.artifact import ArtifactError, open_artifact
from tureen_core.base import BaseError, locate_base
from tureen_core.own_files import find_foreign_file, find_outside_link, is_own_name, is_own_path
from tureen_core.plain.checkpoint import read_checkpoint
from tureen_core.plain.options import PlainError

NO_MODELS = {"PeftModel", "LoraConfig"}  # have no code of their own to trust


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small model of another library."""
    found: Path = tiny.base(tmp_path / "model")
    return found


def write(path: Path, content: Any) -> None:
    path.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/b", "/a", "a\\b", "a\0", 5, None, ["a"]])
def test_names_of_other_places(name: object) -> None:
    assert not is_own_name(name)
    assert is_own_name("a.json")
    assert is_own_path("a/b.json")
    assert not any(is_own_path(path) for path in ("/a", "a//b", "a/../b", "./a", "a/"))


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("model.safetensors.index.json", {"weight_map": {"a": "../b.safetensors"}}, "names '../b.safetensors'"),
        ("model.safetensors.index.json", {"weight_map": {"a": "/b.safetensors"}}, "names '/b.safetensors'"),
        ("model.safetensors.index.json", {"weight_map": {"a": ["b"]}}, "no file of this folder"),
        ("tokenizer_config.json", {"vocab": "/run/secrets/keys"}, "in `vocab`"),
        ("tokenizer_config.json", {"merges": "keys"}, "in `merges`"),
        ("tokenizer_config.json", {"init_inputs": ["/run/secrets/keys"]}, "in `init_inputs`"),
        ("tokenizer_config.json", {"init_inputs": "/run/secrets/keys"}, "in `init_inputs`"),
    ],
)
def test_a_folder_that_names_files_elsewhere_is_refused_everywhere(
    folder: Path, file: str, content: Any, says: str
) -> None:
    assert find_foreign_file(folder) is None
    write(folder / file, content)
    with pytest.raises(BaseError, match=says):
        locate_base(str(folder))
    with pytest.raises(PlainError, match=says):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    "content", ["{", "[]", "5", {"weight_map": []}, {"vocab": {"a": 0}, "merges": ["a b"]}, {"init_inputs": []}]
)
def test_what_names_nothing_is_left_to_others(tmp_path: Path, content: Any) -> None:
    for name in ("model.safetensors.index.json", "tokenizer_config.json"):
        write(tmp_path / name, content)
    assert find_foreign_file(tmp_path) is None


def test_the_danger_is_real_and_a_tokenizer_would_tell_the_lines_of_a_file(tmp_path: Path) -> None:
    """If this fails, transformers has mended it: then the rule may go."""
    write(tmp_path / "secret", "the-secret\n[UNK]\n")
    write(tmp_path / "config.json", {"model_type": "bert"})
    write(tmp_path / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "vocab": str(tmp_path / "secret")})
    assert "the-secret" in AutoTokenizer.from_pretrained(tmp_path, local_files_only=True).get_vocab()
    assert find_foreign_file(tmp_path) is not None


def test_links_out_of_a_root_are_found(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    model = root / "model"
    for each in (model / "more", outside):
        each.mkdir(parents=True)
    (model / "more" / "inside").symlink_to("../../other")
    assert find_outside_link(model, root) is None
    (root / "link").symlink_to(outside)
    assert find_outside_link(root / "link", root) == root / "link"
    (model / "more" / "out").symlink_to("../../../outside/keys")
    assert find_outside_link(model, root) == model / "more" / "out"


@pytest.mark.parametrize("known", [True, False])
def test_code_beside_a_model_is_not_run(tmp_path: Path, known: bool) -> None:
    folder = tiny.full_reward(tmp_path / "reward", tiny.base(tmp_path / "base"), "helpful", 3).folder
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Model: pass\nclass Config: pass\n")
    config = json.loads((folder / "config.json").read_text())
    code = {"AutoConfig": "evil.Config", "AutoModelForSequenceClassification": "evil.Model"}
    write(folder / "config.json", config | {"auto_map": code} | ({} if known else {"model_type": "evil"}))
    reseal_unchecked(folder)
    if known:
        assert open_artifact(folder).name == "helpful"
    else:
        with pytest.raises(ArtifactError, match="not a checkpoint"):
            open_artifact(folder)
    assert not (tmp_path / "ran").exists()


def test_a_pickle_under_another_name_is_not_unpickled(tmp_path: Path) -> None:
    folder = tiny.full_reward(tmp_path / "reward", tiny.base(tmp_path / "base"), "helpful", 3).folder
    (weights,) = folder.glob("*.safetensors")
    weights.write_bytes(pickle.dumps(_Evil(str(tmp_path / "ran"))))
    reseal_unchecked(folder)
    with pytest.raises(ArtifactError, match="not a checkpoint"):
        open_artifact(folder)
    assert not (tmp_path / "ran").exists()


class _Evil:
    """Writes a file where it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (self.path, "w")


@pytest.mark.parametrize("package", [tureen_core, tureen_serve], ids=lambda package: package.__name__)
def test_every_model_is_opened_without_code_of_its_own(package: Any) -> None:
    seen = 0
    for path in Path(package.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            called = isinstance(node, ast.Call) and node.func
            if not isinstance(called, ast.Attribute) or called.attr != "from_pretrained":
                continue
            assert isinstance(node, ast.Call)
            if isinstance(called.value, ast.Name) and called.value.id in NO_MODELS:
                continue
            given = {each.arg: each.value for each in node.keywords}
            trusted = given.get("trust_remote_code")
            assert isinstance(trusted, ast.Constant), f"{path}:{node.lineno} does not say trust_remote_code=False"
            assert trusted.value is False
            seen += 1
    assert seen
