"""A folder of tiny real artifacts and the YAML file that serves them."""

import json
from pathlib import Path

import tiny

from tureen_core.artifact import Artifact, Probe, seal_artifact
from tureen_serve.runtimes.contract import Rewards, Row
from tureen_serve.runtimes.load import LoadOptions, load_models
from tureen_serve.settings import RewardEntry

PROBE = [{"role": "user", "content": "why do leaves fall?"}, {"role": "assistant", "content": "the wind is lazy"}]

CONFIG = """
rewards: [{path: helpful}, {path: funny, name: amusing}]
families:
  - name: tiny
    experts: [calm, dry]
    presets: {still: {calm: 1}}
port: 0
dtype: float32
device: cpu
"""


def build(folder: Path) -> Path:
    """Write a base, two reward models with proven probes, two experts; returns the YAML file's path."""
    base = tiny.base(folder / "base")
    for seed, name in enumerate(("helpful", "funny")):
        prove(tiny.reward(folder / name, base, name, seed))
    for seed, name in enumerate(("calm", "dry"), 10):
        tiny.expert(folder / name, base, name, seed)
    config = folder / "server.yaml"
    config.write_text(CONFIG)
    return config


def write_manifest(folder: Path, family: str | None) -> Path:
    """A folder that looks like an expert artifact of a family, or like another artifact."""
    folder.mkdir(parents=True)
    (folder / "tureen.json").write_text(json.dumps({"steering": {"family": family}} if family else {}))
    return folder


def prove(artifact: Artifact, off_by: float = 0.0) -> Artifact:
    """The artifact again, with a probe of what this runtime gives for it, or of something else."""
    loaded = load_models([RewardEntry(path=artifact.folder)], [], LoadOptions(dtype="float32", device="cpu"))
    (backbone,) = loaded.backbones
    (reward,) = backbone.rewards
    ids = tuple(reward.renderer.render_conversation(PROBE).ids)
    (found,) = backbone.scorer.run([Row(ids, ((artifact.name, 1.0),))])
    assert isinstance(found, Rewards)
    probe = Probe(messages=PROBE, scores={reward.name: found.values[0] + off_by})
    return seal_artifact(artifact.folder, artifact.manifest.model_copy(update={"probes": [probe]}))
