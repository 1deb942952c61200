"""Every form of plain reward model over HTTP, on transformers: the rewards of the library's own code."""

from collections.abc import Iterator

import judging
import pytest
import torch
from serve.plain_forms import FORMS, PlainForm, serve_forms
from starlette.testclient import TestClient

from tureen_core.plain.forms import FORMS as KNOWN


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PlainForm]:
    folder = tmp_path_factory.mktemp("plain")
    return {name: make(folder / name) for name, make in FORMS.items()}


@pytest.fixture(scope="module")
def client(forms: dict[str, PlainForm], tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with serve_forms(forms, tmp_path_factory.mktemp("cache"), runtime="transformers") as found:
        yield found


@pytest.mark.parametrize("name", FORMS)
def test_http_answers_with_the_rewards_of_the_librarys_own_code(
    client: TestClient, forms: dict[str, PlainForm], name: str
) -> None:
    form = forms[name]
    judging.compare(form.ask(client, name), form.compute(), form.spread)


def test_every_form_is_tested() -> None:
    tested = {name for known in KNOWN for name in FORMS if name == known.name or name.startswith(f"{known.name}-")}
    assert tested == set(FORMS)
    assert len({known.name for known in KNOWN}) == len(FORMS) - 2  # the adapters have three layouts


def test_steps_are_summed_up_as_probabilities(client: TestClient, forms: dict[str, PlainForm]) -> None:
    form = forms["process-value"]
    (item,) = judging.ask(client, "/v1/score", items=form.items[:1], rewards=["process-value"])["data"]
    wanted = torch.tensor(form.score(form.items[0])).sigmoid()
    assert item["summary"]["process-value"]["min"] == pytest.approx(float(wanted.min()), abs=judging.CLOSE)
