"""From groups of answers to the rows that lanes run, and back to outcomes: what each reward reads of each text."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from tureen.errors import TureenError, Unprocessable
from tureen_core.gate import select_prompt_ids
from tureen_core.reading import Rendered
from tureen_core.template import Renderer
from tureen_serve.inference.registry import Models
from tureen_serve.inference.rendering import ScoreInput, relocate_error, render_answers
from tureen_serve.inference.scorer_lane import ScorerLane
from tureen_serve.runtimes.catalogue import Reward
from tureen_serve.runtimes.contract import Rewards, Row, Weights
from tureen_serve.runtimes.readout import weigh_rewards

SOUP = "soup"


@dataclass(frozen=True)
class Outcome:
    """What became of one answer: raw rewards by objective, or the error that stands in their place.

    ``tokens`` are the answer's whole text's, as the reward that reads most of it sees it; ``cached`` are those of its
    prompt that none of its rewards computed again.
    """

    raw: Mapping[str, float]
    tokens: int = 0
    cached: int = 0
    truncated: bool = False
    error: TureenError | None = None


@dataclass(frozen=True)
class Reader:
    """One reading of a text: where, rendered how, under which blend, and which columns are which rewards.

    A ``gated`` one reads the prompt too, once for all its answers, and has one more column: what the gate makes of the
    others.
    """

    lane: ScorerLane
    renderer: Renderer
    blend: Weights
    columns: tuple[tuple[str, int], ...]
    gated: bool = False

    def rows(self, rendered: Rendered) -> list[Row]:
        """What its lane runs.

        Raises:
            Unprocessable: the gate reads the prompt, and where that ends cannot be told.
        """
        text = Row(tuple(rendered.ids), self.blend, rendered.shared)
        return [text, Row(tuple(select_prompt_ids(rendered)), self.blend, head="gate")] if self.gated else [text]

    def raw(self, found: Sequence[Rewards]) -> dict[str, float]:
        """Its rewards by name."""
        text, *prompt = [each.values for each in found]
        values = [*text, *(weigh_rewards(text, coefficients) for coefficients in prompt)]
        return {name: values[column] for name, column in self.columns}


def make_readers(models: Models, objectives: Sequence[str]) -> list[Reader]:
    """One for each artifact: all its objectives leave the same forward pass.

    Raises:
        Unprocessable: an unknown objective.
    """
    rewards = [_reward(models, objective, "rewards") for objective in objectives]
    artifacts = {reward.artifact.name: reward for reward in rewards}
    return [
        _reader(models, like, ((artifact, 1.0),), [each for each in rewards if each.artifact.name == artifact])
        for artifact, like in artifacts.items()
    ]


def make_soup_reader(models: Models, soup: Mapping[str, float]) -> Reader:
    """One for a blend of adapters and heads; its only reward is called ``soup``.

    Raises:
        Unprocessable: an unknown objective, or objectives that cannot be souped.
    """
    rewards = [_reward(models, objective, f"preferences.{objective}") for objective in sorted(soup)]
    kinds = {(id(models.scorers[each.name]), id(each.renderer), each.column) for each in rewards}
    manifests = [each.artifact.manifest for each in rewards]
    plain = all(
        each.weights == "lora" and len(each.objectives) == 1 and each.input == "conversation" and not each.gated
        for each in manifests
    )
    if len(kinds) != 1 or not plain:
        wanted = "LoRA reward models of one base with one objective each, read alike"
        raise Unprocessable(f"only {wanted}, can be souped; send soup: false", param="preferences")
    blend = tuple((each.artifact.name, soup[each.name]) for each in rewards)
    return replace(_reader(models, rewards[0], blend, rewards), columns=((SOUP, rewards[0].column),))


def _reader(models: Models, like: Reward, blend: Weights, rewards: Sequence[Reward]) -> Reader:
    columns = tuple((reward.name, reward.column) for reward in rewards)
    return Reader(models.scorers[like.name], like.renderer, blend, columns, any(each.gated for each in rewards))


def _reward(models: Models, name: str, param: str) -> Reward:
    if name not in models.rewards:
        message = f"no reward is called {name!r}; there is {list_names(models.rewards)}"
        raise Unprocessable(message, param=param, code="unknown_objective")
    return models.rewards[name]


def list_names(names: Collection[str]) -> str:
    """Names as an error tells them."""
    return ", ".join(sorted(names)) or "none"


@dataclass(frozen=True)
class ReadAnswer:
    """One answer, its field in the group, how it was rendered for each way of reading it, and each reader's rows."""

    param: str
    renderings: Mapping[Renderer, Rendered | TureenError]
    rows: Sequence[Sequence[Row]] = ()
    error: TureenError | None = None

    def outcome(self, readers: Sequence[Reader], results: Sequence[Sequence[Rewards | TureenError]]) -> Outcome:
        """What became of it: of each reader the results of its rows."""
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
        )


def read_answers(
    readers: Sequence[Reader], groups: Sequence[ScoreInput], truncate: bool
) -> tuple[list[ReadAnswer], list[tuple[ScorerLane, Row]]]:
    """Every answer rendered once for each way of reading, and the rows of each reader of those that can be read."""
    renderers = list(dict.fromkeys(reader.renderer for reader in readers))
    texts: list[ReadAnswer] = []
    for group in groups:
        rendered = [render_answers(renderer, group, truncate) for renderer in renderers]
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
                return ReadAnswer(param, renderings, error=rendered)
            rows.append(reader.rows(rendered))
    except TureenError as error:
        return ReadAnswer(param, renderings, error=error)
    return ReadAnswer(param, renderings, rows)
