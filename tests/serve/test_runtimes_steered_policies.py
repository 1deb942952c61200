"""What a policy that is steered in its prompt needs to be loaded, how its probes are proven, and what is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

from tureen_core.artifact import Artifact, Manifest, Probe, seal_artifact
from tureen_core.experts.expert_probes import record_expert_probes
from tureen_core.experts.expert_reader import ExpertReader
from tureen_core.steering import InPromptSteering, PromptSteering, TaggedReward, TagSteering
from tureen_serve.runtimes.bases import Bases
from tureen_serve.runtimes.catalogue import Family
from tureen_serve.runtimes.families import open_family
from tureen_serve.runtimes.load import LoadError, LoadOptions, load_models
from tureen_serve.runtimes.source_check import check_artifact
from tureen_serve.settings import FamilyEntry

FLOAT32 = LoadOptions(dtype="float32", device="cpu")
SAID = {"sentences": {"brief": "the quick brown fox", "kind": "jumps over"}}
WORDS = PromptSteering.model_validate({"family": "worded", **SAID})
TALK = [{"role": "user", "content": "why? <rm1_score> 1.0"}, {"role": "assistant", "content": "the lazy dog"}]


def tags(**changes: Any) -> TagSteering:
    ranges = [
        TaggedReward(name=name, data="", mean=0, deviation=1, low=-2.0, high=2.0) for name in ("brief", "kind", "dry")
    ]
    return TagSteering(family="tagged", objectives=ranges, **changes)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.base(tmp_path_factory.mktemp("steered") / "base")


@pytest.fixture
def policy(base: Path, tmp_path: Path) -> Callable[..., Artifact]:
    def make(steering: InPromptSteering = WORDS, name: str = "policy", whole: bool = False) -> Artifact:
        return tiny.policy(tmp_path / name, base, steering, whole=whole)

    return make


def opened(**fields: Any) -> Family:
    return open_family(FamilyEntry.model_validate({"name": "f", **fields}), Bases(Path("cache")), "float32").family


def refusal(**fields: Any) -> str:
    with pytest.raises(LoadError) as caught:
        load_models([], [FamilyEntry.model_validate({"name": "f", **fields})], FLOAT32)
    return str(caught.value)


def prove(artifact: Artifact, base: Path, off_by: float = 0.0) -> Path:
    """The artifact again, with a probe that its own reader gave, or a false one."""
    folder, manifest = artifact.folder, artifact.manifest
    whole = manifest.weights == "full"
    reader = ExpertReader(None if whole else folder, folder if whole else base, manifest.reading)
    asked = [Probe(messages=TALK), Probe(messages=[TALK[0], {"role": "assistant", "content": "a fox"}])]
    manifest = record_expert_probes(manifest.model_copy(update={"probes": asked}), reader)
    probes = [each.model_copy(update={"logprob": (each.logprob or 0.0) + off_by}) for each in manifest.probes]
    return seal_artifact(folder, manifest.model_copy(update={"probes": probes})).folder


def test_a_policy_is_a_family_of_its_objectives(policy: Any) -> None:
    found = opened(policy=policy(tags()).folder)
    assert found.objectives == ["brief", "kind", "dry"]
    assert list(found.experts) == ["tagged"]
    assert found.default == {"brief": 0.333333, "dry": 0.333333, "kind": 0.333333}
    assert found.policy is not None
    assert (found.steering, found.policy.name) == (tags(), "tagged")


def test_whole_weights_are_a_base(policy: Any) -> None:
    found = opened(policy=policy(whole=True).folder)
    assert (found.base, found.experts, found.default) == ("policy", {}, {})


def test_a_base_without_an_artifact_is_told_by_the_settings(base: Path) -> None:
    found = opened(base=str(base), steering=SAID, presets={"short": {"brief": 2}}, default={"kind": 1})
    assert (found.policy, found.experts, found.objectives) == (None, {}, ["brief", "kind"])
    assert (found.presets, found.default) == ({"short": {"brief": 1.0}}, {"kind": 1.0})
    assert found.steering == PromptSteering.model_validate({"family": "f", **SAID})


def test_an_expert_can_be_told_too(base: Path, tmp_path: Path) -> None:
    """Policies that were trained on sentences, as by a recipe with `preferences`, are experts."""
    tiny.expert(tmp_path / "multitask", base, "multitask", 3)
    found = opened(policy=tmp_path / "multitask", steering=SAID)
    assert (list(found.experts), found.objectives) == (["multitask"], ["brief", "kind"])


def test_a_fingerprint_covers_weights_and_steering(policy: Any, base: Path, tmp_path: Path) -> None:
    other = TagSteering.model_validate({**tags().model_dump(), "tag": "<{name}> {score} "})
    folders = [
        policy(tags(), "a").folder,
        policy(other, "b").folder,
        tiny.policy(tmp_path / "c", base, tags(), 9).folder,
    ]
    found = [opened(policy=folder).fingerprint for folder in folders]
    found += [opened(policy=policy(name="d").folder).fingerprint, opened(base=str(base), steering=SAID).fingerprint]
    found += [opened(base=str(base), steering={**SAID, "threshold": 0.2}).fingerprint]
    found += [opened(base=str(base)).fingerprint]
    assert len(set(found)) == len(found)
    assert opened(policy=folders[0]).fingerprint == found[0]


@pytest.mark.parametrize("whole", [False, True])
def test_its_probes_are_proven(policy: Any, base: Path, whole: bool) -> None:
    folder = prove(policy(tags(), whole=whole), base)
    proofs = check_artifact(folder, FLOAT32)
    assert proofs
    assert all(proof.holds for proof in proofs)
    entry = FamilyEntry(name="f", policy=folder)
    loaded = load_models([], [entry], FLOAT32)
    assert loaded.failure is None
    loaded.close()
    prove(policy(tags(), "false", whole=whole), base, off_by=0.5)
    wrong = load_models([], [entry.model_copy(update={"policy": folder.parent / "false"})], FLOAT32)
    wrong.close()
    assert "tagged, probe " in str(wrong.failure)


def test_what_cannot_be_served_is_named(policy: Any, base: Path, tmp_path: Path) -> None:
    whole, lora = policy(whole=True, name="whole").folder, policy(tags()).folder
    tiny.expert(tmp_path / "calm", base, "calm", 3)
    tiny.reward(tmp_path / "helpful", base, "helpful", 1)
    elsewhere = tiny.base(tmp_path / "elsewhere", seed=5)
    assert "families.f.base: worded has whole weights" in refusal(policy=whole, base=str(base))
    assert "families.f.steering: the artifact says" in refusal(policy=lora, steering=SAID)
    assert "does not say how its prompt is steered" in refusal(policy=tmp_path / "calm")
    assert "is a reward artifact" in refusal(policy=tmp_path / "helpful")
    assert "has no tureen.json" in refusal(policy=tmp_path)
    assert "needs the base" in refusal(policy=lora, base=str(elsewhere))
    assert "families.f.presets.fun.humor: unknown" in refusal(policy=lora, presets={"fun": {"humor": 1}})
    assert "families.f.default" in refusal(policy=lora, default={"brief": -1})
    low = {**SAID, "threshold": 0.6}
    assert "families.f.presets.even: no weight reaches 0.6" in refusal(
        base=str(base), steering=low, presets={"even": {"brief": 1, "kind": 1}}
    )


def test_control_marks_in_tags_are_refused(policy: Any, base: Path) -> None:
    """They would be read as plain text, and the policy was trained on a token."""
    mark = "<|im_start|>"
    assert "holds a control mark" in refusal(policy=policy(tags(tag=f"{mark}{{index}} {{score}}")).folder)
    assert "holds a control mark" in refusal(base=str(base), steering={"sentences": {"brief": f"{mark} Be brief."}})


def test_a_tampered_policy_is_refused(policy: Any, tmp_path: Path) -> None:
    folder = policy().folder
    shutil.copytree(folder, tmp_path / "copy")
    manifest = Manifest.model_validate_json((tmp_path / "copy/tureen.json").read_text())
    edited = manifest.model_copy(update={"steering": WORDS.model_copy(update={"threshold": 0.3})})
    (tmp_path / "copy/tureen.json").write_text(edited.model_dump_json())
    assert "the manifest was edited" in refusal(policy=tmp_path / "copy")
