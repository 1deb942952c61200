"""Flags for a plain model: what its files do not tell. Each field of :class:`PlainOptions` is a flag of its name."""

import inspect
import re
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from tureen_core.plain.options import PlainError, PlainOptions

Names = Mapping[str, str]  # the flag of each field


def name_flags(**changed: str) -> dict[str, str]:
    """Name the flag of each field: ``max_length`` is ``--max-length``, unless ``changed`` names another one."""
    return {name: changed.get(name, f"--{name.replace('_', '-')}") for name in PlainOptions.model_fields}


def take_plain_flags(program: str, **changed: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the flags of a plain model. It gets them as one argument, ``plain``.

    Args:
        program: its name, for errors.
        changed: the flags that have another name in this command, by field.
    """
    flags = name_flags(**changed)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def run(**given: Any) -> None:
            try:
                plain = read_plain_flags({name: given.pop(f"plain_{name}") for name in flags}, flags)
            except PlainError as error:
                typer.echo(f"{program}: {error}", err=True)
                raise typer.Exit(2) from error
            command(**given, plain=plain)

        signature = inspect.signature(command)
        own = [each for each in signature.parameters.values() if each.name != "plain"]
        shared = [_make_parameter(name, flag) for name, flag in flags.items()]
        run.__signature__ = signature.replace(parameters=[*own, *shared])  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in [*own, *shared]}
        return run

    return decorate


def _make_parameter(name: str, flag: str) -> inspect.Parameter:
    annotation = PlainOptions.model_fields[name].annotation
    kind: Any = bool if annotation in (bool, bool | None) else str
    metavar = None if kind is bool else "A,B" if _is_list(name) else "TEXT"
    option = typer.Option(flag, metavar=metavar, help=f"Of a plain model: {describe_option(name)}.")
    return inspect.Parameter(
        f"plain_{name}", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


def _is_list(name: str) -> bool:
    return isinstance(PlainOptions.model_fields[name].default, tuple)


def describe_option(name: str) -> str:
    """Return what the docstring of :class:`PlainOptions` says about a field."""
    text = inspect.getdoc(PlainOptions) or ""
    found = re.search(rf"^ {{4}}{name}: (.+?)\.?$(?=\n {{4}}\w+: |\n?\Z)", text, re.MULTILINE | re.DOTALL)
    return " ".join(re.sub(r", see :\w+:`[^`]*`|`", "", found[1]).split()) if found else name


def read_plain_flags(given: Mapping[str, Any], flags: Names) -> PlainOptions:
    """Read the values of flags. Lists are written with commas.

    Raises:
        PlainError: a value cannot be used; the message names the flag.
    """
    values = {
        name: [each.strip() for each in value.split(",")] if _is_list(name) else value
        for name, value in given.items()
        if value is not None
    }
    try:
        return PlainOptions(**values)
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        raise PlainError(f"{flags[str(first['loc'][0])]}: {message}; {first['input']!r} was given") from error
