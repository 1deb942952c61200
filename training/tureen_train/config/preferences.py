"""Preferences that are said in the prompt, as sentences (RLPHF, arXiv 2310.11564)."""

import json
from itertools import product
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from tureen_core.preference import NAME
from tureen_train.config.parts import RecipePart

RLPHF = Path(__file__).parent / "preferences.json"


def read_rlphf_sentences() -> dict[str, dict[str, str]]:
    """Read RLPHF's sentences: for each dimension, the sentence of each of its poles."""
    sentences: dict[str, dict[str, str]] = json.loads(RLPHF.read_text(encoding="utf-8"))
    return sentences


class PromptPreferences(RecipePart):
    """Sentences that state a preference, and how they are added to the prompts of ``data``.

    ``sentences`` has for each dimension its poles, each with its sentence; by default they are RLPHF's. ``add`` appends
    to each prompt one of ``poles``, or a combination of them with one pole of each dimension. With ``take: all`` a
    prompt becomes a prompt for each pole or combination, with ``one`` it gets one that ``seed`` draws. ``add: nothing``
    leaves the prompts as they are, and only says which sentences a reward source with ``preferences: each`` looks for.
    """

    add: Literal["nothing", "poles", "combinations"] = "nothing"
    take: Literal["all", "one"] = "all"
    poles: list[str] = Field(default=["P1A", "P1B", "P2A", "P2B", "P3A", "P3B"], min_length=1)
    sentences: dict[str, dict[str, str]] = Field(default_factory=read_rlphf_sentences, min_length=1)
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def _own_sentences_have_own_poles(cls, value: object) -> object:
        if isinstance(value, dict) and isinstance(value.get("sentences"), dict) and "poles" not in value:
            return {**value, "poles": [pole for each in value["sentences"].values() for pole in each]}
        return value

    @model_validator(mode="after")
    def _known(self) -> "PromptPreferences":
        names = [pole for each in self.sentences.values() for pole in each]
        for name in names:
            if not NAME.fullmatch(name):
                raise ValueError(f"sentences: {name!r}: use 1 to 64 of letters, digits, '_', '.', '-'")
            if names.count(name) > 1:
                raise ValueError(f"sentences: {name} stands in two dimensions; rename one")
        if blank := [name for name, text in self.by_pole.items() if not text.strip()]:
            raise ValueError(f"sentences: the sentence of {blank[0]} is empty")
        texts = [" ".join(text.split()) for text in self.by_pole.values()]
        if twice := [text for text in texts if texts.count(text) > 1]:
            raise ValueError(f"sentences: two poles have the sentence {twice[0]!r}")
        for pole in self.poles:
            if pole not in names:
                raise ValueError(f"poles: {pole!r} has no sentence; there are {', '.join(names)}")
            if self.poles.count(pole) > 1:
                raise ValueError(f"poles: {pole} is named twice")
        return self

    @property
    def by_pole(self) -> dict[str, str]:
        """The sentence of each pole."""
        return {pole: text for each in self.sentences.values() for pole, text in each.items()}

    @property
    def choices(self) -> list[tuple[str, ...]]:
        """What can be added to a prompt: the poles, or all combinations of one pole of each dimension, in order."""
        if self.add == "nothing":
            return []
        if self.add == "poles":
            return [(pole,) for pole in self.poles]
        wanted = [[pole for pole in each if pole in self.poles] for each in self.sentences.values()]
        return list(product(*(each for each in wanted if each)))
