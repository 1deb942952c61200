"""Turn the prompts of a plan into what its policy reads: token ids, or the words themselves for an upstream. Pure."""

from collections.abc import Callable, Sequence

from tureen.errors import Unprocessable
from tureen_core.turns import Messages, check_messages, check_text
from tureen_serve.generation.plan import Plan
from tureen_serve.runtimes.upstream_contract import Prompt, SpokenPrompt

GoOn = Callable[[], None]


def read_conversation(planned: Plan, messages: Messages, go_on: GoOn) -> tuple[list[Prompt], set[str]]:
    """Read a conversation for each variation, or once for all of them; and what of it was not read as it was sent.

    Args:
        go_on: called before each prompt; an error that it raises ends the work.

    Raises:
        Unprocessable: a message cannot be rendered.
    """
    renderer, found, told = planned.family.renderer, list[Prompt](), set[str]()
    for each in planned.steer_messages(messages):
        go_on()
        if renderer is None:
            check_messages(each)
            found.append(SpokenPrompt(tuple(dict(message) for message in each)))
        else:
            rendered = renderer.render_prompt(each)
            found.append(rendered.ids)
            told.update(rendered.normalised)
    return found, told


def read_texts(planned: Plan, texts: Sequence[str], go_on: GoOn) -> list[list[Prompt]]:
    """Read bare prompts: each for each variation, or once for all of them. The arguments are as before.

    Raises:
        Unprocessable: a text cannot be read, or what is wanted has no place in it.
    """
    return [[_read_text(planned, each, go_on) for each in planned.steer_text(text)] for text in texts]


def _read_text(planned: Plan, text: str, go_on: GoOn) -> Prompt:
    go_on()
    renderer = planned.family.renderer
    if renderer is not None:
        return renderer.tokenize_plain_prompt(text)
    check_text(text, "prompt")
    if not text:
        raise Unprocessable("the prompt is empty: send some text to continue", param="prompt")
    return SpokenPrompt(text=text)
