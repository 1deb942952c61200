"""``tureen``: scores, labels and souped text on the command line.

Tables are for eyes; with ``--json`` only JSON goes to standard output. Errors are one sentence on standard error.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from tureen import item_files
from tureen.client import Client
from tureen.commands import tables
from tureen.commands.batch import app as batch
from tureen.commands.flags import (
    ItemsFile,
    Json,
    MaxTokens,
    Model,
    Preference,
    Reward,
    Seed,
    Temperature,
    Truncate,
    Url,
    drop_unset,
    open_client,
    parse_weights,
)
from tureen.commands.label import label_file
from tureen.item_files import Row
from tureen.openai_wire import ChatReply
from tureen.wire import ScoreItem, ScoreReply

app = typer.Typer(
    help="Scores, preference labels and souped text from a Tureen server.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
out = Console()


@app.command()
def score(
    texts: Annotated[list[str] | None, typer.Argument(help="A prompt and its answers.", show_default=False)] = None,
    file: Annotated[Path | None, ItemsFile] = None,
    reward: Reward = None,
    preference: Preference = None,
    truncate: Truncate = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Score the answers to a prompt, or a file of items, by the loaded reward models.

    Nothing is scored if an item cannot be; the message names its line.
    """
    options = drop_unset(rewards=reward, preferences=parse_weights(preference), truncate=truncate or None)
    with open_client(url) as client:
        given = _given(texts or [], file)
        with item_files.name_rows_in_errors(given):
            reply = client.score([row.item for row in given], **options)
    if as_json:
        typer.echo(_named(reply, given).model_dump_json())
    else:
        items = [ScoreItem.model_validate(row.item) for row in given]
        out.print(tables.tabulate_scores(items, reply, [row.id for row in given]))


def _named(reply: ScoreReply, given: Sequence[Row]) -> ScoreReply:
    """The reply with the ids of those items that have one."""
    named = [
        found if row.id is None else found.model_copy(update={"id": row.id})
        for found, row in zip(reply.data, given, strict=True)
    ]
    return reply.model_copy(update={"data": named})


app.command("label")(label_file)
app.add_typer(batch, name="batch")


@app.command()
def chat(
    prompt: Annotated[str | None, typer.Argument(help="What you say; without it you talk.", show_default=False)] = None,
    preference: Preference = None,
    preset: Annotated[str | None, typer.Option(help="Weights that the server knows by name.")] = None,
    model: Model = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    seed: Seed = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Chat with the policy that your preferences make."""
    if as_json and prompt is None:
        raise typer.BadParameter("--json needs a prompt")
    options = drop_unset(
        preferences=parse_weights(preference),
        preset=preset,
        model=model,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
    )
    with open_client(url) as client:
        if as_json:
            typer.echo(client.chat(prompt or "", **options).model_dump_json())
        elif prompt is not None:
            _say(client, [{"role": "user", "content": prompt}], options)
        else:
            _talk(client, options)


def _talk(client: Client, options: dict[str, Any]) -> None:
    messages: list[dict[str, Any]] = []
    typer.echo("End with Ctrl-D.", err=True)
    while True:
        try:
            said = input("> ")
        except EOFError:
            return
        messages.append({"role": "user", "content": said})
        messages.append({"role": "assistant", "content": _say(client, messages, options)})


def _say(client: Client, messages: list[dict[str, Any]], options: dict[str, Any]) -> str:
    answer = ""
    with client.chat(messages, stream=True, **options) as stream:
        for chunk in stream:
            typer.echo(chunk.text, nl=False)
            answer += chunk.text
    typer.echo()
    return answer


@app.command()
def sweep(
    prompt: Annotated[str, typer.Argument(help="What you say.")],
    start: Annotated[str, typer.Option("--from", help="The objective that weighs all at first.")],
    end: Annotated[str, typer.Option("--to", help="The objective that weighs all at last.")],
    steps: Annotated[int, typer.Option(min=2, max=64, help="How many mixtures.")] = 5,
    with_scores: Annotated[bool, typer.Option("--score", help="Score each text, too.")] = False,
    reward: Reward = None,
    model: Model = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    seed: Seed = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Answer one prompt by every mixture on the way from one objective to another."""
    if start == end:
        raise typer.BadParameter("--from and --to name the same objective")
    options = drop_unset(model=model, max_tokens=max_tokens, temperature=temperature, seed=seed)
    with open_client(url) as client:
        reply = client.sweep(prompt, line(start, end, steps), **options)
        rewards = None
        if with_scores:
            item = {"prompt": prompt, "candidates": [choice.text for choice in reply.choices]}
            rewards = client.score([item], on_error="item", **drop_unset(rewards=reward))
    if as_json:
        typer.echo(json.dumps(_sweep_rows(reply, rewards)))
    else:
        out.print(tables.tabulate_sweep(reply, rewards))


def line(start: str, end: str, steps: int) -> list[dict[str, float]]:
    """Weights that go from all ``start`` to all ``end``."""
    return [{start: round(1 - at, 6), end: round(at, 6)} for at in (step / (steps - 1) for step in range(steps))]


def _sweep_rows(reply: ChatReply, rewards: ScoreReply | None) -> list[dict[str, Any]]:
    return [
        {"preferences": choice.preferences, "text": choice.text, "scores": scored and scored.model_dump()["scores"]}
        for choice, scored in tables.pair_scores(reply, rewards)
    ]


@app.command()
def models(url: Url = None, as_json: Json = False) -> None:
    """List the reward models, policies and presets that are loaded."""
    with open_client(url) as client:
        reply = client.models()
    if as_json:
        typer.echo(reply.model_dump_json())
    else:
        out.print(tables.tabulate_models(reply))


@app.command()
def health(
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for it to get ready.")] = 0.0,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Say whether the server is ready; exit code 1 says that it is not."""
    with open_client(url) as client:
        client.wait_until_ready(wait)
        typer.echo(json.dumps({"ready": True, "url": client.base_url}) if as_json else f"{client.base_url} is ready")


def _given(texts: list[str], file: Path | None) -> list[Row]:
    if file is not None and not texts:
        return item_files.read_rows(file)
    if file is not None or len(texts) < 2:
        raise typer.BadParameter("give a prompt and one or more answers, or --file")
    return [Row("the arguments", {"prompt": texts[0], "candidates": texts[1:]})]
