"""Token ids of the inputs of each kind of reward model. Training, probes and serving all call this module."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from tureen.answer_steps import split_steps
from tureen.errors import Unprocessable
from tureen_core.chat_template import NO_INPUTS, UNSUPPORTED, TemplateInputs
from tureen_core.manifest import Input, Probe
from tureen_core.reading import Rendered
from tureen_core.step_texts import tokenize_steps
from tureen_core.template import Renderer
from tureen_core.turns import Messages, Turn, check_finished, check_messages, check_text

CHARACTERS = 32  # no more than this many for each token that a model reads are searched


def render_probe(renderer: Renderer, given: Input, probe: Probe) -> Rendered:
    """Render a probe to the ids that its kind of reward model reads."""
    if given == "pair":
        return render_pair(renderer, *split_rivals(probe.messages, probe.rival))
    if given == "steps":
        *prompt, answer = probe.messages
        return render_steps(renderer, prompt, split_steps(answer["content"])).whole
    return renderer.render_conversation(probe.messages)


# --------------------------------------------------------------------------- two answers side by side


def render_pair(
    renderer: Renderer, prompt: Messages, first: Messages, second: Messages, truncate: bool = True
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

    Raises:
        Unprocessable: a message is invalid; the text is too long and ``truncate`` is false; or even the frame alone
            is too long.
    """
    given = _strip_turns(renderer, prompt), _strip_turns(renderer, first), _strip_turns(renderer, second)
    told = ("end_marks",) if given != (list(prompt), list(first), list(second)) else ()
    read = _render_texts(renderer, _context(given[0]), (_answer(given[1]), _answer(given[2])), truncate)
    return replace(read, normalised=(*read.normalised, *told))


def _strip_turns(renderer: Renderer, turns: Messages) -> list[Turn]:
    """Turns without marks of the end.

    Raises:
        Unprocessable: a turn holds what the text of a pair has no place for.
    """
    for turn in turns:
        if held := next((name for name in ("tool_calls", "reasoning_content") if turn.get(name)), None):
            raise Unprocessable(f"a pair's text has no place for `{held}`; send texts only", code=UNSUPPORTED)
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


# --------------------------------------------------------------------------- step by step


@dataclass(frozen=True)
class RenderedSteps:
    """The ids of an answer's steps.

    Attributes:
        ids: the prompt with its generation prompt, then each step with its break.
        ends: for each step, the number of ids up to the end of its break. The step's reward is read at
            ``ids[ends[k] - 1]``. The text ``ids[: ends[k]]`` has the same reward at its end.
        shared: the number of ids of the prompt.
        truncated: whether the prompt was cut.
        normalised: see :class:`tureen_core.reading.Rendered`.
    """

    ids: list[int]
    ends: list[int]
    shared: int = 0
    truncated: bool = False
    normalised: tuple[str, ...] = ()

    @property
    def whole(self) -> Rendered:
        """The answer as one text. It ends where the last step ends."""
        return Rendered(self.ids, self.shared, self.truncated, self.normalised)

    @property
    def prefixes(self) -> list[Rendered]:
        """One text for each step, each a prefix of the next. A runtime reads the step's reward at its end."""
        return [Rendered(self.ids[:end], self.shared, self.truncated, self.normalised) for end in self.ends]


def render_steps(
    renderer: Renderer,
    prompt: Messages,
    texts: Sequence[str],
    truncate: bool = True,
    inputs: TemplateInputs = NO_INPUTS,
    marks: Sequence[str] | None = None,
) -> RenderedSteps:
    """Render an answer's steps.

    The steps follow the opened prompt: see :mod:`tureen_core.step_texts`. No EOS is appended. A prompt that is too long
    loses its beginning; steps are never cut.

    Args:
        marks: the mark of each step, where the reading has a ``step_mark``; by default this mark for all.

    Raises:
        Unprocessable: a message is invalid; there is no step, or a blank one; the steps alone are too long; or the
            whole text is too long and ``truncate`` is false.
    """
    if not texts:
        raise Unprocessable("an answer needs at least one step", param="steps")
    stripped = [_strip_step(renderer, text, number) for number, text in enumerate(texts)]
    read = tokenize_steps(renderer, prompt, stripped, marks, inputs)
    told = read.normalised | ({"end_marks"} if stripped != list(texts) else set())
    opened, body = read.prompt, [each for step in read.steps for each in step]
    ends = list(accumulate(map(len, read.steps)))
    room = renderer.reading.max_length - len(body)
    if room < 1:
        message = f"the steps alone have {len(body)} tokens and this model reads {room + len(body)}; send fewer"
        raise Unprocessable(message, param="steps", code="steps_too_long")
    if len(opened) > room and not truncate:
        total = len(opened) + len(body)
        message = f"the steps with their prompt have {total} tokens and this model reads {room + len(body)}; shorten it"
        raise Unprocessable(message, param="steps", code="context_length_exceeded")
    kept = opened[-room:]
    cut = len(kept) < len(opened)
    return RenderedSteps([*kept, *body], [len(kept) + end for end in ends], len(kept), cut, tuple(sorted(told)))


def _strip_step(renderer: Renderer, text: str, number: int) -> str:
    check_text(text, f"steps[{number}]")
    stripped = renderer.strip_end_marks(text)
    if not stripped.strip():
        raise Unprocessable("a step needs text", param=f"steps[{number}]")
    return stripped
