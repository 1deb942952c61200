"""Versions that are opened and loaded while others are served: groups, bases, and what their load needs."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from serve.artifacts import PROBE, prove

from tureen.errors import Unavailable, Unprocessable
from tureen_core.base import digest_weights
from tureen_serve.runtimes.catalogue import Backbone, LoadedModels
from tureen_serve.runtimes.contract import Rewards, Row
from tureen_serve.runtimes.late_loader import LateLoader
from tureen_serve.runtimes.load import LoadOptions, load_models
from tureen_serve.settings import RewardEntry

OPTIONS = LoadOptions(dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("late")
    base = tiny.base(folder / "base")
    for seed, name in enumerate(("calm", "dry", "warm")):
        prove(tiny.reward(folder / name, base, name, seed))
    prove(tiny.full_reward(folder / "whole", base, "whole", 9))
    return folder


def start(folder: Path, *names: str) -> tuple[LoadedModels, LateLoader]:
    loaded = load_models([RewardEntry(path=folder / name) for name in names], [], OPTIONS)
    assert loaded.loader is not None
    return loaded, LateLoader(OPTIONS, loaded.loader, loaded.opened)


def read(backbone: Backbone, name: str) -> float:
    ids = tuple(backbone.rewards[0].renderer.render_conversation(PROBE).ids)
    (found,) = backbone.scorer.run([Row(ids, ((name, 1.0),))])
    assert isinstance(found, Rewards)
    return found.values[0]


def test_adapters_on_one_base_are_a_group_that_shares_its_weights_and_its_renderer(made: Path) -> None:
    loaded, loader = start(made, "calm", "dry")
    (old,) = loaded.backbones
    warm, whole = (loader.open(RewardEntry(path=made / name)) for name in ("warm", "whole"))
    groups = loader.make_groups([loaded.opened[0], whole, warm])
    assert [[each.names for each in group] for group in groups] == [[("calm",), ("warm",)], [("whole",)]]
    assert loader.measure(groups[0]) < loader.measure(groups[1])  # without the base, which is there
    new = loader.load(groups[0])
    assert new.name == old.name
    weights = [each.scorer._backbone.embed_tokens.weight for each in (old, new)]  # type: ignore[attr-defined]
    assert weights[0] is weights[1]
    assert len({id(each.renderer) for each in (*old.rewards, *new.rewards)}) == 1  # so that they can be souped
    assert read(new, "calm") == pytest.approx(read(old, "calm"), abs=1e-6)
    old.close()
    assert read(new, "warm") == pytest.approx(read(loader.load((warm,)), "warm"), abs=1e-6)


def test_a_base_that_changed_on_the_disk_is_not_taken_for_the_old_one(made: Path, tmp_path: Path) -> None:
    for name in ("base", "calm"):
        shutil.copytree(made / name, tmp_path / name)
    base = tmp_path / "base"
    first = prove(tiny.reward(tmp_path / "first", base, "first", 5))
    _, loader = start(tmp_path, "first")
    tiny.base(base, seed=8)
    assert digest_weights(base) != first.manifest.base.digest  # type: ignore[union-attr]
    with pytest.raises(Unprocessable, match="first needs the base") as caught:
        loader.open(RewardEntry(path=tmp_path / "first"))
    assert caught.value.code == "model_unusable"
    second = prove(tiny.reward(tmp_path / "second", base, "second", 6))
    opened = loader.open(RewardEntry(path=second.folder))
    assert read(loader.load((opened,)), "second") == second_value(second.folder)


def second_value(folder: Path) -> float:
    """What a fresh start gives."""
    loaded, _ = start(folder.parent, folder.name)
    return read(loaded.backbones[0], folder.name)


def test_files_that_changed_since_are_noticed(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "calm", tmp_path / "calm")
    loaded, loader = start(tmp_path, "calm")
    assert not loader.has_changed(loaded.opened[0])
    shutil.rmtree(tmp_path / "calm")
    assert loader.has_changed(loaded.opened[0])
    shutil.copytree(made / "dry", tmp_path / "calm")
    assert loader.has_changed(loaded.opened[0])


def lose_base(folder: Path) -> None:
    shutil.rmtree(folder / "base")


def flip_byte(folder: Path) -> None:
    weights = folder / "calm/adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "error", "code"),
    [(lose_base, Unavailable, "model_not_loaded"), (flip_byte, Unprocessable, "model_unusable")],
)
def test_what_cannot_be_served_is_told_without_paths(
    made: Path, tmp_path: Path, damage: Callable[[Path], None], error: type[Exception], code: str
) -> None:
    base = tiny.base(tmp_path / "base")
    prove(tiny.reward(tmp_path / "calm", base, "calm", 1))
    _, loader = start(made, "whole")
    damage(tmp_path)
    with pytest.raises(error) as caught:
        loader.open(RewardEntry(path=tmp_path / "calm"))
    assert caught.value.code == code  # type: ignore[attr-defined]
    assert f"{tmp_path}/calm" not in str(caught.value)


def test_only_a_plain_model_needs_memory_to_be_opened(made: Path, tmp_path: Path) -> None:
    _, loader = start(made, "whole")
    assert loader.measure_opening(RewardEntry(path=made / "whole")) == 0
    shutil.copytree(made / "whole", tmp_path / "plain")
    (tmp_path / "plain/tureen.json").unlink()
    opened = loader.open(RewardEntry(path=tmp_path / "plain"))
    assert loader.measure_opening(RewardEntry(path=tmp_path / "plain")) == loader.measure((opened,))
