"""``tureen-serve key new``: make a key, and its entry for the file of keys."""

import json
from typing import Annotated, Any

import typer
import yaml
from pydantic import ValidationError

from tureen.commands.flags import Json
from tureen_serve.commands.artifact_flags import exit_with_error
from tureen_serve.inference.demand import NO_TENANT
from tureen_serve.security.key_entries import KeyEntry, make_key
from tureen_serve.security.scopes import USER_SCOPES, KeyScope
from tureen_serve.settings import SettingsError

app = typer.Typer(help="Keys of callers.", no_args_is_help=True)
SCOPES = ",".join(scope.value for scope in KeyScope if scope in USER_SCOPES)


@app.callback()
def keys() -> None:
    """Make keys of callers."""


@app.command()
def new(
    name: Annotated[str, typer.Option(help="What logs call the key; each key of a file has its own.")],
    tenant: Annotated[str, typer.Option(help="The team or customer that it belongs to.")] = NO_TENANT,
    scopes: Annotated[
        str,
        typer.Option(help=f"What it may do, with commas: {', '.join(KeyScope)}. admin and metrics are not implied."),
    ] = SCOPES,
    expires: Annotated[
        str | None,
        typer.Option(help="When it ends: 2027-01-31, at the begin of the day in UTC, or a time with a zone."),
    ] = None,
    requests_per_minute: Annotated[int | None, typer.Option(help="How many requests it may make.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(help="How many tokens may be computed for it.")] = None,
    as_json: Json = False,
) -> None:
    """Print a new key, once, and the entry that the file of keys needs. The entry does not tell the key."""
    key, known, digest = make_key()
    quota = {"requests_per_minute": requests_per_minute, "tokens_per_minute": tokens_per_minute}
    given: dict[str, Any] = {
        "id": known,
        "name": name,
        "tenant": tenant,
        "scopes": [scope.strip() for scope in scopes.split(",")],
        "expires": expires,
        "quota": {what: limit for what, limit in quota.items() if limit is not None},
        "digest": digest,
    }
    try:
        entry = KeyEntry.model_validate(given).model_dump(mode="json", exclude_none=True)
    except ValidationError as error:
        first = error.errors()[0]
        exit_with_error(SettingsError(f"--{_name_flag(first['loc'])}: {first['msg']}"), 2)
    written = {field: value for field in given if (value := entry.get(field))}
    written["scopes"] = [scope.value for scope in KeyScope if scope in written["scopes"]]
    if as_json:
        typer.echo(json.dumps({"key": key, "entry": written}))
        return
    lines = yaml.safe_dump([written], sort_keys=False)
    typer.echo(f"{key}\n\nThis key is not shown again. Put its entry into the file of keys, under `keys:`:\n")
    typer.echo("".join(f"  {line}\n" for line in lines.splitlines()), nl=False)


def _name_flag(place: tuple[int | str, ...]) -> str:
    fields = [str(part) for part in place if isinstance(part, str) and part != "quota"]
    return fields[0].replace("_", "-") if fields else "name"
