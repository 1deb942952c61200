"""Every kind of reward model, trained, exported and served: what HTTP answers is what the trainer's reader reads."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny
from client.standin import serving
from scales import scale_of
from train.rated_runs import NAMES, attributes_run
from train.test_rewards_steps import rows as stepped
from train.tiny_runs import BAD, GOOD, reward_run

from tureen import Client
from tureen.errors import Unprocessable
from tureen.wire import Label
from tureen_core.artifact import Artifact
from tureen_core.manifest import Probe
from tureen_core.tournament import compute_preference
from tureen_serve.app import create_app
from tureen_serve.settings import RewardEntry, Settings
from tureen_train.config import RewardRun
from tureen_train.networks.reward_reader import RewardReader
from tureen_train.rewards.run import train_reward

PROMPT = [{"role": "user", "content": "why do leaves fall?"}]
ANSWERS = [GOOD, f"{BAD} in autumn", "the days grow short"]
STEPS = ["the fox jumps", "leaves fall", "the wind is lazy"]


@dataclass(frozen=True)
class Kinds:
    """An artifact of each kind on one base; the gated one has the rated one's objectives, and is served alone."""

    base: Path
    beside: dict[str, Artifact]
    gated: Artifact

    def reader(self, name: str) -> RewardReader:
        """As training reads it."""
        artifact = self.gated if name == "gated" else self.beside[name]
        return RewardReader(artifact.folder, self.base, artifact.manifest.reading, artifact.manifest.rows)


def made(run: RewardRun) -> Artifact:
    artifact = train_reward(run)
    assert artifact is not None
    return artifact


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Kinds:
    folder = tmp_path_factory.mktemp("kinds")
    base = tiny.base(folder / "base")

    def run(name: str, **changes: Any) -> RewardRun:
        own = folder / name
        own.mkdir()
        return reward_run(base, own, name=name, cache=str(folder / "cache"), **changes)

    rated = made(attributes_run(base, folder))
    gate = {"method": "gate", "width": 16, "depth": 2, "temperature": 1.0, "verbosity": "verbosity"}
    tokens = {"head": "tokens"}
    return Kinds(
        base,
        {
            "capped": made(run("capped", loss={"constraint": {"prior": "length_ratio", "beta1": 4, "beta2": 1}})),
            "rated": rated,
            "quality": made(run("quality", loss={"method": "odin"})),
            "duel": made(run("duel", loss={"method": "pair"}, model=tokens, reading={"max_length": 192})),
            "proof": made(
                run(
                    "proof",
                    data={"train": [{"path": str(stepped(folder))}]},
                    loss={"method": "steps"},
                    model=tokens,
                    reading={"max_length": 128},
                )
            ),
        },
        made(
            run(
                "gated",
                objective="overall",
                model={"start": str(rated.folder)},
                reading={"max_length": 96},
                loss=gate,
            )
        ),
    )


def served(*artifacts: Artifact) -> Iterator[Client]:
    rewards = [RewardEntry(path=artifact.folder) for artifact in artifacts]
    settings = Settings(rewards=rewards, dtype="float32", device="cpu")
    with serving(create_app(settings), lifespan="on") as address, Client(address) as client:
        client.wait_until_ready(300)
        yield client


@pytest.fixture(scope="module")
def client(kinds: Kinds) -> Iterator[Client]:
    yield from served(*kinds.beside.values())


def conversation(answer: str) -> list[dict[str, str]]:
    return [*PROMPT, {"role": "assistant", "content": answer}]


def test_probes_were_proven_at_the_start(client: Client) -> None:
    """All artifacts carry what training saw, and the server that answers has read it again."""
    assert {card.id for card in client.models().data} == {"capped", *NAMES, "quality", "duel", "proof"}


@pytest.mark.parametrize(("name", "columns"), [("capped", ["capped"]), ("rated", NAMES), ("quality", ["", "quality"])])
def test_scores_of_whole_answers(kinds: Kinds, client: Client, name: str, columns: list[str]) -> None:
    wanted = kinds.reader(name).score_conversations([conversation(answer) for answer in ANSWERS])
    asked = [each for each in columns if each]
    (item,) = client.score([{"prompt": PROMPT, "candidates": ANSWERS}], rewards=asked).data
    for candidate, row in zip(item.candidates, wanted, strict=True):
        assert candidate.scores is not None
        for column, reward in enumerate(columns):
            if reward:
                assert candidate.scores[reward].raw == pytest.approx(row[column], abs=1e-4)


def test_steps(kinds: Kinds, client: Client) -> None:
    """A step's number is that of the answer up to it, whatever comes after."""
    (item,) = client.score([{"prompt": PROMPT, "steps": STEPS}]).data
    texts = [conversation("\n\n".join(STEPS[: 1 + index])) for index in range(len(STEPS))]
    wanted = kinds.reader("proof").score_probes([Probe(messages=text) for text in texts], "steps")
    found = [step.scores["proof"].raw for step in item.candidates if step.scores]
    assert found == pytest.approx([row[0] for row in wanted], abs=1e-4)
    assert item.summary is not None
    right = [step.scores["proof"].scaled for step in item.candidates if step.scores]
    assert item.summary["proof"].min == pytest.approx(min(right))


def test_duels(kinds: Kinds, client: Client) -> None:
    reader = kinds.reader("duel")
    temperature = scale_of(kinds.beside["duel"].manifest.objectives[0]).temperature

    def sure(first: int, second: int) -> float:
        there, back = reader.score_probes(
            [
                Probe(messages=conversation(ANSWERS[i]), rival=conversation(ANSWERS[j]))
                for i, j in ((first, second), (second, first))
            ],
            "pair",
        )
        return compute_preference(there[0], back[0], temperature)

    (label,) = client.preferences([{"prompt": PROMPT, "candidates": ANSWERS}], rewards=["duel"], matrix=True).data
    assert isinstance(label, Label)
    assert label.matrix is not None
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert label.matrix[i][j] == pytest.approx(sure(i, j), abs=1e-4)
    knocked = client.preferences([{"prompt": PROMPT, "candidates": ANSWERS}], rewards=["duel"], comparisons="knockout")
    (winner,) = knocked.data
    assert isinstance(winner, Label)
    assert winner.chosen == label.chosen


def test_a_gate_weighs_the_rewards_by_the_prompt(kinds: Kinds) -> None:
    columns = [*NAMES, "overall"]
    texts = [Probe(messages=conversation(answer)) for answer in ANSWERS]
    wanted = kinds.reader("gated").score_probes(texts)
    for client in served(kinds.gated):
        (item,) = client.score([{"prompt": PROMPT, "candidates": ANSWERS}]).data
        for candidate, row in zip(item.candidates, wanted, strict=True):
            assert candidate.scores is not None
            raws = [candidate.scores[name].raw for name in columns]
            assert raws == pytest.approx(row, abs=1e-4)
        (whole,) = client.score([{"messages": conversation(ANSWERS[0])}], rewards=["overall"]).data
        assert whole.candidates[0].scores is not None
        assert whole.candidates[0].scores["overall"].raw == pytest.approx(wanted[0][-1], abs=1e-4)
        long = [{"prompt": PROMPT, "candidates": ["fox " * 200]}]
        with pytest.raises(Unprocessable, match="gate reads"):
            client.score(long, rewards=["overall"], truncate=True)
