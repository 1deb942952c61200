"""Draw the next token of each running text from its logits, and make its delta.

All memory of a draw is taken before the text's random generator is used. So a draw for which there was no memory can be
made again, and gives the token that it would have given.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tureen.errors import ServerFault, TureenError
from tureen_serve.runtimes.contract import Finish, TextDelta, TokenLogprob
from tureen_serve.runtimes.on_transformers.running_text import RunningText
from tureen_serve.runtimes.text_stream import TokenNames

Said = list[tuple[Hashable, TextDelta | TureenError]]


@dataclass(frozen=True, slots=True)
class DrawnToken:
    """A token id ``[1]``, and what its log-probabilities need: the logsumexp and the top logits."""

    token: Tensor
    scale: Tensor | None = None
    top: tuple[Tensor, Tensor] | None = None


class Drawer:
    """Draws tokens and turns them into text.

    Args:
        backend: the ``tokenizers`` backend of a fast tokenizer.
        ends: ids that end a text.
        is_out_of_memory: tells whether an error says that memory has run out.
    """

    def __init__(self, backend: Any, ends: frozenset[int], is_out_of_memory: Callable[[BaseException], bool]) -> None:
        self._ends = ends
        self._is_out_of_memory = is_out_of_memory
        self._names = TokenNames(backend)

    def draw(self, texts: Sequence[RunningText], logits: Sequence[Tensor]) -> tuple[Said, list[RunningText]]:
        """Draw a token of every text from its row of the float32 logits ``[B, V]``.

        Returns:
            A delta of each text, or an error if its logits are not finite or its grammar fails; and the texts for which
            there was no memory, which are not changed.
        """
        said: Said = []
        drawn: list[tuple[RunningText, Tensor, DrawnToken]] = []
        tired: list[RunningText] = []
        for running, (row, sound) in zip(texts, _list_rows(logits), strict=True):
            if not sound or (running.readings is not None and not running.readings.sound.all()):
                running.over = True
                fault = ServerFault("the model computed logits that are not finite", code="non_finite_logits")
                said.append((running.key, fault))
                continue
            if not running.job.sampling.max_tokens:
                running.over = True
                said.append((running.key, TextDelta("", finish="length", prompt=self._take_readings(running))))
                continue
            found = self._try_draw(running, row)
            if found is None:
                tired.append(running)
            elif isinstance(found, TureenError):
                running.over = True
                said.append((running.key, found))
            else:
                drawn.append((running, row, found))
        tokens = torch.cat([found.token for _, _, found in drawn]).tolist() if drawn else []
        for (running, row, found), token in zip(drawn, tokens, strict=True):
            try:
                said.append((running.key, self._make_delta(running, found, token, row)))
            except TureenError as error:
                running.over = True
                said.append((running.key, error))
        return said, tired

    def _try_draw(self, running: RunningText, logits: Tensor) -> DrawnToken | TureenError | None:
        """Draw a token from logits ``[V]``; None if there is no memory for it."""
        try:
            return _draw_token(running, logits)
        except TureenError as error:
            return error
        except Exception as error:
            if not self._is_out_of_memory(error):
                raise
            return None

    def _make_delta(self, running: RunningText, drawn: DrawnToken, token: int, logits: Tensor) -> TextDelta:
        """Add a drawn token to its text. The text is over if the token ends it."""
        running.drawn.append(token)
        if running.grammar is not None:
            running.grammar.accept(token)
        finish: Finish | None = None
        wants = running.job.sampling
        if token in wants.stop_tokens or (token in self._ends and not wants.ignore_eos):
            shown = running.text.push(token) if wants.include_stop else ""
            text, finish = shown + running.text.close(), "stop"
        else:
            running.sampler.note(token)
            text = running.text.push(token)
            if running.text.stopped:
                finish = "stop"
            elif len(running.drawn) == wants.max_tokens:
                text, finish = text + running.text.close(), "length"
        running.over = finish is not None
        return TextDelta(text, 1, self._logprobs(drawn, token, logits), finish, prompt=self._take_readings(running))

    def _take_readings(self, running: RunningText) -> tuple[TokenLogprob, ...] | None:
        """List the log-probabilities of a prompt's tokens, once; None if there are none to give."""
        found, running.readings = running.readings, None
        if found is None:
            return None
        top = running.job.sampling.prompt_logprobs or 0
        columns = (found.logprobs, found.ranks, found.top_logprobs[:, :top], found.top_ids[:, :top])
        listed = zip(running.job.ids[1:], *(each.tolist() for each in columns), strict=True)
        return tuple(
            TokenLogprob(self._names.find(token), token, value, self._list_top(ids, values), rank)
            for token, value, rank, values, ids in listed
        )

    def _logprobs(self, drawn: DrawnToken, token: int, logits: Tensor) -> tuple[TokenLogprob, ...]:
        """Compute the log-probabilities to report, before penalties, bias, temperature and nucleus."""
        if drawn.scale is None or drawn.top is None:
            return ()
        top = self._list_top(drawn.top[1].tolist(), (drawn.top[0] - drawn.scale).tolist())
        return (TokenLogprob(self._names.find(token), token, float(logits[token] - drawn.scale), top),)

    def _list_top(self, ids: Sequence[int], values: Sequence[float]) -> tuple[tuple[str, int, float], ...]:
        return tuple((self._names.find(token), token, value) for token, value in zip(ids, values, strict=True))


def _draw_token(running: RunningText, logits: Tensor) -> DrawnToken:
    """Draw a token from logits ``[V]``. The text is not changed, except for its random generator."""
    if running.grammar is not None:
        allowed = torch.from_numpy(running.grammar.list_allowed()[: len(logits)]).to(logits.device)
        logits = logits.masked_fill(~allowed, -torch.inf)
    alternatives = running.job.sampling.logprobs
    if alternatives is None:
        return DrawnToken(running.sampler.draw(logits))
    scale, top = logits.logsumexp(-1), logits.topk(alternatives)
    return DrawnToken(running.sampler.draw(logits), scale, (top.values, top.indices))


def _list_rows(logits: Sequence[Tensor]) -> list[tuple[Tensor, bool]]:
    """List the rows ``[V]`` of logits ``[B, V]``, each with whether it is finite. No copy is made."""
    rows: list[tuple[Tensor, bool]] = []
    for part in logits:
        least, most = torch.aminmax(part, dim=1)
        rows += zip(part, (least.isfinite() & most.isfinite()).tolist(), strict=True)
    return rows
