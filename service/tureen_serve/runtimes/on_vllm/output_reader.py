"""Read vLLM's outputs of one request as the deltas of a text.

vLLM gives token ids. They become text here, by the rules of the other runtime: vLLM's own decoder gives the prompt to
the text where the prompt breaks off inside a character.
"""

from collections.abc import Mapping
from typing import Any

from tureen.errors import ServerFault
from tureen_serve.runtimes.contract import Finish, GenerationJob, TextDelta, TokenLogprob
from tureen_serve.runtimes.text_stream import TokenNames, open_stream


class OutputReader:
    """Reads the outputs of one request.

    Args:
        tokenizer: the ``tokenizers`` backend of a fast tokenizer.
        names: the texts of its tokens.
    """

    def __init__(self, tokenizer: Any, names: TokenNames, job: GenerationJob) -> None:
        self._names = names
        self._job = job
        self._text = open_stream(tokenizer, job)
        self._grammar = job.sampling.grammar.start() if job.sampling.grammar else None

    def read(self, given: Any) -> TextDelta:
        """Make the delta of an output. Tokens after a stop string are left out.

        Raises:
            ServerFault: vLLM failed on the text, or wrote a token that the grammar does not allow.
            Unprocessable: the grammar has become too complex.
        """
        output, wants = given.outputs[0], self._job.sampling
        prompt = self._read_prompt(given.prompt_logprobs)
        if not wants.max_tokens:
            return TextDelta("", finish="length", prompt=prompt)
        finish = _read_finish(output.finish_reason)
        pieces: list[str] = []
        logprobs: list[TokenLogprob] = []
        count = 0
        for token in output.token_ids:
            if self._grammar is not None:  # vLLM only logs that a grammar has failed, and ends the text
                self._grammar.accept(token)
            if wants.logprobs is not None and output.logprobs:
                logprobs.append(self._read_logprob(token, output.logprobs[count], wants.logprobs))
            count += 1
            if finish != "stop" or count < len(output.token_ids) or wants.include_stop:
                pieces.append(self._text.push(token))
            if self._text.stopped:
                finish = "stop"
                break
        if finish:
            pieces.append(self._text.close())
        return TextDelta("".join(pieces), count, tuple(logprobs), finish, prompt=prompt)

    def _read_prompt(self, rows: Any) -> tuple[TokenLogprob, ...] | None:
        most = self._job.sampling.prompt_logprobs
        if not rows or most is None:
            return None
        found = zip(self._job.ids[1:], rows[1:], strict=True)
        return tuple(self._read_logprob(token, row, most) for token, row in found)

    def _read_logprob(self, token: int, row: Mapping[int, Any], alternatives: int) -> TokenLogprob:
        """Convert the log-probabilities of a token and of the likeliest ``alternatives``, without temperature."""
        best = sorted(row.items(), key=lambda item: item[1].rank)[:alternatives]
        top = tuple((self._names.find(other), other, float(each.logprob)) for other, each in best)
        chosen = row[token]
        return TokenLogprob(self._names.find(token), token, float(chosen.logprob), top, chosen.rank)


def _read_finish(reason: str | None) -> Finish | None:
    if reason is None:
        return None
    if reason in ("stop", "length"):
        return "stop" if reason == "stop" else "length"
    raise ServerFault(f"vLLM ended the text with {reason!r}", code="runtime_failed")
