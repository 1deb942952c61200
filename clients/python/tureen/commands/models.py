"""``tureen models``: list the models of a server, and change its reward models while it runs."""

from typing import Annotated

import typer
from pydantic import BaseModel
from rich.table import Table

from tureen.commands import tables
from tureen.commands.flags import Json, Url, make_console, open_client
from tureen.retry import Retries

app = typer.Typer(help="List the models, or load, unload and shadow reward models.", invoke_without_command=True)
ONCE = Retries(limit=0)  # a change is not asked for twice

Name = Annotated[str, typer.Argument(metavar="REWARD", help="The name of the reward.")]
Folder = Annotated[
    str | None,
    typer.Option("--path", help="The folder of the version, below one of the server's `load_roots`."),
]
Rename = Annotated[
    bool, typer.Option("--rename", help="Serve the folder's only reward under this name, whatever its own name is.")
]
Within = Annotated[float, typer.Option("--within", min=1, help="Seconds that it may take; then the old version stays.")]


@app.callback()
def models(context: typer.Context, url: Url = None, as_json: Json = False) -> None:
    """List the reward models, policies and presets, loaded or not; or change the reward models."""
    if context.invoked_subcommand:
        if url is not None or as_json:
            raise typer.BadParameter(f"write --url and --json after `{context.invoked_subcommand}`")
        return
    with open_client(url) as client:
        reply = client.models()
    _show(reply, tables.tabulate_models(reply), as_json)


@app.command()
def load(
    name: Name,
    path: Folder = None,
    promote: Annotated[bool, typer.Option("--promote", help="Take the reward's shadow.")] = False,
    rename: Rename = False,
    within: Within = 600.0,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Load a version of a reward beside the one that is served, and serve it from then on.

    Without --path and --promote the reward's folder is read again. If the version cannot be served, the old one stays.
    """
    with open_client(url, ONCE) as client:
        change = client.reward_models.load(name, path, rename=rename, promote=promote, deadline=within)
    _show(change, tables.tabulate_change(change), as_json)


@app.command()
def unload(name: Name, url: Url = None, as_json: Json = False) -> None:
    """Stop serving a reward, with all rewards of its artifact."""
    with open_client(url, ONCE) as client:
        change = client.reward_models.unload(name)
    _show(change, tables.tabulate_change(change), as_json)


@app.command()
def shadow(
    name: Name,
    path: Folder = None,
    share: Annotated[float, typer.Option(min=0, max=1, help="The share of the texts that it scores too.")] = 0.1,
    end: Annotated[bool, typer.Option("--end", help="End the shadow.")] = False,
    rename: Rename = False,
    within: Within = 600.0,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Show how far a shadow, the next version of a reward, agrees with what is served; or begin or end one.

    With --path a shadow begins. `tureen models load REWARD --promote` serves it.
    """
    if end and path is not None:
        raise typer.BadParameter("--end and --path exclude each other")
    with open_client(url, ONCE) as client:
        if end:
            report = client.reward_models.end_shadow(name)
        elif path is not None:
            report = client.reward_models.begin_shadow(name, path, share, rename=rename, deadline=within)
        else:
            report = client.reward_models.report_shadow(name)
    _show(report, tables.tabulate_shadow(report), as_json)


def _show(reply: BaseModel, table: Table, as_json: bool) -> None:
    if as_json:
        typer.echo(reply.model_dump_json())
    else:
        make_console().print(table)
