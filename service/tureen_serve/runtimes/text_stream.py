"""Turn token ids into text, one id at a time, and return only characters that later tokens cannot change.

An incomplete UTF-8 character is held back, and so are characters that may be the beginning of a stop string. The stop
string itself is not part of the text.
"""

from collections.abc import Sequence
from typing import Any

from tokenizers.decoders import DecodeStream

CONTEXT = 4  # ids of the prompt that the decoder sees before the text


class TextStream:
    """Assembles one text.

    Args:
        tokenizer: the ``tokenizers`` backend of a fast Hugging Face tokenizer.
        stop: strings that end the text.
        prompt: the ids before the text. The last of them decide whether the text begins with a space.

    Attributes:
        stopped: whether a stop string is complete.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = (), prompt: Sequence[int] = ()) -> None:
        self.stopped = False
        self._tokenizer = tokenizer
        self._stop = tuple(filter(None, stop))
        self._decoder = DecodeStream(list(prompt[-CONTEXT:]), skip_special_tokens=True)
        self._held = ""

    def push(self, token: int) -> str:
        """Add a token and return the characters that are now final. Sets ``stopped`` if a stop string is complete."""
        self._held += self._decoder.step(self._tokenizer, token) or ""
        found = [start for start in (self._held.find(stop) for stop in self._stop) if start >= 0]
        if found:
            self.stopped = True
            return self._release(min(found))
        return self._release(len(self._held) - self._count_doubtful())

    def close(self) -> str:
        """End the text and return the characters that were held back, unless a stop string ended it."""
        return "" if self.stopped else self._release(len(self._held))

    def _release(self, length: int) -> str:
        text, self._held = self._held[:length], self._held[length:]
        return text

    def _count_doubtful(self) -> int:
        """Measure the longest end of the held text that is the beginning of a stop string, in characters."""
        longest = min(len(self._held), max(map(len, self._stop), default=1) - 1)
        for length in range(longest, 0, -1):
            end = self._held[-length:]
            if any(stop.startswith(end) for stop in self._stop):
                return length
        return 0
