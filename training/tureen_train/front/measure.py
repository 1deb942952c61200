"""Measure a front: write the answers of all methods, reward them, and have a judge compare them.

What stands in the folder is not done again, so that a measurement that was killed goes on.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from tureen_core.artifact import MANIFEST
from tureen_train.config import ArtifactSource, RecipeError
from tureen_train.config.fronts import FrontRun, MethodPart
from tureen_train.evaluation.cli import PROMPTS, read_prompts
from tureen_train.evaluation.server import run_server
from tureen_train.front.answers import AnswerBook, AnswerRewards, BaseReading, JudgedAnswer, WrittenAnswer
from tureen_train.front.comparing import Comparer, open_comparer
from tureen_train.front.divergence import BaseLogprobs
from tureen_train.front.grids import Weights, find_point, plan_grid
from tureen_train.front.measured import MeasuredFront, collect_method
from tureen_train.front.writing import list_points, write_answers
from tureen_train.judge.comparisons import Comparison
from tureen_train.networks.reward_reader import ignore_progress
from tureen_train.policies.rollouts.contract import Prompt, Sample
from tureen_train.policies.rollouts.reward_sum import WeightedRewarder
from tureen_train.policies.rollouts.rewards import open_rewarder

Tell = Callable[[str, int, int], object]  # what is done, how much of it, and of how much


class FrontMeasurer:
    """Does what is missing of a measurement.

    Args:
        run: the recipe.
        folder: holds what is done; see :class:`.answers.AnswerBook`.
        tell: called with what is done, the number of finished answers, and of all.

    Raises:
        RecipeError: the folder holds a measurement with other settings.
        ValueError: a file is damaged, there are fewer prompts than two, or a point of the grid is none.
    """

    def __init__(self, run: FrontRun, folder: Path, tell: Tell) -> None:
        self.run = run
        self.folder = folder
        self.tell = tell
        self.grid: Mapping[str, Weights] = plan_grid(list(run.objectives), run.grid.steps, run.grid.points)
        self.prompts = find_prompts(run)
        self.points = {method.name: list_points(method, self.grid) for method in run.methods}
        claim_folder(folder, run, self.prompts)
        self.book = AnswerBook(folder)

    def measure(self) -> MeasuredFront:
        """Do what is missing, and return what was measured.

        Raises:
            RecipeError: an answer has no reward, or a reward compares answers.
            TureenError: a server cannot be reached or refuses a request.
        """
        for server in self.run.servers:
            self._write([method for method in self.run.methods if method.server == server], server)
        self._reward()
        if self.run.base is not None:
            self._read_base(self.run.base)
        if self.run.judge is not None:
            self._judge(open_comparer(self.run.judge, self.folder))
        ids = [prompt.id for prompt in self.prompts]
        methods = [collect_method(method, self.run, self.book, self.grid, ids) for method in self.run.methods]
        return MeasuredFront(
            self.run.name,
            list(self.run.objectives),
            {name: each.unit or "raw" for name, each in self.run.objectives.items()},
            self.run.corner,
            self.run.tolerance,
            self.grid,
            {prompt.id: str(prompt.messages[-1]["content"]) for prompt in self.prompts},
            {each.name: each for each in methods},
            self.run.baseline,
            self.run.judge.name or self.run.judge.source if self.run.judge else None,
        )

    def _write(self, methods: Sequence[MethodPart], server: str) -> None:
        """Write the missing answers of the methods of one server."""
        asked = {prompt.id: prompt for prompt in self.prompts}
        missing = {
            each.name: self.book.list_missing(each.name, self.points[each.name], list(asked)) for each in methods
        }
        if not any(missing.values()):
            return
        given = self.run.servers[server]
        command = [sys.executable, "-m", "tureen_serve", *(given.start or [])]
        with nullcontext(given.url) if given.url is not None else run_server(command) as url:
            for method in methods:
                tasks = [(point, asked[prompt]) for point, prompt in missing[method.name]]
                told, keep = self.run.base is not None, self._keeper(method.name)
                write_answers(method, str(url), tasks, self.grid, self.run.sampling, told, keep)

    def _keeper(self, method: str) -> Callable[[WrittenAnswer], None]:
        every = len(self.points[method]) * len(self.prompts)

        def keep(answer: WrittenAnswer) -> None:
            self.book.add_answer(answer)
            self.tell(f"{method}: writing", sum(place[0] == method for place in list(self.book.answers)), every)

        return keep

    def _reward(self) -> None:
        """Reward the answers that have no rewards yet, one point of a method at a time."""
        ids = [prompt.id for prompt in self.prompts]
        left = [
            bare
            for method, points in self.points.items()
            for point in points
            if (bare := self.book.list_bare(method, point, ids))
        ]
        if not left:
            return
        rewarder = open_rewarder(list(self.run.objectives.values()), self.folder / "rewarding")
        if rewarder.compares:
            raise RecipeError("objectives: a reward compares answers; name rewards that score single answers")
        for number, bare in enumerate(left, 1):
            self.book.add_rewards(self._reward_point(rewarder, bare))
            self.tell("rewarding", number, len(left))

    def _reward_point(self, rewarder: WeightedRewarder, answers: Sequence[WrittenAnswer]) -> list[AnswerRewards]:
        asked = {prompt.id: prompt for prompt in self.prompts}
        samples = [[Sample(each.prompt, 0, each.text, finished=each.finished)] for each in answers]
        found = rewarder.reward([asked[each.prompt] for each in answers], samples, ignore_progress)
        for answer, (reward,) in zip(answers, found, strict=True):
            if reward.total is None:
                raise RecipeError(f"{answer.method} at {answer.point}: an answer has no reward: {reward.error}")
        return [
            AnswerRewards(*answer.place, dict(reward.values)) for answer, (reward,) in zip(answers, found, strict=True)
        ]

    def _read_base(self, base: str) -> None:
        """Read the answers under the base whose log-probability the methods told."""
        asked = {prompt.id: prompt for prompt in self.prompts}
        unread = self.book.list_unread(list(asked))
        model = BaseLogprobs(base) if unread else None
        for number, answer in enumerate(unread, 1):
            assert model is not None
            self.book.add_reading(BaseReading(*answer.place, *model.read(asked[answer.prompt], answer.text)))
            self.tell("reading under the base", number, len(unread))

    def _judge(self, comparer: Comparer) -> None:
        """Compare each method with the baseline at each point. What the judge fails to say is not kept."""
        baseline = self.points[self.run.baseline]
        others = [method for method in self.points if method != self.run.baseline]
        tasks = [
            (method, point)
            for method in others
            for point in self.grid
            if find_point(self.points[method], point) and find_point(baseline, point)
        ]
        for number, (method, point) in enumerate(tasks, 1):
            asked = [prompt for prompt in self.prompts if (method, point, prompt.id) not in self.book.shares]
            pairs = [self._pair(method, point, prompt) for prompt in asked]
            judged = comparer.compare(pairs, ignore_progress) if pairs else []
            self.book.add_judged(
                [
                    JudgedAnswer(method, point, prompt.id, each.share)
                    for prompt, each in zip(asked, judged, strict=True)
                    if each.share is not None
                ]
            )
            self.tell("judging", number, len(tasks))

    def _pair(self, method: str, point: str, prompt: Prompt) -> Comparison:
        own, other = (
            self.book.answers[name, find_point(self.points[name], point) or point, prompt.id].text
            for name in (method, self.run.baseline)
        )
        return Comparison(prompt.messages, own, other)


def find_prompts(run: FrontRun) -> list[Prompt]:
    """Read the prompts of a recipe, each once.

    Raises:
        RecipeError: there are fewer than two.
    """
    texts = list(dict.fromkeys(read_prompts(Path(run.prompts) if run.prompts else PROMPTS)))[: run.count]
    if len(texts) < 2:
        raise RecipeError(f"prompts: {run.prompts or PROMPTS} has fewer than two prompts")
    return [
        Prompt(hashlib.sha256(text.encode()).hexdigest()[:12], ({"role": "user", "content": text},)) for text in texts
    ]


def claim_folder(folder: Path, run: FrontRun, prompts: Sequence[Prompt]) -> None:
    """Note what is measured. Methods may be added later; the settings of those that are there stay.

    Raises:
        RecipeError: the folder holds a measurement with other settings.
    """
    path = folder / "measured.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"methods": {}}
    own = {
        "sampling": run.sampling.model_dump(mode="json", exclude={"concurrency", "timeout"}),
        "prompts": [prompt.id for prompt in prompts],
        "objectives": {name: _describe_source(each) for name, each in run.objectives.items()},
        "baseline": run.baseline,
        "judge": _describe_source(run.judge) if run.judge else None,
        "base": run.base,
    }
    methods = {method.name: _describe_method(method, run) for method in run.methods}
    for name, value in [*own.items(), *((f"methods.{name}", value) for name, value in methods.items())]:
        group = known["methods"] if name.startswith("methods.") else known
        key = name.removeprefix("methods.")
        if key in group and group[key] != value:
            raise RecipeError(
                f"{name}: {folder} holds a measurement with other settings: name another output, or delete it"
            )
    folder.mkdir(parents=True, exist_ok=True)
    told = {**own, "methods": {**known["methods"], **methods}}
    path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def _describe_source(source: Any) -> dict[str, Any]:
    told: dict[str, Any] = source.model_dump(mode="json")
    manifest = Path(source.path) / MANIFEST if isinstance(source, ArtifactSource) else None
    if manifest is not None and manifest.is_file():
        told["manifest"] = hashlib.sha256(manifest.read_bytes()).hexdigest()[:16]
    return told


def _describe_method(method: MethodPart, run: FrontRun) -> dict[str, Any]:
    told = method.model_dump(mode="json", exclude={"name", "cost"})
    return {**told, "server": run.servers[method.server].model_dump(mode="json")}
