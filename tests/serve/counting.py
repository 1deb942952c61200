"""A small engine without a model: rewards count words, texts are drawn from a list of words.

What it computes is simple and its own, so that tests of the border can foretell every number. It can be held at a
word, broken, or asked what it saw.
"""

import asyncio
import math
import random
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import tiny

from tureen.errors import TureenError, Unavailable
from tureen_core.artifact import Artifact, Base, Manifest, Objective
from tureen_core.calibration import Calibration
from tureen_core.manifest import Input, Training
from tureen_core.reading import Cut, Reading
from tureen_core.soup import Semantics
from tureen_core.steering import InPromptSteering, PromptSteering, SoupSteering
from tureen_core.template import Renderer
from tureen_core.turns import Messages, check_finished
from tureen_serve.inference.engine import (
    SOUP,
    AnswerPair,
    Engine,
    Family,
    FinishedText,
    Group,
    Outcome,
    Priority,
    Reward,
    ScoreInput,
    Steps,
)
from tureen_serve.runtimes.contract import TextDelta, TokenLogprob
from tureen_serve.runtimes.sampling_fields import Sampling
from tureen_serve.runtimes.upstream_contract import Prompt, SpokenPrompt

CONTEXT = 200
READING = Reading(max_length=CONTEXT)
RENDERER = Renderer(tiny.tokenizer(), READING)
RUNTIME = "counting (there is no model)"
SCALES = {"calm": Calibration(mean=1, std=2, temperature=0.5), "funny": Calibration(mean=0, std=1, temperature=2)}


INPUTS: dict[str, Input] = {"duel": "pair", "other-duel": "pair", "proof": "steps"}
SIDES = {"duel": Calibration(temperature=2), "other-duel": Calibration(), "proof": Calibration(mean=9, temperature=4)}
LEAN = 0.5


def reward(name: str) -> Reward:
    """A reward that counts its own name among an answer's words; or calm words, of two answers or of steps."""
    scale = {**SCALES, **SIDES}[name]
    manifest = Manifest(
        kind="reward",
        input=INPUTS.get(name, "conversation"),
        name=name,
        version=f"{name}-1",
        base=Base(model="/models/counting", digest="0"),
        objectives=[Objective(name=name, calibration=scale)],
        reading=READING,
        training=Training(
            data={"pairs.jsonl": {"sha256": f"{name}-digest"}},
            metrics={"heldout": {"accuracy": 0.75, "pairs": 12, "best": None, "spread": math.inf}, "seconds": 3},
            licences=["CC0"],
        ),
    )
    return Reward(name, Artifact(Path(name), manifest), 0, scale, f"{name}-fingerprint", RENDERER)


def expert(name: str) -> Artifact:
    """An expert of the one family."""
    manifest = Manifest(
        kind="expert",
        name=name,
        version=f"{name}-7",
        base=Base(model="/models/counting", digest="0"),
        objectives=[Objective(name=name)],
        reading=READING,
        steering=SoupSteering(family="words"),
    )
    return Artifact(Path(name), manifest)


def family(name: str = "words", factor_obstacle: str | None = None) -> Family:
    """Three experts, two presets, no default."""
    return Family(
        name=name,
        base="/models/counting",
        experts={each: expert(each) for each in ("brave", "calm", "funny")},
        renderer=RENDERER,
        context=CONTEXT,
        presets={"playful": {"funny": 1.0}, "even": {"calm": 1.0, "funny": 1.0}},
        default={},
        semantics="delta",
        normalize="simplex",
        factor_obstacle=factor_obstacle,
        fingerprint=f"{name}-fingerprint",
    )


def steered_family(steering: InPromptSteering) -> Family:
    """A base that is steered in its prompt, with a preset for its first objective."""
    presets = {"first": {steering.names[0]: 1.0}}
    named = replace(family(steering.family), experts={}, presets=presets, fingerprint=f"{steering.family}-fingerprint")
    return replace(named, steering=steering, default={} if isinstance(steering, PromptSteering) else presets["first"])


