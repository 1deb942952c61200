"""The text of a pair of answers, side by side, as RLHFlow's pairwise models read it (arXiv 2405.07863)."""

from collections.abc import Callable
from dataclasses import replace

from tureen.errors import Unprocessable
from tureen_core.chat_template import NO_INPUTS, UNSUPPORTED, TemplateInputs
from tureen_core.reading import Rendered
from tureen_core.template import Renderer
from tureen_core.turns import Messages, Turn, check_finished, check_messages

CHARACTERS = 32  # no more than this many for each token that a model reads are searched


def render_pair(
    renderer: Renderer,
    prompt: Messages,
    first: Messages,
    second: Messages,
    truncate: bool = True,
    inputs: TemplateInputs = NO_INPUTS,
) -> Rendered:
    """Render a pair of answers. At the last id a pairwise model gives the log-odds that ``first`` is better.

    The text is :func:`write_pair_messages` in the chat template with its generation prompt, where an assistant would
    answer A or B. ``shared`` counts the ids before the first answer. A text that is too long loses the beginning of
    the context. If the answers alone are too long, both are cut to the same number of characters. The frame around
    them is never cut, so the model always sees the frame that it was trained on.

    Args:
        prompt: the turns before the answers; may be empty.
        first: the turns of the first answer, usually one.
        second: the turns of the second answer.
        truncate: whether a text that is too long is cut; if false, it is an error.
        inputs: of the records; see :func:`check_pair_inputs`.

    Raises:
        Unprocessable: a message is invalid; there are tools, or something else that the text has no place for; the text
            is too long and ``truncate`` is false; or even the frame alone is too long.
    """
    check_pair_inputs(inputs)
    sent = {"prompt": prompt, "first": first, "second": second}
    given = tuple(_strip_turns(renderer, turns, name) for name, turns in sent.items())
    told = ("end_marks",) if given != (list(prompt), list(first), list(second)) else ()
    read = _render_texts(renderer, _context(given[0]), (_answer(given[1]), _answer(given[2])), truncate)
    return replace(read, normalised=(*read.normalised, *told))


def check_pair_inputs(inputs: TemplateInputs) -> None:
    """Refuse inputs of a template: the published text of a pair has no place for them.

    Raises:
        Unprocessable: there are some; ``param`` names the field.
    """
    for name, given in (("tools", inputs.tools), ("chat_template_kwargs", inputs.arguments)):
        if given:
            raise _refuse_in_pair(name, name)


def _refuse_in_pair(name: str, param: str) -> Unprocessable:
    message = f"the text of a pair has no place for `{name}`, and it changes what an answer means"
    advice = "leave it out, or take a reward that scores each answer"
    return Unprocessable(f"{message}: {advice}", param=param, code=UNSUPPORTED)


def _strip_turns(renderer: Renderer, turns: Messages, place: str) -> list[Turn]:
    """Turns without marks of the end.

    Raises:
        Unprocessable: a turn holds what the text of a pair has no place for.
    """
    for index, turn in enumerate(turns):
        if held := next((name for name in ("tool_calls", "reasoning_content") if turn.get(name)), None):
            raise _refuse_in_pair(held, f"{place}[{index}].{held}")
    return [
        {**turn, "content": renderer.strip_end_marks(turn["content"])}
        if isinstance(turn.get("content"), str)
        else dict(turn)
        for turn in turns
    ]


def _render_texts(renderer: Renderer, context: str, texts: tuple[str, str], truncate: bool) -> Rendered:
    read = _framed(renderer, context, *texts)
    limit = renderer.reading.max_length
    if len(read.ids) <= limit:
        return read
    if not truncate:
        message = f"the pair has {len(read.ids)} tokens and this model reads {limit}; shorten it"
        raise Unprocessable(message, code="context_length_exceeded")

    # the search tokenises a text a dozen times, so a text that is far too long is shortened first
    most = CHARACTERS * limit
    context, texts = context[-most:], (texts[0][:most], texts[1][:most])

    def without_context(kept: int) -> Rendered:
        return _framed(renderer, context[len(context) - kept :], *texts)

    def beginnings(kept: int) -> Rendered:
        return _framed(renderer, "", *(text[:kept] for text in texts))

    cut = _most(without_context, len(context), limit) or _most(beginnings, max(map(len, texts)), limit)
    if cut is None:
        raise Unprocessable(f"the frame of a pair alone has more than {limit} tokens: raise reading.max_length")
    return replace(cut, shared=0, truncated=True)


def write_pair_messages(prompt: Messages, first: Messages, second: Messages) -> list[dict[str, str]]:
    """Write a pair as the one user message that RLHFlow published (arXiv 2405.07863; ``pair-pm/process_pair_data.py``).

    It is ``[CONTEXT] {context} [RESPONSE A] {first} [RESPONSE B] {second} \\n``. RLHFlow's plain template renders the
    turns of the context, and also an answer of several turns.

    Raises:
        Unprocessable: a message is invalid, or an answer does not end with an assistant's turn.
    """
    return _frame(_context(prompt), _answer(first), _answer(second))


def split_rivals(messages: Messages, rival: Messages) -> tuple[Messages, Messages, Messages]:
    """Split two finished conversations into the turns that they share and the rest of each, at least its last turn."""
    most = min(len(messages), len(rival)) - 1
    shared = next((at for at in range(most) if dict(messages[at]) != dict(rival[at])), max(most, 0))
    return messages[:shared], messages[shared:], rival[shared:]


def _frame(context: str, first: str, second: str) -> list[dict[str, str]]:
    content = f"{_lead(context)}{first} [RESPONSE B] {second} \n"
    return [{"role": "user", "content": content}]


def _lead(context: str) -> str:
    return f"[CONTEXT] {context} [RESPONSE A] "


def _framed(renderer: Renderer, context: str, first: str, second: str) -> Rendered:
    return renderer.render_prompt(_frame(context, first, second), _lead(context).rstrip())


def _context(turns: Messages) -> str:
    """Render turns as RLHFlow's plain template does. Its block tags remove the line break that follows them."""
    if turns:
        check_messages(turns)
    return "".join(["\n", *_turns(turns), "\n"])


def _turns(turns: Messages) -> list[str]:
    return [f"\n<turn> {turn['role']}\n {turn['content']}" for turn in turns]


def _answer(turns: Messages) -> str:
    check_finished(turns)
    return turns[0]["content"] if len(turns) == 1 else "".join(_turns(turns))


def _most(make: Callable[[int], Rendered], high: int, limit: int) -> Rendered | None:
    """Call ``make`` with the largest number up to ``high`` whose result fits into ``limit`` ids; None if none fits."""
    best, low = None, 0
    while low <= high:
        middle = (low + high) // 2
        made = make(middle)
        if len(made.ids) <= limit:
            best, low = made, middle + 1
        else:
            high = middle - 1
    return best
