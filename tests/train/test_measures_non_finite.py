"""What JSON cannot say becomes null."""

import json
import math

from tureen_train.measures.non_finite import replace_non_finite


def test_undefined_figures_become_null() -> None:
    found = replace_non_finite(
        {"accuracy": math.nan, "deep": {"mce": math.inf, "pairs": 3}, "loss": 0.5, "name": "x", "none": None}
    )
    assert found == {"accuracy": None, "deep": {"mce": None, "pairs": 3}, "loss": 0.5, "name": "x", "none": None}
    json.dumps(found, allow_nan=False)
