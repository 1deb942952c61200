"""Every form of plain reward model: a tiny one as its library writes it, and its rewards by that library's own code."""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import classifiers
import judging
import tiny
from serve.border import wait_for_models
from serve.layouts import LAYOUTS, make_conversations
from serve.plain_models import make_talks
from serve.published_judges import (
    PublishedJudge,
    PublishedVerifier,
    ScoreSteps,
    open_math_shepherd,
    open_qwen,
    open_rlhflow,
    open_skywork,
    open_trl,
)
from serve.published_linear import ScoreTalk, open_class, open_openrlhf, write_classifier, write_openrlhf
from serve.reward_adapters import ADAPTERS, open_merged, write_adapters
from starlette.testclient import TestClient
from transformers import Gemma2Config

from tureen_core.plain.armorm import OBJECTIVES
from tureen_serve.app import create_app
from tureen_serve.settings import RewardEntry, load_settings

Item = dict[str, Any]
COUNT = 50
CONVERTED = {"deepspeed-chat", "internlm2", "starling"}  # into the cache


@dataclass(frozen=True)
class PlainForm:
    """A model in a plain folder.

    Attributes:
        folder: its files.
        items: what is scored.
        score: the rewards of one item by the library's own code.
        options: what the files do not tell.
        objectives: the names of its rewards, where it has several.
        route: where its items are sent.
        number: what of a reward is compared.
        spread: how far the rewards of the items are apart, at least.
    """

    folder: Path
    items: Sequence[Item]
    score: Callable[[Item], list[float]]
    options: dict[str, Any] = field(default_factory=dict)
    objectives: tuple[str, ...] = ()
    route: str = "/v1/score"
    number: Callable[[float], float] = float
    spread: float = 0.1

    def make_entry(self, name: str) -> RewardEntry:
        """The entry of a server's settings that serves it as ``name``."""
        return RewardEntry(path=self.folder, name=None if self.objectives else name, **self.options)

    def ask(self, client: TestClient, name: str) -> list[float]:
        """All rewards over HTTP, item by item."""
        names = self.objectives or (name,)
        matrix = {"matrix": True} if self.route == "/v1/preferences" else {}
        data = judging.ask(client, self.route, items=self.items, rewards=list(names), **matrix)["data"]
        return [self.number(each) for item in data for each in read_numbers(item, names)]

    def compute(self) -> list[float]:
        """The same by the library's own code."""
        return [self.number(each) for item in self.items for each in self.score(item)]


def read_numbers(item: Item, names: Sequence[str]) -> list[float]:
    """The rewards of an item's answers or steps; of a pair, its log-odds in both orders."""
    if "order_matrix" in item:
        return [judging.logit(item["order_matrix"][0][1]), judging.logit(item["order_matrix"][1][0])]
    return [each["scores"][name]["raw"] for each in item["candidates"] for name in names]


# --------------------------------------------------------------------------- items


def make_chats(talks: Sequence[Any]) -> list[Item]:
    """Items of conversations."""
    return [{"messages": talk} for talk in talks]


def make_stepped() -> list[Item]:
    """Questions with one to four steps."""
    rng = random.Random(11)
    return [
        {"prompt": judging.say(rng), "steps": [judging.say(rng, 20) for _ in range(rng.randint(1, 4))]}
        for _ in range(COUNT)
    ]


def make_pairs(count: int = COUNT) -> list[Item]:
    """Conversations of one or three turns with two answers each."""
    rng = random.Random(7)
    made: list[Item] = []
    for number in range(count):
        roles = ["user", "assistant", "user"] if number % 3 == 0 else ["user"]
        prompt = [{"role": role, "content": judging.say(rng)} for role in roles]
        made.append({"prompt": prompt, "candidates": [judging.say(rng, 30), judging.say(rng, 30)]})
    return made


