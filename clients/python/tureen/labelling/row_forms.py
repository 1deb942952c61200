"""One writer for each form of preference data. A writer turns an item, its label and a pair into a row."""

from collections.abc import Callable, Sequence
from typing import Any

from tureen.errors import Unprocessable
from tureen.labelling import dialogues
from tureen.labelling.items import BESIDE, Item
from tureen.labelling.pairs import Pair, read_ranking, read_reward
from tureen.wire import Label, Message

Row = dict[str, Any]

EVERYTHING = "all"


def _full(item: Item, label: Label, pair: Pair) -> Row:  # noqa: ARG001
    return label.model_dump(exclude={"index"}, exclude_none=True)


def _ranking(item: Item, label: Label, pair: Pair) -> Row:  # noqa: ARG001
    return {"ranking": read_ranking(label)}


def _trl(item: Item, label: Label, pair: Pair) -> Row:
    prompt, answers = item.conversation()
    chosen, rejected = (_plain(answers[place]) for place in (pair.chosen, pair.rejected))
    return {"prompt": _plain(prompt), "chosen": chosen, "rejected": rejected, **_beside(item), **_judged(label, pair)}


def _trl_implicit(item: Item, label: Label, pair: Pair) -> Row:
    prompt, answers = item.conversation()
    chosen, rejected = (_plain([*prompt, *answers[place]]) for place in (pair.chosen, pair.rejected))
    return {"chosen": chosen, "rejected": rejected, **_beside(item), **_judged(label, pair)}


def _trl_text(item: Item, label: Label, pair: Pair) -> Row:
    _check_no_template_arguments(item)
    prompt, answers = item.conversation()
    text, (chosen, rejected) = dialogues.write_prompt_and_answers(
        prompt, [answers[pair.chosen], answers[pair.rejected]]
    )
    return {"prompt": text, "chosen": chosen, "rejected": rejected, **_judged(label, pair)}


def _text_score(item: Item, label: Label, pair: Pair) -> Row:
    """Write ``score`` as the reward above the worst one's: in this form a negative score is padding."""
    _check_no_template_arguments(item)
    prompt, answers = item.conversation()
    order = read_ranking(label)
    if not label.candidates:
        raise Unprocessable("a reward that compares answers gives none a score; take another form than text-score")
    rewards = [read_reward(label, place) for place in order]
    scores = [label.candidates[place].scores or {} for place in order]
    return {
        "text": [dialogues.write_conversation([*prompt, *answers[place]], "dsp") for place in order],
        "score": [reward - rewards[-1] for reward in rewards],
        "reward": rewards,
        "calibrated": {name: [each[name].calibrated for each in scores] for name in scores[0]},
        "raw": {name: [each[name].raw for each in scores] for name in scores[0]},
        "margin": pair.margin,
        "probability": pair.probability,
    }


def _rewardbench(item: Item, label: Label, pair: Pair) -> Row:
    _check_no_template_arguments(item)
    prompt, answers = item.conversation()
    models = item.models or [f"candidate-{place}" for place in range(len(answers))]
    texts = [_alone(answers[place], "assistant") for place in (pair.chosen, pair.rejected)]
    return {
        "prompt": _alone(prompt, "user"),
        "chosen": texts[0],
        "chosen_model": models[pair.chosen],
        "rejected": texts[1],
        "rejected_model": models[pair.rejected],
        "subset": item.subset or EVERYTHING,
        **_judged(label, pair),
    }


def _alone(messages: Sequence[Message], role: str) -> str:
    if len(messages) != 1 or messages[0].plain() != {"role": role, "content": messages[0].text}:
        raise Unprocessable(
            "RewardBench has prompts of one user turn, and answers of one message that is only text; choose trl"
        )
    return messages[0].text


def _check_no_template_arguments(item: Item) -> None:
    if held := next(iter(_beside(item)), None):
        raise Unprocessable(f"this format has no place for `{held}`; choose trl or trl-implicit", param=held)


def _judged(label: Label, pair: Pair) -> Row:
    row: Row = {"margin": pair.margin, "probability": pair.probability}
    if label.candidates:
        scores = {"chosen_score": read_reward(label, pair.chosen), "rejected_score": read_reward(label, pair.rejected)}
        row = {**scores, **row}
    return row if pair.orders is None else {**row, "orders": list(pair.orders)}


def _beside(item: Item) -> Row:
    """Return the tools and template arguments, under TRL's names."""
    return item.model_dump(include=BESIDE, exclude_none=True)


def _plain(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [message.plain() for message in messages]


WRITERS: dict[str, Callable[[Item, Label, Pair], Row]] = {
    "full": _full,
    "ranking": _ranking,
    "trl": _trl,
    "trl-implicit": _trl_implicit,
    "trl-text": _trl_text,
    "text-score": _text_score,
    "rewardbench": _rewardbench,
}
