"""What JSON cannot say becomes null, and as a loss it ends the run."""

import json
import math

import pytest
import torch

from tureen_train.measures.non_finite import replace_non_finite, require_finite


def test_undefined_figures_become_null() -> None:
    found = replace_non_finite(
        {"accuracy": math.nan, "deep": {"mce": math.inf, "pairs": 3}, "loss": 0.5, "name": "x", "none": None}
    )
    assert found == {"accuracy": None, "deep": {"mce": None, "pairs": 3}, "loss": 0.5, "name": "x", "none": None}
    json.dumps(found, allow_nan=False)


def test_a_loss_that_is_no_number_ends_the_run() -> None:
    assert require_finite(torch.tensor(1.5)).item() == 1.5
    for bad in (math.nan, math.inf):
        with pytest.raises(FloatingPointError, match=r"lower optimisation\.learning_rate"):
            require_finite(torch.tensor(bad))
