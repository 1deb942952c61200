"""One tiny base model for all tests of the core."""

from pathlib import Path

import pytest
import tiny
from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a two-layer random Llama in float32, tied embeddings, and its tokenizer."""
    return tiny.base(tmp_path_factory.mktemp("base"))
