"""A NeMo-Gym resources server under ``/gym``: ``/verify`` and the other routes that an agent's episode calls.

The task's input is the prompt, and the items of the response are the answer: messages, calls of functions and their
outputs. Reasoning goes to a template that knows it. A response without messages is scored as an empty answer.
``reward`` is the reward that ``?model=`` names, or a weighted mix. ``reward_components`` are the raw rewards.
``truncate=true`` in the query cuts a text that is too long. A rollout that cannot be read or scored is an HTTP error,
never a reward.
"""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import ConfigDict, Field, field_validator

from tureen.errors import Unprocessable
from tureen.tool_calls import read_tools
from tureen.wire import MAX_MESSAGES, Many, Text
from tureen_core.chat_template import TemplateInputs
from tureen_core.turns import Messages
from tureen_serve.api.json_replies import EchoReply, JsonReply
from tureen_serve.api.reading_headers import NotedRoute, document_scoring
from tureen_serve.api.response_items import OpenObject, ResponseItem, read_items
from tureen_serve.dialects import error_bodies
from tureen_serve.dialects.dialect_context import ContextDep, DialectBody
from tureen_serve.dialects.path_models import open_paths
from tureen_serve.faults import document_errors
from tureen_serve.inference.engine import Group
from tureen_serve.inference.pieces import GoOn, run_pieces

routes = APIRouter(route_class=NotedRoute, tags=["dialects"])
ERRORS = document_errors(400, 404, 413, 415, 422, 503, 504, model=error_bodies.DetailBody)
SCORED = document_scoring(ERRORS)
INPUT, OUTPUT = "responses_create_params.input", "response.output"
TASK, ROLLOUT = "_ng_task_index", "_ng_rollout_index"


class GymCreateParams(OpenObject):
    """The policy's request."""

    input: Text | Annotated[list[ResponseItem], Many(MAX_MESSAGES)]
    instructions: Text | None = None
    tools: list[Any] | None = None

    @field_validator("tools")
    @classmethod
    def _check_tools(cls, value: Any) -> Any:
        read_tools(value)
        return value


class GymPolicyResponse(OpenObject):
    """The policy's response."""

    output: Annotated[list[ResponseItem], Many(MAX_MESSAGES, least=1)]


class GymVerifyBody(OpenObject):
    """The body of ``/verify``: a rollout, and any other fields of its task."""

    responses_create_params: GymCreateParams
    response: GymPolicyResponse


class GymVerifiedRollout(DialectBody):
    """A verified rollout: the fields that the metrics need."""

    model_config = ConfigDict(extra="allow")

    task: int = Field(0, alias=TASK)
    response: dict[str, Any] = {}
    reward_components: dict[str, Any] | None = None

    def numbers(self) -> dict[str, float]:
        """Return every number by its name: the rollout's own fields, its token usage and its reward components."""
        fields = {**(self.model_extra or {}), **(self.response.get("usage") or {}), **(self.reward_components or {})}
        return {
            name: float(value) for name, value in fields.items() if isinstance(value, int | float) and name != ROLLOUT
        }


class GymAggregateBody(DialectBody):
    """The body of ``/aggregate_metrics``: verified rollouts."""

    verify_responses: Annotated[list[GymVerifiedRollout], Many()]


@routes.post("/verify", responses=SCORED)
async def verify(body: GymVerifyBody, context: ContextDep, truncate: bool = False) -> JsonReply:
    """The rollout as it was sent, with its reward and the reward's components."""
    selection = await context.select()
    params = body.responses_create_params
    beside = TemplateInputs(read_tools(params.tools))
    group = Group([_answer(body.response.output)], _prompt(params), beside=beside)
    outcome = await context.score_one(selection, group, truncate, prompt=INPUT, answer=OUTPUT)
    scores = {"reward": selection.value(outcome), "reward_components": dict(outcome.raw)}
    return EchoReply(body.model_dump(exclude_unset=True) | scores)


@routes.post("/seed_session", responses=ERRORS)
@routes.post("/close_session", responses=ERRORS)
async def session(body: dict[str, Any]) -> JsonReply:
    """The id of the session, if it was sent. A reward keeps no state, so nothing is opened or closed."""
    return EchoReply({name: body[name] for name in ("resources_session_id",) if name in body})


@routes.get("/reverify_mode", responses=ERRORS)
async def reverify_mode() -> str:
    """`stateless`: a rollout can be verified again at any time."""
    return "stateless"


@routes.post("/aggregate_metrics", responses=ERRORS)
async def aggregate_metrics(body: GymAggregateBody) -> JsonReply:
    """Mean, max, min, median and standard deviation of every number, for each task and over all rollouts."""
    return JsonReply(await run_pieces(lambda go_on: _aggregate(body.verify_responses, go_on), large=True))


router = open_paths("/gym", routes)


def _aggregate(rollouts: Sequence[GymVerifiedRollout], go_on: GoOn) -> dict[str, Any]:
    tasks: dict[int, list[GymVerifiedRollout]] = {}
    for each in rollouts:
        tasks.setdefault(each.task, []).append(each)
    overall = dict(_profile(rollouts, go_on))
    return {
        "group_level_metrics": [{**dict(_profile(tasks[task], go_on)), TASK: task} for task in sorted(tasks)],
        "agent_metrics": overall,
        "key_metrics": {name: value for name, value in overall.items() if name.startswith("mean/")},
    }


def _prompt(params: GymCreateParams) -> Messages:
    items = [ResponseItem(role="user", content=params.input)] if isinstance(params.input, str) else params.input
    turns = read_items(items, INPUT)
    if not turns:
        raise Unprocessable("the input has no message; send at least one", param=INPUT)
    return [{"role": "system", "content": params.instructions}, *turns] if params.instructions else turns


def _answer(output: Sequence[ResponseItem]) -> Messages:
    """Return the answer's messages. Neighbours of one role are joined."""
    return read_items(output, OUTPUT, join=True) or [{"role": "assistant", "content": ""}]


def _profile(rows: Sequence[GymVerifiedRollout], go_on: GoOn) -> Iterator[tuple[str, float]]:
    columns: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.numbers().items():
            columns.setdefault(name, []).append(value)
    for name, values in columns.items():
        go_on()
        for statistic, value in _statistics(values).items():
            yield f"{statistic}/{name}", value


def _statistics(values: Sequence[float]) -> Mapping[str, float]:
    return {
        "mean": math.fsum(values) / len(values),
        "max": max(values),
        "min": min(values),
        "median": statistics.median(values),
        "std": statistics.stdev(values) if len(values) > 1 else 0.0,
    }
