"""Loading: what is refused and how it is named, what is shared, and the probes."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from serve.experts import causal, logprobs, merged
from transformers import AutoModelForSequenceClassification

from tureen.errors import ServerFault
from tureen_core.artifact import Artifact, Manifest, Objective, Probe, open_artifact, read_weights, seal_artifact
from tureen_core.base import digest_weights, load_tokenizer
from tureen_core.experts.expert_probes import record_expert_probes
from tureen_core.experts.expert_reader import ExpertReader
from tureen_core.soup import concatenate_adapters
from tureen_core.steering import PromptSteering, Sentence
from tureen_core.template import Renderer
from tureen_serve.runtimes import load as loading
from tureen_serve.runtimes.contract import Rewards, Row, Scorer
from tureen_serve.runtimes.load import LoadError, LoadOptions, load_models
from tureen_serve.runtimes.on_transformers.models import TransformersRuntime
from tureen_serve.runtimes.on_transformers.packed_scorer import PackedScorer
from tureen_serve.runtimes.source_check import check_artifact
from tureen_serve.settings import FamilyEntry, RewardEntry

FLOAT32 = LoadOptions(dtype="float32", device="cpu")
TALK = [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "because leaves fall"}]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with two rewards and two experts on it."""
    folder = tmp_path_factory.mktemp("shelf")
    base = tiny.base(folder / "base")
    tiny.reward(folder / "helpful", base, "helpful", 1)
    tiny.reward(folder / "many", base, "many", 2, objectives=["facts", "tone"])
    tiny.expert(folder / "academy", base, "academy", 3)
    tiny.expert(folder / "poetry", base, "poetry", 4)
    return folder


def family(shelf: Path, **changes: Any) -> FamilyEntry:
    return FamilyEntry(**{"name": "tiny", "experts": [shelf / "academy", shelf / "poetry"], **changes})


def rewards(shelf: Path, *names: str) -> list[RewardEntry]:
    return [RewardEntry(path=shelf / name) for name in names]


def changed(folder: Path, to: Path, edit: Callable[[Manifest], Manifest]) -> Path:
    """A copy whose manifest is another one, sealed."""
    shutil.copytree(folder, to)
    seal_artifact(to, edit(open_artifact(folder).manifest))
    return to


def refusal(rewards: list[RewardEntry], families: list[FamilyEntry], options: LoadOptions = FLOAT32) -> str:
    with pytest.raises(LoadError) as caught:
        load_models(rewards, families, options)
    return str(caught.value)


def test_everything_on_one_base_is_loaded_over_one_set_of_weights(shelf: Path) -> None:
    loaded = load_models(rewards(shelf, "helpful", "many"), [family(shelf), family(shelf, name="again")], FLOAT32)
    assert loaded.failure is None
    (backbone,) = loaded.backbones
    assert [reward.name for reward in backbone.rewards] == ["helpful", "facts", "tone"]
    assert [reward.column for reward in backbone.rewards] == [0, 0, 1]
    scorer: Any = backbone.scorer
    steppers: list[Any] = [policy.runtime for policy in loaded.policies]
    trees = [scorer._backbone, *(stepper._model.model for stepper in steppers)]
    assert len({id(tree) for tree in trees}) == 3
    for name in ("embed_tokens", "layers.0.self_attn.q_proj.base", "layers.1.mlp.up_proj"):
        assert len({id(tree.get_submodule(name).weight) for tree in trees}) == 1
    assert len({id(each._gate) for each in (scorer, *steppers)}) == 3


def test_copies_of_a_base_in_several_folders_are_loaded_once(shelf: Path, tmp_path: Path) -> None:
    shutil.copytree(shelf / "base", tmp_path / "copy")
    tiny.reward(tmp_path / "twin", tmp_path / "copy", "twin", 8)
    entries = [*rewards(shelf, "helpful"), RewardEntry(path=tmp_path / "twin")]
    loaded = load_models(entries, [family(shelf, base=str(tmp_path / "copy"))], FLOAT32)
    (backbone,) = loaded.backbones
    assert [reward.name for reward in backbone.rewards] == ["helpful", "twin"]
    trees: list[Any] = [backbone.scorer, loaded.policies[0].runtime]
    first, second = trees[0]._backbone, trees[1]._model.model
    assert first.embed_tokens.weight is second.embed_tokens.weight


