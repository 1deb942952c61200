"""Scorers of items: an artifact, loaded in this process in float32, or a server over HTTP. Both give equal rewards."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from tureen import Client
from tureen.mixes import Normalize
from tureen.records.schema import BadRecord
from tureen.settings import SCHEMES
from tureen.wire import CandidateScore, ItemScore, ModelCard
from tureen_core.artifact import MANIFEST, open_artifact
from tureen_core.calibration import Calibration
from tureen_core.manifest import Input
from tureen_train.evaluation import pairwise_models
from tureen_train.evaluation.items import Item
from tureen_train.evaluation.objectives import ObjectiveChoice, ScoredItem, Weights
from tureen_train.networks.objective_reader import ObjectiveReader
from tureen_train.networks.reward_reader import Done
from tureen_train.networks.unconverted_model import open_unconverted


class Scorer(Protocol):
    """Scores the answers of items.

    Attributes:
        name: the name of the model, and of the chosen objective if it has several.
        about: the fields of ``results.json`` that describe the model.
        trained_on: the SHA-256 of each file that the model was trained on, where that is known.
        compares: whether it compares two answers, and gives a single one no reward.
    """

    name: str
    compares: bool
    about: dict[str, Any]
    trained_on: frozenset[str]

    def score(self, items: Sequence[Item], done: Done) -> list[ScoredItem]:
        """Score all answers of the items. ``done`` is called with the number of further answers that are scored."""


@contextmanager
def open_scorer(
    model: str,
    objective: str | None = None,
    preferences: Weights | None = None,
    batch: int = 8,
    normalize: Normalize = "simplex",
) -> Iterator[Scorer]:
    """Open the scorer that a user names.

        with open_scorer("runs/academy/artifact") as scorer:
            scored = scorer.score(items, ignore_progress)

    Args:
        model: the folder of an artifact or of a model of others, or a server's address; ``#name`` after the address
            names the objective.
        objective: the objective to use, if there are several.
        preferences: weights of several objectives instead.
        batch: in process, the texts in one batch; over HTTP, the items in one request.
        normalize: ``none`` uses the weights as given, negative ones too.

    Raises:
        ArtifactError: the folder is not an artifact, or its model reads neither conversations nor pairs.
        BaseError: its base is missing, or has other weights.
        BadOption: there is no such objective.
        TureenError: the server cannot be reached, or refuses the request.
    """
    if model.startswith(SCHEMES):
        address, _, named = model.partition("#")
        with Client(address) as client:
            yield ServerScorer(client, address, named or objective, None if named else preferences, batch, normalize)
    else:
        reads: Sequence[Input] = ("conversation", "pair")
        yield ArtifactScorer(Path(model), objective, preferences, batch, reads, normalize=normalize)


class ArtifactScorer:
    """Scores by an artifact that is loaded in this process, on the GPU if there is one.

    A folder without a manifest is read as a model of others, by plain transformers.

    Args:
        reads: the kinds of input that the model may have.
        reader: an open reader of the artifact; by default it is opened.
    """

    def __init__(
        self,
        folder: Path,
        objective: str | None,
        preferences: Weights | None,
        batch: int,
        reads: Sequence[Input] = ("conversation",),
        reader: Any = None,
        normalize: Normalize = "simplex",
    ) -> None:
        if reader is None and folder.is_dir() and not (folder / MANIFEST).is_file():
            artifact, reader = open_unconverted(folder)
        else:
            artifact = open_artifact(folder)
        self.model = ObjectiveReader(artifact, reads, reader)
        manifest = self.model.manifest
        self.compares = manifest.input == "pair"
        self.choice = ObjectiveChoice.of(self.model.scales, objective, preferences, str(folder), normalize)
        single = len(self.model.columns) == 1
        self.name = manifest.name if single else f"{manifest.name}:{self.choice.name}"
        self.about = {
            "name": self.name,
            "read": "in process, float32"
            if artifact.plain is None
            else f"by transformers (form {artifact.plain.form})",
            "artifact": folder.name,
            "version": manifest.version,
            "base": manifest.base.model if manifest.base else "its own weights",
            "max_length": manifest.reading.max_length,
            **(pairwise_models.ABOUT if self.compares else {}),
            **self.choice.describe(),
        }
        self.trained_on = frozenset(manifest.training.list_digests())
        self.batch = batch

    def score(self, items: Sequence[Item], done: Done) -> list[ScoredItem]:
        """See :class:`Scorer`.

        Raises:
            BadRecord: the chat template does not render an item.
        """
        if self.compares:
            return pairwise_models.compare_in_process(
                self.model.reader,
                lambda row: self.choice.logit(self.model.name_columns(row)),
                items,
                self.batch,
                done,
            )
        rendered = [
            [self.model.render(each, item.template_arguments, item.id) for each in item.conversations] for item in items
        ]
        raws = iter(self.model.score([text for texts in rendered for text in texts], self.batch, done))
        return [
            self.choice.score_item(list(islice(raws, len(texts))), [text.truncated for text in texts])
            for texts in rendered
        ]


class ServerScorer:
    """Scores by a Tureen server."""

    def __init__(
        self,
        client: Client,
        url: str,
        objective: str | None,
        preferences: Weights | None,
        batch: int,
        normalize: Normalize = "simplex",
    ) -> None:
        self.client = client
        cards = {card.id: card for card in client.models().data if card.kind == "reward"}
        scales = {name: _read_scale(card) for name, card in cards.items()}
        self.choice = ObjectiveChoice.of(scales, objective, preferences, url, normalize)
        self.name = self.choice.name
        asked = [cards[name] for name in self.choice.weights]
        self.compares = pairwise_models.compares_answers(client, self.choice)
        self.about = {
            "name": self.name,
            "read": "over HTTP",
            "server": url,
            "version": ", ".join(_version(card) for card in asked),
            "max_length": min((card.max_length for card in asked if card.max_length), default=None),
            **(pairwise_models.ABOUT if self.compares else {}),
            **self.choice.describe(),
        }
        self.trained_on = frozenset(digest for card in asked for digest in card.trained_on)
        self.batch = batch

    def score(self, items: Sequence[Item], done: Done) -> list[ScoredItem]:
        """See :class:`Scorer`.

        Raises:
            BadRecord: the server refuses an item.
        """
        if self.compares:
            return pairwise_models.ask_server(self.client, self.choice, items, self.batch, done)
        scored = []
        for start in range(0, len(items), self.batch):
            some = items[start : start + self.batch]
            for item, answers in zip(some, self._ask(some), strict=True):
                scored.append(self._read(answers))
                done(len(item.answers))
        return scored

    def _ask(self, items: Sequence[Item]) -> Iterator[list[CandidateScore]]:
        """Yield the scores of each item's answers. Without a prompt, the answers are sent as conversations."""
        sent = [(item, body) for item in items for body in _bodies(item)]
        reply = self.client.score(
            [body for _, body in sent],
            rewards=list(self.choice.weights),
            **self.choice.write_weighing(),
            truncate=True,
            on_error="item",
        )
        replies = iter(reply.data)
        for item in items:
            found = [next(replies) for _ in _bodies(item)]
            yield [candidate for each in found for candidate in _checked(item, each)]

    def _read(self, answers: Sequence[CandidateScore]) -> ScoredItem:
        raws = [{name: score.raw for name, score in (answer.scores or {}).items()} for answer in answers]
        scored = self.choice.score_item(raws, [answer.truncated for answer in answers])
        if not self.choice.weighed:
            return scored
        return ScoredItem([float(answer.reward or 0.0) for answer in answers], scored.logits, scored.truncated)


def _bodies(item: Item) -> list[dict[str, Any]]:
    if item.prompt:
        candidates = [list(answer) for answer in item.answers]
        return [{"prompt": list(item.prompt), "candidates": candidates, **item.template_arguments}]
    return [{"messages": list(answer), **item.template_arguments} for answer in item.answers]


def _checked(item: Item, reply: ItemScore) -> list[CandidateScore]:
    errors = [reply.error, *(candidate.error for candidate in reply.candidates)]
    for error in errors:
        if error is not None:
            raise BadRecord("the server refused it", error.message, item.id)
    return reply.candidates


def _read_scale(card: ModelCard) -> Calibration | None:
    """Read the calibration of a server's reward; None if it has none."""
    found = card.calibration.get(card.id)
    return None if found is None else Calibration(**found)


def _version(card: ModelCard) -> str:
    return f"{card.id} {card.version} ({card.fingerprint})"
