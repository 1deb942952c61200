"""Artifacts that all servers of this folder serve, and more time than other tests have."""

from pathlib import Path

import pytest
from serve.artifacts import build


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny artifacts."""
    return build(tmp_path_factory.mktemp("chaos")).parent
