"""What the valuers by an artifact share: the model, and the objectives that are asked for."""

from collections.abc import Sequence

from tureen_train.networks.objective_reader import ObjectiveReader, ReadObjective


class ObjectiveValuer:
    """Holds a model and those of its objectives that are asked for.

    Args:
        model: reads the artifact.
        objectives: those that are asked for.
        batch: the number of texts in one batch.
    """

    def __init__(self, model: ObjectiveReader, objectives: Sequence[ReadObjective], batch: int) -> None:
        self.model = model
        self.objectives = objectives
        self.batch = batch

    @property
    def names(self) -> Sequence[str]:
        """The names of the rewards."""
        return [each.name for each in self.objectives]
