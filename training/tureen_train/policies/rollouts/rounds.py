"""A round of a policy on disk: the prompts, the answers to them, and their rewards.

A round is a folder of JSON Lines that only grow. ``samples.jsonl`` and ``rewards.jsonl`` have one line for each prompt,
with all its answers. A run that is killed goes on after the last whole line, so nothing that was written is made again.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tureen.atomic_files import replace_atomically
from tureen.json_lines import encode_line
from tureen_train.config import RecipeError
from tureen_train.policies.rollouts.contract import Prompt, Reward, Sample
from tureen_train.policies.rollouts.crew import Crew
from tureen_train.policies.rollouts.shared_rows import Row, SharedRows
from tureen_train.runs.line_file import LineFile
from tureen_train.terminal import show_progress

PROMPTS, SAMPLES, REWARDS, KEPT, ABOUT = "prompts.jsonl", "samples.jsonl", "rewards.jsonl", "kept.jsonl", "round.json"
REWARDED_AT_ONCE = 32  # prompts


@dataclass(frozen=True)
class Written:
    """An answer with its log-probability under the policy and under the reference, in nats; None where unknown."""

    sample: Sample
    logprob: float | None = None
    reference_logprob: float | None = None


T = TypeVar("T")
Write = Callable[[Sequence[Prompt]], list[list[Written]]]
RewardAll = Callable[[Sequence[Prompt], Sequence[Sequence[Sample]]], list[list[Reward]]]


@dataclass(frozen=True)
class Answered:
    """The prompts of a round with all their answers and rewards, in the order of the prompts."""

    prompts: Sequence[Prompt]
    written: Sequence[Sequence[Written]]
    rewards: Sequence[Sequence[Reward]]

    @property
    def samples(self) -> list[list[Sample]]:
        """The answers alone."""
        return [[each.sample for each in answers] for answers in self.written]


def collect_answers(
    folder: Path,
    prompts: Sequence[Prompt],
    settings: Mapping[str, Any],
    write: Write,
    reward: RewardAll,
    at_once: int,
    crew: Crew,
) -> Answered:
    """Write and reward the answers of a round. See :func:`write_answers` and :func:`reward_answers`."""
    written = write_answers(folder, prompts, settings, write, at_once, crew)
    return reward_answers(folder, prompts, written, reward, crew)


def write_answers(
    folder: Path, prompts: Sequence[Prompt], settings: Mapping[str, Any], write: Write, at_once: int, crew: Crew
) -> list[list[Written]]:
    """Write the answers of a round, or those that an earlier, broken run left unwritten.

    Args:
        folder: the round's.
        prompts: in the order in which they are answered.
        settings: what decides the answers and their rewards. A round that was begun with others is refused.
        write: writes the answers to some prompts. Each process is given other prompts.
        at_once: the number of prompts that ``write`` is given.

    Raises:
        RecipeError: the folder holds a round of other prompts or settings.
        ValueError: a file is damaged.
    """
    crew.lead(lambda: claim_round(folder, prompts, settings))
    samples = SharedRows(folder / SAMPLES, prompts, crew)
    left = [prompt for prompt in prompts if prompt.id not in samples.rows]
    for rows in _write_rows(left, write, at_once, crew, f"{folder.name}: answers"):
        samples.extend(rows)
    return [_read_written(samples.rows[prompt.id]) for prompt in prompts]


def reward_answers(
    folder: Path,
    prompts: Sequence[Prompt],
    written: Sequence[Sequence[Written]],
    reward: RewardAll,
    crew: Crew,
) -> Answered:
    """Reward answers, or those that an earlier, broken run left without rewards.

    Args:
        folder: has or gets ``rewards.jsonl``.
        reward: rewards answers. Only process 0 calls it.

    Raises:
        RecipeError: the file has a line of a prompt that is not here.
        ValueError: the file is damaged.
    """
    rewards = SharedRows(folder / REWARDS, prompts, crew)
    waiting = [(prompt, own) for prompt, own in zip(prompts, written, strict=True) if prompt.id not in rewards.rows]
    for rows in _reward_rows(waiting, reward, crew, f"{folder.name}: rewards"):
        rewards.extend(rows)
    return Answered(prompts, written, [_read_rewards(rewards.rows[prompt.id]) for prompt in prompts])


def read_about(folder: Path) -> dict[str, Any]:
    """Read ``round.json``; empty if there is none."""
    path = folder / ABOUT
    found: dict[str, Any] = json.loads(path.read_bytes()) if path.is_file() else {}
    return found


def write_about(folder: Path, **parts: Any) -> None:
    """Write parts of ``round.json``, in place of earlier ones."""
    with replace_atomically(folder / ABOUT) as part:
        part.write_text(json.dumps({**read_about(folder), **parts}, indent=1) + "\n")


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a file of JSON Lines that is complete or absent."""
    with replace_atomically(path) as part:
        part.write_bytes(b"".join(map(encode_line, rows)))


