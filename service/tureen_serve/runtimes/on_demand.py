"""Load reward models while the server runs. The caller runs one of these calls at a time, in a thread.

All of them are loaded by transformers, also beside vLLM. transformers sets torch's default dtype while it makes a
model, so nothing that runs beside it may depend on the default dtype.
"""

import gc
from dataclasses import replace
from pathlib import Path

import torch

from tureen.errors import Unavailable
from tureen_core.artifact import Artifact
from tureen_core.plain.bases import compute_base_digest
from tureen_serve.runtimes.bases import Bases
from tureen_serve.runtimes.catalogue import Backbone, LoadedModels, OpenedReward, name_score_lane
from tureen_serve.runtimes.footprint import Footprint, count_weights, make_base_key
from tureen_serve.runtimes.load import LoadOptions, make_runtime
from tureen_serve.runtimes.load_errors import translate_load_errors
from tureen_serve.runtimes.on_transformers.models import TransformersRuntime
from tureen_serve.runtimes.probes import prove_backbone
from tureen_serve.runtimes.rewards_root import open_offered
from tureen_serve.runtimes.root_folder import Source, compute_state

REMEDY = "mend its folder, and it is read again"


class OnDemandLoader:
    """Measures and loads sources.

    Args:
        options: as for the models of the start.
        started: the models of the start. Adapters that stand on their bases share the weights.

    Attributes:
        dtype: the dtype that the models compute in.
    """

    def __init__(self, options: LoadOptions, started: LoadedModels) -> None:
        runtime = started.loader
        if not isinstance(runtime, TransformersRuntime):
            runtime, _ = make_runtime(replace(options, runtime="transformers"))
        assert isinstance(runtime, TransformersRuntime)
        self._runtime = runtime
        self._kept = set(runtime.bases)
        self._options = options
        self._known: dict[Path, tuple[str, Bases]] = {}  # folder of a base → its state, and what was read of it
        self._opened: dict[Path, tuple[str, OpenedReward]] = {}  # folder of a plain model → its state, and the same
        self.dtype = runtime.dtype

    def measure(self, source: Source) -> Footprint:
        """Estimate the memory of a source's weights from the headers of its files. Bases of the start cost nothing.

        Raises:
            Unprocessable, Unavailable: as :meth:`load`.
        """
        with translate_load_errors(source.folder, REMEDY):
            width = getattr(torch, self.dtype).itemsize
            own = width * count_weights(source.folder)
            if source.manifest.weights == "full" or source.manifest.base is None:
                return Footprint(own)
            folder = self._options.make_bases().locate(source.manifest.base.model)
            key = make_base_key(_digest_base(source, folder), folder)
            return Footprint(own, key, 0 if key in self._kept else width * count_weights(folder))

    def load(self, source: Source) -> Backbone:
        """Verify a source, load it, and score its first probes.

        Raises:
            Unprocessable: the model cannot be served until its folder changes. The code is ``model_unusable``.
            Unavailable: it cannot be loaded now.
        """
        with translate_load_errors(source.folder, REMEDY):
            opened = self._open(source)
            artifact, folder = opened.artifact, opened.folder
            name = artifact.name if artifact.manifest.weights == "full" else name_score_lane(folder)
            backbone = Backbone(name, self._runtime.load_late(folder, [artifact]), opened.rewards)
            prove_backbone(backbone, self.dtype)
            return backbone

    def _open(self, source: Source) -> OpenedReward:
        """Open a source. A plain model that was opened before is only proven, by the probes of the first time."""
        state, opened = self._opened.get(source.folder, ("", None))
        if opened is None or state != source.state:
            opened = open_offered(source, self._find_bases(source), self.dtype)
            gc.collect()  # frees the model that its own library loaded, before it is loaded again
        changed = opened.artifact.manifest != source.manifest
        if source.plain:
            changed = compute_state(source.folder, source.base) != source.state
            self._opened[source.folder] = source.state, opened
        if changed:
            message = f"{source.folder.name} changed while it was loaded; try again"
            raise Unavailable(message, code="model_loading", retry_after=1)
        return opened

    def _find_bases(self, source: Source) -> Bases:
        """Find what is known of a source's base. It is digested and its tokenizer loaded again if its files changed."""
        base = source.manifest.base
        if source.manifest.weights == "full" or base is None:
            return self._options.make_bases()
        folder = self._options.make_bases().locate(base.model)
        state = compute_state(folder)
        if folder not in self._known or self._known[folder][0] != state:
            self._known[folder] = state, self._options.make_bases()
        return self._known[folder][1]


def _digest_base(source: Source, folder: Path) -> Artifact:
    """Return the artifact of a source on a base. The digest of a plain adapter's base is computed."""
    artifact, base = source.artifact, source.manifest.base
    if not source.plain or base is None:
        return artifact
    base = base.model_copy(update={"digest": compute_base_digest(folder)})
    return replace(artifact, manifest=source.manifest.model_copy(update={"base": base}))
