"""Bases on this machine: where they lie, their digests, tokenizers and renderers, each read only once."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tureen_core.artifact import Artifact
from tureen_core.base import BaseError, digest_weights, load_tokenizer, locate_base
from tureen_core.plain.reward import make_plain_renderer
from tureen_core.reading import ControlMarkRule, Reading
from tureen_core.template import Renderer
from tureen_serve.runtimes.sources import LoadError

BESIDE_WEIGHTS = {
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
}


class Bases:
    """Base models on this machine. Each is digested, and its tokenizer loaded, only once.

    Args:
        cache: the folder for packaged bases after their conversion, and for copies of what is behind URLs.
        control_marks: how control marks inside a message are read; None for the setting of each reading.
        places: the folders of bases, by the names that models have for them.
    """

    def __init__(
        self, cache: Path, control_marks: ControlMarkRule | None = None, places: Mapping[str, Path] | None = None
    ) -> None:
        self.cache = cache
        self.places = places or {}
        self._control_marks = control_marks
        self._digests: dict[Path, str] = {}
        self._shared: dict[tuple[str, ...], Path] = {}
        self._tokenizers: dict[Path, Any] = {}
        self._renderers: dict[tuple[Path, Reading], Renderer] = {}

    def locate(self, model: str) -> Path:
        """Find the folder of a base.

        Raises:
            BaseError: the base is not on this machine.
        """
        if model in self.places:
            try:
                return locate_base(str(self.places[model]), self.cache)
            except BaseError as error:
                raise BaseError(f"bases.{model}: {error}") from error
        try:
            return locate_base(model, self.cache)
        except BaseError as error:
            if Path(model).expanduser().is_dir():
                raise
            raise BaseError(f"{error}; set `bases` to {{{model}: FOLDER}} if it is in another folder") from error

    def compute_digest(self, folder: Path) -> str:
        """Compute the digest of a base's weights."""
        if folder not in self._digests:
            self._digests[folder] = digest_weights(folder)
        return self._digests[folder]

    def find_shared(self, folder: Path) -> Path:
        """Find the first folder that holds the same base, so that copies in several folders are loaded once.

        The copies have the same weights, and the same files beside them that change a computation or a text.
        """
        beside = sorted(path for path in folder.iterdir() if path.name in BESIDE_WEIGHTS or path.suffix == ".jinja")
        files = [f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in beside]
        return self._shared.setdefault((self.compute_digest(folder), *files), folder)

    def locate_for(self, artifact: Artifact, model: str | None = None) -> Path:
        """Find the folder of an artifact's base. For a full checkpoint it is the artifact's own folder.

        Args:
            model: the base to use instead of the one that the manifest names; it must have the same weights.

        Raises:
            LoadError: the base that was found has other weights.
        """
        base = artifact.manifest.base
        if artifact.manifest.weights == "full" or base is None:
            return artifact.folder
        folder = self.locate(model or base.model)
        if self.compute_digest(folder) != base.digest:
            found = f"{folder} has the weights digest {self.compute_digest(folder)[:12]}"
            raise LoadError(f"{artifact.name} needs the base {base.model} with {base.digest[:12]}, but {found}")
        return self.find_shared(folder)

    def load_tokenizer(self, folder: Path) -> Any:
        """Load the tokenizer of a base."""
        if folder not in self._tokenizers:
            self._tokenizers[folder] = load_tokenizer(folder)
        return self._tokenizers[folder]

    def make_renderer(self, folder: Path, reading: Reading) -> Renderer:
        """Make a base's renderer for a reading. There is one for each, so that equal texts are tokenised once."""
        reading = self._apply_rule(reading)
        if (folder, reading) not in self._renderers:
            self._renderers[folder, reading] = Renderer(self.load_tokenizer(folder), reading)
        return self._renderers[folder, reading]

    def _apply_rule(self, reading: Reading) -> Reading:
        """Return a reading with the server's rule for control marks, if it has one."""
        if self._control_marks is None:
            return reading
        return reading.model_copy(update={"control_marks": self._control_marks})

    def make_verified_renderer(self, folder: Path, artifact: Artifact) -> Renderer:
        """Make an artifact's renderer, and check that it renders as in training.

        Raises:
            LoadError: the base's chat template or tokenizer differs from the one of the training.
        """
        plain, reading = artifact.plain, self._apply_rule(artifact.manifest.reading)
        if plain is not None:
            renderer = make_plain_renderer(plain.tokenizer, reading)
        elif artifact.manifest.weights == "full":
            renderer = make_plain_renderer(load_tokenizer(folder, own_pad=False), reading)
        else:
            renderer = self.make_renderer(folder, reading)
        if renderer.digest() != renderer.reading.template:
            trained = renderer.reading.template or "none"
            raise LoadError(
                f"{artifact.name}: the template of {folder} is {renderer.digest()}, training's was {trained}; "
                "use the tokenizer that it was trained with"
            )
        return renderer