@pytest.mark.parametrize("file", ["generation_config.json", "chat_template.jinja"])
def test_copies_of_a_base_that_read_or_write_otherwise_are_apart(shelf: Path, tmp_path: Path, file: str) -> None:
    shutil.copytree(shelf / "base", tmp_path / "copy")
    path = tmp_path / "copy" / file
    path.write_text(path.read_text() + "\n")
    tiny.reward(tmp_path / "twin", tmp_path / "copy", "twin", 8)
    entries = [*rewards(shelf, "helpful"), RewardEntry(path=tmp_path / "twin")]
    assert len(load_models(entries, [], FLOAT32).backbones) == 2


def test_a_family_says_what_it_is(shelf: Path) -> None:
    entry = family(shelf, presets={"even": {"academy": 2, "poetry": 2}}, default={"poetry": 1})
    (policy,) = load_models([], [entry], FLOAT32).policies
    found = policy.family
    assert list(found.experts) == ["academy", "poetry"]
    assert found.presets == {"even": {"academy": 0.5, "poetry": 0.5}}
    assert found.default == {"poetry": 1.0}
    assert (found.base, found.context, found.semantics, found.normalize) == ("base", 512, "delta", "simplex")
    assert found.factor_obstacle is None
    assert found.renderer is not None
    assert found.renderer.digest() == open_artifact(shelf / "academy").manifest.reading.template


def test_a_fingerprint_covers_experts_and_dtype(shelf: Path) -> None:
    def fingerprint(entry: FamilyEntry, dtype: str = "float32") -> str:
        return load_models([], [entry], LoadOptions(dtype=dtype, device="cpu")).policies[0].family.fingerprint

    whole = fingerprint(family(shelf))
    assert whole == fingerprint(family(shelf, name="other", presets={"a": {"academy": 1}}))
    assert (
        len({whole, fingerprint(family(shelf, experts=[shelf / "academy"])), fingerprint(family(shelf), "bfloat16")})
        == 3
    )


def test_a_family_may_be_a_bare_base(shelf: Path) -> None:
    (policy,) = load_models([], [FamilyEntry(name="bare", base=str(shelf / "base"))], FLOAT32).policies
    assert policy.family.experts == {}
    found = policy.runtime.likelihood((5, 6, 7), 1, ())
    row = logprobs(causal(shelf / "base"), (5, 6, 7))
    assert found == pytest.approx([float(row[0, 6]), float(row[1, 7])], abs=1e-5)


def test_a_reward_with_one_objective_can_be_renamed(shelf: Path) -> None:
    entry = RewardEntry(path=shelf / "helpful", name="useful")
    assert [reward.name for reward in load_models([entry], [], FLOAT32).backbones[0].rewards] == ["useful"]
    assert "remove `name`, it renames only one" in refusal([RewardEntry(path=shelf / "many", name="x")], [])


def test_two_rewards_of_one_name_are_refused(shelf: Path) -> None:
    tiny.reward(shelf / "twin", shelf / "base", "twin", 6, objectives=["facts"])
    assert "two rewards are called 'facts'" in refusal(rewards(shelf, "many", "twin"), [])
    assert "two reward artifacts are called 'many'" in refusal(
        [*rewards(shelf, "many"), RewardEntry(path=shelf / "many")], []
    )


def test_artifacts_stand_where_they_belong(shelf: Path) -> None:
    assert "is a expert artifact" in refusal(rewards(shelf, "academy"), [])
    assert "is a reward artifact" in refusal([], [family(shelf, experts=[shelf / "helpful"])])


def test_a_base_with_other_weights_is_refused(shelf: Path, tmp_path: Path) -> None:
    other = tiny.base(tmp_path / "other", seed=5)
    said = refusal([], [family(shelf, base=str(other))])
    needed, found = (digest_weights(folder)[:12] for folder in (shelf / "base", other))
    assert f"academy needs the base {shelf / 'base'} with {needed}, but {other} has the weights digest {found}" in said


def test_a_base_that_is_not_there_is_named(shelf: Path, tmp_path: Path) -> None:
    assert "'/nowhere'" in refusal([], [family(shelf, base="/nowhere")])


