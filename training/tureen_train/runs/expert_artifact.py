"""An expert run's saved policy: read again, and written as an artifact."""

import json
import shutil
from pathlib import Path
from typing import Literal

from tureen_core.adapter_files import read_adapter, write_adapter
from tureen_core.artifact import PICKLES, Base, Manifest, Objective
from tureen_core.base import digest_weights
from tureen_core.experts.expert_probes import record_expert_probes
from tureen_core.probe_readings import Readings
from tureen_core.steering import SoupSteering
from tureen_train.config import ExpertRun
from tureen_train.runs.artifact_kind import describe_training
from tureen_train.runs.folder import read_probes, read_steering
from tureen_train.runs.probe_readings import read_at_weights
from tureen_train.runs.rereading import choose_saved_dtype, make_expert_reading, open_expert_reader


class ExpertArtifact:
    """The :class:`tureen_train.runs.artifact_kind.ArtifactKind` of policies.

    A LoRA becomes an expert; one that is steered by its prompt becomes a ``policy`` on its base. Whole weights become a
    ``policy`` too: a Hugging Face folder, which can be the base of other recipes and of a server. A probe's number is
    the mean log-probability of its last message.
    """

    kind: Literal["expert"] = "expert"

    def reread_probes(self, run: ExpertRun, folder: Path, base: Path) -> Readings:
        """The probes' mean log-probabilities."""
        reader = open_expert_reader(run, folder / "model", base, as_trained=True)
        probes = read_probes(folder)
        return read_at_weights(reader.model, lambda: [[each] for each in reader.mean_logprobs(probes)])

    def write(self, run: ExpertRun, folder: Path, base: Path, out: Path) -> Manifest:
        """Write a policy's files; its probes carry the mean log-probability of their last message, in float32."""
        lora = run.model.lora is not None
        if lora:
            adapter, _ = read_adapter(folder / "model", run.name)
            write_adapter(adapter, out, run.model.base, choose_saved_dtype(run))
        else:
            copy_checkpoint(folder / "model", base, out)
        soup = SoupSteering(family=run.family) if lora else None
        steering = read_steering(folder) if run.policy.steers_by_prompt else soup
        names = steering.names if steering is not None and steering.method != "soup" else [run.objective]
        manifest = Manifest(
            kind="expert" if steering is not None and steering.method == "soup" else "policy",
            name=run.name,
            weights="lora" if lora else "full",
            base=Base(model=run.model.base, digest=digest_weights(base)) if lora else None,
            objectives=[Objective(name=name) for name in names],
            reading=make_expert_reading(run, base),
            steering=steering,
            probes=read_probes(folder),
            training=describe_training(run, folder),
        )
        return record_expert_probes(manifest, open_expert_reader(run, out, base))


def copy_checkpoint(saved: Path, base: Path, out: Path) -> None:
    """Copy a saved checkpoint with its tokenizer, in the dtype that it was saved in; pickles are left behind.

    The trainer saves weights that were not sharded in float32. In 16 bits small changes of them would be lost. It also
    switches the cache off in the configuration; what the base says of it is restored.
    """
    for path in saved.iterdir():
        if path.is_file() and path.suffix not in PICKLES:
            shutil.copyfile(path, out / path.name)
    config, own = (json.loads((folder / "config.json").read_text()) for folder in (out, base))
    config |= {"use_cache": own.get("use_cache", True)}
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
