"""A training loop's rows as items, and the answers as rows again. No network."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from tureen.errors import InvalidRequest, ServerFault, TureenError
from tureen.message_fields import list_values
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


def group_by_prompt(
    prompts: Iterable[Any], answers: Iterable[Any], beside: Mapping[str, Sequence[Any]] | None = None
) -> GroupedRows:
    """Group rows by equal prompts, tools and variables of the template.

    Args:
        prompts: for each row a text, or messages.
        answers: for each row a text, or messages.
        beside: ``tools`` and ``chat_template_kwargs``, for each row a value, or None where it has none.

    Raises:
        InvalidRequest: there are not as many answers, or values beside them, as prompts.
    """
    made, open_items = GroupedRows(), dict[str, int]()
    asked, given = list(prompts), list(answers)
    if len(asked) != len(given):
        told = f"{len(asked)} prompts and {len(given)} answers: give each answer with the prompt that it answers"
        raise InvalidRequest(f"{told}, a prompt of several answers once for each", param="prompts")
    for name, values in (beside or {}).items():
        if len(values) != len(asked):
            raise InvalidRequest(f"{len(asked)} prompts and {len(values)} values of `{name}`", param=name)
    for row, (prompt, answer) in enumerate(zip(asked, given, strict=True)):
        extra = {name: values[row] for name, values in (beside or {}).items()}
        document = {"prompt": _list(prompt), "candidates": [_list(answer)], **extra}
        try:
            item = ScoreItem.model_validate(document)
        except ValidationError as error:
            made.places.append(make_error_detail(explain_errors(error.errors(include_url=False), document)))
            continue
        made.places.append(_place(item.model_dump(exclude_none=True), made.items, open_items))
    return made


def _place(item: dict[str, Any], items: list[dict[str, Any]], open_items: dict[str, int]) -> tuple[int, int]:
    key = json.dumps({name: item[name] for name in item if name != "candidates"}, sort_keys=True)
    index = open_items.get(key)
    if index is None or len(items[index]["candidates"]) == MAX_CANDIDATES:
        open_items[key] = len(items)
        items.append(item)
        return len(items) - 1, 0
    items[index]["candidates"] += item["candidates"]
    return index, len(items[index]["candidates"]) - 1


def _list(said: Any) -> Any:
    """A text as it is; messages as a list, which loops also hand over as tuples and arrays."""
    values = None if isinstance(said, str) else list_values(said)
    return said if values is None else values


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