def make_questions() -> list[Item]:
    """Questions with two answers each."""
    rng = random.Random(3)
    return [
        {"prompt": judging.say(rng), "candidates": [judging.say(rng, 30), judging.say(rng, 30)]}
        for _ in range(COUNT // 2)
    ]


# --------------------------------------------------------------------------- forms


def make_linear(folder: Path, score: ScoreTalk) -> PlainForm:
    """A model that reads conversations."""
    return PlainForm(folder, make_chats(make_talks(COUNT)), lambda item: score(item["messages"]))


def sequence_classification(folder: Path) -> PlainForm:
    """As transformers and TRL save it."""
    return make_linear(write_classifier(folder, head_dim=tiny.HEAD), open_class(folder))


def capped_classification(folder: Path) -> PlainForm:
    """A Gemma 2, whose attention has a cap, here a low one."""
    config: dict[str, Any] = {"head_dim": tiny.HEAD, "query_pre_attn_scalar": tiny.HEAD, "attn_logit_softcapping": 2.0}
    return make_linear(write_classifier(folder, Gemma2Config, **config), open_class(folder))


def openrlhf(folder: Path) -> PlainForm:
    """As OpenRLHF saves it, normalised."""
    write_openrlhf(folder, "value_head", normalised=True, head_dim=tiny.HEAD)
    return make_linear(folder, open_openrlhf(folder, "value_head", normalised=True))


def encoder(folder: Path) -> PlainForm:
    """An encoder with its own class."""
    classifiers.write_model(folder, "bert")
    pairs = classifiers.PAIRS[:COUNT]

    def score(item: Item) -> list[float]:
        prompt, answer = (turn["content"] for turn in item["messages"])
        return classifiers.score_by_library(folder, [(prompt, answer)])[0]

    chats = make_chats([classifiers.write_conversation(*pair) for pair in pairs])
    return PlainForm(folder, chats, score, {"template": "text-pair"})


def pair_judge(folder: Path) -> PlainForm:
    """RLHFlow's pair model."""
    judging.write_language_model(folder, tie_word_embeddings=False)
    judge = PublishedJudge(folder)

    def score(item: Item) -> list[float]:
        first, second = item["candidates"]
        return [judge.compare(item["prompt"], *pair) for pair in ((first, second), (second, first))]

    return PlainForm(folder, make_pairs(), score, {"form": "pair-judge"}, route="/v1/preferences", spread=0.02)


def gen_verifier(folder: Path) -> PlainForm:
    """GenRM's verifier; logarithms of its probabilities are compared."""
    judging.write_language_model(folder, "Yes", "No")
    verifier = PublishedVerifier(folder, ("Yes",))

    def score(item: Item) -> list[float]:
        return [verifier.score(item["prompt"], answer) for answer in item["candidates"]]

    return PlainForm(folder, make_questions(), score, {"form": "gen-verifier"}, number=math.log, spread=0.02)


def make_process(open_model: Callable[[Path], ScoreSteps], **options: Any) -> Callable[[Path], PlainForm]:
    """A process reward model."""

    def make(folder: Path) -> PlainForm:
        score = open_model(folder)
        return PlainForm(folder, make_stepped(), lambda item: score(item["prompt"], item["steps"]), options)

    return make


def make_layout(name: str) -> Callable[[Path], PlainForm]:
    """A published layout."""

    def make(folder: Path) -> PlainForm:
        layout = LAYOUTS[name](folder)
        return PlainForm(
            layout.folder,
            make_chats(make_conversations(COUNT)),
            lambda item: layout.score(layout.encode(item["messages"])),
            layout.options,
            (*OBJECTIVES, "overall") if name == "armorm" else (),
        )

    return make


def make_adapter(name: str) -> Callable[[Path], PlainForm]:
    """A LoRA adapter of one of the layouts; all have copies of one base."""

    def make(folder: Path) -> PlainForm:
        root = folder.parent / "adapters"
        found = {each: root / each for each in ADAPTERS} if root.exists() else write_adapters(root)
        score = open_merged(found[name])
        return PlainForm(found[name], make_chats(make_conversations(COUNT)), lambda item: score(item["messages"]))

    return make


FORMS: dict[str, Callable[[Path], PlainForm]] = {
    "sequence-classification": sequence_classification,
    "sequence-classification-capped": capped_classification,
    "openrlhf": openrlhf,
    "classifier-class": encoder,
    **{f"adapter-{name}": make_adapter(name) for name in ADAPTERS},
    "pair-judge": pair_judge,
    "gen-verifier": gen_verifier,
    "process-reward": make_process(open_qwen),
    "token-classification": make_process(open_trl),
    "process-value": make_process(open_skywork),
    "prm-tokens": make_process(open_math_shepherd, form="prm-tokens", tokens=("-", "+"), step_mark=" ки"),
    "prm-turns": make_process(open_rlhflow, form="prm-turns"),
    **{name: make_layout(name) for name in LAYOUTS},
}


@dataclass(frozen=True)
class Served:
    """Models, a client of their server, and how each of its lanes computes."""

    forms: dict[str, PlainForm]
    client: TestClient
    ways: dict[str, str]


@contextmanager
def serve_forms(folder: Path, names: Sequence[str], **settings: Any) -> Iterator[Served]:
    """Write a model of each of these forms, and serve them in this process, in float32."""
    forms = {name: FORMS[name](folder / name) for name in names}
    entries, cache = [form.make_entry(name) for name, form in forms.items()], folder / "cache"
    app = create_app(load_settings(rewards=entries, dtype="float32", device="cpu", cache=cache, **settings))
    with TestClient(app) as client:
        wait_for_models(app, 600)
        assert app.state.server.failure is None, app.state.server.failure
        yield Served(forms, client, app.state.server.engine.ways)
    assert {each.name for each in (cache / "plain").glob("*/*")} == CONVERTED & set(names)
