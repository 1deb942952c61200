"""A record that cannot be rendered is named, and a probe keeps the record's tools."""

import pytest
from train.test_policies_preferences import ASKED, CALLED, SAID, pair, renderer, tool

from tureen.errors import NotFound, Unprocessable
from tureen.records.schema import BadRecord
from tureen_core.chat_template import make_template_inputs
from tureen_core.inputs import render_probe
from tureen_core.manifest import Probe
from tureen_train.records.rendering import locate_refusals, make_probe


def test_a_refusal_names_the_record_and_the_field() -> None:
    with pytest.raises(BadRecord, match="file:7: cannot be rendered: no place") as caught, locate_refusals("file:7"):
        raise Unprocessable("no place", param="messages[1].tool_calls")
    assert caught.value.column == "messages[1].tool_calls"
    with pytest.raises(NotFound), locate_refusals("file:7"):
        raise NotFound("another error")


def test_a_probe_is_read_as_the_record_is() -> None:
    record = pair(CALLED, SAID, tools=[tool("clock")], chat_template_kwargs={"enable_thinking": False})
    made, inputs = renderer(), make_template_inputs(record.template_arguments)
    for answer, conversation in zip(record.answers, record.conversations, strict=True):
        probe = Probe.model_validate_json(make_probe(record, answer).model_dump_json(exclude_defaults=True))
        expected = made.render_conversation(conversation, inputs=inputs)
        assert render_probe(made, "conversation", probe) == expected
    plain = make_probe(pair("a", "b"), (SAID[0],))
    assert set(plain.model_dump()) == {"messages", "rival", "scores", "logprob"}
    assert plain.messages == [ASKED, *SAID]
