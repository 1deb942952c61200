"""What the report of a run tells of a policy that learns from its own answers: its steps, its rewards, its answers."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from tureen_train.reports.document import Page, escape_markdown
from tureen_train.reports.policy_figures import FIGURES, choose_steps, name_rewards, read_policy_steps
from tureen_train.reports.run_folder import RunFolder, format_cell

SHOWN = 3  # prompts whose answers the page shows
MOMENTS = ("before", "after")
MOST_CHARACTERS = 600  # of a prompt or an answer


def write_policy_sections(page: Page, run: RunFolder) -> None:
    """Write the sections; none that the run has nothing for."""
    _steps(page, run)
    _rewards(page, run.document("account.json"))
    _answers(page, run.rows("held_answers.jsonl"))


def _steps(page: Page, run: RunFolder) -> None:
    steps = read_policy_steps(run.history)
    if not steps.numbers:
        return
    places = choose_steps(steps)
    page.heading("Answers in training")
    page.text(
        f"Means over the answers of a {steps.unit}, which the policy wrote before it learnt from them: of the first, "
        "the middle and the last entry of the log. An entry that tells of several steps has their mean."
    )
    rewards = {f"reward: {name}": values for name, values in name_rewards(steps).items()}
    titles = {each.key: f"{each.title}, {each.unit}" for each in FIGURES}
    figures = {titles[key]: values for key, values in steps.figures.items()}
    page.table(
        ("figure", *(f"{steps.unit} {steps.numbers[at]}" for at in places)),
        [(title, *_cells([values[at] for at in places])) for title, values in {**rewards, **figures}.items()],
    )


def _cells(values: Sequence[float]) -> list[str]:
    return ["–" if value != value else format_cell(value) for value in values]


def _rewards(page: Page, account: Mapping[str, Any]) -> None:
    about = account.get("rewards")
    if not about:
        return
    page.heading("Rewards")
    lost = about["without_reward"]
    page.text(
        f"{about['answers']:,} answers were to be rewarded, those to held-out prompts among them; "
        + (f"{lost:,} have no reward, and nothing is learnt from them." if lost else "none is without a reward.")
    )
    rows = [
        (name, format_cell(cut), _list_counts(about["failed"].get(name)), _list_counts(about["further"].get(name)))
        for name, cut in about["truncated"].items()
    ]
    page.table(("reward", "texts cut", "failed", "also counted"), rows, words=True)


def _list_counts(counts: Mapping[str, int] | None) -> str:
    return "; ".join(f"{count:,} {reason}" for reason, count in (counts or {}).items()) or "none"


def _answers(page: Page, rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        return
    page.heading("Answers before and after training")
    page.text(
        f"To {min(SHOWN, len(rows))} of the {len(rows):,} held-out prompts, drawn by a hash of their names, with the "
        "same random numbers. All stand in `held_answers.jsonl`."
    )
    names = list(dict.fromkeys(name for row in rows for when in MOMENTS for name in row[when]["rewards"]))
    told = names if len(names) > 1 else []
    for row in sorted(rows, key=_hash)[:SHOWN]:
        page.text(f"**{escape_markdown(_shorten(_ask(row)))}**")
        page.table(
            ("", "reward", *told, "answer"),
            [(when, *_list_rewards(row[when], told), _tell(row[when])) for when in MOMENTS],
            words=True,
        )


def _hash(row: Mapping[str, Any]) -> bytes:
    return hashlib.sha256(f"{row['file']} {row['id']}".encode()).digest()


def _ask(row: Mapping[str, Any]) -> str:
    """The last turn of a prompt."""
    content = row["prompt"][-1]["content"]
    return content if isinstance(content, str) else str(content)


def _list_rewards(answer: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return [format_cell(value) for value in (answer["total"], *(answer["rewards"].get(name) for name in names))]


def _tell(answer: Mapping[str, Any]) -> str:
    text = _shorten(answer["text"]) or "(empty)"
    return text if answer["finished"] else f"{text} (no end)"


def _shorten(text: str) -> str:
    told = " ".join(text.split())
    return told if len(told) <= MOST_CHARACTERS else f"{told[:MOST_CHARACTERS]}…"