def test_another_template_is_refused(shelf: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(shelf / "base", base)
    tokenizer = load_tokenizer(base)
    tokenizer.chat_template = tiny.CHATML.replace("assistant", "bot")
    tokenizer.save_pretrained(base)
    assert "academy: the template of" in refusal([], [family(shelf, base=str(base))])


def test_experts_that_disagree_are_refused(shelf: Path, tmp_path: Path) -> None:
    tiny.expert(tmp_path / "none", shelf / "base", "none", 7, normalize="none")
    experts = [shelf / "academy", tmp_path / "none"]
    assert "families.tiny.normalize: the experts disagree" in refusal([], [family(shelf, experts=experts)])
    assert (
        load_models([], [family(shelf, experts=experts, normalize="none")], FLOAT32).policies[0].family.normalize
        == "none"
    )
    tiny.expert(tmp_path / "academy", shelf / "base", "academy", 8)
    assert "two experts for 'academy'" in refusal(
        [], [family(shelf, experts=[shelf / "academy", tmp_path / "academy"])]
    )


def test_a_policy_steered_by_its_prompt_cannot_be_souped(shelf: Path, tmp_path: Path) -> None:
    steering = PromptSteering(family="worded", sentences=[Sentence(objective="brief", text="Be brief.")])
    tiny.policy(tmp_path / "worded", shelf / "base", steering)
    assert "a policy artifact; a expert is expected" in refusal([], [family(shelf, experts=[tmp_path / "worded"])])


def test_a_bad_preset_is_named(shelf: Path) -> None:
    said = refusal([], [family(shelf, presets={"fun": {"humor": 1}})])
    assert "families.tiny.presets.fun.humor" in said
    assert "families.tiny.default" in refusal([], [family(shelf, default={"academy": 0})])


def test_an_unknown_runtime_says_what_there_is(shelf: Path) -> None:
    said = refusal([], [], LoadOptions(runtime="triton"))
    assert "this version has no 'triton'; use auto or one of transformers, vllm" in said


def test_the_runtime_says_why_it_was_chosen(shelf: Path) -> None:
    assert (
        load_models([], [], LoadOptions(runtime="transformers", device="cpu")).runtime == "transformers (as configured)"
    )


@pytest.mark.parametrize(
    ("installed", "gpu", "options", "expected"),
    [
        (False, True, LoadOptions(), ("transformers", "vLLM is not installed")),
        (True, False, LoadOptions(), ("transformers", "there is no GPU to run vLLM on")),
        (True, True, LoadOptions(device="cpu"), ("transformers", "there is no GPU to run vLLM on")),
        (True, True, LoadOptions(), ("vllm", "vLLM is installed and there is a GPU")),
        (False, False, LoadOptions(runtime="vllm"), ("vllm", "as configured")),
        (True, True, LoadOptions(runtime="transformers"), ("transformers", "as configured")),
    ],
)
def test_vllm_is_chosen_where_it_can_run(
    installed: bool, gpu: bool, options: LoadOptions, expected: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "find_spec", lambda name: object() if installed else None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert loading.choose_runtime(options) == expected


def test_vllm_that_is_not_installed_is_named_with_what_to_do(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    assert "pip install 'tureen[vllm]'" in refusal([], [], LoadOptions(runtime="vllm"))


def test_a_tampered_artifact_is_refused(shelf: Path, tmp_path: Path) -> None:
    shutil.copytree(shelf / "helpful", tmp_path / "helpful")
    weights = load_file(tmp_path / "helpful" / "adapter_model.safetensors")
    save_file(
        {**weights, next(iter(weights)): weights[next(iter(weights))] + 1},
        tmp_path / "helpful" / "adapter_model.safetensors",
    )
    assert "has changed since it was exported" in refusal(rewards(tmp_path, "helpful"), [])


def test_a_base_that_lost_a_weight_is_refused(shelf: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(shelf / "base", base)
    weights = load_file(base / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    assert "the weight model.layers.1.mlp.up_proj.weight is missing" in refusal(
        [], [FamilyEntry(name="bare", base=str(base))]
    )


# --------------------------------------------------------------------------- full checkpoints


def score(scorer: Scorer, artifact: Artifact, base: Path) -> float:
    ids = Renderer(load_tokenizer(base), artifact.manifest.reading).render_conversation(TALK).ids
    (found,) = scorer.run([Row(tuple(ids), ((artifact.name, 1.0),))])
    assert isinstance(found, Rewards)
    return found.values[0]


def test_a_full_checkpoint_scores_as_hugging_face_does(shelf: Path, tmp_path: Path) -> None:
    artifact = tiny.full_reward(tmp_path / "whole", shelf / "base", "whole", 9)
    (backbone,) = load_models([RewardEntry(path=artifact.folder)], [], FLOAT32).backbones
    model = AutoModelForSequenceClassification.from_pretrained(artifact.folder, dtype=torch.float32).eval()
    ids = Renderer(load_tokenizer(shelf / "base"), artifact.manifest.reading).render_conversation(TALK).ids
    with torch.inference_mode():
        expected = float(model(input_ids=torch.tensor([ids])).logits[0, 0])
    assert score(backbone.scorer, artifact, shelf / "base") == pytest.approx(expected, rel=2e-6, abs=1e-5)


# --------------------------------------------------------------------------- probes


def probed(shelf: Path, to: Path, off: float = 0.0) -> Path:
    """A reward with three probes as PEFT scores them; the last one is ``off``."""
    artifact = open_artifact(shelf / "helpful")
    model = AutoModelForSequenceClassification.from_pretrained(shelf / "base", num_labels=1, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, artifact.folder).eval()
    renderer = Renderer(load_tokenizer(shelf / "base"), artifact.manifest.reading)
    probes = []
    for count in range(1, 4):
        talk = [TALK[0], {"role": "assistant", "content": "leaves " * count}]
        with torch.inference_mode():
            value = float(model(input_ids=torch.tensor([renderer.render_conversation(talk).ids])).logits[0, 0])
        probes.append(Probe(messages=talk, scores={"helpful": value + (off if count == 3 else 0)}))
    return changed(artifact.folder, to, lambda manifest: manifest.model_copy(update={"probes": probes}))


def test_probes_that_agree_are_ready(shelf: Path, tmp_path: Path) -> None:
    folder = probed(shelf, tmp_path / "helpful")
    assert load_models([RewardEntry(path=folder)], [], FLOAT32, probes=None).failure is None
    proofs = check_artifact(folder, FLOAT32)
    assert [(proof.probe, proof.objective, proof.holds) for proof in proofs] == [
        (0, "helpful", True),
        (1, "helpful", True),
        (2, "helpful", True),
    ]
    assert all(abs(proof.found - proof.expected) < 1e-4 for proof in proofs)


def test_a_probe_that_differs_is_named_and_is_not_ready(shelf: Path, tmp_path: Path) -> None:
    folder = probed(shelf, tmp_path / "helpful", off=0.01)
    failure = load_models([RewardEntry(path=folder)], [], FLOAT32, probes=None).failure
    assert failure is not None
    assert "helpful, probe 2, helpful" in failure
    assert "1 such" in failure
    assert [proof.holds for proof in check_artifact(folder, FLOAT32)] == [True, True, False]


def test_only_the_first_probes_run_at_the_start(shelf: Path, tmp_path: Path) -> None:
    folder = probed(shelf, tmp_path / "helpful", off=0.01)
    assert load_models([RewardEntry(path=folder)], [], FLOAT32).failure is None
    assert load_models([RewardEntry(path=folder)], [], FLOAT32, probes=3).failure is not None


def test_a_probe_that_is_not_a_number_does_not_hold(shelf: Path, tmp_path: Path) -> None:
    folder = probed(shelf, tmp_path / "helpful")
    (proof, *_) = check_artifact(folder, FLOAT32)
    broken = type(proof)(proof.artifact, 0, "helpful", proof.expected, float("nan"), proof.tolerance)
    assert not broken.holds


def test_an_experts_probe_is_the_mean_logprob_of_its_last_message(shelf: Path, tmp_path: Path) -> None:
    artifact = open_artifact(shelf / "academy")
    adapter, _ = read_weights(artifact)
    model = merged(shelf / "base", {"academy": 1.0}, of=concatenate_adapters([adapter]))
    renderer = Renderer(load_tokenizer(shelf / "base"), artifact.manifest.reading)
    ids, start = renderer.render_conversation(TALK).ids, len(renderer.tokenize_prompt(TALK[:-1]))
    rows = logprobs(model, ids)
    values = [float(rows[index - 1, ids[index]]) for index in range(start, len(ids))]
    probe = Probe(messages=TALK, logprob=sum(values) / len(values))
    folder = changed(
        artifact.folder, tmp_path / "academy", lambda manifest: manifest.model_copy(update={"probes": [probe]})
    )
    (proof,) = check_artifact(folder, FLOAT32)
    assert proof.holds
    assert proof.found == pytest.approx(probe.logprob, abs=1e-4)
    bare = logprobs(causal(shelf / "base"), ids)
    without = sum(float(bare[index - 1, ids[index]]) for index in range(start, len(ids))) / len(values)
    assert abs(without - proof.found) > 0.01


def test_a_whole_policy_is_checked_by_its_probes(shelf: Path, tmp_path: Path) -> None:
    folder = tmp_path / "whole"
    shutil.copytree(shelf / "base", folder)
    talk = [{"role": "user", "content": "why do leaves fall?"}, {"role": "assistant", "content": "the lazy dog"}]
    reading = tiny.reading(folder)
    manifest = Manifest(
        kind="policy",
        name="whole",
        weights="full",
        objectives=[Objective(name="foxes")],
        reading=reading,
        probes=[Probe(messages=talk), Probe(messages=[talk[0], {"role": "assistant", "content": "a fox"}])],
    )
    seal_artifact(folder, record_expert_probes(manifest, ExpertReader(None, folder, reading)))
    proofs = check_artifact(folder, FLOAT32)
    assert [(proof.objective, proof.probe, proof.holds) for proof in proofs] == [("foxes", 0, True), ("foxes", 1, True)]

    def falsify(manifest: Manifest) -> Manifest:
        probes = [probe.model_copy(update={"logprob": (probe.logprob or 0.0) - 0.1}) for probe in manifest.probes]
        return manifest.model_copy(update={"probes": probes})

    assert not any(proof.holds for proof in check_artifact(changed(folder, tmp_path / "false", falsify), FLOAT32))


def test_a_manifest_that_cannot_be_read_is_a_load_error(tmp_path: Path) -> None:
    (tmp_path / "tureen.json").write_text(json.dumps({"format": 1}))
    with pytest.raises(LoadError, match="kind"):
        check_artifact(tmp_path, FLOAT32)


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[Scorer]:
    """Scorers that were closed."""
    closed: list[Scorer] = []
    monkeypatch.setattr(PackedScorer, "close", lambda scorer: closed.append(scorer))  # a method must bind
    return closed


def test_what_was_loaded_is_closed_where_something_later_cannot_be(
    shelf: Path, tmp_path: Path, closed: list[Scorer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that stayed up would hold its GPU."""
    real = TransformersRuntime.load_checkpoint

    def second_has_no_room(runtime: TransformersRuntime, artifact: Artifact) -> Scorer:
        if artifact.name == "two":
            raise LoadError("no room for two")
        return real(runtime, artifact)

    monkeypatch.setattr(TransformersRuntime, "load_checkpoint", second_has_no_room)
    for seed, name in enumerate(["one", "two"]):
        tiny.full_reward(tmp_path / name, shelf / "base", name, seed)
    assert refusal([RewardEntry(path=tmp_path / name) for name in ("one", "two")], []) == "no room for two"
    assert len(closed) == 1


def test_what_was_loaded_is_closed_where_its_probes_cannot_run(
    shelf: Path, tmp_path: Path, closed: list[Scorer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def probed(manifest: Manifest) -> Manifest:
        return manifest.model_copy(update={"probes": [Probe(messages=TALK, scores={"helpful": 0.0})]})

    def fail(scorer: Scorer, rows: Sequence[Row]) -> list[Rewards]:
        raise ServerFault("the device is gone")

    folder = changed(shelf / "helpful", tmp_path / "probed", probed)
    monkeypatch.setattr(PackedScorer, "run", fail)
    assert refusal([RewardEntry(path=folder)], []) == "the device is gone"
    assert len(closed) == 1
