"""An expert run's saved adapter: read again, and written as an artifact."""

from pathlib import Path
from typing import Literal

import torch

from tureen_core.adapter_files import read_adapter, write_adapter
from tureen_core.artifact import Base, Manifest, Objective, Steering
from tureen_core.base import digest_weights
from tureen_core.experts.expert_probes import record_expert_probes
from tureen_core.experts.expert_reader import ExpertReader
from tureen_core.probe_readings import Readings
from tureen_train.config import ExpertRun
from tureen_train.runs.artifact_kind import describe_training
from tureen_train.runs.folder import read_probes
from tureen_train.runs.probe_readings import read_at_weights
from tureen_train.runs.rereading import choose_dtype, make_expert_reading, open_expert_reader


class ExpertArtifact:
    """The :class:`tureen_train.runs.artifact_kind.ArtifactKind` of experts.

    A probe's number is the mean log-probability of its last message.
    """

    kind: Literal["expert"] = "expert"

    def reread_probes(self, run: ExpertRun, folder: Path, base: Path) -> Readings:
        """The probes' mean log-probabilities."""
        reader = open_expert_reader(run, folder / "model", base, as_trained=True)
        probes = read_probes(folder)
        return read_at_weights(reader.model, lambda: [[each] for each in reader.mean_logprobs(probes)])

    def write(self, run: ExpertRun, folder: Path, base: Path, out: Path) -> Manifest:
        """Write an expert's files; its probes carry the mean log-probability of their last message, in float32."""
        adapter, _ = read_adapter(folder / "model", run.name)
        write_adapter(adapter, out, run.model.base, getattr(torch, choose_dtype(run)))
        manifest = Manifest(
            kind="expert",
            name=run.name,
            base=Base(model=run.model.base, digest=digest_weights(base)),
            objectives=[Objective(name=run.objective)],
            reading=make_expert_reading(run, base),
            steering=Steering(family=run.family),
            probes=read_probes(folder),
            training=describe_training(run, folder),
        )
        return record_expert_probes(manifest, ExpertReader(out, base, manifest.reading))
