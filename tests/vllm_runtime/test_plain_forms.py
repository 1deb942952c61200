"""Every form of plain reward model over HTTP, on a real vLLM: the rewards of the library's own code."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import judging
import pytest
from serve.plain_forms import FORMS, PlainForm, serve_forms
from starlette.testclient import TestClient
from vllm_runtime.forked_engines import fork_engines
from vllm_runtime.vllm_setup import SMALL

ON_VLLM = "vLLM, pooled at the last token"
ON_TRANSFORMERS = {"classifier-class"}


@dataclass(frozen=True)
class Served:
    """The models, a server of them, and how each lane computes."""

    forms: dict[str, PlainForm]
    client: TestClient
    ways: dict[str, str]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("plain")
    forms = {name: make(folder / name) for name, make in FORMS.items()}
    with fork_engines(), serve_forms(forms, folder / "cache", runtime="vllm", vllm=SMALL) as client:
        yield Served(forms, client, client.app.state.server.engine.ways)


@pytest.mark.parametrize("name", FORMS)
def test_vllm_gives_the_rewards_of_the_librarys_own_code(served: Served, name: str) -> None:
    form = served.forms[name]
    judging.compare(form.ask(served.client, name), form.compute(), form.spread)


def test_vllm_computes_all_but_those_of_their_own_class(served: Served) -> None:
    elsewhere = {name for name, way in served.ways.items() if way != ON_VLLM}
    assert elsewhere == ON_TRANSFORMERS
    assert len(served.ways) == len(FORMS) - 2  # three adapters share an engine
