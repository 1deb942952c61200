"""Every form of plain reward model over HTTP, on a real vLLM: the rewards of the library's own code."""

from collections.abc import Iterator

import judging
import pytest
from serve.plain_forms import FORMS, Served, serve_forms
from vllm_runtime.forked_engines import fork_engines
from vllm_runtime.vllm_setup import SMALL

ON_VLLM = "vLLM, pooled at the last token"
ON_TRANSFORMERS = {"classifier-class"}
TINY = SMALL.model_copy(update={"cache_gib": 0.03})
TOGETHER = 6  # in one server; each has an engine of its own, but for the adapters
NAMES = tuple(FORMS)
GROUPS = [NAMES[start : start + TOGETHER] for start in range(0, len(NAMES), TOGETHER)]
CASES = [pytest.param(group, name, id=name) for group in GROUPS for name in group]


@pytest.fixture(scope="module")
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("plain")
    with fork_engines(), serve_forms(folder, request.param, runtime="vllm", vllm=TINY) as found:
        assert {name for name, way in found.ways.items() if way != ON_VLLM} == ON_TRANSFORMERS & set(request.param)
        yield found


@pytest.mark.parametrize(("served", "name"), CASES, indirect=["served"])
def test_vllm_gives_the_rewards_of_the_librarys_own_code(served: Served, name: str) -> None:
    form = served.forms[name]
    judging.compare(form.ask(served.client, name), form.compute(), form.spread)
