"""Judges: language models whose verdict is the token that they would write next."""

from dataclasses import replace
from typing import Any

from tureen_core.head_rule import HeadRule
from tureen_core.plain.checkpoint import Checkpoint
from tureen_core.plain.form import Form, FormReading
from tureen_core.plain.language_heads import LOG_ODDS, LanguageModel, check_answer_token, find_token
from tureen_core.plain.options import PlainError, PlainOptions
from tureen_core.plain.templates import TEMPLATES, write_verifier_template
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
    return replace(LanguageModel(checkpoint).read_tokens((second, first), LOG_ODDS), input="pair", bos="drop")


PAIR_JUDGE = Form(
    "pair-judge",
    "by name only: a language model that answers A or B to RLHFlow's text of a pair; `--tokens A,B` names the two",
    never_fits,
    _read_pair_judge,
    ("tokens",),
)


def _read_verifier(checkpoint: Checkpoint, options: PlainOptions, tokenizer: Any) -> FormReading:
    """A generative verifier (GenRM, arXiv 2408.15240): P(Yes) after the conversation and the verifier's question."""
    named = options.tokens or ("Yes",)
    if len(named) > 2:
        raise PlainError("tokens: a verifier has one token, as --tokens Yes, or two, as --tokens No,Yes")
    rule = _make_verifier_rule(options, len(named))
    prepare_tokenizer(tokenizer, checkpoint, options, None)
    if options.template is None or options.template in TEMPLATES:
        tokenizer.chat_template = write_verifier_template(tokenizer.chat_template)
    for text in named:
        check_answer_token(tokenizer, text, finished=True)
    good = find_token(tokenizer, named[-1])
    if len(named) == 2:
        rows = list(read_token_pair(tokenizer, options, ("No", "Yes")))
        rows = rows if rule.output == "log-odds" else rows[::-1]
    model = LanguageModel(checkpoint)
    if len(named) == 1:
        rows = [good, *(each for each in range(model.vocabulary) if each != good)]
    return replace(model.read_tokens(rows, rule), prepared=True)


def _make_verifier_rule(options: PlainOptions, tokens: int) -> HeadRule:
    output = options.output or "softmax"
    if output not in ("softmax", "log-odds") or (output == "log-odds" and tokens == 1):
        raise PlainError(
            "output: a verifier's reward is the probability of its token (softmax); with two tokens, as --tokens "
            "No,Yes, also their log-odds"
        )
    return HeadRule(kind="layers", output=output, kept=1)


VERIFIER = Form(
    "gen-verifier",
    "by name only: a language model whose reward is the probability that it writes Yes; `--tokens No,Yes` compares two",
    never_fits,
    _read_verifier,
    ("tokens",),
)
