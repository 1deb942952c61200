"""An answer's steps as ids, in the contexts that a reading can have: blank lines, turns, or marks in the answer.

Without a ``step_mark`` each step follows the one before it after a blank line. With one it is read as RLHFlow's process
models read it (RLHF-Reward-Modeling, ``math-rm``): the first step follows the question in the user's turn, after a
space; each further step is a user's turn of its own; between them stand the assistant's marks. Training puts the
labels' marks there, and serving the first one, as the published evaluation does. A step is judged where its mark would
be written.

With the layout ``text`` the answer is one text with a mark after each step, and a step is judged at its mark. So do
Math-Shepherd (arXiv 2312.08935) and Qwen's process models (arXiv 2501.07301). With ``parts`` the steps and the marks
are tokenised each on its own, as TRL's ``PRMTrainer`` and Skywork's process models do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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


def tokenize_steps(
    renderer: Renderer, prompt: Messages, texts: Sequence[str], marks: Sequence[str] | None, inputs: TemplateInputs
) -> TokenizedSteps:
    """Tokenise steps in the context that the reading has.

    Args:
        marks: the assistant's mark of each step that is a turn; by default the reading's.

    Raises:
        Unprocessable: a message is bad, or the marks of the steps cannot be told apart from their texts.
    """
    mark, layout = renderer.reading.step_mark, renderer.reading.step_layout
    if not mark:
        return tokenize_plain_steps(renderer, prompt, texts, inputs)
    if layout == "turns":
        return tokenize_marked_steps(renderer, prompt, texts, marks or [mark] * len(texts), inputs)
    if layout == "parts":
        return tokenize_step_parts(renderer, prompt, texts, inputs)
    return tokenize_step_text(renderer, prompt, texts, inputs)


def tokenize_plain_steps(
    renderer: Renderer, prompt: Messages, texts: Sequence[str], inputs: TemplateInputs
) -> TokenizedSteps:
    """Tokenise steps that blank lines part. Each is tokenised on its own, together with its blank line.

    Raises:
        Unprocessable: a message is bad.
    """
    return _tokenize_each(renderer, prompt, [text + STEP_BREAK for text in texts], [], inputs)


def _tokenize_each(
    renderer: Renderer, prompt: Messages, texts: Sequence[str], mark: list[int], inputs: TemplateInputs
) -> TokenizedSteps:
    """Tokenise each step on its own, and put the ids of a mark after it."""
    opened = renderer.render_prompt(prompt, inputs=inputs)
    parts = [renderer.tokenize_part(text) for text in texts]
    hidden = {"control_marks"} if any(hidden for _, hidden in parts) else set()
    return TokenizedSteps(opened.ids, [[*ids, *mark] for ids, _ in parts], set(opened.normalised) | hidden)


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


def tokenize_step_parts(
    renderer: Renderer, prompt: Messages, texts: Sequence[str], inputs: TemplateInputs
) -> TokenizedSteps:
    """Tokenise each step and its mark on their own.

    Raises:
        Unprocessable: a message is bad.
    """
    mark = renderer.tokenize_text(renderer.reading.step_mark, specials=False)
    return _tokenize_each(renderer, prompt, texts, mark, inputs)


def tokenize_step_text(
    renderer: Renderer, prompt: Messages, texts: Sequence[str], inputs: TemplateInputs
) -> TokenizedSteps:
    """Tokenise a prompt and its steps as one text. A step ends with the id of its mark, as the published codes find it.

    Raises:
        Unprocessable: a message is bad, or a step holds the mark's token.
    """
    mark, pause = renderer.reading.step_mark, renderer.reading.step_break
    hidden = [renderer.hide_marks(text) for text in texts]
    opened = renderer.render_prompt(prompt, inputs=inputs)
    whole = renderer.render_prompt(prompt, inputs=inputs, begun=pause.join(text + mark for text in hidden)).ids
    shared = _count_common(opened.ids, whole)
    wanted = find_mark_id(renderer.tokenizer, mark)
    ends = [place + 1 for place in range(shared, len(whole)) if whole[place] == wanted]
    if len(ends) != len(texts):
        raise Unprocessable(f"a step holds the mark {mark.strip()!r}, which ends a step; leave it out", param="steps")
    told = {"control_marks"} if hidden != list(texts) else set()
    steps = [whole[start:end] for start, end in zip([shared, *ends], ends, strict=False)]
    return TokenizedSteps(whole[:shared], steps, set(opened.normalised) | told)


def find_mark_id(tokenizer: Any, mark: str) -> int | None:
    """Find the id of a mark after a text. None if the mark does not end with one token of its own."""
    ids: list[int] = tokenizer(f".{mark}", add_special_tokens=False)["input_ids"]
    last = tokenizer.decode(ids[-1:], skip_special_tokens=False)
    return ids[-1] if last.strip() == mark.strip() and ids[-1] != tokenizer.unk_token_id else None


def _count_common(first: Sequence[int], second: Sequence[int]) -> int:
    """Count the ids with which both begin."""
    return next(
        (at for at, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )
