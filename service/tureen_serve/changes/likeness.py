"""Whether one version of a reward model can take the place of another. Pure."""

from dataclasses import replace

from tureen.errors import Unprocessable
from tureen_core.plain.reward import NAMELESS
from tureen_serve.inference.pooled_model import list_some
from tureen_serve.runtimes.catalogue import OpenedReward


def name_reward(opened: OpenedReward, name: str, rename: bool) -> OpenedReward:
    """Check that an artifact has a reward of this name; one whose only reward has no name, or that may, gets it.

    Raises:
        Unprocessable: it has not. The code is ``other_reward``.
    """
    if name in opened.names:
        return opened
    found = list_some(opened.names)
    if len(opened.names) > 1 or not (rename or opened.names == (NAMELESS,)):
        remedy = "send `rename: true` to serve it under this name" if len(opened.names) == 1 else "name another folder"
        message = f"{opened.artifact.folder.name} scores {found}, not {name}; {remedy}"
        raise Unprocessable(message, param="path", code="other_reward")
    entry = opened.entry.model_copy(update={"name": name})
    return replace(opened, entry=entry, rewards=tuple(replace(each, name=name) for each in opened.rewards))


def check_likeness(old: OpenedReward, new: OpenedReward) -> None:
    """Check that a version has all rewards of the one that it replaces, and that they read the same kind of input.

    Raises:
        Unprocessable: it has not. The code is ``other_reward``.
    """
    missing = sorted(set(old.names) - set(new.names))
    if missing:
        message = f"{new.artifact.folder.name} lacks the reward {missing[0]}, which is served now; unload it first"
        raise Unprocessable(message, param="path", code="other_reward")
    if old.rewards[0].input != new.rewards[0].input:
        message = (
            f"{new.artifact.folder.name} reads {new.rewards[0].input} inputs, and what is served now reads "
            f"{old.rewards[0].input} inputs; unload it first"
        )
        raise Unprocessable(message, param="path", code="other_reward")
