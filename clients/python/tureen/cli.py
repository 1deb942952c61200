"""``tureen``: scores, labels and souped text on the command line.

With ``--json`` only JSON goes to standard output; otherwise text and tables. Errors go to standard error.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tureen import item_files
from tureen.client import Client
from tureen.commands import tables
from tureen.commands.batch import app as batch
from tureen.commands.bench import bench_server
from tureen.commands.flags import (
    DesiredReward,
    FormOf,
    HowNormalised,
    ItemsFile,
    Json,
    MaxTokens,
    Model,
    Preference,
    Renames,
    Reward,
    Seed,
    Temperature,
    Truncate,
    Url,
    drop_unset,
    make_console,
    open_client,
    parse_reading,
    parse_weighing,
    parse_weights,
)
from tureen.commands.label import label_file
from tureen.commands.models import app as models
from tureen.commands.weights import fit_choices
from tureen.item_files import Row
from tureen.item_forms import RowReading
from tureen.openai_wire import ChatReply
from tureen.wire import ScoreItem, ScoreReply

app = typer.Typer(
    help="Scores, preference labels and souped text from a Tureen server.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)


@app.command()
def score(
    texts: Annotated[
        list[str] | None, typer.Argument(help="A prompt and one or more answers.", show_default=False)
    ] = None,
    file: Annotated[Path | None, ItemsFile] = None,
    form: FormOf = "auto",
    renames: Renames = None,
    reward: Reward = None,
    preference: Preference = None,
    normalize: HowNormalised = None,
    truncate: Truncate = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Score the answers to a prompt, or a file of items, with the loaded reward models.

    If an item is invalid, nothing is scored and the error names its line.
    """
    options = drop_unset(rewards=reward, **parse_weighing(preference, normalize), truncate=truncate or None)
    with open_client(url) as client:
        given = _read_items(texts or [], file, parse_reading(form, renames))
        with item_files.name_rows_in_errors(given):
            reply = client.score([row.item for row in given], **options)
    if as_json:
        typer.echo(_add_ids(reply, given).model_dump_json())
    else:
        items = [ScoreItem.model_validate(row.item) for row in given]
        make_console().print(tables.tabulate_scores(items, reply, [row.id for row in given]))


def _add_ids(reply: ScoreReply, given: Sequence[Row]) -> ScoreReply:
    """Return the reply with the ids of the items that have one."""
    named = [
        found if row.id is None else found.model_copy(update={"id": row.id})
        for found, row in zip(reply.data, given, strict=True)
    ]
    return reply.model_copy(update={"data": named})


app.command("label")(label_file)
app.command("weights")(fit_choices)
app.add_typer(batch, name="batch")
app.add_typer(models, name="models")
app.command("bench")(bench_server)


@app.command()
def chat(
    prompt: Annotated[str | None, typer.Argument(help="Your message; without it you chat.", show_default=False)] = None,
    preference: Preference = None,
    normalize: HowNormalised = None,
    desired_reward: DesiredReward = None,
    preset: Annotated[str | None, typer.Option(help="The name of a set of weights on the server.")] = None,
    model: Model = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    seed: Seed = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Chat with the policy that your preferences steer."""
    if as_json and prompt is None:
        raise typer.BadParameter("--json needs a prompt")
    options = drop_unset(
        preferences=parse_weights(preference),
        soup=None if normalize is None else {"normalize": normalize},
        desired_rewards=parse_weights(desired_reward, "--desired-reward", "reward"),
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
            _print_answer(client, [{"role": "user", "content": prompt}], options)
        else:
            _chat_in_turns(client, options)


def _chat_in_turns(client: Client, options: dict[str, Any]) -> None:
    messages: list[dict[str, Any]] = []
    typer.echo("Press Ctrl-D to end.", err=True)
    while True:
        try:
            text = input("> ")
        except EOFError:
            return
        messages.append({"role": "user", "content": text})
        messages.append({"role": "assistant", "content": _print_answer(client, messages, options)})


def _print_answer(client: Client, messages: list[dict[str, Any]], options: dict[str, Any]) -> str:
    answer = ""
    with client.chat(messages, stream=True, **options) as stream:
        for chunk in stream:
            typer.echo(chunk.text, nl=False)
            answer += chunk.text
    typer.echo()
    return answer


@app.command()
def sweep(
    prompt: Annotated[str, typer.Argument(help="Your message.")],
    start: Annotated[str, typer.Option("--from", help="The objective with all the weight at the start.")],
    end: Annotated[str, typer.Option("--to", help="The objective with all the weight at the end.")],
    steps: Annotated[int, typer.Option(min=2, max=64, help="The number of mixtures.")] = 5,
    with_scores: Annotated[bool, typer.Option("--score", help="Also score each text.")] = False,
    reward: Reward = None,
    model: Model = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    seed: Seed = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Answer one prompt with mixtures that go from one objective to another."""
    if start == end:
        raise typer.BadParameter("--from and --to name the same objective")
    options = drop_unset(model=model, max_tokens=max_tokens, temperature=temperature, seed=seed)
    with open_client(url) as client:
        reply = client.sweep(prompt, make_sweep_weights(start, end, steps), **options)
        rewards = None
        if with_scores:
            item = {"prompt": prompt, "candidates": [choice.text for choice in reply.choices]}
            rewards = client.score([item], on_error="item", **drop_unset(rewards=reward))
    if as_json:
        typer.echo(json.dumps(_sweep_rows(reply, rewards)))
    else:
        make_console().print(tables.tabulate_sweep(reply, rewards))


def make_sweep_weights(start: str, end: str, steps: int) -> list[dict[str, float]]:
    """Return ``steps`` sets of weights, from all on ``start`` to all on ``end``."""
    return [{start: round(1 - at, 6), end: round(at, 6)} for at in (step / (steps - 1) for step in range(steps))]


def _sweep_rows(reply: ChatReply, rewards: ScoreReply | None) -> list[dict[str, Any]]:
    return [
        {"preferences": choice.preferences, "text": choice.text, "scores": scored and scored.model_dump()["scores"]}
        for choice, scored in tables.pair_scores(reply, rewards)
    ]


@app.command()
def health(
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait until the server is ready.")] = 0.0,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Check whether the server is ready; exit code 1 if it is not."""
    with open_client(url) as client:
        client.wait_until_ready(wait)
        typer.echo(json.dumps({"ready": True, "url": client.base_url}) if as_json else f"{client.base_url} is ready")


def _read_items(texts: list[str], file: Path | None, reading: RowReading) -> list[Row]:
    if file is not None and not texts:
        return item_files.read_rows(file, reading)
    if file is not None or len(texts) < 2:
        raise typer.BadParameter("give a prompt and one or more answers, or --file")
    return [Row("the arguments", {"prompt": texts[0], "candidates": texts[1:]})]
