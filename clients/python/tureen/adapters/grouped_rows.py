"""A training loop's rows as items, and the answers as rows again. No network."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from tureen.errors import InvalidRequest, ServerFault, TureenError
from tureen.validation import explain_errors
from tureen.wire import MAX_CANDIDATES, CandidateScore, ErrorDetail, ItemScore, ScoreItem, ScoreReply


@dataclass(frozen=True)
class GroupedRows:
    """Rows of a prompt and an answer, as items of one prompt with all its answers.

    The server computes a prompt once for all the answers that stand with it.

    Attributes:
        items: for the client's ``score``.
        places: for each row the item and the candidate it became, or what is wrong with it.
    """

    items: list[dict[str, Any]] = field(default_factory=list)
    places: list[tuple[int, int] | ErrorDetail] = field(default_factory=list)

    def read_reply(self, reply: ScoreReply | None) -> list[CandidateScore]:
        """The rows' scores or errors in the order they were given; ``reply`` is None where there was nothing to ask."""
        data = reply.data if reply else []
        return [
            make_failed_row(place) if isinstance(place, ErrorDetail) else _row(data, *place) for place in self.places
        ]

    def fail_rows(self, error: TureenError) -> list[CandidateScore]:
        """Every row failed with ``error``."""
        return [make_failed_row(make_error_detail(error)) for _ in self.places]


def group_by_prompt(prompts: Iterable[Any], answers: Iterable[Any]) -> GroupedRows:
    """Group rows by equal prompts.

    Args:
        prompts: for each row a text, or messages.
        answers: for each row a text, or messages.

    Raises:
        InvalidRequest: there are not as many answers as prompts.
    """
    made, open_items = GroupedRows(), dict[str, int]()
    asked, given = list(prompts), list(answers)
    if len(asked) != len(given):
        told = f"{len(asked)} prompts and {len(given)} answers: give each answer with the prompt that it answers"
        raise InvalidRequest(f"{told}, a prompt of several answers once for each", param="prompts")
    for prompt, answer in zip(asked, given, strict=True):
        try:
            item = ScoreItem.model_validate({"prompt": _plain(prompt), "candidates": [_plain(answer)]})
        except ValidationError as error:
            document = {"prompt": prompt, "candidates": [answer]}
            made.places.append(make_error_detail(explain_errors(error.errors(include_url=False), document)))
            continue
        made.places.append(_place(item.model_dump(exclude_none=True), made.items, open_items))
    return made


def _place(item: dict[str, Any], items: list[dict[str, Any]], open_items: dict[str, int]) -> tuple[int, int]:
    key = json.dumps(item["prompt"], sort_keys=True)
    index = open_items.get(key)
    if index is None or len(items[index]["candidates"]) == MAX_CANDIDATES:
        open_items[key] = len(items)
        items.append(item)
        return len(items) - 1, 0
    items[index]["candidates"] += item["candidates"]
    return index, len(items[index]["candidates"]) - 1


def _plain(said: Any) -> Any:
    """A text as it is; messages without the fields that are there and empty, which loops leave behind."""
    if not isinstance(said, Iterable) or isinstance(said, str | Mapping):
        return said
    return [_message(each) for each in said]


def _message(said: Any) -> Any:
    if not isinstance(said, Mapping):
        return said
    return {name: value for name, value in said.items() if name in ("role", "content") or value}


def _row(data: Sequence[ItemScore], item: int, candidate: int) -> CandidateScore:
    row = data[item]
    if row.error is not None:
        return make_failed_row(row.error)
    if candidate >= len(row.candidates):
        return make_failed_row(
            make_error_detail(ServerFault("the answer does not hold this candidate", code="unreadable_reply"))
        )
    return row.candidates[candidate]


def make_failed_row(error: ErrorDetail) -> CandidateScore:
    """A row that has no score."""
    return CandidateScore(index=0, error=error)


def make_error_detail(error: TureenError) -> ErrorDetail:
    """The error as the server would tell it."""
    return ErrorDetail(message=error.message, type=error.type, param=error.param, code=error.code)
