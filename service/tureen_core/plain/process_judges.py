"""Process reward models that judge a step by the token + or - that they would write."""

from dataclasses import replace
from typing import Any

from tureen_core.plain.checkpoint import Checkpoint
from tureen_core.plain.form import Form, FormReading
from tureen_core.plain.judges import never_fits, read_token_pair, refuse_output
from tureen_core.plain.language_heads import LOG_ODDS, LanguageModel, check_answer_token
from tureen_core.plain.options import PlainOptions
from tureen_core.plain.process_heads import choose_mark, set_bare_template
from tureen_core.plain.tokenizer import prepare_tokenizer

SIGNS = ("-", "+")


def _read_marked(checkpoint: Checkpoint, options: PlainOptions, tokenizer: Any) -> FormReading:
    """Math-Shepherd (arXiv 2312.08935): question and steps in one text without a frame, ``ки`` after each step."""
    refuse_output(options)
    rows = read_token_pair(tokenizer, options, SIGNS)
    mark = choose_mark(tokenizer, options, " ки")
    set_bare_template(tokenizer, checkpoint, options, " ")
    opened = tokenizer("?")["input_ids"]
    return replace(
        LanguageModel(checkpoint).read_tokens(rows, LOG_ODDS),
        input="steps",
        bos="add" if opened[0] == tokenizer.bos_token_id else "none",
        prepared=True,
        step_mark=mark,
        step_layout="text",
        step_break="\n",
    )


def _read_turns(checkpoint: Checkpoint, options: PlainOptions, tokenizer: Any) -> FormReading:
    """RLHFlow's process model (RLHF-Reward-Modeling, ``math-rm``): steps are a user's turns, answered by a mark."""
    refuse_output(options)
    rows = read_token_pair(tokenizer, options, SIGNS)
    prepare_tokenizer(tokenizer, checkpoint, options, None)
    for text in options.tokens or SIGNS:
        check_answer_token(tokenizer, text)
    read = LanguageModel(checkpoint).read_tokens(rows, LOG_ODDS)
    return replace(read, input="steps", step_mark=options.step_mark or SIGNS[1])


PRM_TOKENS = Form(
    "prm-tokens",
    "by name only: a language model read at a mark after each step, `--step-mark ' ки' --tokens=-,+` (Math-Shepherd)",
    never_fits,
    _read_marked,
    ("tokens", "step_mark"),
)
PRM_TURNS = Form(
    "prm-turns",
    "by name only: a language model that answers + or - to each step, a turn of its own (RLHFlow's PRM)",
    never_fits,
    _read_turns,
    ("tokens", "step_mark"),
)
