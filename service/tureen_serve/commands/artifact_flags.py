"""Flags that name artifacts and say how to load them, shared by the commands of ``tureen-serve``."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from tureen_core.plain.source_text import PLACES
from tureen_serve.commands.expert_flags import NO_EXPERTS, ExpertFlags, group_experts
from tureen_serve.settings import RewardEntry, Settings, SettingsError, build_starter_settings, load_settings

WithStarter = Annotated[bool, typer.Option("--starter", help="Load the starter artifacts of the package.")]
RewardFolders = Annotated[
    list[str] | None,
    typer.Option(
        "--reward",
        metavar="FOLDER|ORG/NAME|URL",
        help=f"A reward model: an artifact, or a plain model of others; {PLACES}. May be repeated.",
    ),
]
ExpertFolders = Annotated[
    list[str] | None,
    typer.Option(
        "--expert",
        metavar="FOLDER|NAME=FOLDER",
        help="An expert artifact; or an adapter or a whole model of others, with the name for it. May be repeated.",
    ),
]
PolicyFolders = Annotated[
    list[str] | None,
    typer.Option(
        "--policy",
        metavar="FOLDER|NAME=FOLDER",
        help="A policy artifact that is steered in its prompt, by reward tags or by words; with a name for its family, "
        "if it shall have another. May be repeated.",
    ),
]
ExpertBase = Annotated[
    str | None, typer.Option("--base", help="The model that the experts stand on: a folder, or a packaged base.")
]
ExpertFamily = Annotated[
    str | None, typer.Option("--family", help="The policy family of experts of others; by default named like the base.")
]
ExpertRank = Annotated[
    int | None, typer.Option("--rank", min=1, help="The largest rank, where experts of others are approximated.")
]
ExpertEnergy = Annotated[
    float | None,
    typer.Option(
        "--energy", min=0, max=1, help="The share of a weight's difference that chooses its rank; 0.95 by default."
    ),
]
AcceptEnergy = Annotated[
    float | None,
    typer.Option(
        "--accept-energy", min=0, max=1, help="The smallest captured share that is served; by default as --energy."
    ),
]
RewardsRoot = Annotated[
    Path | None,
    typer.Option(
        "--rewards-root",
        help="A folder of reward models: artifacts, and plain models that need no flags. Each is loaded when a request "
        "names it.",
    ),
]
RewardsMemory = Annotated[
    float | None,
    typer.Option(
        "--rewards-memory-gib", help="GiB for the weights of models in --rewards-root; unused ones are unloaded."
    ),
]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="A YAML file of artifacts and settings.")]
RuntimeName = Annotated[str | None, typer.Option("--runtime", help="auto, transformers or vllm.")]
Dtype = Annotated[str | None, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:1 ...")]


def exit_with_error(error: Exception, code: int, rename: Mapping[str, str] | None = None) -> NoReturn:
    """Print an error on standard error and end the command.

    Args:
        rename: the flags that have another name in this command, so that the user can copy the one that is named.

    Raises:
        typer.Exit: always, with this exit code.
    """
    message = str(error)
    for flag, name in (rename or {}).items():
        message = re.sub(rf"(?<![\w-]){flag}(?![\w-])", name, message)
    typer.echo(f"tureen-serve: {message}", err=True)
    raise typer.Exit(code) from error


def read_artifacts(
    with_starter: bool, rewards: Sequence[RewardEntry], experts: ExpertFlags = NO_EXPERTS
) -> dict[str, Any]:
    """Return the settings ``rewards`` and ``families`` for the artifacts of these flags, starter artifacts first.

    A setting without artifacts is left out, so that the one of the file applies.

    Raises:
        SettingsError: the package has no starter artifacts, or a flag of the experts cannot be used.
    """
    entries = build_starter_settings() if with_starter else {"rewards": [], "families": []}
    entries["rewards"] += rewards
    entries["families"] = group_experts(experts, entries["families"])
    return {name: found for name, found in entries.items() if found}


def load_model_settings(
    config: Path | None, with_starter: bool, rewards: Sequence[RewardEntry], experts: ExpertFlags, **flags: Any
) -> Settings:
    """Load the settings of a command that needs at least one model.

    Args:
        config: the settings file, if any.
        with_starter: see :func:`read_artifacts`.
        rewards: see :func:`read_artifacts`.
        experts: see :func:`read_artifacts`.
        flags: further settings; those that are None are left out.

    Raises:
        SettingsError: a setting is invalid, or no model is named.
    """
    settings = load_settings(config, **flags, **read_artifacts(with_starter, rewards, experts))
    if not settings.has_models:
        ways = "--starter, --config FILE, --reward, --expert, --policy or --base, or set `rewards_root`"
        raise SettingsError(f"no models are named: give {ways}")
    return settings