def claim_round(folder: Path, prompts: Sequence[Prompt], settings: Mapping[str, Any]) -> None:
    """Begin a round, or make sure that the round that was begun is the same. Only process 0 may call it.

    Raises:
        RecipeError: the folder holds a round of other prompts or settings.
    """
    plain = json.loads(json.dumps(settings))
    found = read_about(folder).get("settings")
    rows = [_describe_prompt(prompt) for prompt in prompts]
    if found is None:
        folder.mkdir(parents=True, exist_ok=True)
        write_rows(folder / PROMPTS, rows)
        write_about(folder, settings=plain)
        return
    changed = next((name for name in plain if found.get(name) != plain[name]), None)
    if changed is None and LineFile(folder / PROMPTS).rows != json.loads(json.dumps(rows)):
        changed = "prompts"
    if changed is not None:
        raise RecipeError(
            f"{folder} was begun with another recipe (not the same: {changed}): set it back, or begin anew with "
            "--overwrite"
        )


def _describe_prompt(prompt: Prompt) -> Row:
    row: Row = {"id": prompt.id, "prompt": [dict(turn) for turn in prompt.messages]}
    if prompt.weights is not None:
        row["weights"] = dict(prompt.weights)
    if prompt.desired is not None:
        row["desired"] = dict(prompt.desired)
    return {**row, **prompt.template_arguments}


def _write_rows(prompts: Sequence[Prompt], write: Write, at_once: int, crew: Crew, told: str) -> Iterator[list[Row]]:
    """Let the processes answer prompts in turns. Yields the rows of each turn."""
    with show_progress() as bar:
        shown = bar.add_task(told, total=len(prompts))
        for turn in _split(_split(prompts, at_once), crew.count):
            own = turn[crew.rank] if crew.rank < len(turn) else ()
            rows = crew.gather(partial(_write_turn, own, write))
            yield [row for each in rows for row in each]
            bar.advance(shown, sum(map(len, turn)))


def _write_turn(prompts: Sequence[Prompt], write: Write) -> list[Row]:
    written = write(prompts) if prompts else []
    return [
        {"prompt": prompt.id, "answers": [_describe_written(each) for each in answers]}
        for prompt, answers in zip(prompts, written, strict=True)
    ]


def _describe_written(written: Written) -> dict[str, Any]:
    sample = written.sample
    return {
        "text": sample.text,
        "finished": sample.finished,
        "ids": list(sample.ids),
        "logprob": written.logprob,
        "reference_logprob": written.reference_logprob,
    }


def _read_written(row: Mapping[str, Any]) -> list[Written]:
    return [
        Written(
            Sample(row["prompt"], number, each["text"], tuple(each["ids"]), each["finished"]),
            each["logprob"],
            each["reference_logprob"],
        )
        for number, each in enumerate(row["answers"])
    ]


def _reward_rows(
    waiting: Sequence[tuple[Prompt, Sequence[Written]]], reward: RewardAll, crew: Crew, told: str
) -> Iterator[list[Row]]:
    with show_progress() as bar:
        shown = bar.add_task(told, total=len(waiting))
        for part in _split(waiting, REWARDED_AT_ONCE):
            yield crew.lead(partial(_reward_part, part, reward))
            bar.advance(shown, len(part))


def _reward_part(part: Sequence[tuple[Prompt, Sequence[Written]]], reward: RewardAll) -> list[Row]:
    prompts = [prompt for prompt, _ in part]
    found = reward(prompts, [[each.sample for each in answers] for _, answers in part])
    return [
        {"prompt": prompt.id, "rewards": [asdict(each) for each in own]}
        for prompt, own in zip(prompts, found, strict=True)
    ]


def _read_rewards(row: Mapping[str, Any]) -> list[Reward]:
    return [Reward(each["values"], each["total"], each["error"]) for each in row["rewards"]]


def sum_logprobs(sample: Sample) -> float | None:
    """The log-probability of a whole answer under the policy that wrote it; None where it is not known."""
    return math.fsum(sample.logprobs) if sample.logprobs else None


def _split(values: Sequence[T], size: int) -> list[Sequence[T]]:
    return [values[start : start + size] for start in range(0, len(values), size)]
