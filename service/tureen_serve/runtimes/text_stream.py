"""From token ids, one at a time, to characters that are sure to stay.

Half a UTF-8 character is never shown, nor are characters that may still become a stop string; the stop string itself
is no part of the text.
"""

from collections.abc import Sequence
from typing import Any

from tokenizers.decoders import DecodeStream

CONTEXT = 4


class TextStream:
    """Assembles one text.

    Args:
        tokenizer: the ``tokenizers`` backend of a fast Hugging Face tokenizer.
        stop: strings that end the text.
        prompt: ids before the text; the last few decide whether a leading space is part of it.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = (), prompt: Sequence[int] = ()) -> None:
        self.stopped = False
        self._tokenizer = tokenizer
        self._stop = tuple(filter(None, stop))
        self._decoder = DecodeStream(list(prompt[-CONTEXT:]), skip_special_tokens=True)
        self._held = ""

    def push(self, token: int) -> str:
        """Characters that this token makes sure; sets ``stopped`` when a stop string is complete."""
        self._held += self._decoder.step(self._tokenizer, token) or ""
        found = [place for place in (self._held.find(stop) for stop in self._stop) if place >= 0]
        if found:
            self.stopped = True
            return self._release(min(found))
        return self._release(len(self._held) - self._doubtful())

    def close(self) -> str:
        """What was held back for a stop string that did not come."""
        return "" if self.stopped else self._release(len(self._held))

    def _release(self, length: int) -> str:
        text, self._held = self._held[:length], self._held[length:]
        return text

    def _doubtful(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        longest = min(len(self._held), max(map(len, self._stop), default=1) - 1)
        for length in range(longest, 0, -1):
            end = self._held[-length:]
            if any(stop.startswith(end) for stop in self._stop):
                return length
        return 0
