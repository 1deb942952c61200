"""How the tokens of a text are sampled, and how the text ends: what every runtime is given."""

from dataclasses import dataclass

from tureen_serve.runtimes.grammars import Grammar


@dataclass(frozen=True, slots=True)
class Sampling:
    """The order is vLLM's: grammar, bias, penalties, temperature, ``min_p``, ``top_k``, ``top_p``, a draw.

    Attributes:
        max_tokens: with 0 a prompt is only read.
        min_tokens: before so many tokens nothing ends the text, unless nothing else may follow by its grammar.
        ignore_eos: whether the model's own marks of the end do not end the text.
        stop, stop_tokens: texts and ids that end the text.
        include_stop: whether what ends the text is part of it.
        skip_special: whether special tokens are no part of the text.
        top_k: so many of the likeliest tokens may be drawn; 0 for all.
        min_p: tokens may be drawn that have at least this share of the likeliest token's probability.
        repetition_penalty: divides the positive logits of all tokens of the prompt and of the text, and multiplies the
            negative ones.
        logprobs, prompt_logprobs: how many alternatives to report for each token of the text and of the prompt.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    stop: tuple[str, ...] = ()
    stop_tokens: tuple[int, ...] = ()
    include_stop: bool = False
    skip_special: bool = True
    logprobs: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    prompt_logprobs: int | None = None
    grammar: Grammar | None = None
