"""Judges: language models whose verdict is the token that they would write next."""

from typing import Any

from tureen_core.head_rule import HeadRule
from tureen_core.plain.checkpoint import Checkpoint
from tureen_core.plain.form import Form, FormReading
from tureen_core.plain.language_heads import LanguageModel, check_answer_token, find_token
from tureen_core.plain.options import PlainError, PlainOptions
from tureen_core.plain.tokenizer import prepare_tokenizer


def read_token_pair(tokenizer: Any, options: PlainOptions, default: tuple[str, str]) -> tuple[int, int]:
    """Find the ids of the two tokens that a form compares.

    Raises:
        PlainError: there are not two, they are the same, or one is not a token.
    """
    named = options.tokens or default
    if len(named) != 2:
        raise PlainError(f"tokens: this form compares two tokens, as in --tokens {','.join(default)}")
    first, second = (find_token(tokenizer, each) for each in named)
    if first == second:
        raise PlainError(f"tokens: {named[0]!r} and {named[1]!r} are the same token")
    return first, second


def refuse_output(options: PlainOptions) -> None:
    """Refuse another rule for rewards that are log-odds.

    Raises:
        PlainError: one was given.
    """
    if options.output is not None:
        raise PlainError("output: the rewards of this form are log-odds; leave it out")


def never_fits(checkpoint: Checkpoint) -> bool:  # noqa: ARG001
    """A language model's folder does not tell that it is a judge."""
    return False


def _read_pair_judge(checkpoint: Checkpoint, options: PlainOptions, tokenizer: Any) -> FormReading:
    """RLHFlow's pair model (arXiv 2405.07863): logit(A) - logit(B), as its model card computes it, without a BOS."""
    refuse_output(options)
    default = ("A", "B")
    first, second = read_token_pair(tokenizer, options, default)
    prepare_tokenizer(tokenizer, checkpoint, options, None)
    for text in options.tokens or default:
        check_answer_token(tokenizer, text)
    model = LanguageModel(checkpoint)
    rule = HeadRule(kind="layers", output="log-odds", softcap=model.softcap)
    rows = (second, first)
    return FormReading(
        labels=(),
        open_reference=lambda: model.open_reference(rows, rule),
        rule=rule,
        head=model.make_head(rows, rule),
        input="pair",
        bos="drop",
        extra_keys=(),
    )


PAIR_JUDGE = Form(
    "pair-judge",
    "by name only: a language model that answers A or B to RLHFlow's text of a pair; `--tokens A,B` names the two",
    never_fits,
    _read_pair_judge,
    ("tokens",),
)
