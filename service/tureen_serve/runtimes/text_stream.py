"""Turn token ids into text, one id at a time, and return only characters that later tokens cannot change.

An incomplete UTF-8 character is held back, and so are characters that may be the beginning of a stop string. Of several
stop strings the one counts that is complete first.
"""

from collections.abc import Sequence
from typing import Any

from tokenizers.decoders import DecodeStream

from tureen_serve.runtimes.contract import GenerationJob

CONTEXT = 4  # ids of the prompt that the decoder sees before the text
LOOKED_AT = 32  # ids at the end of a prompt that may be parts of characters
SLOW_TOKENIZER = "streaming needs a fast tokenizer: save the base with a tokenizer.json"
BROKEN = "\ufffd"
INVALID_PREFIX = "Invalid prefix encountered"  # how the decoder says that bytes which it took for a text are none


class TextStream:
    """Assembles one text.

    Args:
        tokenizer: the ``tokenizers`` backend of a fast Hugging Face tokenizer.
        stop: strings that end the text.
        prompt: the ids before the text. The last of them decide whether the text begins with a space.
        least: stop strings count that end after so many tokens.
        with_stop: whether the stop string is part of the text.
        with_specials: whether special tokens are.

    Attributes:
        stopped: whether a stop string is complete.
    """

    def __init__(
        self,
        tokenizer: Any,
        stop: Sequence[str] = (),
        prompt: Sequence[int] = (),
        *,
        least: int = 0,
        with_stop: bool = False,
        with_specials: bool = False,
    ) -> None:
        self.stopped = False
        self._tokenizer = tokenizer
        self._stop = tuple(filter(None, stop))
        self._least, self._with_stop, self._skip = least, with_stop, not with_specials
        self._context = find_context(tokenizer, prompt, self._skip)
        self._decoder = DecodeStream(list(self._context), skip_special_tokens=self._skip)
        self._held = ""
        self._pushed = 0
        self._free = 0  # held characters of the first tokens, in which no stop string counts

    def push(self, token: int) -> str:
        """Add a token and return the characters that are now final. Sets ``stopped`` if a stop string is complete."""
        self._held += self._decode(token)
        self._pushed += 1
        if self._pushed <= self._least:
            self._free = len(self._held)
        end = self._find_end()
        if end is not None:
            self.stopped = True
            return self._release(end)
        return self._release(len(self._held) - self._count_doubtful())

    def close(self) -> str:
        """End the text and return the characters that were held back, unless a stop string ended it."""
        return "" if self.stopped else self._release(len(self._held))

    def _decode(self, token: int) -> str:
        try:
            return self._decoder.step(self._tokenizer, token) or ""
        except Exception as error:  # the library raises no kind of its own
            if not str(error).startswith(INVALID_PREFIX):
                raise
        self._decoder = DecodeStream(list(self._context), skip_special_tokens=self._skip)
        return BROKEN + (self._decoder.step(self._tokenizer, token) or "")

    def _find_end(self) -> int | None:
        """Find where the text ends among the held characters; None if no stop string is complete."""
        found = []
        for stop in self._stop:
            start = self._held.find(stop, max(0, self._free - len(stop) + 1))
            if start >= 0:
                found.append((start + len(stop), start))
        return min(found)[0 if self._with_stop else 1] if found else None

    def _release(self, length: int) -> str:
        text, self._held = self._held[:length], self._held[length:]
        self._free = max(0, self._free - length)
        return text

    def _count_doubtful(self) -> int:
        """Measure the longest end of the held text that is the beginning of a stop string, in characters."""
        longest = min(len(self._held), max(map(len, self._stop), default=1) - 1)
        for length in range(longest, 0, -1):
            end = self._held[-length:]
            if any(stop.startswith(end) for stop in self._stop):
                return length
        return 0


class TokenNames:
    """The texts of single tokens, special ones too.

    Args:
        tokenizer: as of :class:`TextStream`.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, str] = {}

    def find(self, token: int) -> str:
        """Return the text of a token."""
        if token not in self._known:
            self._known[token] = self._tokenizer.decode([token], skip_special_tokens=False)
        return self._known[token]


def open_stream(tokenizer: Any, job: GenerationJob) -> TextStream:
    """Begin the text of a job."""
    wants = job.sampling
    return TextStream(
        tokenizer,
        wants.stop,
        job.ids,
        least=wants.min_tokens,
        with_stop=wants.include_stop,
        with_specials=not wants.skip_special,
    )


def find_context(tokenizer: Any, prompt: Sequence[int], skip_specials: bool) -> list[int]:
    """Find the last ids of a prompt that the decoder is to see: those before a character that the prompt breaks off.

    The decoder would give the broken character, and all that it sees before it, to the text. So the text begins with
    its own bytes.
    """
    for end in range(len(prompt), max(len(prompt) - LOOKED_AT, 0), -1):
        context = list(prompt[max(end - CONTEXT, 0) : end])
        if not tokenizer.decode(context, skip_special_tokens=skip_specials).endswith(BROKEN):
            return context
    return []
