"""Turn groups of answers into rows for the lanes, and the results of the rows into outcomes."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from tureen.errors import TureenError, Unprocessable
from tureen_core.chat_template import UNSUPPORTED
from tureen_core.gate import select_prompt_ids
from tureen_core.reading import Rendered
from tureen_core.template import Renderer
from tureen_serve.inference.pieces import GoOn
from tureen_serve.inference.registry import Models
from tureen_serve.inference.rendering import LIMITS, ScoreInput, do_proceed, relocate_error, render_answers
from tureen_serve.inference.scorer_lane import ScorerLane
from tureen_serve.inference.text_limits import TextLimits
from tureen_serve.runtimes.catalogue import Reward
from tureen_serve.runtimes.contract import Rewards, Row, Weights
from tureen_serve.runtimes.readout import weigh_rewards

SOUP = "soup"


@dataclass(frozen=True)
class Outcome:
    """The result of one answer.

    Attributes:
        raw: objective → raw reward; empty if there is an error.
        tokens: the number of tokens of prompt and answer; of several rewards, the largest number.
        cached: the number of prompt tokens that no reward had to compute; of several rewards, the smallest number.
        truncated: whether the text was cut.
        normalised: what was not read as it was sent; see :class:`tureen_core.reading.Rendered`.
        error: why the answer has no rewards.
    """

    raw: Mapping[str, float]
    tokens: int = 0
    cached: int = 0
    truncated: bool = False
    normalised: tuple[str, ...] = ()
    error: TureenError | None = None


@dataclass(frozen=True)
class Reader:
    """How one artifact, or one soup of artifacts, reads a text.

    Attributes:
        lane: runs the rows.
        renderer: turns text into token ids.
        blend: adapter → weight.
        columns: each reward's name and its column in the head's output.
        gated: whether a gate weighs the columns. Then the prompt is a row of its own, and the gate's reward is one more
            column.
        opening: the ids after the token at which the gate reads the prompt, where it is not the last one.
    """

    lane: ScorerLane
    renderer: Renderer
    blend: Weights
    columns: tuple[tuple[str, int], ...]
    gated: bool = False
    opening: tuple[int, ...] = ()

    def rows(self, rendered: Rendered) -> list[Row]:
        """Make the rows of a rendered text: the text, and the prompt for a gate.

        Raises:
            Unprocessable: a gate needs the prompt, and the end of the prompt is unknown.
        """
        text = Row(tuple(rendered.ids), self.blend, rendered.shared)
        if not self.gated:
            return [text]
        return [text, Row(tuple(select_prompt_ids(rendered, self.opening)), self.blend, head="gate")]

    def raw(self, found: Sequence[Rewards]) -> dict[str, float]:
        """Return the raw rewards by name, from the results of the rows."""
        text, *prompt = [each.values for each in found]
        values = [*text, *(weigh_rewards(text, coefficients) for coefficients in prompt)]
        return {name: values[column] for name, column in self.columns}


def make_readers(models: Models, objectives: Sequence[str]) -> list[Reader]:
    """Make a reader for each artifact. One forward pass computes all objectives of an artifact.

    Raises:
        Unprocessable: an objective is unknown.
    """
    rewards = [_reward(models, objective, "rewards") for objective in objectives]
    artifacts = {reward.artifact.name: reward for reward in rewards}
    return [
        _reader(models, like, ((artifact, 1.0),), [each for each in rewards if each.artifact.name == artifact])
        for artifact, like in artifacts.items()
    ]


def make_soup_reader(models: Models, soup: Mapping[str, float]) -> Reader:
    """Make the reader of a soup. Its only reward is named ``soup``.

    Args:
        soup: objective → canonical weight.

    Raises:
        Unprocessable: an objective is unknown, or the objectives cannot be souped.
    """
    rewards = [_reward(models, objective, f"preferences.{objective}") for objective in sorted(soup)]
    kinds = {(id(models.scorers[each.name]), id(each.renderer), each.column) for each in rewards}
    manifests = [each.artifact.manifest for each in rewards]
    plain = all(
        each.weights == "lora" and len(each.objectives) == 1 and each.input == "conversation" and not each.gated
        for each in manifests
    )
    if len(kinds) != 1 or not plain:
        wanted = "LoRA rewards of the server's start with the same base, the same reading and one objective each"
        raise Unprocessable(f"only {wanted} can be souped; send `soup: false`", param="preferences")
    blend = tuple((each.artifact.name, soup[each.name]) for each in rewards)
    return replace(_reader(models, rewards[0], blend, rewards), columns=((SOUP, rewards[0].column),))


def _reader(models: Models, like: Reward, blend: Weights, rewards: Sequence[Reward]) -> Reader:
    columns = tuple((reward.name, reward.column) for reward in rewards)
    gated = any(each.gated for each in rewards)
    return Reader(models.scorers[like.name], like.renderer, blend, columns, gated, like.gate_opening if gated else ())


def _reward(models: Models, name: str, param: str) -> Reward:
    if name not in models.rewards:
        message = f"no reward is called {name!r}; loaded: {list_names(models.rewards)}"
        raise Unprocessable(message, param=param, code="unknown_objective")
    return models.rewards[name]


def list_names(names: Collection[str]) -> str:
    """Write names for an error message."""
    return ", ".join(sorted(names)) or "none"


@dataclass(frozen=True)
class ReadAnswer:
    """One answer, ready to run.

    Attributes:
        param: the answer's field, relative to its group.
        renderings: for each renderer, the token ids or the error.
        rows: for each reader, its rows; empty if there is an error.
        error: why the answer cannot be read.
    """

    param: str
    renderings: Mapping[Renderer, Rendered | TureenError]
    rows: Sequence[Sequence[Row]] = ()
    error: TureenError | None = None

    def outcome(self, readers: Sequence[Reader], results: Sequence[Sequence[Rewards | TureenError]]) -> Outcome:
        """Make the outcome from the results of the rows, for each reader."""
        every = [result for each in results for result in each]
        failed = self.error or next((result for result in every if isinstance(result, TureenError)), None)
        if failed is not None:
            return Outcome({}, error=failed if failed.param else relocate_error(failed, self.param))
        rendered = [each for each in self.renderings.values() if isinstance(each, Rendered)]
        rewards = [[result for result in each if isinstance(result, Rewards)] for each in results]
        return Outcome(
            raw={
                name: value
                for reader, each in zip(readers, rewards, strict=True)
                for name, value in reader.raw(each).items()
            },
            tokens=max(len(each.ids) for each in rendered),
            cached=min(text.cached for text, *_ in rewards),
            truncated=any(each.truncated for each in rendered),
            normalised=tuple(sorted({name for each in rendered for name in each.normalised})),
        )


def read_answers(
    readers: Sequence[Reader],
    groups: Sequence[ScoreInput],
    truncate: bool,
    limits: TextLimits = LIMITS,
    go_on: GoOn = do_proceed,
) -> tuple[list[ReadAnswer], list[tuple[ScorerLane, Row]]]:
    """Render every answer once for each renderer. Returns the answers, and the rows of all answers with their lanes.

    Args:
        go_on: called before each text; an error that it raises ends the work.
    """
    renderers = list(dict.fromkeys(reader.renderer for reader in readers))
    texts: list[ReadAnswer] = []
    for group in groups:
        rendered = [render_answers(renderer, group, truncate, limits, go_on) for renderer in renderers]
        for index, each in enumerate(zip(*rendered, strict=True)):
            texts.append(_text(group.param(index), dict(zip(renderers, each, strict=True)), readers))
    asked = [
        (reader.lane, row) for text in texts for reader, rows in zip(readers, text.rows, strict=False) for row in rows
    ]
    return texts, asked


def _text(param: str, renderings: Mapping[Renderer, Rendered | TureenError], readers: Sequence[Reader]) -> ReadAnswer:
    rows = []
    try:
        for reader in readers:
            rendered = renderings[reader.renderer]
            if isinstance(rendered, TureenError):
                return ReadAnswer(param, renderings, error=_name_reward(rendered, reader))
            rows.append(reader.rows(rendered))
    except TureenError as error:
        return ReadAnswer(param, renderings, error=error)
    return ReadAnswer(param, renderings, rows)


def _name_reward(error: TureenError, reader: Reader) -> TureenError:
    """An error of a reward's template, with the reward's name: another one may have another template."""
    if error.code != UNSUPPORTED:
        return error
    names = ", ".join(name for name, _ in reader.columns)
    message = error.message.replace("the chat template", f"the chat template of {names}", 1)
    return type(error)(message, param=error.param, code=error.code)
