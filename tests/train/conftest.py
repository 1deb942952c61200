"""One tiny base model for all tests of training."""

from pathlib import Path

import pytest
import tiny


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a two-layer random Llama in float32, tied embeddings, and its tokenizer."""
    return tiny.base(tmp_path_factory.mktemp("base"))
