"""``tureen weights``: find the preference weights that explain a person's choices."""

from pathlib import Path
from typing import Annotated

import typer

from tureen.choice_files import name_choices_in_errors, read_choices
from tureen.commands import tables
from tureen.commands.flags import (
    FormOf,
    Json,
    Renames,
    Reward,
    Truncate,
    Url,
    drop_unset,
    make_console,
    open_client,
    parse_reading,
)

Level = Annotated[float, typer.Option(min=0.5, max=0.99, help="The probability that an interval holds its weight.")]
Width = Annotated[
    float, typer.Option(min=0.01, max=1.0, help="The width of the intervals for which the choices needed are counted.")
]
Preset = Annotated[str, typer.Option(help="The name of the preset that is printed.")]


def fit_choices(
    source: Annotated[
        Path,
        typer.Argument(
            exists=True,
            metavar="FILE",
            help="The choices: preference data in any form, or rows with `chosen_rewards` and `rejected_rewards`.",
        ),
    ],
    form: FormOf = "auto",
    renames: Renames = None,
    reward: Reward = None,
    level: Level = 0.95,
    width: Width = 0.2,
    preset: Preset = "mine",
    truncate: Truncate = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Find the preference weights that explain a person's choices between two answers, and print them as a preset.

    The server's rewards score the texts; --reward names some of them.
    """
    reading = parse_reading(form, renames)
    options = drop_unset(rewards=reward, truncate=truncate or None, level=level, width=width, preset=preset)
    with open_client(url) as client:
        choices = read_choices(source, reading.form, reading.renamed)
        for note in choices.notes:
            typer.echo(note, err=True)
        with name_choices_in_errors(choices.places):
            reply = client.fit_preferences(choices.pairs, **options)
    if as_json:
        typer.echo(reply.model_dump_json())
        return
    make_console().print(tables.tabulate_fit(reply))
    for line in tables.describe_fit(reply):
        typer.echo(line)
