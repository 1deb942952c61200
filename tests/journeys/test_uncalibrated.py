"""Artifacts without a calibration, served and read: HTTP, evaluation, judges, adapters and the command line agree."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import tiny
from client.standin import serving
from typer.testing import CliRunner

from tureen import Client, cli
from tureen.adapters.trl import RewardFunction, reward_functions
from tureen.errors import Unprocessable
from tureen.records.dialogue import assistant_turn, user_turn
from tureen.records.schema import UNLABELLED, Record
from tureen.wire import Label
from tureen_core.artifact import Artifact, seal_artifact
from tureen_core.calibration import Calibration, compute_sigmoid
from tureen_serve.app import create_app
from tureen_serve.settings import RewardEntry, Settings
from tureen_train.evaluation.items import Item
from tureen_train.evaluation.scorers import open_scorer
from tureen_train.judge.model_judges import ServerJudge
from tureen_train.judge.opening import open_reward_judge
from tureen_train.networks.reward_reader import RewardReader, ignore_progress

PROMPT = "why do leaves fall?"
ANSWERS = ["the wind is lazy", "the days grow short", "a fox"]
TALKS = [[{"role": "user", "content": PROMPT}, {"role": "assistant", "content": answer}] for answer in ANSWERS]
ITEM = {"prompt": PROMPT, "candidates": ANSWERS}
TURNS = tuple((assistant_turn(answer),) for answer in ANSWERS)
BOTH = {"bare": 0.5, "scaled": 0.5}
NAMED = "bare has no calibration"


def rescale(artifact: Artifact, scale: Calibration | None) -> Artifact:
    """The artifact again, sealed with this calibration for each of its objectives."""
    objectives = [each.model_copy(update={"calibration": scale}) for each in artifact.manifest.objectives]
    return seal_artifact(artifact.folder, artifact.manifest.model_copy(update={"objectives": objectives}))


@dataclass(frozen=True)
class Served:
    """A base, its artifacts by name, and the address of their server."""

    base: Path
    artifacts: dict[str, Artifact]
    url: str

    def raw(self, name: str) -> list[float]:
        """The head's own numbers for the answers."""
        manifest = self.artifacts[name].manifest
        reader = RewardReader(self.artifacts[name].folder, self.base, manifest.reading, manifest.rows)
        return [row[0] for row in reader.score_conversations(TALKS)]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("uncalibrated")
    base = tiny.base(folder / "base")
    made = {
        "bare": rescale(tiny.reward(folder / "bare", base, "bare", 1), None),
        "scaled": rescale(tiny.reward(folder / "scaled", base, "scaled", 2), Calibration(mean=1, std=2)),
        "overall": rescale(tiny.gated(folder / "overall", base, "overall", 3, ["kind", "long"]), None),
    }
    rewards = [RewardEntry(path=artifact.folder) for artifact in made.values()]
    app = create_app(Settings(rewards=rewards, dtype="float32", device="cpu"))
    with serving(app, lifespan="on") as url, Client(url) as client:
        client.wait_until_ready(300)
        yield Served(base, made, url)


def test_scores_are_the_heads_own_and_a_gate_needs_no_calibration(served: Served) -> None:
    with Client(served.url) as client:
        reply = client.score([ITEM])
        cards = {card.id: card.calibrated for card in client.models().data}
    assert cards == {"bare": False, "scaled": True, "kind": False, "long": False, "overall": False}
    rows = [row.scores or {} for row in reply.data[0].candidates]
    for name in ("bare", "scaled", "kind"):
        column = served.raw("overall" if name == "kind" else name)
        assert [row[name].raw for row in rows] == pytest.approx(column, abs=1e-4)
    assert all(row[name].calibrated is None for row in rows for name in cards if not cards[name])
    assert [row["scaled"].calibrated for row in rows] == [(row["scaled"].raw - 1) / 2 for row in rows]
    assert len({row["overall"].raw for row in rows}) == 3


def test_evaluation_reads_the_same_in_process_and_over_http(served: Served) -> None:
    folder = str(served.artifacts["bare"].folder)
    items = [Item("1", (user_turn(PROMPT),), TURNS, (1, 0, 0))]
    for preferences in (None, {"bare": 2.0}):
        for model in (folder, served.url):
            with open_scorer(model, None if preferences else "bare", preferences) as scorer:
                (found,) = scorer.score(items, ignore_progress)
                assert scorer.about["calibration"] == {"bare": None}
            assert found.rewards == pytest.approx(served.raw("bare"), abs=1e-4)
            assert found.logits == pytest.approx(found.rewards, abs=1e-6)
    with pytest.raises(Unprocessable, match=NAMED), open_scorer(served.url, preferences=BOTH):
        pass


def test_judges_give_bradley_terrys_probability(served: Served) -> None:
    record = Record((user_turn(PROMPT),), TURNS[:2], (UNLABELLED, UNLABELLED), "f:1")
    first, second, _ = served.raw("bare")
    wanted = pytest.approx(compute_sigmoid(first - second), abs=1e-5)
    here = open_reward_judge(str(served.artifacts["bare"].folder))
    (judged,) = here.judge_pairs([record], ignore_progress)
    assert judged.share == wanted
    with Client(served.url) as client:
        (judged,) = ServerJudge(client, "bare", 8).judge_pairs([record], ignore_progress)
        assert judged.share == wanted


def test_adapters_give_the_raw_reward_and_fail_on_a_mix(served: Served) -> None:
    prompts = [PROMPT] * len(ANSWERS)
    raw = served.raw("bare")
    for reward in (
        RewardFunction("bare", base_url=served.url),
        RewardFunction("bare", base_url=served.url, calibrated=False),
        RewardFunction(preferences={"bare": 1.0}, base_url=served.url),
    ):
        found = reward(prompts, ANSWERS)
        assert found == pytest.approx(raw, abs=1e-4)
    bare, scaled = reward_functions(["bare", "scaled"], base_url=served.url)
    assert bare(prompts, ANSWERS) == pytest.approx(raw, abs=1e-4)
    assert scaled(prompts, ANSWERS) == pytest.approx([(each - 1) / 2 for each in served.raw("scaled")], abs=1e-4)
    with pytest.raises(Unprocessable, match=NAMED):
        RewardFunction(preferences=BOTH, base_url=served.url, on_failure="raise")(prompts, ANSWERS)


def test_labels_say_that_they_are_not_calibrated(served: Served) -> None:
    raw = served.raw("bare")
    with Client(served.url) as client:
        (label,) = client.preferences([ITEM], rewards=["bare"]).data
    assert isinstance(label, Label)
    assert (label.chosen, label.calibrated) == (raw.index(max(raw)), False)
    assert label.margin == pytest.approx(max(raw) - min(raw), abs=1e-4)
    assert label.probability == pytest.approx(1 / (1 + math.exp(min(raw) - max(raw))), abs=1e-5)


def test_the_command_line_shows_it(served: Served) -> None:
    def run(*arguments: str) -> str:
        result = CliRunner().invoke(cli.app, [*arguments, "--url", served.url], env={"COLUMNS": "120"})
        assert result.exit_code == 0, result.output
        return result.stdout

    models = {line.split("│")[1].strip(): line for line in run("models").splitlines() if line.startswith("│")}
    assert (" no " in models["bare"], " yes " in models["scaled"]) == (True, True)
    scores = run("score", PROMPT, ANSWERS[0])
    first = served.raw("bare")[0]
    assert f"bare    ({first:.2f})" in scores