class CountingEngine(Engine):
    """Counts words, and writes them.

    Attributes:
        gate: texts wait here before each word while it is cleared.
        broken: raised by both journeys while it is set.
        breaks_after: texts fail at this word.
        pause_after: the gate is cleared at this word.
        pause_call: the gate is cleared at this call of ``score``, the first being 1.
        running: calls that have begun and not ended.
        most_running: the most of them that there were at once.
        dropped: calls that were cancelled or closed early.
    """

    rewards: Mapping[str, Reward] = {}  # in the place of the registry's
    families: Mapping[str, Family] = {}

    def __init__(self, *rewards: str) -> None:
        super().__init__()
        self.runtime = RUNTIME
        self.rewards = {name: reward(name) for name in rewards or SCALES}
        self.families = {"words": family(), "rigid": family("rigid", "its experts have unequal ranks")}
        self.gate = asyncio.Event()
        self.gate.set()
        self.broken: Exception | None = None
        self.breaks_after: int | None = None
        self.pause_after: int | None = None
        self.pause_call: int | None = None
        self.down: str | None = None
        self.dead: str | None = None
        self.running = self.most_running = 0
        self.dropped = 0
        self.samplings: list[Sampling] = []
        self.calls: list[tuple[list[ScoreInput], list[str]]] = []

    @contextmanager
    def hold(self) -> Iterator[Engine]:
        yield self

    @property
    def failure(self) -> str | None:
        return self.dead or self.down

    @property
    def death(self) -> str | None:
        return self.dead

    @property
    def asked(self) -> list[list[Group]]:
        """The groups of each call."""
        return [[_as_group(each) for each in groups] for groups, _ in self.calls]

    async def score(
        self,
        groups: Sequence[ScoreInput],
        objectives: Sequence[str],
        *,
        soup: Mapping[str, float] | None = None,
        truncate: bool = False,
        priority: Priority = "default",
    ) -> list[list[Outcome]]:
        self.calls.append((list(groups), list(objectives)))
        if self.broken:
            raise self.broken
        if len(self.calls) == self.pause_call:
            self.gate.clear()
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.dropped += 1
            raise
        finally:
            self.running -= 1
        return [_outcomes(each, objectives, soup, truncate) for each in groups]

    async def generate(
        self,
        family: str,
        prompt: Prompt,
        sampling: Sampling,
        weights: Mapping[str, float],
        semantics: Semantics = "delta",
    ) -> AsyncGenerator[TextDelta]:
        self.samplings.append(sampling)
        if self.broken:
            raise self.broken
        names = list(weights) or ["plain"]
        told = () if isinstance(prompt, SpokenPrompt) else prompt
        read = read_prompt(told, sampling.prompt_logprobs)
        draw = random.Random(sampling.seed)
        self.running += 1
        try:
            for number in range(min(sampling.max_tokens, 6)):
                if number == self.pause_after:
                    self.gate.clear()
                await self.gate.wait()
                await asyncio.sleep(0)
                if number == self.breaks_after:
                    raise Unavailable("the runtime went away", code="engine_dead")
                word = draw.choices(names, [abs(weights.get(name, 1)) for name in names])[0]
                text = word if number == 0 else f" {word}"
                logprobs = (TokenLogprob(text, number, -0.5, (("other", 9, -math.inf),)[: sampling.logprobs]),)
                yield TextDelta(text, 1, logprobs if sampling.logprobs is not None else (), prompt=read)
                read = None
            yield TextDelta("", finish="stop" if sampling.max_tokens > 6 else "length", prompt=read)
        except (asyncio.CancelledError, GeneratorExit):
            self.dropped += 1
            raise
        finally:
            self.running -= 1


def read_prompt(ids: Sequence[int], top: int | None) -> tuple[TokenLogprob, ...] | None:
    """A token has the log-probability -id/100 and the rank 3; likelier are the tokens 8 and 9."""
    if top is None:
        return None
    best = tuple((RENDERER.tokenizer.decode([each]), each, -each / 1000) for each in (8, 9))[:top]
    return tuple(TokenLogprob(RENDERER.tokenizer.decode([each]), each, -each / 100, best, 3) for each in ids[1:])


def _outcomes(
    asked: ScoreInput, objectives: Sequence[str], soup: Mapping[str, float] | None, truncate: bool
) -> list[Outcome]:
    if isinstance(asked, AnswerPair):
        first, second = (answer[-1]["content"].split().count("calm") for answer in (asked.first, asked.second))
        return [Outcome(dict.fromkeys(objectives, first - second + LEAN), tokens=7)]
    if isinstance(asked, Steps):
        return [Outcome({name: step.split().count("calm") for name in objectives}, tokens=3) for step in asked.steps]
    group = _as_group(asked)
    return [
        _outcome(group.prompt, answer, index, objectives, soup, group.cut or truncate)
        for index, answer in enumerate(group.answers)
    ]


def _as_group(given: ScoreInput) -> Group:
    """A finished text is what an assistant said; of ids, only their number is read."""
    if isinstance(given, Group):
        return given
    assert isinstance(given, FinishedText)
    text = given.text if isinstance(given.text, str) else "id " * len(given.text)
    return Group([[{"role": "assistant", "content": text}]], cut=given.cut)


def _outcome(
    prompt: Messages,
    answer: Messages,
    index: int,
    objectives: Sequence[str],
    soup: Mapping[str, float] | None,
    truncate: bool | Cut,
) -> Outcome:
    try:
        check_finished([*prompt, *answer])
        rendered = RENDERER.render_conversation([*prompt, *answer], truncate)
    except TureenError as error:
        return Outcome({}, error=error if prompt == () else error.at(f"candidates[{index}]"))
    words = answer[-1]["content"].split()
    if "boundless" in words:
        return Outcome(dict.fromkeys(objectives, math.inf), len(rendered.ids))
    counts = {name: float(words.count(name)) for name in SCALES}
    if soup is not None:
        raw = {SOUP: math.fsum(weight * counts[name] for name, weight in soup.items())}
    else:
        raw = {name: counts[name] for name in objectives}
    return Outcome(raw, len(rendered.ids), rendered.shared, rendered.truncated)
