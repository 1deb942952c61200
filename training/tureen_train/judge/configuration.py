"""What decides a verdict: criterion, wording, demonstrations, batch, orders and sampling; read from YAML.

A configuration is a style (``styles/``: how it is asked) with a criterion (``criteria/``: what is asked). Styles and
criteria follow AlpacaFarm (arXiv 2305.14387) and RLPHF (arXiv 2310.11564) in our own words.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from tureen_train.config import RecipeError
from tureen_train.config.parts import RecipePart

FOLDER = Path(__file__).parent
DEFAULT_STYLE = "evaluate"
Choice = Literal["A", "B", "tie"]
Orders = Literal["once", "both"]


class Price(RecipePart):
    """What a million tokens cost, in any currency."""

    read: float = Field(ge=0, allow_inf_nan=False)
    written: float = Field(ge=0, allow_inf_nan=False)


class Demonstration(RecipePart):
    """A pair with the right verdict, which is shown before the pairs to judge."""

    request: str
    first: str
    second: str
    reasons: str = ""
    verdict: Choice


class JudgeConfiguration(RecipePart):
    """All that decides a verdict beside the model and the texts.

    ``system``, ``example`` (one pair) and ``task`` (all pairs of a request) are the wording. In braces they may name
    ``criterion``, ``count``, ``examples``, ``number``, ``request``, ``first`` and ``second``; other braces stay as they
    are. An empty ``system`` is not sent.

    ``labels`` are the words of the verdicts; without ``tie`` there are no ties. With ``reasons`` the judge writes its
    reasons first and ends with a label; otherwise it writes a line with a label for each of ``batch`` pairs.
    ``orders: both`` asks about each pair in both orders, ``once`` in an order that a hash of the texts draws.

    ``pole`` is the pole of RLPHF's preferences that the criterion judges, as P2A; empty for others.

    ``temperature: null`` and ``max_tokens: null`` leave these fields out of the requests. ``logit_bias`` is OpenAI's:
    ids of tokens and what is added to their logits. ``usual_tokens`` is what the judge usually writes for a pair, and
    ``price`` what a million tokens cost; both are for the estimate alone.
    """

    name: str
    criterion: str
    pole: str = ""
    system: str
    example: str
    task: str
    labels: dict[Choice, str]
    reasons: bool
    batch: int = Field(default=1, ge=1)
    orders: Orders = "both"
    temperature: float | None = Field(default=0.0, ge=0, allow_inf_nan=False)
    max_tokens: int | None = Field(default=512, ge=1)
    logit_bias: dict[str, float] = {}
    usual_tokens: int = Field(default=100, ge=1)
    price: Price | None = None
    demonstrations: list[Demonstration] = []

    @model_validator(mode="after")
    def _fits(self) -> "JudgeConfiguration":
        if not {"A", "B"} <= self.labels.keys():
            raise ValueError("labels: give the words of A and of B")
        words = [" ".join(label.split()).lower() for label in self.labels.values()]
        if not all(words) or len(set(words)) < len(words):
            raise ValueError("labels: give each verdict a word of its own")
        if self.reasons and self.batch > 1:
            raise ValueError("batch: reasons are written about one pair at a time; set batch: 1")
        for key, names in {"example": ("request", "first", "second"), "task": ("examples",)}.items():
            for name in names:
                if f"{{{name}}}" not in getattr(self, key):
                    raise ValueError(f"{key}: it must name {{{name}}}, or the judge does not read it")
        if "{criterion}" not in self.system + self.task:
            raise ValueError("system: it must name {criterion}, or task must, or the judge does not read it")
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """The fields of a request beside model and messages."""
        given = {"temperature": self.temperature, "max_tokens": self.max_tokens, "logit_bias": self.logit_bias or None}
        return {name: value for name, value in given.items() if value is not None}


def list_styles() -> list[str]:
    """List the packaged styles."""
    return sorted(path.stem for path in (FOLDER / "styles").glob("*.yaml"))


def list_criteria() -> list[str]:
    """List the packaged criteria."""
    return sorted(path.stem for path in (FOLDER / "criteria").glob("*.yaml"))


def read_configuration(source: str, style: str = DEFAULT_STYLE, **changes: Any) -> JudgeConfiguration:
    """Read a configuration.

        read_configuration("annotate/pref2A")
        read_configuration("Which answer rhymes better?", orders="once")
        read_configuration("mine.yaml")

    Args:
        source: ``style/criterion``, a packaged criterion, a criterion as a sentence, or a YAML file. A file may name a
            ``style`` and a packaged ``criterion``, whose values its own replace.
        style: where ``source`` names none.
        changes: values that replace those of the configuration; those that are None do not.

    Raises:
        RecipeError: there is no such style or criterion, a key does not exist, or a value is invalid.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    if source.endswith((".yaml", ".yml")):
        return _check_values({**_read_own(Path(source), style), **given}, source)
    named, slash, criterion = source.partition("/")
    if not slash or " " in source.strip():
        named, criterion = style, source
    values = {"name": source.strip(), **_read_style(named), **_read_criterion(criterion)}
    return _check_values({**values, **given}, source)


def _read_own(path: Path, style: str) -> dict[str, Any]:
    if not path.is_file():
        raise RecipeError(f"{path}: there is no such configuration of a judge")
    values = _read_yaml(path)
    criterion = _read_criterion(str(values.pop("criterion", ""))) if "criterion" in values else {}
    return {"name": path.stem, **_read_style(str(values.pop("style", style))), **criterion, **values}


def _read_style(name: str) -> dict[str, Any]:
    if name not in list_styles():
        raise RecipeError(f"style: {name!r} is none of {', '.join(list_styles())}")
    return _read_yaml(FOLDER / "styles" / f"{name}.yaml")


def _read_criterion(given: str) -> dict[str, Any]:
    """Return a packaged criterion with its demonstrations, or a sentence as a criterion without any."""
    if " " in given.strip():
        return {"criterion": given.strip()}
    if given not in list_criteria():
        raise RecipeError(
            f"criterion: {given!r} is none of {', '.join(list_criteria())}; name one, or write a sentence"
        )
    return _read_yaml(FOLDER / "criteria" / f"{given}.yaml")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: cannot read it as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: a judge's configuration is a mapping of keys")
    return values


def _check_values(values: Mapping[str, Any], where: str) -> JudgeConfiguration:
    try:
        return JudgeConfiguration.model_validate(values)
    except ValidationError as error:
        told = "; ".join(
            ": ".join(filter(None, (".".join(map(str, each["loc"])), str(each["msg"]).removeprefix("Value error, "))))
            for each in error.errors()
        )
        raise RecipeError(f"{where}: {told}") from error


def format_configuration(configuration: JudgeConfiguration) -> str:
    """Format a configuration as YAML that :func:`read_configuration` reads."""
    return yaml.safe_dump(configuration.model_dump(), sort_keys=False, allow_unicode=True, width=100)
