"""Loading while the server runs: the numbers of the start, shared bases, freed weights, and what each failure means."""

import gc
import json
import shutil
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import plain_folders
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from serve.artifacts import prove
from serve.reward_adapters import write_adapter

from tureen.errors import Unavailable, Unprocessable
from tureen_core.artifact import open_artifact, seal_artifact
from tureen_core.base import load_tokenizer
from tureen_core.plain import linear_heads
from tureen_serve.runtimes.catalogue import Backbone, LoadedModels, Reward
from tureen_serve.runtimes.contract import Rewards, Row, Scorer
from tureen_serve.runtimes.footprint import add_footprints, count_weights
from tureen_serve.runtimes.load import LoadOptions, load_models
from tureen_serve.runtimes.on_demand import OnDemandLoader
from tureen_serve.runtimes.probes import Proof, prove_reward
from tureen_serve.runtimes.rewards_root import list_sources
from tureen_serve.runtimes.root_folder import Source
from tureen_serve.settings import RewardEntry

FLOAT32 = LoadOptions(dtype="float32", device="cpu")
NOTHING = LoadedModels("none", (), ())
TALK = [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "because leaves fall"}]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, and in ``root`` two adapters on it, one of several objectives, and a full checkpoint; all proven."""
    folder = tmp_path_factory.mktemp("made")
    base = tiny.base(folder / "base")
    prove(tiny.reward(folder / "root/calm", base, "calm", 1))
    tiny.reward(folder / "root/many", base, "many", 2, objectives=["facts", "tone"])
    prove(tiny.full_reward(folder / "root/whole", base, "whole", 3))
    return folder


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "root", tmp_path / "root"))


def source(root: Path, name: str) -> Source:
    (found,) = [each for each in list_sources(root, {}) if each.folder.name == name]
    assert isinstance(found, Source)
    return found


def score(backbone: Backbone) -> tuple[float, ...]:
    reward = backbone.rewards[0]
    ids = tuple(reward.renderer.render_conversation(TALK).ids)
    (found,) = backbone.scorer.run([Row(ids, ((reward.artifact.name, 1.0),))])
    assert isinstance(found, Rewards)
    return found.values


def alone(folder: Path) -> tuple[float, ...]:
    """The score of a model that is loaded at the start."""
    loaded = load_models([RewardEntry(path=folder)], [], FLOAT32)
    try:
        return score(loaded.backbones[0])
    finally:
        loaded.close()


def weight(backbone: Backbone) -> Any:
    scorer: Any = backbone.scorer
    return scorer._backbone.get_submodule("embed_tokens").weight


@pytest.mark.parametrize("name", ["calm", "many", "whole"])
def test_a_model_has_the_numbers_that_it_has_when_it_is_loaded_at_the_start(root: Path, name: str) -> None:
    backbone = OnDemandLoader(FLOAT32, NOTHING).load(source(root, name))
    assert score(backbone) == pytest.approx(alone(root / name), abs=1e-6)
    assert [each.name for each in backbone.rewards] == list(source(root, name).names)


def test_adapters_share_the_weights_of_their_base_and_only_those(root: Path) -> None:
    loader = OnDemandLoader(FLOAT32, NOTHING)
    calm, many, whole = (loader.load(source(root, name)) for name in ("calm", "many", "whole"))
    assert weight(calm) is weight(many)
    assert weight(whole) is not weight(calm)
    expected = {name: alone(root / name) for name in ("calm", "many")}
    for _ in range(2):  # neither changes the other's numbers
        assert score(calm) == pytest.approx(expected["calm"], abs=1e-6)
        assert score(many) == pytest.approx(expected["many"], abs=1e-6)
    calm.scorer.close()
    assert score(many) == pytest.approx(expected["many"], abs=1e-6)


def test_an_adapter_shares_the_weights_of_a_base_of_the_start(root: Path) -> None:
    started = load_models([RewardEntry(path=root / "many")], [], FLOAT32)
    before = score(started.backbones[0])
    loader = OnDemandLoader(FLOAT32, started)
    calm = loader.load(source(root, "calm"))
    assert weight(calm) is weight(started.backbones[0])
    assert score(calm) == pytest.approx(alone(root / "calm"), abs=1e-6)
    assert score(started.backbones[0]) == before
    assert loader.measure(source(root, "calm")).base_bytes == 0


def test_closed_models_free_their_weights_and_the_base_goes_with_its_last(root: Path) -> None:
    loader = OnDemandLoader(FLOAT32, NOTHING)
    calm, many, whole = (loader.load(source(root, name)) for name in ("calm", "many", "whole"))
    base, own = weakref.ref(weight(calm)), weakref.ref(weight(whole))
    adapter = weakref.ref(calm.scorer._backbone.get_submodule("layers.0.self_attn.q_proj").a)  # type: ignore[attr-defined]
    whole.scorer.close()
    calm.scorer.close()
    gc.collect()
    assert (own(), adapter()) == (None, None)
    assert base() is not None
    many.scorer.close()
    gc.collect()
    assert base() is None


def test_the_footprint_is_that_of_the_tensors_in_memory(
    root: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tureen_serve.runtimes.on_transformers.onednn.is_onednn_faster", lambda _: False)
    for dtype, width in {"float32": 4, "bfloat16": 2}.items():
        loader = OnDemandLoader(LoadOptions(dtype=dtype, device="cpu"), NOTHING)
        calm, many, whole = (loader.measure(source(root, name)) for name in ("calm", "many", "whole"))
        assert calm.base == many.base is not None
        assert whole.base is None
        assert calm.base_bytes == width * count_weights(made / "base")
        assert whole.own == width * count_weights(root / "whole")
        assert add_footprints([calm, many]) == calm.own + many.own + calm.base_bytes
    backbone: Any = OnDemandLoader(FLOAT32, NOTHING).load(source(root, "whole"))
    held = sum(each.nbytes for each in backbone.scorer._backbone.parameters())
    assert held == pytest.approx(4 * count_weights(root / "whole"), rel=0.01)


def test_scores_do_not_depend_on_the_default_dtype_that_a_load_sets(root: Path) -> None:
    loader = OnDemandLoader(FLOAT32, NOTHING)
    for name in ("calm", "whole"):
        backbone = loader.load(source(root, name))
        expected = score(backbone)
        with default_dtype(torch.bfloat16):
            assert score(backbone) == expected


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


# --------------------------------------------------------------------------- what cannot be loaded


def refusal(root: Path, name: str) -> Unprocessable:
    with pytest.raises(Unprocessable) as caught:
        OnDemandLoader(FLOAT32, NOTHING).load(source(root, name))
    assert caught.value.code == "model_unusable"
    assert str(root.parent) not in caught.value.message
    return caught.value


def test_a_changed_file_is_named(root: Path) -> None:
    path = root / "whole/config.json"
    path.write_text(path.read_text().replace("512", "511"))
    assert "config.json has changed since it was exported" in refusal(root, "whole").message


def test_a_probe_that_differs_is_named_and_nothing_is_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prove(open_artifact(root / "calm"), off_by=0.5)
    closed: list[Any] = []

    def prove_it(reward: Reward, scorer: Scorer, *given: Any) -> list[Proof]:
        closed.append(scorer)
        return prove_reward(reward, scorer, *given)

    monkeypatch.setattr("tureen_serve.runtimes.probes.prove_reward", prove_it)
    assert "the score of a probe differs: calm, probe 0, calm" in refusal(root, "calm").message
    assert not hasattr(closed[0], "_backbone")


def test_a_template_that_differs_from_training_is_refused(root: Path) -> None:
    artifact = open_artifact(root / "calm")
    reading = artifact.manifest.reading.model_copy(update={"template": "0" * 16})
    seal_artifact(artifact.folder, artifact.manifest.model_copy(update={"reading": reading}))
    assert "use the tokenizer that it was trained with" in refusal(root, "calm").message


def test_a_base_that_is_missing_may_come_later(root: Path) -> None:
    artifact = open_artifact(root / "calm")
    base = artifact.manifest.base
    assert base is not None
    moved = base.model_copy(update={"model": str(root.parent / "later")})
    seal_artifact(artifact.folder, artifact.manifest.model_copy(update={"base": moved}))
    loader = OnDemandLoader(FLOAT32, NOTHING)
    for call in (loader.measure, loader.load):
        with pytest.raises(Unavailable, match="later") as caught:
            call(source(root, "calm"))
        assert (caught.value.code, caught.value.retry_after) == ("model_not_loaded", 30)
    shutil.copytree(base.model, root.parent / "later")
    assert score(loader.load(source(root, "calm")))


def test_a_base_that_is_replaced_is_digested_again(root: Path, made: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(made / "base", tmp_path / "base"))
    tiny.reward(root / "dry", base, "dry", 4)
    loader = OnDemandLoader(FLOAT32, NOTHING)
    loader.load(source(root, "dry")).scorer.close()
    tiny.base(tmp_path / "other", seed=5)
    shutil.copy(tmp_path / "other/model.safetensors", base / "model.safetensors")
    with pytest.raises(Unprocessable, match="needs the base"):
        loader.load(source(root, "dry"))


def test_a_known_base_is_not_digested_again_and_has_one_tokenizer(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = OnDemandLoader(FLOAT32, NOTHING)
    calm = loader.load(source(root, "calm"))
    monkeypatch.setattr("tureen_serve.runtimes.bases.digest_weights", lambda _: pytest.fail("digested again"))
    many = loader.load(source(root, "many"))
    assert many.rewards[0].renderer is calm.rewards[0].renderer


def test_a_checkpoint_that_is_replaced_is_read_with_its_own_tokenizer(root: Path) -> None:
    loader = OnDemandLoader(FLOAT32, NOTHING)
    loader.load(source(root, "whole"))
    changed = load_tokenizer(root / "whole")
    changed.chat_template = changed.chat_template.replace("assistant", "helper")
    changed.save_pretrained(root / "whole")
    artifact = open_artifact_again(root / "whole")
    backbone = loader.load(source(root, "whole"))
    assert backbone.rewards[0].renderer.digest() == artifact.manifest.reading.template


def open_artifact_again(folder: Path) -> Any:
    """Seal a folder whose tokenizer was changed."""
    manifest = source(folder.parent, folder.name).manifest
    own = tiny.reading(folder)
    return seal_artifact(folder, manifest.model_copy(update={"reading": own, "probes": []}))


def test_a_folder_that_changes_while_it_is_read_is_tried_again(root: Path) -> None:
    before = source(root, "calm")
    artifact = open_artifact(root / "calm")
    seal_artifact(artifact.folder, artifact.manifest.model_copy(update={"probes": []}))
    with pytest.raises(Unavailable, match="changed while it was loaded") as caught:
        OnDemandLoader(FLOAT32, NOTHING).load(before)
    assert caught.value.code == "model_loading"


def test_an_unexpected_error_is_logged_and_told_without_details(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("of the inside")

    monkeypatch.setattr("tureen_serve.runtimes.on_demand.open_offered", fail)
    with pytest.raises(Unavailable, match=r"calm could not be loaded \(MemoryError\)") as caught:
        OnDemandLoader(FLOAT32, NOTHING).load(source(root, "calm"))
    assert caught.value.code == "model_not_loaded"
    assert "of the inside" in caplog.text


def test_a_manifest_without_probes_is_served_as_at_the_start(root: Path) -> None:
    assert json.loads((root / "many/tureen.json").read_text())["probes"] == []
    assert OnDemandLoader(FLOAT32, NOTHING).load(source(root, "many")).rewards


# --------------------------------------------------------------------------- plain models


def test_a_plain_model_is_proven_by_its_library_once_and_by_the_same_numbers_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain_folders.classifier(tmp_path / "root/trl")
    loader, found = OnDemandLoader(FLOAT32, NOTHING), source(tmp_path / "root", "trl")
    with caplog.at_level("INFO"):
        backbone = loader.load(found)
    first = score(backbone)
    assert "trl has the form sequence-classification; it differs by at most" in caplog.text
    assert backbone.rewards[0].calibration is None
    backbone.scorer.close()
    monkeypatch.setattr("tureen_core.plain.reward._score_probes", lambda _: pytest.fail("scored by its library again"))
    proven: list[list[Proof]] = []
    monkeypatch.setattr("tureen_serve.runtimes.probes.log_difference", lambda _, proofs: proven.append(proofs))
    assert score(loader.load(found)) == first
    assert len(proven[0]) > 10


def test_a_plain_model_frees_what_its_library_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[Any] = []
    load = linear_heads.load_float32

    def load_and_watch(*given: Any) -> Any:
        model = load(*given)
        held.append(weakref.ref(model))
        return model

    monkeypatch.setattr(linear_heads, "load_float32", load_and_watch)
    plain_folders.classifier(tmp_path / "root/trl")
    OnDemandLoader(FLOAT32, NOTHING).load(source(tmp_path / "root", "trl"))
    assert [each() for each in held] == [None]


def test_a_plain_model_that_changes_while_it_is_read_is_tried_again(tmp_path: Path) -> None:
    folder = plain_folders.classifier(tmp_path / "root/trl")
    loader, before = OnDemandLoader(FLOAT32, NOTHING), source(tmp_path / "root", "trl")
    loader.load(before)
    plain_folders.classifier(folder, seed=1)
    with pytest.raises(Unavailable, match="trl changed while it was loaded") as caught:
        loader.load(before)
    assert caught.value.code == "model_loading"
    assert score(loader.load(source(tmp_path / "root", "trl"))) == pytest.approx(alone(folder), abs=1e-6)


def test_a_plain_model_that_is_served_otherwise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain_folders.classifier(tmp_path / "root/trl")
    monkeypatch.setattr("tureen_core.plain.linear_heads.open_classifier", lambda *_, **__: lambda _: [0.25])
    message = refusal(tmp_path / "root", "trl").message
    assert "the score of a probe differs: trl, probe 0, trl" in message
    assert "0.25 by its own library" in message


def test_what_only_the_weights_tell_is_told_at_the_load(tmp_path: Path) -> None:
    folder = plain_folders.classifier(tmp_path / "root/trl")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    assert "model.norm.weight is missing" in refusal(tmp_path / "root", "trl").message


def test_the_footprint_of_plain_models_counts_a_shared_base_once(tmp_path: Path) -> None:
    base = tiny.base(tmp_path / "base")
    for seed, name in enumerate(("warm", "cold")):
        write_adapter(tmp_path / "root" / name, base, seed)
    tiny.reward(tmp_path / "root/calm", base, "calm", 3)
    plain_folders.classifier(tmp_path / "root/trl")
    loader = OnDemandLoader(FLOAT32, NOTHING)
    sources = [source(tmp_path / "root", name) for name in ("warm", "cold", "calm", "trl")]
    warm, cold, calm, trl = map(loader.measure, sources)
    assert warm.base == cold.base == calm.base is not None
    assert warm.base_bytes == 4 * count_weights(base)
    assert (trl.own, trl.base) == (4 * count_weights(tmp_path / "root/trl"), None)
    loaded = [loader.load(source(tmp_path / "root", name)) for name in ("warm", "calm")]
    assert weight(loaded[0]) is weight(loaded[1])
