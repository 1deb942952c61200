"""The special tokens around a text: BOS and EOS, or those that the tokenizer itself puts around one text or two.

An encoder reads ``[CLS] text [SEP]`` or ``[CLS] prompt [SEP] answer [SEP]``. Which tokens these are, and which segment
each token belongs to, is learned from the tokenizer's own encoding of a sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from tureen.errors import Unprocessable
from tureen_core.reading import Reading

Side = Literal["left", "right"]
SAMPLE = "Why, in 1492, did 3 ships sail?"


class SpecialTokens(Protocol):
    """What stands around the ids of a text."""

    def open_ids(self, ids: list[int]) -> list[int]:
        """Put the first special tokens before ids that do not begin with them."""

    def close_ids(self, ids: list[int]) -> list[int]:
        """Put the last special tokens after ids that do not end with them."""

    def cut_ids(self, ids: list[int], limit: int, side: Side) -> list[int]:
        """Drop ids at a side of a closed text, down to ``limit``."""


class EndTokens:
    """BOS and EOS, as a reading says."""

    def __init__(self, tokenizer: Any, reading: Reading) -> None:
        self._tokenizer = tokenizer
        self._drops = reading.bos == "drop"
        self._bos = tokenizer.bos_token_id if reading.bos == "add" else None
        self._eos = tokenizer.eos_token_id if reading.eos == "append" else None
        self._spaces: dict[int, bool] = {}

    def open_ids(self, ids: list[int]) -> list[int]:
        """Put BOS first, unless it stands there; or drop it."""
        if self._drops:
            return ids[1:] if ids[:1] == [self._tokenizer.bos_token_id] else ids
        return [self._bos, *ids] if self._bos is not None and ids[:1] != [self._bos] else ids

    def close_ids(self, ids: list[int]) -> list[int]:
        """Put EOS last, in the place of white space after an EOS that stands there."""
        if self._eos is None:
            return ids
        end = len(ids)
        while end and ids[end - 1] != self._eos and self._is_space(ids[end - 1]):
            end -= 1
        return ids[:end] if end and ids[end - 1] == self._eos else [*ids, self._eos]

    def cut_ids(self, ids: list[int], limit: int, side: Side) -> list[int]:
        """Cut from the left, which drops BOS; or from the right, with EOS in the place of the last token kept."""
        if side == "left":
            return ids[-limit:]
        end = [] if self._eos is None else [self._eos]
        return ids[: limit - len(end)] + end

    def _is_space(self, token: int) -> bool:
        if token not in self._spaces:
            self._spaces[token] = self._tokenizer.decode(token).isspace()
        return self._spaces[token]


@dataclass(frozen=True)
class _Layout:
    """The special tokens ``(before, between, after)`` of one or two texts, and each one's segments.

    ``segments`` are those of the five parts: before, the first text, between, the second text, after.
    """

    before: list[int]
    between: list[int]
    after: list[int]
    segments: tuple[list[int], list[int], list[int], list[int], list[int]]


class TokenizerFrame:
    """The special tokens that a tokenizer puts around one text, or around and between two.

    Args:
        tokenizer: a Hugging Face tokenizer.
        pair: whether a text may hold two: the prompt and its answer.

    Raises:
        ValueError: the tokenizer cannot show what it puts there, puts other tokens around two texts than around one,
            or nothing between two.
    """

    def __init__(self, tokenizer: Any, pair: bool) -> None:
        self._single = _learn_layout(tokenizer, [SAMPLE])
        self._pair = _learn_layout(tokenizer, [SAMPLE, SAMPLE]) if pair else None
        if self._pair is not None:
            if not self._pair.between:
                raise ValueError("its tokenizer puts no special token between two texts")
            if (self._pair.before, self._pair.after) != (self._single.before, self._single.after):
                raise ValueError("its tokenizer puts other special tokens around two texts than around one")
        self._names = {
            part: "".join(tokenizer.convert_ids_to_tokens(getattr(self._pair or self._single, part)))
            for part in ("before", "between", "after")
        }
        for part, text in self._names.items():
            if tokenizer(text, add_special_tokens=False)["input_ids"] != getattr(self._pair or self._single, part):
                raise ValueError(f"its tokenizer does not read its own {text} as special tokens")

    @property
    def texts(self) -> tuple[str, str, str]:
        """The special tokens before, between and after two texts, as text."""
        return self._names["before"], self._names["between"], self._names["after"]

    def open_ids(self, ids: list[int]) -> list[int]:
        """Put the first special tokens before ids that do not begin with them."""
        before = self._single.before
        return ids if ids[: len(before)] == before else [*before, *ids]

    def close_ids(self, ids: list[int]) -> list[int]:
        """Put the last special tokens after ids that do not end with them."""
        after = self._single.after
        return ids if _ends_with(ids, after) else [*ids, *after]

    def cut_ids(self, ids: list[int], limit: int, side: Side) -> list[int]:
        """Cut the prompt and then the answer, from the left; or the answer and then the prompt, from the right.

        Raises:
            Unprocessable: two texts cannot be told apart, or there is no room for the special tokens.
        """
        drop, dropped = len(ids) - limit, set[int]()
        parts = self._find_parts(ids)
        for start, end in parts if side == "left" else reversed(parts):
            count = min(end - start, drop)
            dropped |= set(range(start, start + count) if side == "left" else range(end - count, end))
            drop -= count
        if drop > 0:
            raise Unprocessable(f"{limit} tokens are too few for this model's special tokens")
        return [each for index, each in enumerate(ids) if index not in dropped]

    def list_segments(self, ids: Sequence[int]) -> list[int]:
        """Return the ``token_type_ids`` of a text's ids.

        Raises:
            Unprocessable: two texts cannot be told apart.
        """
        parts = self._find_parts(list(ids))
        (start, end), last = parts[0], parts[-1]
        layout = self._single if len(parts) == 1 or self._pair is None else self._pair
        before, first, between, second, after = layout.segments
        found = [*before[:start], *first * (end - start)]
        if len(parts) > 1:
            found += [*between, *second * (last[1] - last[0])]
        return found + after[: len(ids) - len(found)]

    def _find_parts(self, ids: list[int]) -> list[tuple[int, int]]:
        """Find where the texts begin and end: one text, or two around one separator."""
        before, after = self._single.before, self._single.after
        start = len(before) if ids[: len(before)] == before else 0
        end = len(ids) - len(after) if _ends_with(ids[start:], after) else len(ids)
        if self._pair is None:
            return [(start, end)]
        between, places, at = self._pair.between, list[int](), start
        while at + len(between) <= end:
            found = ids[at : at + len(between)] == between
            places += [at] if found else []
            at += len(between) if found else 1
        if len(places) > 1:
            mark = self._names["between"]
            raise Unprocessable(
                f"{mark} stands {len(places)} times between texts, so they are not a prompt and an answer"
            )
        if not places:
            return [(start, end)]
        return [(start, places[0]), (places[0] + len(between), end)]


def make_special_tokens(tokenizer: Any, reading: Reading) -> SpecialTokens:
    """Make what a reading puts around a text.

    Raises:
        ValueError: the tokenizer does not show what it puts there.
    """
    if reading.frame == "none":
        return EndTokens(tokenizer, reading)
    return TokenizerFrame(tokenizer, pair=reading.frame == "pair")


def _ends_with(ids: list[int], end: list[int]) -> bool:
    return len(ids) >= len(end) and ids[len(ids) - len(end) :] == end


def _learn_layout(tokenizer: Any, texts: list[str]) -> _Layout:
    if tokenizer.is_fast:
        encoded = tokenizer(*texts, return_token_type_ids=True)
        ids, types, owners = encoded["input_ids"], encoded["token_type_ids"], encoded.sequence_ids(0)
    else:
        own = [tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text)) for text in texts]
        ids = tokenizer.build_inputs_with_special_tokens(*own)
        types = tokenizer.create_token_type_ids_from_sequences(*own)
        owners = _mark_owners(ids, own)
    places = [[index for index, owner in enumerate(owners) if owner == text] for text in range(len(texts))]
    if any(not each for each in places) or len(types) != len(ids):
        raise ValueError("its tokenizer does not show where it puts its special tokens")
    bounds = [(each[0], each[-1] + 1) for each in places]
    (start, middle), last = bounds[0], bounds[-1][1]
    second = bounds[1][0] if len(bounds) > 1 else middle
    return _Layout(
        ids[:start],
        ids[middle:second],
        ids[last:],
        (types[:start], [types[start]], types[middle:second], [types[last - 1]], types[last:]),
    )


def _mark_owners(ids: list[int], texts: list[list[int]]) -> list[int | None]:
    """Say for each id which text it comes from; None for special tokens."""
    owners: list[int | None] = [None] * len(ids)
    at = 0
    for number, text in enumerate(texts):
        while at < len(ids) and ids[at : at + len(text)] != text:
            at += 1
        owners[at : at + len(text)] = [number] * len(ids[at : at + len(text)])
        at += len(text)
    return owners
