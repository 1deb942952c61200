"""Token ids of the inputs of each kind of reward model. Training, probes and serving all call this module."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from tureen.answer_steps import split_steps
from tureen.errors import Unprocessable
from tureen_core.chat_template import NO_INPUTS, TemplateInputs
from tureen_core.manifest import Input, Probe
from tureen_core.pair_texts import render_pair, split_rivals
from tureen_core.reading import Rendered
from tureen_core.step_texts import tokenize_steps
from tureen_core.template import Renderer
from tureen_core.turns import Messages, check_text


def render_probe(renderer: Renderer, given: Input, probe: Probe) -> Rendered:
    """Render a probe to the ids that its kind of reward model reads."""
    if given == "pair":
        return render_pair(renderer, *split_rivals(probe.messages, probe.rival), inputs=probe.inputs)
    if given == "steps":
        *prompt, answer = probe.messages
        return render_steps(renderer, prompt, split_steps(answer["content"]), inputs=probe.inputs).whole
    return renderer.render_conversation(probe.messages, inputs=probe.inputs)


def render_expert_probe(renderer: Renderer, probe: Probe) -> tuple[list[int], int]:
    """Render an expert's probe to ids. Also returns the number of ids before its last message."""
    ids = renderer.render_conversation(probe.messages, inputs=probe.inputs).ids
    return ids, len(renderer.tokenize_prompt(probe.messages[:-1], probe.inputs))


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
