"""Every form of plain reward model over HTTP, on a real vLLM: the rewards of the library's own code."""

from pathlib import Path

import judging
import pytest
from serve.plain_forms import FORMS, serve_forms
from vllm_runtime.forked_engines import fork_engines
from vllm_runtime.vllm_setup import SMALL

ON_VLLM = "vLLM, pooled at the last token"
ON_TRANSFORMERS = {"classifier-class"}
TINY = SMALL.model_copy(update={"cache_gib": 0.03})
TOGETHER = 8  # in one server; each has an engine of its own, but for the adapters
NAMES = tuple(FORMS)
GROUPS = [NAMES[start : start + TOGETHER] for start in range(0, len(NAMES), TOGETHER)]


@pytest.mark.parametrize("names", GROUPS, ids=lambda names: f"{names[0]} to {names[-1]}")
def test_vllm_gives_the_rewards_of_the_librarys_own_code(tmp_path: Path, names: tuple[str, ...]) -> None:
    with fork_engines(), serve_forms(tmp_path, names, runtime="vllm", vllm=TINY) as served:
        assert {name for name, way in served.ways.items() if way != ON_VLLM} == ON_TRANSFORMERS & set(names)
        for name, form in served.forms.items():
            print(name, end=": ")
            judging.compare(form.ask(served.client, name), form.compute(), form.spread)
