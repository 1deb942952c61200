"""The memory for the bodies of all requests together."""

import pytest

from tureen.errors import Unavailable
from tureen_serve.body_sizes import BodyMemory


def test_a_body_that_is_alone_fits_however_large_it_is() -> None:
    bodies = BodyMemory(10)
    bodies.take(100)
    with pytest.raises(Unavailable):
        bodies.take(1)
    bodies.give_back(100)
    bodies.take(10)
    assert bodies.held == 10
