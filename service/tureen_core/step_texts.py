"""An answer's steps as ids, in the two contexts that a reading can have: blank lines, or the turns of a conversation.

Without a ``step_mark`` each step follows the one before it after a blank line. With one it is read as RLHFlow's process
models read it (RLHF-Reward-Modeling, ``math-rm``): the first step follows the question in the user's turn, after a
space; each further step is a user's turn of its own; between them stand the assistant's marks. Training puts the
labels' marks there, and serving the first one, as the published evaluation does. A step is judged where its mark would
be written.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tureen.answer_steps import STEP_BREAK
from tureen.errors import Unprocessable
from tureen_core.chat_template import TemplateInputs
from tureen_core.template import Renderer
from tureen_core.turns import Messages, Turn


@dataclass(frozen=True)
class TokenizedSteps:
    """The ids of the opened prompt, those of each step up to where it is judged, and what was not read as it was sent.

    What stands before a step's end does not depend on what follows it.
    """

    prompt: list[int]
    steps: list[list[int]]
    normalised: set[str]


def tokenize_plain_steps(
    renderer: Renderer, prompt: Messages, texts: Sequence[str], inputs: TemplateInputs
) -> TokenizedSteps:
    """Tokenise steps that blank lines part. Each is tokenised on its own, together with its blank line.

    Raises:
        Unprocessable: a message is bad.
    """
    opened = renderer.render_prompt(prompt, inputs=inputs)
    parts = [renderer.tokenize_part(text + STEP_BREAK) for text in texts]
    hidden = {"control_marks"} if any(hidden for _, hidden in parts) else set()
    return TokenizedSteps(opened.ids, [ids for ids, _ in parts], set(opened.normalised) | hidden)


def tokenize_marked_steps(
    renderer: Renderer, prompt: Messages, texts: Sequence[str], marks: Sequence[str], inputs: TemplateInputs
) -> TokenizedSteps:
    """Tokenise steps that are turns, with the mark of each after it; the last mark is not read.

    Raises:
        Unprocessable: a message is bad, or the template rewrites earlier turns when a turn is added.
    """
    *earlier, question = prompt or [{"role": "user", "content": ""}]
    if question["role"] != "user":
        earlier, question = [*earlier, question], {"role": "user", "content": ""}
    lead = question["content"]
    turns: list[Turn] = [*map(dict, earlier), {"role": "user", "content": f"{lead} {texts[0]}" if lead else texts[0]}]
    read = renderer.render_prompt(turns, lead, inputs)
    opened, parts, told = read.ids[: read.shared], [read.ids[read.shared :]], set(read.normalised)
    for text, mark in zip(texts[1:], marks, strict=False):
        turns += [{"role": "assistant", "content": mark}, {"role": "user", "content": text}]
        before, read = read.ids, renderer.render_prompt(turns, inputs=inputs)
        if read.ids[: len(before)] != before:
            raise Unprocessable("the chat template rewrites earlier turns, so steps cannot be read as turns")
        parts.append(read.ids[len(before) :])
        told |= set(read.normalised)
    return TokenizedSteps(opened, parts, told)
