"""The report on reward scales: margins, caps, similarities, and rank correlation with ratings, of several models."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from tureen.records.schema import BadFile, Record
from tureen_core.artifact import open_artifact
from tureen_train.config import RecipeError
from tureen_train.config.ranking import Constraint, CosineCap, LengthCap
from tureen_train.evaluation.comparison_report import label_folders
from tureen_train.evaluation.scorers import ArtifactScorer
from tureen_train.kinds import find_artifact_kind
from tureen_train.measures.constraints import compute_angular_similarity, compute_caps
from tureen_train.measures.correlation import collect_ratings, compare_correlations, compute_correlations
from tureen_train.measures.intervals import Figure, dump_figures
from tureen_train.measures.margins import Margins
from tureen_train.measures.metrics import Array
from tureen_train.measures.non_finite import replace_non_finite
from tureen_train.networks.reward_reader import Done, ignore_progress
from tureen_train.networks.sentence_encoder import Encoder, add_similarity, open_encoder, read_cosines
from tureen_train.records.run_data import load_data
from tureen_train.reports import plots
from tureen_train.reports.document import Page, escape_markdown
from tureen_train.reports.scatter import Curve, plot_scatter
from tureen_train.rewards.capped_records import compare_lengths
from tureen_train.rewards.collate import render_answers
from tureen_train.runs.folder import read_finished_run

_CONSTRAINT: TypeAdapter[Constraint] = TypeAdapter(Constraint)
GLOSSARY = (
    "margin: the better answer's reward minus the worse one's; right_margin: the mean of the positive margins only",
    "cap: the mean cap δ; the constraint draws the margin to δ/2. over_cap: the share of margins above their δ",
    "gap_by_…: Spearman's correlation of margin and similarity over pairs",
    "spearman, kendall: the correlation of reward and rating over answers",
    "gap_spearman, gap_kendall: the correlation of margin and difference in rating over pairs",
)


@dataclass(frozen=True)
class JudgedRecords:
    """A reward model's rewards of some records, and the similarities of their answers.

    Attributes:
        rewards: a row for each record, a value for each answer.
        similarity: by measure, a table ``[N, N]`` for each record.
        constraint: the constraint that the model was trained with.
    """

    name: str
    folder: Path
    records: Sequence[Record]
    rewards: Sequence[Sequence[float]]
    similarity: Mapping[str, Sequence[Array]]
    constraint: Constraint | None

    @property
    def measure(self) -> str | None:
        """The similarity that the constraint depends on; None if it depends on none."""
        return name_similarity(self.constraint)

    @cached_property
    def margins(self) -> Margins:
        """The comparable pairs."""
        places = [(n, i, j) for n, record in enumerate(self.records) for i, j in record.pairs]
        similarity = {
            name: np.array([each[n][i, j] for n, i, j in places], dtype=np.float64)
            for name, each in self.similarity.items()
        }
        caps = None
        if self.constraint is not None:
            caps = compute_caps(self.constraint, similarity[self.measure] if self.measure else np.ones(len(places)))
        return Margins(
            [self.records[n].source for n, _, _ in places],
            np.array([n for n, _, _ in places], dtype=np.intp),
            np.array([self.rewards[n][i] - self.rewards[n][j] for n, i, j in places], dtype=np.float64),
            similarity,
            caps,
            len(self.records),
        )

    def curve(self) -> Curve | None:
        """Return s and δ(s) for a plot; None if the constraint depends on no similarity."""
        if self.measure is None or self.constraint is None or not self.margins.gaps.size:
            return None
        s = self.margins.similarity[self.measure]
        places = np.linspace(float(s.min()), 1.0, 200)
        return places, compute_caps(self.constraint, places)


def name_similarity(constraint: Constraint | None) -> str | None:
    """Name the similarity that a constraint depends on; None if it depends on none."""
    return constraint.prior if isinstance(constraint, CosineCap | LengthCap) else None


def read_held_out(folder: Path) -> list[Record]:
    """Read the held-out records of a finished reward run.

    Raises:
        RecipeError: the run has not finished, did not train a reward model, or held nothing out.
    """
    run, _ = read_finished_run(folder)
    if find_artifact_kind(run).kind != "reward":
        raise RecipeError(f"{folder} is the run of an expert, which has no rewards: name a reward run")
    records = [record for each in load_data(run.data).eval.values() for record in each]
    if not records:
        raise RecipeError(f"{folder} holds no records out: name a file with --data")
    return records


def judge_margins(
    folder: Path,
    records: Sequence[Record],
    objective: str | None = None,
    encoder: Encoder | None = None,
    cache: Path | None = None,
    batch: int = 8,
    done: Done = ignore_progress,
) -> JudgedRecords:
    """Score records by an artifact.

    Args:
        folder: an artifact, or a run whose ``artifact`` is used.
        objective: the reward to use, if there are several.
        encoder: computes cosines. A model that was trained with cosines uses its own encoder instead.
        cache: the folder where vectors are cached.
        batch: the number of texts in one batch.
        done: called with the number of further texts that are scored.

    Raises:
        ArtifactError: there is no reward artifact, or it does not verify.
        BaseError: the base or the encoder is missing.
    """
    inside = folder / "artifact"
    artifact = inside if inside.is_dir() else folder
    scorer = ArtifactScorer(artifact, objective, None, batch)
    constraint = _constraint(open_artifact(artifact).manifest.training.recipe)
    texts = [[each.ids for each in render_answers(record, scorer.model.reader.renderer)] for record in records]
    column = scorer.model.columns[scorer.choice.name]
    rows = iter(scorer.model.reader.score_ids([ids for each in texts for ids in each], batch, done))
    rewards = [[next(rows)[column] for _ in each] for each in texts]
    similarity = {"length_ratio": [compare_lengths(each) for each in texts]}
    if isinstance(constraint, CosineCap):
        encoder = open_encoder(constraint.encoder, constraint.pooling)
    if encoder is not None:
        records = add_similarity(records, encoder, cache)
        similarity["cosine"] = [compute_angular_similarity(read_cosines(record)) for record in records]
    return JudgedRecords(scorer.name, folder, records, rewards, similarity, constraint)


def _constraint(recipe: Mapping[str, Any]) -> Constraint | None:
    found = (recipe.get("loss") or {}).get("constraint")
    return None if found is None else _CONSTRAINT.validate_python(found)


def write_margin_report(found: Sequence[JudgedRecords], out: Path, rating: str | None = None) -> Path:
    """Write ``report.md``, ``report.html`` and ``margins.json``, and for each model a CSV of its pairs and plots.

    Args:
        rating: the rating to correlate the rewards with. The first model is also compared with each other one.

    Returns:
        The path of ``report.md``.

    Raises:
        BadFile: the records have no comparable pair.
        BadOption: no record has this rating.
    """
    out.mkdir(parents=True, exist_ok=True)
    names = label_folders([each.name for each in found], [each.folder for each in found])
    figures = {name: _figures(each, rating) for name, each in zip(names, found, strict=True)}
    page = Page(f"Scales of {len(found)} reward model{'s' * (len(found) > 1)}")
    _table(page, figures)
    page.notes(GLOSSARY)
    against = {name: _against(found[0], each, rating) for name, each in list(zip(names, found, strict=True))[1:]}
    against = {name: each for name, each in against.items() if each}
    if against:
        page.heading(f"Rank correlation, minus that of {names[0]}")
        _table(page, against)
    for number, (name, each) in enumerate(zip(names, found, strict=True), start=1):
        _pictures(page, name, each, out, f"{number}-" if len(found) > 1 else "")
    document = {"models": {name: dump_figures(each) for name, each in figures.items()}, "rating": rating}
    document["differences"] = {name: dump_figures(each) for name, each in against.items()}
    (out / "margins.json").write_text(json.dumps(replace_non_finite(document), indent=1) + "\n", encoding="utf-8")
    return page.write(out)


def _figures(judged: JudgedRecords, rating: str | None) -> dict[str, Figure]:
    if not judged.margins.gaps.size:
        raise BadFile(
            f"{judged.folder}: the records have no comparable pair, so there is no margin: name others with --data"
        )
    found = judged.margins.figures()
    if rating is None:
        return found
    return found | compute_correlations(judged.rewards, collect_ratings(judged.records, rating))


def _against(first: JudgedRecords, other: JudgedRecords, rating: str | None) -> dict[str, Figure]:
    """Compute the differences in correlation; empty if the two models scored different records."""
    if rating is None or list(first.records) != list(other.records):
        return {}
    return compare_correlations(first.rewards, other.rewards, collect_ratings(other.records, rating))


def _table(page: Page, figures: Mapping[str, Mapping[str, Figure]]) -> None:
    rows = list(dict.fromkeys(name for each in figures.values() for name in each))
    page.table(("figure", *figures), [(row, *(_cell(each.get(row)) for each in figures.values())) for row in rows])


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return "–"
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"


def _pictures(page: Page, name: str, judged: JudgedRecords, out: Path, prefix: str) -> None:
    page.heading(name)
    if judged.constraint is not None:
        page.text(f"Trained with the constraint {escape_markdown(_settings(judged.constraint))}.")
    judged.margins.write(out / f"{prefix}pairs.csv")
    page.picture(plots.plot_margins(judged.margins.gaps, out / f"{prefix}margins.png"), "margins")
    for measure, path in _scatters(judged, out, prefix):
        page.picture(path, f"margin against {measure.replace('_', ' ')}")


def _scatters(judged: JudgedRecords, out: Path, prefix: str) -> Iterator[tuple[str, Path]]:
    for measure in judged.similarity:
        curve = judged.curve() if measure == judged.measure else None
        yield measure, plot_scatter(judged.margins, measure, out / f"{prefix}{measure}.png", curve)


def _settings(constraint: Constraint) -> str:
    rest = constraint.model_dump(exclude={"prior"}, exclude_none=True)
    return f"{constraint.prior}: {', '.join(f'{key} {value}' for key, value in rest.items())}"
