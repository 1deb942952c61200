"""How the conversation of a chat is read: what its template is given, where the answer begins, and its parts."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from tureen.errors import InvalidRequest, Unprocessable
from tureen.wire import ChatRequest
from tureen_core.chat_template import Opening, TemplateInputs, read_template_fields
from tureen_serve.api.chat_shape import ChatReplyShape
from tureen_serve.generation.message_reader import MessageReader, Thoughts, find_thoughts
from tureen_serve.generation.plan import Plan
from tureen_serve.generation.tool_use import ToolUse
from tureen_serve.runtimes.upstream_contract import Prompt, SpokenPrompt

TAIL = 8  # ids of a prompt in which thoughts may begin
TEMPLATES_OWN = ("chat_template_kwargs", "reasoning_effort", "verbosity")


def refuse_upstream(planned: Plan, body: ChatRequest) -> None:
    """Refuse what an upstream is not sent, and would answer differently.

    Raises:
        Unprocessable: it is asked for.
    """
    asked = {name: getattr(body, name) is not None for name in ("prompt_logprobs", *TEMPLATES_OWN)}
    asked["continue_final_message"] = body.continue_final_message
    asked["add_generation_prompt"] = not body.add_generation_prompt
    for param in (name for name, wanted in asked.items() if wanted):
        message = f"the upstream of {planned.family.name} has its own tokenizer and template; leave `{param}` out"
        raise Unprocessable(message, param=param, code="unsupported_parameter")


def find_opening(body: ChatRequest) -> Opening:
    """Find what the policy is to write after the messages: an answer, the rest of the last one, or whatever follows.

    Raises:
        InvalidRequest: two fields contradict each other, or the last message is not the assistant's.
    """
    if body.continue_final_message:
        if body.add_generation_prompt and "add_generation_prompt" in body.model_fields_set:
            message = "`continue_final_message` opens no new answer; send `add_generation_prompt: false` with it"
            raise InvalidRequest(message, param="add_generation_prompt")
        if body.messages[-1].role != "assistant":
            message = "`continue_final_message` continues an answer: the last message must be the assistant's"
            raise InvalidRequest(message, param=f"messages[{len(body.messages) - 1}].role")
        return "last message"
    if body.add_generation_prompt:
        return "answer"
    if body.candidates is not None:
        message = (
            "candidates are answers; send `continue_final_message: true` too, or leave `add_generation_prompt` out"
        )
        raise InvalidRequest(message, param="add_generation_prompt")
    return "nothing"


def make_inputs(body: ChatRequest, use: ToolUse | None, template: str) -> tuple[TemplateInputs, bool]:
    """Make what the template is given beside the messages; and whether it reads how much the model is to think.

    ``reasoning_effort`` is given as vLLM gives it: by its name, and as ``enable_thinking``.
    """
    effort, given = body.reasoning_effort, body.chat_template_kwargs or {}
    if effort is None:
        return TemplateInputs(use.tools if use else (), given), False
    known = read_template_fields(template).variables
    told: Mapping[str, Any] = {"reasoning_effort": effort, "enable_thinking": effort != "none"}
    read = {name: value for name, value in told.items() if name in known}
    return TemplateInputs(use.tools if use else (), {**read, **given}), bool(read)


def shape_message(use: ToolUse | None, planned: Plan, template: str, prompt: Prompt, begun: str) -> ChatReplyShape:
    """Make the shape of a reply that is read into thoughts, content and calls, if it may have such parts.

    Args:
        begun: the beginning of the message, if the prompt has it.
    """
    thoughts: Thoughts = "none"
    if planned.family.renderer is not None and not isinstance(prompt, SpokenPrompt):
        tail = planned.family.renderer.tokenizer.decode(prompt[-TAIL:])
        thoughts = find_thoughts(template, tail, begun)
    if use is None and thoughts == "none":
        return ChatReplyShape()
    return ChatReplyShape(partial(MessageReader, use, thoughts), use is not None and use.choice == "named")
