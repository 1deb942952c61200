"""Turn the prompts of a plan into what its policy reads: token ids, or the words themselves for an upstream. Pure."""

from collections.abc import Callable

from tureen.errors import Unprocessable
from tureen_core.chat_template import NO_INPUTS, Opening, TemplateInputs
from tureen_core.turns import Messages, check_messages, check_text
from tureen_serve.generation.plan import Plan
from tureen_serve.runtimes.upstream_contract import Prompt, SpokenPrompt

GoOn = Callable[[], None]


def read_conversation(
    planned: Plan,
    messages: Messages,
    go_on: GoOn,
    inputs: TemplateInputs = NO_INPUTS,
    opening: Opening = "answer",
) -> tuple[list[Prompt], set[str]]:
    """Read a conversation for each variation, or once for all of them; and what of it was not read as it was sent.

    Args:
        go_on: called before each prompt; an error that it raises ends the work.
        inputs: what the template is given beside the messages.
        opening: what the policy writes. A last message that it continues does not say what is wanted.

    Raises:
        Unprocessable: a message cannot be rendered.
    """
    renderer, found, told = planned.family.renderer, list[Prompt](), set[str]()
    begun = messages[-1:] if opening == "last message" else []
    for steered in planned.steer_messages(messages[: len(messages) - len(begun)]):
        each = [*steered, *begun]
        go_on()
        if renderer is None:
            check_messages(each)
            found.append(SpokenPrompt(tuple(dict(message) for message in each)))
        else:
            rendered = renderer.render_prompt(each, inputs=inputs, opening=opening)
            found.append(rendered.ids)
            told.update(rendered.normalised)
    return found, told


def read_text(planned: Plan, text: str, specials: bool = True) -> Prompt:
    """Read a bare prompt.

    Args:
        specials: put those special tokens before it that its tokenizer puts there.

    Raises:
        Unprocessable: it cannot be read.
    """
    renderer = planned.family.renderer
    if renderer is not None:
        return renderer.tokenize_plain_prompt(text, specials)
    check_text(text, "prompt")
    if not text:
        raise Unprocessable("the prompt is empty: send some text to continue", param="prompt")
    return SpokenPrompt(text=text)
