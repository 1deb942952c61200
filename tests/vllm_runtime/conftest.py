"""A real vLLM over tiny real models. Nothing here is collected where vLLM is not installed."""

import gc
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import tiny
from serve.experts import NAMES, stack
from vllm_runtime.vllm_setup import runtime

from tureen_core.artifact import Artifact
from tureen_core.base import load_tokenizer
from tureen_serve.process_environment import stay_offline
from tureen_serve.runtimes.catalogue import LoadedBase

if find_spec("vllm") is None:
    collect_ignore_glob = ["test_*.py"]

stay_offline()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of this folder needs vLLM."""
    for item in items:
        if Path(item.path).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.vllm)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.base(tmp_path_factory.mktemp("vllm") / "base")


@pytest.fixture(scope="session")
def rewards(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Artifact]:
    """Two scalar reward models and one of two objectives, on the base."""
    folder = tmp_path_factory.mktemp("rewards")
    return [
        tiny.reward(folder / "helpful", base, "helpful", 1),
        tiny.reward(folder / "harmless", base, "harmless", 2),
        tiny.reward(folder / "many", base, "many", 3, objectives=["facts", "tone"]),
    ]


@pytest.fixture(scope="session")
def standing(base: Path, rewards: list[Artifact]) -> Iterator[LoadedBase]:
    """One engine that scores and one that writes, both under the gate."""
    made = runtime()
    made.reserve_memory(["base-scores", "tiny"])
    found: LoadedBase = made.load_base(base, load_tokenizer(base), rewards, {"tiny": stack(NAMES)})
    del made  # as in a server, which keeps the engines only
    gc.collect()
    yield found
    for scorer, _ in found.scorers:
        scorer.close()
    for family in found.families:
        family.close()


@pytest.fixture(scope="session")
def generator(standing: LoadedBase) -> Any:
    return standing.families[0]


@pytest.fixture(scope="session")
def scorer(standing: LoadedBase) -> Any:
    return standing.scorers[0][0]
