"""Flags that name artifacts and say how to load them, shared by the commands of ``tureen-serve``."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from tureen_serve.settings import FamilyEntry, RewardEntry, SettingsError, build_starter_settings

WithStarter = Annotated[bool, typer.Option("--starter", help="Load the starter artifacts of the package.")]
RewardFolders = Annotated[
    list[Path] | None, typer.Option("--reward", help="The folder of a reward artifact. May be repeated.")
]
ExpertFolders = Annotated[
    list[Path] | None, typer.Option("--expert", help="The folder of an expert artifact. May be repeated.")
]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="A YAML file of artifacts and settings.")]
RuntimeName = Annotated[str | None, typer.Option("--runtime", help="auto, transformers or vllm.")]
Dtype = Annotated[str | None, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:1 ...")]


def exit_with_error(error: Exception, code: int) -> NoReturn:
    """Print an error on standard error and end the command.

    Raises:
        typer.Exit: always, with this exit code.
    """
    typer.echo(f"tureen-serve: {error}", err=True)
    raise typer.Exit(code) from error


def read_artifacts(with_starter: bool, rewards: Sequence[Path], experts: Sequence[Path]) -> dict[str, Any]:
    """Return the settings ``rewards`` and ``families`` for the artifacts of these flags, starter artifacts first.

    A setting without artifacts is left out, so that the one of the file applies.

    Raises:
        SettingsError: the package has no starter artifacts, or a folder has no expert.
    """
    entries = build_starter_settings() if with_starter else {"rewards": [], "families": []}
    entries["rewards"] += [RewardEntry(path=path) for path in rewards]
    entries["families"] = group_experts(experts, entries["families"])
    return {name: found for name, found in entries.items() if found}


def group_experts(experts: Sequence[Path], known: Sequence[FamilyEntry] = ()) -> list[FamilyEntry]:
    """Add folders of experts to ``known`` families. The manifest of an expert names its family.

    Raises:
        SettingsError: a folder has no expert.
    """
    found = {family.name: family for family in known}
    for path in experts:
        try:
            name = json.loads((path / "tureen.json").read_bytes())["steering"]["family"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            message = f"{path} is not an expert artifact: it needs a tureen.json with `steering.family`"
            raise SettingsError(message) from error
        family = found.get(name)
        folders = [*(family.experts if family else ()), path]
        found[name] = (
            family.model_copy(update={"experts": folders}) if family else FamilyEntry(name=name, experts=folders)
        )
    return list(found.values())
