"""The raw rewards of an artifact by objective, read in this process in float32: for evaluation and for training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tureen_core.artifact import Artifact, ArtifactError
from tureen_core.calibration import Calibration
from tureen_core.chat_template import make_template_inputs
from tureen_core.manifest import Input
from tureen_core.reading import Rendered
from tureen_core.turns import Messages
from tureen_train.networks.reward_reader import Done, RewardReader, open_reader
from tureen_train.records.rendering import locate_refusals


@dataclass(frozen=True)
class ReadObjective:
    """An objective of an artifact, the name of its reward, and the scale on which it is given."""

    name: str
    objective: str
    scale: Calibration


class ObjectiveReader:
    """Reads all objectives of a reward model's artifact in one forward pass, on the GPU if there is one.

        found = ObjectiveReader(open_artifact(Path("runs/academy/artifact")))
        found.score([found.render(conversation)], batch=8, done=ignore_progress)  # [{"academy": 0.3}]

    Args:
        artifact: a reward model's.
        reads: the kinds of input that the model may have.
        reader: an open reader of the artifact; by default it is opened.

    Attributes:
        artifact: as it was given.
        manifest: the artifact's.
        columns: the column of each objective in the reader's rows.
        scales: the calibration of each objective, or None.

    Raises:
        ArtifactError: it is no reward model, or has another input.
        BaseError: its base is missing, or has other weights.
    """

    def __init__(
        self, artifact: Artifact, reads: Sequence[Input] = ("conversation",), reader: RewardReader | None = None
    ) -> None:
        self.artifact, self.manifest = artifact, artifact.manifest
        manifest = self.manifest
        if manifest.kind != "reward" or manifest.input not in reads:
            raise ArtifactError(
                f"{artifact.folder}: {manifest.name} is of kind {manifest.kind} with the input {manifest.input};"
                f" name a reward model with the input {' or '.join(reads)}"
            )
        self.columns: Mapping[str, int] = {each.name: each.column for each in manifest.objectives}
        self.scales: Mapping[str, Calibration | None] = {each.name: each.calibration for each in manifest.objectives}
        self.reader = reader or open_reader(artifact)

    def render(
        self, conversation: Messages, template_arguments: Mapping[str, Any] | None = None, where: str = ""
    ) -> Rendered:
        """Render a finished conversation. A text that is too long is cut, and says so.

        Args:
            template_arguments: ``tools`` and ``chat_template_kwargs``, see
                :attr:`tureen.records.schema.Record.template_arguments`.
            where: the place of the conversation, for the error.

        Raises:
            BadRecord: the chat template does not render it.
        """
        inputs = make_template_inputs(template_arguments or {})
        with locate_refusals(where):
            return self.reader.renderer.render_conversation(conversation, inputs=inputs)

    def score(self, texts: Sequence[Rendered], batch: int, done: Done) -> list[dict[str, float]]:
        """Compute the raw rewards of texts by objective.

        Args:
            batch: the number of texts in one batch.
            done: called with the number of further texts that are scored.
        """
        return [self.name_columns(row) for row in self.reader.score_texts(texts, batch, done)]

    def name_columns(self, row: Sequence[float]) -> dict[str, float]:
        """Give the columns of a row the names of the objectives."""
        return {name: row[column] for name, column in self.columns.items()}
