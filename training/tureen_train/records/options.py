"""The options of every command that reads preference data, and the reading that they ask for."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tureen.records.reading import Reading, parse_renames

FormOf = Annotated[str, typer.Option("--form", help="The form of the data; `auto` looks at the columns.")]
Renames = Annotated[
    list[str] | None,
    typer.Option("--map", help="Read a column under another name, OLD=NEW; OLD= leaves it out. May be repeated."),
]
Reversed = Annotated[
    Literal["refuse", "turn"],
    typer.Option("--reversed", help="What to do with a pair whose scores contradict which answer is chosen."),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Stop at the first bad record, and at a column that is not understood.")
]


def make_reading_options(renames: list[str] | None, reverse: str, strict: bool) -> dict[str, Any]:
    """What the options say, as arguments of :class:`tureen.records.reading.Reading`.

    Raises:
        BadOption: a renaming is not OLD=NEW.
    """
    return {"renamed": parse_renames(renames or ()), "turn_reversed": reverse == "turn", "strict": strict}


def open_reading(
    source: Path, form: str, renames: list[str] | None, reverse: str, strict: bool, **options: Any
) -> Reading:
    """The reading that a command's options ask for.

    Args:
        source: a file or folder.
        form: a name of :data:`tureen.records.forms.FORMS`, or ``auto``.
        renames: ``OLD=NEW`` each.
        reverse: ``refuse`` or ``turn``.
        strict: whether the first bad record is fatal.
        options: further arguments of :class:`tureen.records.reading.Reading`.

    Raises:
        BadOption: an option does not fit.
    """
    return Reading(source, form=form, **make_reading_options(renames, reverse, strict), **options)
