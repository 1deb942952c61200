"""The scale of held-out rewards: absent answers do not count, and a picture needs a pair."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scales import scale_of

from tureen_core.calibration import fit_temperature
from tureen_core.manifest import Objective
from tureen_train.measures.metrics import Array
from tureen_train.rewards.calibration import EvaluatedFile, calibrate_on_files, calibrate_rewards, join_tables


def test_absent_answers_do_not_count(tmp_path: Path) -> None:
    gaps = np.array([2.0, -0.5, 1.0])
    scale = calibrate_rewards(np.array([[1.0, np.nan], [3.0, 5.0]]), gaps, tmp_path)
    assert scale.mean == 3.0
    assert scale.std == pytest.approx(float(np.std([1, 3, 5])))
    assert scale.temperature == fit_temperature(gaps.tolist())
    assert (tmp_path / "reliability.png").stat().st_size > 1000


def test_without_a_pair_there_is_no_picture(tmp_path: Path) -> None:
    assert calibrate_rewards(np.array([1.0, 2.0]), np.array([]), tmp_path).temperature == 1.0
    assert not list(tmp_path.iterdir())


class Rewards:
    """A method whose predictions are rewards ``[B, 2]``, the better answer's first."""

    def calibrate(self, predictions: Array, labels: Sequence[Array], folder: Path) -> list[Objective]:
        assert [each.shape[0] for each in labels] == [len(predictions)]
        scale = calibrate_rewards(predictions, predictions[:, 0] - predictions[:, 1], folder)
        return [Objective(name="foxes", calibration=scale)]

    def objectives(self) -> list[Objective]:
        return [Objective(name="foxes", calibration=None)]


def evaluated(*rows: list[float]) -> EvaluatedFile:
    return EvaluatedFile(np.array(rows), [np.zeros((len(rows), 1))], {})


FILES = {"one": evaluated([2.0, 0.0], [1.0, 1.5]), "other": evaluated([9.0, 4.0])}


@pytest.mark.parametrize(("chosen", "mean"), [(None, 17.5 / 6), ("one", 1.125), ("other", 6.5)])
def test_all_files_set_the_scale_or_the_one_that_is_named(tmp_path: Path, chosen: str | None, mean: float) -> None:
    (objective,) = calibrate_on_files(Rewards(), FILES, chosen, tmp_path)
    assert scale_of(objective).mean == pytest.approx(mean)
    told = json.loads((tmp_path / "account.json").read_text())["calibration"]
    assert told == {"files": [chosen] if chosen else ["one", "other"], "worse_than_chance": [], "flawless": {}}


def test_rewards_that_are_worse_than_chance_are_not_called_calibrated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (objective,) = calibrate_on_files(Rewards(), {"one": evaluated([0.0, 1.0])}, None, tmp_path)
    assert scale_of(objective).temperature == pytest.approx(100)
    assert "foxes is worse than chance on the evaluation pairs" in caplog.text
    told = json.loads((tmp_path / "account.json").read_text())["calibration"]
    assert told == {"files": ["one"], "worse_than_chance": ["foxes"], "flawless": {}}


def test_rewards_that_are_all_right_are_told_to_be_less_sure_than_they_look(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = np.array([[5.0, 0.0]] * 3)
    files = {"one": EvaluatedFile(rows, [np.zeros((3, 1))], {"pairs": 3, "accuracy": 1.0})}
    (objective,) = calibrate_on_files(Rewards(), files, None, tmp_path)
    assert scale_of(objective).probability(5.0) == pytest.approx(4 / 5)
    assert "foxes ranks all 3 evaluation pairs right" in caplog.text
    assert json.loads((tmp_path / "account.json").read_text())["calibration"]["flawless"] == {"foxes": 3}


def test_without_a_file_there_is_no_scale(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert calibrate_on_files(Rewards(), {}, None, tmp_path) == [Objective(name="foxes", calibration=None)]
    assert not list(tmp_path.iterdir())
    assert "foxes is not calibrated, since no answers were held out" in caplog.text


def test_tables_of_several_widths_are_joined() -> None:
    joined = join_tables([np.ones((1, 2, 2)), np.zeros((2, 3, 3))])
    assert joined.shape == (3, 3, 3)
    assert np.isnan(joined[0]).sum() == 5
    np.testing.assert_array_equal(join_tables([np.array([1.0]), np.array([2.0, 3.0])]), [1.0, 2.0, 3.0])
