"""What a reward model of each kind reads, as ids: one place for training, probes and serving."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tureen.answer_steps import STEP_BREAK, split_steps
from tureen.errors import Unprocessable
from tureen_core.chat_template import NO_INPUTS, UNSUPPORTED, TemplateInputs
from tureen_core.manifest import Input, Probe
from tureen_core.reading import Rendered
from tureen_core.template import Renderer
from tureen_core.turns import Messages, Turn, check_finished, check_messages, check_text

CHARACTERS = 32  # a token


def render_probe(renderer: Renderer, given: Input, probe: Probe) -> Rendered:
    """The ids of a probe, whose score is read off their end (or pooled, as the reading says)."""
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
    """Ids whose last hidden state says the log-odds that ``first`` is better than ``second``.

    :func:`write_pair_messages` in the chat template, with its generation prompt: an assistant would answer A or B.
    ``shared`` is what stands before the first answer. Too long, it loses the beginning of the context, as much as is
    needed; then, where the answers alone are too long, the end of both, from the same character on. Nothing else is
    cut, so that the model always sees the frame that it was trained in.

    Args:
        prompt: the turns before the answers; empty where there are none.
        first: the turns of the answer in the first place; one as a rule.
        second: the other one's.
        truncate: whether too long a text is cut; else it is refused.

    Raises:
        Unprocessable: a message is bad, or it is too long and may not be cut, or does not fit without any text.
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

    # of a text that is far too long only so much is tried: the search tokenises it a dozen times
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
    """RLHFlow's published text of a pair as one user message (arXiv 2405.07863; ``pair-pm/process_pair_data.py``).

    ``[CONTEXT] {context} [RESPONSE A] {first} [RESPONSE B] {second} \\n``, with the context's turns as their plain
    template renders them. An answer of several turns is written as the context's turns are.

    Raises:
        Unprocessable: a message is bad, or an answer does not end with an assistant's turn.
    """
    return _frame(_context(prompt), _answer(first), _answer(second))


def split_rivals(messages: Messages, rival: Messages) -> tuple[Messages, Messages, Messages]:
    """Two finished conversations as the turns that they share, and what follows in each; at least its last turn."""
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
    """The turns as the published plain template renders them: its block tags swallow the line break after them."""
    if turns:
        check_messages(turns)
    return "".join(["\n", *_turns(turns), "\n"])


def _turns(turns: Messages) -> list[str]:
    return [f"\n<turn> {turn['role']}\n {turn['content']}" for turn in turns]


def _answer(turns: Messages) -> str:
    check_finished(turns)
    return turns[0]["content"] if len(turns) == 1 else "".join(_turns(turns))


def _most(make: Callable[[int], Rendered], high: int, limit: int) -> Rendered | None:
    """What ``make`` gives for the largest number up to ``high`` that fits into ``limit`` ids; None where none does."""
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
    """An answer step by step.

    Attributes:
        ids: the opened prompt and every step with its break.
        ends: for each step, how many ids stand up to and with its break; the step's reward is read off
            ``ids[ends[k] - 1]``, or off the end of ``ids[: ends[k]]`` alone, which is the same number.
        shared: how many ids are the prompt's.
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
        """The answer as one text, whose end is its last step's."""
        return Rendered(self.ids, self.shared, self.truncated, self.normalised)

    @property
    def prefixes(self) -> list[Rendered]:
        """One text a step, each a prefix of the next: a runtime that reads ends of texts scores these."""
        return [Rendered(self.ids[:end], self.shared, self.truncated, self.normalised) for end in self.ends]


def render_steps(
    renderer: Renderer,
    prompt: Messages,
    texts: Sequence[str],
    truncate: bool = True,
    inputs: TemplateInputs = NO_INPUTS,
) -> RenderedSteps:
    """Ids of an answer's steps.

    The prompt is opened with the template's generation prompt; each step follows, tokenised on its own together with
    a blank line, so that what stands before a step's end does not depend on what follows it. Nothing is appended.
    Too long, the prompt loses its beginning; steps are never cut.

    Raises:
        Unprocessable: a message is bad, there is no step or a blank one, the steps alone are too long, or the whole is
            and ``truncate`` is false.
    """
    if not texts:
        raise Unprocessable("an answer needs at least one step", param="steps")
    read = renderer.render_prompt(prompt, inputs=inputs)
    opened, body, ends, told = read.ids, list[int](), list[int](), set(read.normalised)
    for number, text in enumerate(texts):
        check_text(text, f"steps[{number}]")
        stripped = renderer.strip_end_marks(text)
        if not stripped.strip():
            raise Unprocessable("a step needs text", param=f"steps[{number}]")
        ids, hidden = renderer.tokenize_part(stripped + STEP_BREAK)
        told |= {"end_marks"} if stripped != text else set()
        told |= {"control_marks"} if hidden else set()
        body += ids
        ends.append(len(body))
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
