"""The errors of training data that leave nothing, or too little, to learn from."""

import pytest

from tureen_train.config import RecipeError
from tureen_train.records.encoding_report import EQUAL, EncodingReport, check_training_data


def test_a_share_that_is_allowed_passes() -> None:
    check_training_data(EncodingReport("pairs", 9, {EQUAL: 1}), 0.1)
    check_training_data(EncodingReport("pairs", 1, {EQUAL: 9}), 1)


@pytest.mark.parametrize(
    ("report", "message"),
    [
        (EncodingReport("answers", 0, needs="a labelled step"), "no record has a labelled step, so there is nothing"),
        (EncodingReport("pairs", 0, {EQUAL: 2}), r"of 2 pairs none is left .* 2 equal after the cut; raise max_length"),
        (EncodingReport("pairs", 0, {"too long": 2, EQUAL: 0}), r"none is left to train on: 2 too long$"),
        (
            EncodingReport("pairs", 8, {EQUAL: 1, "too long": 1}),
            r"2 of 10 pairs .*share of 0\.1 that data",
        ),
    ],
)
def test_what_leaves_too_little_is_refused(report: EncodingReport, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        check_training_data(report, 0.1)
