"""Every example of ``clients/examples``, run as a script against a live server of tiny models."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
from client.standin import serving

from tureen import Client
from tureen_serve.app import create_app
from tureen_serve.settings import FamilyEntry, RewardEntry, Settings

EXAMPLES = Path(__file__).parents[2] / "clients" / "examples"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py"))
NUMBER = r"[+-]?\d+\.\d+"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with the two rewards and the family of two experts that the examples name."""
    folder = tmp_path_factory.mktemp("served")
    base = tiny.base(folder / "base")
    rewards = [tiny.reward(folder / name, base, name, seed) for seed, name in enumerate(("helpful", "harmless"), 1)]
    experts = [
        tiny.expert(folder / name, base, name, seed) for seed, name in enumerate(("academy", "entertainment"), 11)
    ]
    settings = Settings(
        rewards=[RewardEntry(path=each.folder) for each in rewards],
        families=[FamilyEntry(name="tiny", base=str(base), experts=[each.folder for each in experts])],
        dtype="float32",
        device="cpu",
    )
    with serving(create_app(settings), lifespan="on") as address, Client(address) as client:
        client.wait_until_ready(300)
        yield address


def run(script: str, folder: Path, *arguments: object, **environment: str) -> str:
    """What a script prints."""
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    outcome = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300
    )
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout


def run_here() -> set[str]:
    return set(re.findall(r'run\("(\w+\.py)"', Path(__file__).read_text()))


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_example_fits_on_a_screen_and_is_run_here(script: str) -> None:
    lines = (EXAMPLES / script).read_text().splitlines()
    assert len(lines) <= 40
    assert script in run_here()
    assert script in (EXAMPLES.parent / "README.md").read_text()


def test_best_of_n_picks_the_answer_that_scores_best(url: str, tmp_path: Path) -> None:
    shown = run("best_of_n.py", tmp_path, url)
    rewards = [float(reward) for reward in re.findall(rf"^({NUMBER})  ", shown, re.MULTILINE)]
    assert len(rewards) == 4
    assert rewards == sorted(rewards, reverse=True)
    assert shown.startswith("the best of 4: ")


def test_a_personalised_chat_answers_every_reader(url: str, tmp_path: Path) -> None:
    shown = run("personalised_chat.py", tmp_path, url)
    for reader in ("the scholar", "the showman", "their child"):
        assert reader in shown
    assert len(re.findall(r"^\{'", shown, re.MULTILINE)) == 3


def test_a_file_is_labelled_for_trl_and_bad_lines_are_told(url: str, tmp_path: Path) -> None:
    good = {"prompt": "Why do leaves fall?", "candidates": ["In autumn.", "The lazy dog.", "A fox jumps."]}
    lines = [good, {"prompt": "Alone?", "candidates": ["Yes."]}, {"prompt": "Same?", "candidates": ["Yes.", "Yes."]}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    shown = run("label_file.py", tmp_path, "in.jsonl", "out.jsonl", url)
    assert "line 2 is left out: " in shown
    assert "line 3 is left out: its answers are as good as equal" in shown
    [row] = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert row["chosen"][0]["content"] in good["candidates"]
    assert row["margin"] == pytest.approx(row["chosen_score"] - row["rejected_score"])


def test_grpo_trains_on_rewards_over_http(url: str, tmp_path: Path) -> None:
    policy = tiny.base(tmp_path / "policy", seed=5)
    shown = run("grpo_trl.py", tmp_path, url, policy)
    rewards = re.findall(rf"^step (\d): reward ({NUMBER}) of ", shown, re.MULTILINE)
    assert [step for step, _ in rewards] == ["1", "2", "3"]
    assert shown.count("failed: 0%") == 3


def test_ppo_trains_on_two_weighted_rewards_over_http(url: str, tmp_path: Path) -> None:
    policy = tiny.base(tmp_path / "policy", seed=5)
    shown = run("ppo_tureen.py", tmp_path, url, policy)
    steps = re.findall(rf"^step (\d): reward ({NUMBER}) of \[({NUMBER}), ({NUMBER})\], failed: 0$", shown, re.MULTILINE)
    assert [step for step, *_ in steps] == ["1", "2", "3"]
    for _, *numbers in steps:
        reward, helpful, harmless = map(float, numbers)
        assert reward == pytest.approx(0.7 * helpful + 0.3 * harmless, abs=2e-3)
    assert (tmp_path / "runs" / "ppo" / "artifact").is_dir()


def test_reward_files_score_as_a_direct_call_does(url: str, tmp_path: Path) -> None:
    verl = run("reward_verl.py", tmp_path, TUREEN_BASE_URL=url)
    openrlhf = run("reward_openrlhf.py", tmp_path, TUREEN_BASE_URL=url)
    [score] = re.findall(rf"'score': ({NUMBER})", verl)
    [reward] = re.findall(rf"'rewards': \[({NUMBER})\]", openrlhf)
    with Client(url) as client:
        weights = {"helpful": 0.7, "harmless": 0.3}
        for prompt, shown in (("Why do leaves fall?", score), ("Why do leaves fall? ", reward)):
            item = {"prompt": prompt, "candidates": ["Because days grow short."]}
            [row] = client.score([item], preferences=weights).data[0].candidates
            assert float(shown) == pytest.approx(row.reward, abs=1e-4)
