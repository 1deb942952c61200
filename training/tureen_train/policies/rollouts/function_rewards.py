"""Rewards by Python functions, which a recipe names as ``module:function``."""

import importlib
import sys
from collections.abc import Callable, Sequence
from itertools import chain
from numbers import Real
from pathlib import Path
from typing import Any

import torch

from tureen_train.config import FunctionSource, RecipeError
from tureen_train.policies.rollouts.contract import Done, Prompt
from tureen_train.policies.rollouts.valuing import Samples, Value, Valued, Valuer, make_value, shape_like


class FunctionValuer:
    """Values answers by a function.

    The function is called with ``prompts`` (lists of messages) and ``answers`` (texts) of equal length. If it raises,
    or returns another number of rewards, no answer of the batch has a value.
    """

    def __init__(self, name: str, path: str, function: Callable[..., Any]) -> None:
        self.name = name
        self.path = path
        self.function = function

    @property
    def names(self) -> Sequence[str]:
        """The name of the reward."""
        return [self.name]

    def value_samples(self, prompts: Sequence[Prompt], samples: Samples, done: Done) -> Valued:
        """See :class:`.valuing.Valuer`."""
        asked = [list(prompt.messages) for prompt, own in zip(prompts, samples, strict=True) for _ in own]
        answers = [sample.text for sample in chain.from_iterable(samples)]
        values = self._call(asked, answers)
        done(len(answers))
        return Valued({self.name: shape_like(samples, values)})

    def _call(self, prompts: list[list[dict[str, Any]]], answers: list[str]) -> list[Value]:
        try:
            found = list(self.function(prompts=prompts, answers=answers))
        except Exception as error:  # a user's code may raise anything
            return [Value(None, f"{self.path} raised {type(error).__name__}: {error}") for _ in answers]
        if len(found) != len(answers):
            wrong = f"{self.path} returned {len(found)} rewards for {len(answers)} answers; return one for each"
            return [Value(None, wrong) for _ in answers]
        return [self._read(each) for each in found]

    def _read(self, found: object) -> Value:
        if found is None:
            return Value(None, f"{self.path} returned None")
        if isinstance(found, torch.Tensor) and found.numel() == 1:
            return make_value(float(found))
        if isinstance(found, Real):
            return make_value(float(found))
        return Value(None, f"{self.path} returned {type(found).__name__}, not a number")


def open_functions(sources: Sequence[FunctionSource]) -> list[Valuer]:
    """Import the functions that sources name. A module may stand in the working folder.

    Raises:
        RecipeError: the module cannot be imported, or has no such function.
    """
    return [FunctionValuer(source.name, source.function, _find(source.function)) for source in sources]


def _find(path: str) -> Callable[..., Any]:
    module, _, name = path.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = vars(importlib.import_module(module)).get(name)
    except Exception as error:  # a user's module may raise anything
        raise RecipeError(f"rewards: cannot import {module} for function: {path}: {error}") from error
    if not callable(found):
        raise RecipeError(f"rewards: {module} has no function {name!r}; correct function: {path}")
    function: Callable[..., Any] = found
    return function
