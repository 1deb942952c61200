"""An evaluation: load the items, score their answers, compute the figures, and write the folder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tureen.records.schema import BadOption
from tureen_train.evaluation import pairwise_models, rewardbench, rewardbench2
from tureen_train.evaluation.evaluation_page import write_evaluation_page
from tureen_train.evaluation.items import Item, LoadedItems, read_pairs
from tureen_train.evaluation.judging import Findings, judge_items
from tureen_train.evaluation.objectives import ScoredItem
from tureen_train.evaluation.results import Evaluation, describe_data, record_answers, write_results
from tureen_train.evaluation.scorers import Scorer
from tureen_train.networks.reward_reader import Done, ignore_progress

Judge = Callable[[Sequence[Item], Sequence[Sequence[float]], Sequence[Sequence[float]]], Findings]


@dataclass(frozen=True)
class Bench:
    """How a benchmark's files are read, and how its figures are computed from the items' rewards and logits."""

    read: Callable[[Sequence[Path]], LoadedItems]
    judge: Judge


BENCHES = {
    "pairs": Bench(read_pairs, judge_items),
    "rewardbench": Bench(rewardbench.read_rewardbench, rewardbench.judge_rewardbench),
    "rewardbench2": Bench(rewardbench2.read_rewardbench2, rewardbench2.judge_rewardbench2),
}


def load_items(
    bench: str, paths: Sequence[Path], form: str = "auto", domain: str | None = None, **options: Any
) -> LoadedItems:
    """Read the items of a benchmark.

    Args:
        bench: a name of :data:`BENCHES`.
        paths: the files.
        form: of pairs: their form.
        domain: of pairs: the preferred domain.
        options: of pairs: further arguments of :class:`tureen.records.reading.Reading`.

    Raises:
        BadOption: the benchmark is unknown, or it has fixed columns and a form or domain is given.
        DataError: a file cannot be read.
    """
    if bench not in BENCHES:
        raise BadOption(f"--bench: unknown benchmark {bench!r}; use one of {', '.join(BENCHES)}")
    if bench == "pairs":
        return read_pairs(paths, form, domain, **options)
    if form != "auto" or domain is not None or any(options.values()):
        raise BadOption(f"--form and --domain are for --bench pairs only; {bench} has fixed columns: leave them out")
    return BENCHES[bench].read(paths)


def evaluate_model(
    scorer: Scorer, loaded: LoadedItems, bench: str, folder: Path, done: Done = ignore_progress
) -> Evaluation:
    """Score all items, compute the figures, and write ``results.json``, ``scores.jsonl`` and the report with its plots.

    Args:
        done: called with the number of further answers that are scored.
    """
    scored = scorer.score(loaded.items, done)
    rewards, logits = [each.rewards for each in scored], [each.logits for each in scored]
    findings = BENCHES[bench].judge(loaded.items, rewards, logits)
    rows = [record_answers(*each) for each in zip(loaded.items, scored, findings.credits, strict=True)]
    notes = [*loaded.notes, *findings.notes, *pairwise_models.describe_comparisons(scored), *_warnings(scored, scorer)]
    notes += find_trained_files(scorer, loaded)
    figures = {**findings.figures, **pairwise_models.measure_position_bias(loaded.items, scored)}
    data = describe_data(loaded, rows)
    made = Evaluation(folder, bench, scorer.about, data, figures, findings.tables, notes, rows)
    write_results(made)
    write_evaluation_page(made)
    return made


def find_trained_files(scorer: Scorer, loaded: LoadedItems) -> list[str]:
    """Warn of each file that the model was trained on. Files are equal if their bytes are."""
    return [
        f"{name}: the model was trained on this file, so the figures say nothing about new data"
        for name, about in loaded.files.items()
        if about["sha256"] in scorer.trained_on
    ]


def _warnings(scored: Sequence[ScoredItem], scorer: Scorer) -> list[str]:
    cut = sum(sum(each.truncated) for each in scored)
    found = []
    if cut:
        answers = sum(len(each.rewards) for each in scored)
        compared = isinstance(scored[0], pairwise_models.ComparedItem)
        what = "answers are in pairs that were cut" if compared else "texts were cut"
        found.append(f"{cut} of {answers} {what} to {scorer.about['max_length']} tokens")
    if len({reward for each in scored for reward in each.rewards}) == 1:
        found.append("all rewards are equal: the model does not distinguish the answers")
    return found
