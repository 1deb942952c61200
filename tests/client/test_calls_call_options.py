"""The keyword arguments of the client's methods are the wire's fields."""

import pytest
from pydantic import BaseModel

from tureen import wire
from tureen.calls import call_options
from tureen.calls.request_flows import Calls


@pytest.mark.parametrize(
    ("kind", "request_type", "positional"),
    [
        (call_options.ScoreOptions, wire.ScoreRequest, {"items"}),
        (call_options.PreferencesOptions, wire.PreferencesRequest, {"items"}),
        (call_options.FitOptions, wire.FitRequest, {"pairs"}),
        (call_options.GenerationOptions, wire.GenerationRequest, {"stream"}),
        (call_options.ChatOptions, wire.ChatRequest, {"messages", "stream"}),
        (call_options.CompletionOptions, wire.CompletionRequest, {"prompt", "stream"}),
        (call_options.BatchOptions, wire.BatchRequest, {"input_file_id", "endpoint", "completion_window"}),
    ],
)
def test_names_are_the_requests_fields(kind: type, request_type: type[BaseModel], positional: set[str]) -> None:
    assert set(kind.__annotations__) - {"deadline", "idempotency_key"} == set(request_type.model_fields) - positional


def test_a_sweep_leaves_out_what_it_sets_itself() -> None:
    left_out = set(call_options.GenerationOptions.__annotations__) - set(call_options.SweepOptions.__annotations__)
    assert left_out == {"n", "preferences", "preset", "desired_rewards", "stream_options"}


def test_every_call_takes_a_deadline() -> None:
    kinds: tuple[type, ...] = (call_options.ScoreOptions, call_options.SweepOptions, call_options.ChatOptions)
    for kind in (*kinds, call_options.CompletionOptions, call_options.BatchOptions):
        assert "deadline" in kind.__annotations__


def test_a_clients_patience_is_that_of_its_calls() -> None:
    assert set(call_options.Patience.__annotations__) == set(Calls.__dataclass_fields__) - {"clock", "dice"}
