"""An expert run's saved adapter: read again, and written as an artifact."""

from pathlib import Path
from typing import Literal

import torch

from tureen_core.adapter_files import read_adapter, write_adapter
from tureen_core.artifact import Base, Manifest, Objective, Probe, Steering
from tureen_core.base import digest_weights
from tureen_train.config import ExpertRun
from tureen_train.runs.artifact_kind import describe_training
from tureen_train.runs.folder import read_probes
from tureen_train.runs.rereading import choose_dtype, make_expert_reading, open_expert_reader


class ExpertArtifact:
    """The :class:`tureen_train.runs.artifact_kind.ArtifactKind` of experts.

    A probe's number is the mean log-probability of its last message.
    """

    kind: Literal["expert"] = "expert"

    def reread_probes(self, run: ExpertRun, folder: Path, base: Path) -> list[float]:
        """The probes' mean log-probabilities."""
        return self._mean_logprobs(run, folder, folder / "model", base)

    def reread_base(self, run: ExpertRun, folder: Path, base: Path) -> list[float]:
        """The same of the base without the adapter."""
        return self._mean_logprobs(run, folder, None, base)

    def _mean_logprobs(self, run: ExpertRun, folder: Path, adapter: Path | None, base: Path) -> list[float]:
        conversations = [probe.messages for probe in read_probes(folder)]
        return open_expert_reader(run, adapter, base).mean_logprobs(conversations)

    def write(self, run: ExpertRun, folder: Path, base: Path, out: Path) -> Manifest:
        """Write an expert's files; its probes carry the mean log-probability of their last message, in float32."""
        adapter, _ = read_adapter(folder / "model", run.name)
        write_adapter(adapter, out, run.model.base, getattr(torch, choose_dtype(run)))
        logprobs = self._mean_logprobs(run, folder, out, base)
        return Manifest(
            kind="expert",
            name=run.name,
            base=Base(model=run.model.base, digest=digest_weights(base)),
            objectives=[Objective(name=run.objective)],
            reading=make_expert_reading(run, base),
            steering=Steering(family=run.family),
            tolerance={"float32": 1e-3, "bfloat16": 0.1, "float16": 0.05},
            probes=[
                Probe(messages=probe.messages, logprob=each)
                for probe, each in zip(read_probes(folder), logprobs, strict=True)
            ],
            training=describe_training(run, folder),
        )
