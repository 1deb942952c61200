"""A reward model that others trained, read from its own files: by plain transformers, in float32."""

from collections.abc import Sequence
from pathlib import Path

from tureen_core.artifact import Artifact, ArtifactError, PlainParts
from tureen_core.base import CACHE
from tureen_core.plain.options import PlainError
from tureen_core.plain.quantised import dequantise_folder
from tureen_core.plain.reward import DescribedReward, describe_plain_reward, make_plain_renderer
from tureen_core.reading import Rendered
from tureen_train.networks.reward_reader import Done, RewardReader, ignore_progress


class UnconvertedReader(RewardReader):
    """Reads texts one at a time, by the model's own class: nothing of Tureen's serving takes part."""

    def __init__(self, found: DescribedReward) -> None:
        self.renderer = make_plain_renderer(found.tokenizer, found.manifest.reading)
        self._score = found.read.open_reference()

    def score_texts(self, texts: Sequence[Rendered], batch: int = 1, done: Done = ignore_progress) -> list[list[float]]:
        """Score rendered texts: a row of rewards for each."""
        return self.score_ids([text.ids for text in texts], batch, done)

    def score_ids(
        self,
        texts: Sequence[Sequence[int]],
        batch: int = 1,  # noqa: ARG002  (each text runs alone)
        done: Done = ignore_progress,
    ) -> list[list[float]]:
        """Score texts given as ids: a row of rewards for each."""
        rows = []
        for ids in texts:
            rows.append(self._score(ids))
            done(1)
        return rows


def open_unconverted(folder: Path) -> tuple[Artifact, UnconvertedReader]:
    """Open the folder of a model that has no manifest. Its rewards are not calibrated.

    Raises:
        ArtifactError: it is no reward model of a known form, or only a flag of the importer tells how it is read.
    """
    try:
        found = describe_plain_reward(dequantise_folder(folder.expanduser().resolve(), CACHE))
        found.checkpoint.refuse_codes()
        parts = PlainParts(found.form, found.tokenizer, found.read.head, found.read.gate, found.read.extra_keys)
        return Artifact(found.checkpoint.folder, found.manifest, parts), UnconvertedReader(found)
    except PlainError as error:
        raise ArtifactError(f"{error}; tureen-train import takes such flags: evaluate what it writes") from error
