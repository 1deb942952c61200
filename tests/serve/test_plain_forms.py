"""Every form of plain reward model over HTTP, on transformers: the rewards of the library's own code."""

from collections.abc import Iterator

import judging
import pytest
import torch
from serve.plain_forms import FORMS, Served, serve_forms

from tureen_core.plain.forms import FORMS as KNOWN


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve_forms(tmp_path_factory.mktemp("plain"), list(FORMS), runtime="transformers") as found:
        yield found


@pytest.mark.parametrize("name", FORMS)
def test_http_answers_with_the_rewards_of_the_librarys_own_code(served: Served, name: str) -> None:
    form = served.forms[name]
    judging.compare(form.ask(served.client, name), form.compute(), form.spread)


def test_every_form_is_tested() -> None:
    untested = [form.name for form in KNOWN if not any(f"{name}-".startswith(f"{form.name}-") for name in FORMS)]
    assert untested == []


def test_steps_are_summed_up_as_probabilities(served: Served) -> None:
    name = "process-value"
    form = served.forms[name]
    (item,) = judging.ask(served.client, "/v1/score", items=form.items[:1], rewards=[name])["data"]
    wanted = torch.tensor(form.score(form.items[0])).sigmoid()
    assert item["summary"][name]["min"] == pytest.approx(float(wanted.min()), abs=judging.CLOSE)
