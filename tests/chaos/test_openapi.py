"""Schemathesis over all routes of the server: no 500, and no reply that the OpenAPI document does not describe."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from chaos.sites import tell
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import openapi
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from serve.border import application, wait_for_models
from serve.counting import CountingEngine
from serve.keys import bear, make_entry, write_entries
from starlette.testclient import TestClient

pytestmark = pytest.mark.long

EXAMPLES = int(os.environ.get("TUREEN_TEST_EXAMPLES", "3"))  # of each route
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
MODES = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]
bounded = settings(
    max_examples=EXAMPLES,
    stateful_step_count=5,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)


@contextmanager
def open_schema(folder: Path, **more: Any) -> Iterator[tuple[FastAPI, Any]]:
    """A server in this process and the document of its routes."""
    app = application(CountingEngine(), batches={"folder": str(folder)}, aliases={"default": "calm"}, **more)
    with TestClient(app, raise_server_exceptions=False):
        wait_for_models(app)
        plain = application(CountingEngine(), batches={"enabled": False}, aliases={"default": "calm"})
        found = openapi.from_asgi("/openapi.json", plain)  # that of a server with keys needs a key
        found.app = app
        yield app, found


def ask_all(schema: Any, mode: Any, headers: dict[str, str] | None = None) -> Counter[int]:
    """Send a few requests to each route, check their replies, and count their statuses."""
    statuses: Counter[int] = Counter()

    def ask(case: Any) -> None:
        reply = case.call(headers=headers)
        statuses[reply.status_code] += 1
        case.validate_response(reply, checks=CHECKS)

    for operation in schema.get_all_operations():
        with suppress(Unsatisfiable):  # a route without parameters has no wrong ones
            bounded(given(case=operation.ok().as_strategy(generation_mode=mode))(ask))()
    return statuses


@pytest.mark.parametrize("mode", MODES, ids=["as-described", "otherwise"])
def test_every_reply_of_every_route_is_described(tmp_path: Path, mode: Any) -> None:
    with open_schema(tmp_path) as (_, schema):
        statuses = ask_all(schema, mode)
    tell(f"{statuses.total()} requests by Schemathesis ({mode.value}): {dict(sorted(statuses.items()))}, all described")
    assert statuses[200]


def test_without_a_key_and_with_one_of_no_use_every_reply_is_described(tmp_path: Path) -> None:
    key, entry = make_entry("poor", ["read"])
    with open_schema(tmp_path, keys=write_entries(tmp_path / "keys.json", entry)) as (_, schema):
        without = ask_all(schema, MODES[0])
        poor = ask_all(schema, MODES[0], bear(key))
    tell(f"requests without a key {dict(sorted(without.items()))}, and with a key that may only read {dict(poor)}")
    assert without.keys() <= {200, 401}
    assert without[401] > 2 * without[200]
    assert poor[403]
    assert 401 not in poor


def test_sequences_of_requests_are_described(tmp_path: Path) -> None:
    """Requests whose parameters come from the replies of others, as a file's id in a batch."""
    with open_schema(tmp_path) as (_, schema):
        machine: Any = schema.as_state_machine()

        class Sequence(machine):  # type: ignore[misc]
            def validate_response(self, response: Any, case: Any, **more: Any) -> None:
                case.validate_response(response, checks=CHECKS)

        Sequence.run(settings=bounded)
