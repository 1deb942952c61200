"""What the figures of a run mean, and comments on those that show a fault. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from tureen_train.reports.document import escape_markdown

FOLLOWS_LENGTH = 0.7  # half of a reward's variance within prompts
GLOSSARY = {
    "accuracy": "the share of comparable pairs whose better answer has the higher reward; equal rewards count ½",
    "best": "the share of prompts whose highest reward belongs to a best answer",
    "margin": "the better answer's reward minus the worse one's, on average",
    "length_correlation": "Pearson's correlation of reward and length within prompts",
    "reward_chosen": "the mean implicit reward β (log π − log π_ref) of better answers; reward_rejected of worse",
    "top1": "the share of the answers' tokens that the policy finds the likeliest",
    "reward": "the weighted sum of the rewards, averaged over the answers that have one; reward_std is the deviation",
    "failed": "the share of the answers without a reward; empty: without text; unfinished: without an end",
    "length": "tokens of an answer, with its end mark",
    "kl_per_token": "log π − log π_ref of the answers' tokens, in nats",
    "distinct_2": "the share of distinct pairs of words in an answer",
    "r2": "the explained share of the ratings' variance, averaged over the ratings; always saying their mean has 0",
    "spearman": "the rank correlation of rewards and ratings, averaged over the ratings",
    "rmse": "the root of the mean squared error, in the rating's own unit",
    "label_mean": "the mean of the training ratings; label_std is their deviation",
    "ece": "the expected calibration error; ace and mce are the average and the maximum one",
}


def explain_figures(names: Sequence[str]) -> list[str]:
    """Explain the figures that a table has."""
    return [f"{name}: {meaning}" for name, meaning in GLOSSARY.items() if _is_told(name, names)]


def comment_figures(figures: Mapping[str, Any]) -> list[str]:
    """Comment on the figures of an evaluation file; nothing if none of them shows a fault."""
    return [told for told in (_judge_length(figures), _judge_ratings(figures)) if told]


def _is_told(figure: str, names: Sequence[str]) -> bool:
    """Whether a figure is in the table, for all objectives or for one, whose name then stands before it."""
    return any(name == figure or name.endswith(f"_{figure}") for name in names)


def _judge_length(figures: Mapping[str, Any]) -> str:
    """Comment on how much of a reward follows the length of the answers; empty if it is little or unknown."""
    follows = figures.get("length_correlation")
    if not isinstance(follows, float) or abs(follows) < FOLLOWS_LENGTH:
        return ""
    side = "longer" if follows > 0 else "shorter"
    return (
        f"the reward follows the length of the answers (correlation {follows:.2f}): {side} answers win. "
        "Balance the lengths in the data, or train with `loss.method: odin` or a constraint by `length_ratio`. "
        "`tureen-train evaluate` tells the accuracy by length."
    )


def _judge_ratings(figures: Mapping[str, Any]) -> str:
    """Comment on ratings that the reward does not predict; empty if there are none."""
    known = {name: value for name, value in figures.items() if name.endswith("_r2") and isinstance(value, int | float)}
    vain = [name.removesuffix("_r2") for name, value in known.items() if value <= 0]
    if not vain:
        return ""
    return (
        f"{escape_markdown(', '.join(vain))}: predicted no better than by always saying the mean rating. "
        "Train for longer, or on more answers."
    )
