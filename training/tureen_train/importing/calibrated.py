"""Calibrate an imported reward model on pairs, and write the report of its evaluation on them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tureen.records.schema import BadOption
from tureen_core.artifact import Artifact, open_artifact, seal_artifact
from tureen_core.calibration import fit_calibration
from tureen_core.chat_template import make_template_inputs
from tureen_core.manifest import Objective
from tureen_core.reading import Rendered
from tureen_train.evaluation.evaluate import evaluate_model, load_items
from tureen_train.evaluation.items import Item
from tureen_train.evaluation.results import Evaluation
from tureen_train.evaluation.scorers import ArtifactScorer
from tureen_train.importing.reward import write_card
from tureen_train.networks.reward_reader import Done, RewardReader, ignore_progress, open_reader
from tureen_train.records.rendering import locate_refusals

BATCH = 8


class RecordedReader:
    """A reader that scores each text once."""

    def __init__(self, reader: RewardReader) -> None:
        self._reader = reader
        self._rows: dict[tuple[int, ...], list[float]] = {}
        self.renderer = reader.renderer

    def score_texts(self, texts: Sequence[Rendered], batch: int, done: Done) -> list[list[float]]:
        """Score texts as :meth:`RewardReader.score_texts` does."""
        new = list({tuple(text.ids): text for text in texts if tuple(text.ids) not in self._rows}.values())
        rows = self._reader.score_texts(new, batch, done)
        self._rows |= {tuple(text.ids): row for text, row in zip(new, rows, strict=True)}
        return [self._rows[tuple(text.ids)] for text in texts]


@dataclass(frozen=True)
class CalibratedImport:
    """A calibrated artifact, and the evaluation of each of its rewards on the pairs of the fit."""

    artifact: Artifact
    evaluations: Sequence[Evaluation]

    def describe_scales(self) -> Iterator[str]:
        """Describe the scale of each reward in a line."""
        for each in self.artifact.manifest.objectives:
            scale = each.calibration
            if scale is None:
                continue
            line = f"{each.name}: mean {scale.mean:.4g}, deviation {scale.std:.4g}, temperature {scale.temperature:.4g}"
            worse = "; it is worse than chance on these pairs, so it is not calibrated"
            yield line + (worse if scale.worse_than_chance else "")


def calibrate_import(
    folder: Path, files: Sequence[Path], report: Path, done: Done = ignore_progress
) -> CalibratedImport:
    """Fit the scale of each reward on the pairs of files, seal the artifact anew, and write an evaluation.

    Args:
        folder: the artifact.
        files: preference data.
        report: the folder for the evaluation; with several rewards, for a folder of each.

    Raises:
        BadOption: the model compares pairs or judges steps.
        DataError: a file cannot be read.
        ValueError: there are no pairs.
    """
    artifact = open_artifact(folder)
    manifest = artifact.manifest
    if manifest.input != "conversation":
        what = "the first of two answers is better" if manifest.input == "pair" else "a step is right"
        raise BadOption(
            f"--calibrate: a reward of {manifest.name} is the log-odds that {what}, so it has a scale already; leave "
            "--calibrate out"
        )
    loaded = load_items("pairs", files)
    reader = RecordedReader(open_reader(artifact))
    objectives = fit_objectives(manifest.objectives, loaded.items, reader, done)
    used = {name: about["sha256"] for name, about in loaded.files.items()}
    recipe = {**manifest.training.recipe, "calibration": used}
    training = manifest.training.model_copy(update={"recipe": recipe})
    manifest = manifest.model_copy(update={"objectives": objectives, "training": training, "version": "", "files": {}})
    (folder / "README.md").write_text(write_card(manifest), encoding="utf-8")
    sealed = seal_artifact(folder, manifest)
    evaluations = []
    for objective in objectives:
        scorer = ArtifactScorer(folder, objective.name, None, BATCH, reader=reader)
        place = report if len(objectives) == 1 else report / objective.name
        evaluations.append(evaluate_model(scorer, loaded, "pairs", place))
    return CalibratedImport(sealed, evaluations)


def fit_objectives(
    objectives: Sequence[Objective], items: Sequence[Item], reader: Any, done: Done = ignore_progress
) -> list[Objective]:
    """Fit mean and deviation of each reward over all answers, and its temperature over all pairs.

    Raises:
        ValueError: there are no pairs of answers, of which one is better.
        BadRecord: the chat template does not render an item.
    """
    rendered = [_render(item, reader) for item in items]
    rows = iter(reader.score_texts([text for texts in rendered for text in texts], BATCH, done))
    table = [[next(rows) for _ in texts] for texts in rendered]
    pairs = [
        (place, better, worse)
        for place, item in enumerate(items)
        for better, high in enumerate(item.scores)
        for worse, low in enumerate(item.scores)
        if high > low
    ]
    if not pairs:
        raise ValueError("--calibrate: the files hold no pair of a better and a worse answer")
    fitted = []
    for each in objectives:
        values = [[row[each.column] for row in answers] for answers in table]
        gaps = [values[place][better] - values[place][worse] for place, better, worse in pairs]
        scale = fit_calibration([value for answers in values for value in answers], gaps)
        fitted.append(each.model_copy(update={"calibration": scale}))
    return fitted


def _render(item: Item, reader: Any) -> list[Rendered]:
    inputs = make_template_inputs(item.template_arguments)
    with locate_refusals(item.id):
        return [reader.renderer.render_conversation(each, inputs=inputs) for each in item.conversations]
