"""Open and load new versions of the start's reward models while the server runs.

The caller runs one of these calls at a time, in a thread. Adapters on one base are loaded as one group: they share a
scorer, so that their rows share batches and can be souped. A group whose adapters change is loaded as a whole, beside
the old one; the weights of the base are not loaded again.
"""

import gc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tureen_core.artifact import MANIFEST, Manifest, read_manifest
from tureen_core.base import CACHE
from tureen_core.plain.locate import locate_source
from tureen_core.plain.options import PlainError
from tureen_serve.runtimes.artifacts import open_reward
from tureen_serve.runtimes.bases import Bases
from tureen_serve.runtimes.catalogue import Backbone, OpenedReward, Runtime, name_score_lane
from tureen_serve.runtimes.footprint import count_weights
from tureen_serve.runtimes.load import LoadOptions
from tureen_serve.runtimes.load_errors import translate_load_errors
from tureen_serve.runtimes.probes import prove_backbone
from tureen_serve.runtimes.root_folder import compute_state
from tureen_serve.runtimes.warm_up import measure_backbone
from tureen_serve.settings import RewardEntry

REMEDY = "mend its folder and load it again; what was served before still is"
PLAIN_BYTES = 4  # of a weight, while a plain model's own library scores its probes in float32

Group = tuple[OpenedReward, ...]


class LateLoader:
    """Opens, measures and loads.

    Args:
        options: as for the models of the start.
        runtime: that of the start.
        opened: what the start opened.
    """

    def __init__(self, options: LoadOptions, runtime: Runtime, opened: Sequence[OpenedReward]) -> None:
        self._cache = options.cache or CACHE
        self._make_bases = options.make_bases
        self._runtime = runtime
        self._bases: dict[Path, tuple[str, Bases]] = {}
        for each in opened:
            base = each.artifact.manifest.base
            named = [each.bases.locate(base.model)] if base and each.artifact.plain is None else []
            self._bases |= {folder: (compute_state(folder), each.bases) for folder in (each.folder, *named)}

    def open(self, entry: RewardEntry) -> OpenedReward:
        """Open and verify a reward model, as at the start.

        Raises:
            Unprocessable: it cannot be served. The code is ``model_unusable``.
            Unavailable: it cannot be loaded now.
        """
        with translate_load_errors(Path(entry.path), REMEDY):
            opened = open_reward(entry, self._find_bases(entry), self._runtime.dtype)
            gc.collect()  # frees the model that its own library loaded, before it is loaded again
            return opened

    def has_changed(self, opened: OpenedReward) -> bool:
        """Tell whether the files that an entry names are others than when it was opened."""
        try:
            folder = locate_source(opened.entry.path, self._cache, tried=opened.entry.tried, download=False)
            return compute_state(folder) != opened.state
        except (PlainError, OSError):  # it is gone, or behind a URL: opening it again will tell
            return True

    def find_obstacle(self, opened: OpenedReward) -> str | None:
        """Say why a reward model cannot be loaded or replaced while the server runs; None if it can."""
        return self._runtime.find_late_obstacle(opened.artifact, opened.folder)

    def make_groups(self, opened: Sequence[OpenedReward]) -> list[Group]:
        """Group what shares a scorer: full checkpoints alone, and adapters on one base that one runtime scores."""
        found: dict[object, list[OpenedReward]] = {}
        for each in opened:
            full = each.artifact.manifest.weights == "full"
            key = each.artifact.name if full else (each.folder, self.find_obstacle(each) is None)
            found.setdefault(key, []).append(each)
        return [tuple(each) for each in found.values()]

    def measure(self, group: Group) -> int:
        """Estimate the bytes that the load of a group adds."""
        return self._runtime.measure_late(group[0].folder, [each.artifact for each in group])

    def measure_opening(self, entry: RewardEntry) -> int:
        """Estimate the bytes that opening takes for a while: a plain model's probes are scored by its own library.

        Raises:
            Unprocessable, Unavailable: as :meth:`open`.
        """
        with translate_load_errors(Path(entry.path), REMEDY):
            folder = locate_source(entry.path, self._cache, tried=entry.tried)
            return PLAIN_BYTES * count_weights(folder) if _find_manifest(folder) is None else 0

    def find_free_bytes(self) -> int | None:
        """Find the free memory of the device; None if it is this machine's own memory."""
        return self._runtime.find_free_bytes()

    def load(self, group: Group) -> Backbone:
        """Load a group, and score the first probes of each of its artifacts.

        Raises:
            Unprocessable: one cannot be served. The code is ``model_unusable``.
            Unavailable: the group cannot be loaded now.
        """
        first = group[0]
        with translate_load_errors(first.artifact.folder, REMEDY):
            scorer = self._runtime.load_late(first.folder, [each.artifact for each in group])
            rewards = tuple(reward for each in group for reward in each.rewards)
            backbone = Backbone(self.name_lane(group), scorer, rewards)
            prove_backbone(backbone, self._runtime.dtype)
            return replace(backbone, speed=measure_backbone(backbone))

    def name_lane(self, group: Group) -> str:
        """Name the lane of a group, as at the start."""
        first = group[0]
        return first.artifact.name if first.artifact.manifest.weights == "full" else name_score_lane(first.folder)

    def _find_bases(self, entry: RewardEntry) -> Bases:
        """Find what is known of an entry's base. If the base's files have changed, all of it is read again."""
        manifest = _find_manifest(locate_source(entry.path, self._cache, tried=entry.tried))
        fresh = self._make_bases()
        if manifest is None or manifest.base is None or manifest.weights == "full":
            return fresh
        folder = fresh.locate(manifest.base.model)
        state = compute_state(folder)
        known = self._bases.get(folder)
        if known is None:  # not digested yet; one `Bases` finds copies of a base
            self._bases[folder] = state, next((bases for _, bases in self._bases.values()), fresh)
        elif known[0] != state:
            self._bases[folder] = state, fresh
        return self._bases[folder][1]


def _find_manifest(folder: Path) -> Manifest | None:
    """Read a folder's manifest; None if it is a plain model."""
    return read_manifest(folder) if (folder / MANIFEST).exists() else None
