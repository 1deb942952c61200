"""The witness of an engine: it is shown every call that was answered."""

from collections.abc import Callable, Sequence

from tureen_serve.inference.readers import Outcome
from tureen_serve.inference.registry import Models
from tureen_serve.inference.rendering import ScoreInput

Witness = Callable[[Models, Sequence[ScoreInput], Sequence[str], bool, Sequence[Sequence[Outcome]]], None]


def ignore_call(*_: object) -> None:
    """Do nothing: the witness of an engine without shadows."""
