"""Calibration of trained rewards on held-out answers, and its reliability diagram."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tureen_core.calibration import HIGHEST, Calibration, fit_calibration
from tureen_core.manifest import Objective
from tureen_train.measures.metrics import Array
from tureen_train.reports.plots import plot_reliability
from tureen_train.rewards.method import Calibrator
from tureen_train.runs.folder import update_account

log = logging.getLogger("tureen.train")


@dataclass(frozen=True)
class EvaluatedFile:
    """One evaluation file after training: predictions, labels and metrics."""

    predictions: Array
    labels: Sequence[Array]
    metrics: Mapping[str, float]


def calibrate_rewards(rewards: Array, gaps: Array, folder: Path) -> Calibration:
    """Fit mean and deviation of the rewards and the temperature of the gaps; draw ``reliability.png`` into ``folder``.

    Args:
        rewards: of any shape; NaN is left out.
        gaps: ``[P]`` log-odds of the right verdict, one for each pair or step; without any there is no picture.
    """
    scale = fit_calibration(rewards[~np.isnan(rewards)].tolist(), gaps.tolist())
    if gaps.size:
        plot_reliability(gaps, folder / "reliability.png", scale.temperature)
    return scale


def calibrate_on_files(
    method: Calibrator, evaluated: Mapping[str, EvaluatedFile], chosen: str | None, folder: Path
) -> list[Objective]:
    """Calibrate on all evaluation files together, or on the ``chosen`` one; write into the account which they were.

    Without a file the objectives are as the method knows them, mostly without a calibration. That is told, and so is a
    temperature at its bound.
    """
    files = [name for name in evaluated if chosen in (None, name)]
    if not files:
        objectives = method.objectives()
        for each in objectives:
            if each.calibration is None:
                log.warning(
                    "%s is not calibrated, since no answers were held out: it is served raw and not added to other "
                    "rewards. Hold prompts out with data.holdout, or name files under data.eval",
                    each.name,
                )
        return objectives
    used = [evaluated[name] for name in files]
    labels = [join_tables(each) for each in zip(*(file.labels for file in used), strict=True)]
    objectives = method.calibrate(join_tables([file.predictions for file in used]), labels, folder)
    worse = [each.name for each in objectives if each.calibration and each.calibration.worse_than_chance]
    flawless = {each.name: count for each in objectives if (count := count_flawless_pairs(each.name, used))}
    for name, count in flawless.items():
        log.warning(
            "%s ranks all %d evaluation pairs right, so they do not show how sure it is: its temperature is that of a "
            "prior; evaluate it on more pairs",
            name,
            count,
        )
    for name in worse:
        log.warning(
            "%s is worse than chance on the evaluation pairs: its temperature ended at the bound of %g, so it is not "
            "calibrated",
            name,
            HIGHEST,
        )
    update_account(folder, calibration={"files": files, "worse_than_chance": worse, "flawless": flawless})
    return objectives


def count_flawless_pairs(name: str, files: Sequence[EvaluatedFile]) -> int:
    """Count the pairs of an objective over all files if each is ranked right; 0 if one is not, or there are none.

    The figures of one objective among several begin with its name.
    """
    found = [
        tuple(file.metrics.get(f"{name}_{key}", file.metrics.get(key, 0.0)) for key in ("pairs", "accuracy"))
        for file in files
    ]
    counted = [(pairs, accuracy) for pairs, accuracy in found if pairs]
    return int(sum(pairs for pairs, _ in counted)) if all(accuracy == 1 for _, accuracy in counted) else 0


def join_tables(tables: Sequence[Array]) -> Array:
    """Join tables ``[B, ...]`` of several files along their first axis; NaN pads the others to the widest table."""
    shape = np.max([table.shape[1:] for table in tables], axis=0).astype(int)
    joined = np.full((sum(map(len, tables)), *shape), np.nan)
    start = 0
    for table in tables:
        joined[(slice(start, start + len(table)), *map(slice, table.shape[1:]))] = table
        start += len(table)
    return joined
