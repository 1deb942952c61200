"""Turn ``--reward`` and the flags of plain models into entries of the settings."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from tureen_core.manifest_file import MANIFEST
from tureen_core.plain.option_flags import Names, name_flags
from tureen_core.plain.options import NO_OPTIONS, PlainOptions
from tureen_serve.settings import RewardEntry, SettingsError


def make_reward_entries(
    sources: Sequence[str], plain: PlainOptions = NO_OPTIONS, flags: Names | None = None
) -> list[RewardEntry]:
    """Make an entry of each ``--reward``. The flags apply to the only one that is no artifact.

    Raises:
        SettingsError: there are flags, but no plain model or several.
    """
    told = plain.model_dump(exclude_unset=True)
    if not told:
        return [RewardEntry(path=source) for source in sources]
    flag = (flags or name_flags())[next(iter(told))]
    wanted = [source for source in sources if not (Path(source).expanduser() / MANIFEST).exists()]
    if not sources:
        raise SettingsError(f"{flag} is for a plain model: name it with --reward; in --config it is a field")
    if not wanted:
        raise SettingsError(f"{flag} is for plain models, and each --reward is an artifact, which tells this itself")
    if len(wanted) > 1:
        raise SettingsError(
            f"{flag}: of which --reward? {len(wanted)} of them are plain models. Say it in a file for --config, as\n\n"
            + _write_example(wanted, plain)
        )
    return [RewardEntry(path=source, **(told if source in wanted else {})) for source in sources]


def _write_example(sources: Sequence[str], plain: PlainOptions) -> str:
    """Write the entries of a settings file; the first has what the flags say."""
    told = plain.model_dump(exclude_unset=True, mode="json")
    paths = [{"path": str(Path(each).resolve()) if Path(each).expanduser().is_dir() else each} for each in sources]
    entries = [{**path, **(told if index == 0 else {})} for index, path in enumerate(paths)]
    return yaml.safe_dump({"rewards": entries}, sort_keys=False, allow_unicode=True)
