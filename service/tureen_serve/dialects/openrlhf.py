"""OpenRLHF's ``/get_reward``, for ``--reward.remote_url`` (before 0.11: ``--remote_rm_url``).

A text is a decoded prompt with its response, special tokens included, so no template is applied. The reply suits all
versions: ``rewards`` (the only field that 0.5 and 0.6 read), ``scores`` in (0, 1) for dynamic filtering, and
``extra_logs``. An empty batch gets empty lists, because some versions send one to servers that they do not need.
"""

from typing import Any

from fastapi import APIRouter

from tureen.wire import Text
from tureen_core.calibration import compute_sigmoid
from tureen_serve.api.json_replies import JsonReply
from tureen_serve.api.reading_headers import NotedRoute, document_scoring
from tureen_serve.dialects.dialect_context import ContextDep, DialectBody
from tureen_serve.dialects.inputs import TextList
from tureen_serve.dialects.model_names import RewardSelection
from tureen_serve.faults import document_errors
from tureen_serve.inference.engine import FinishedText, Outcome

router = APIRouter(route_class=NotedRoute, tags=["dialects"])
SCORED = document_scoring(document_errors(400, 404, 413, 415, 422, 503, 504))


class OpenRlhfRewardBody(DialectBody):
    """The texts in ``query``. ``prompts`` and ``labels``, which newer versions send, are ignored. ``model`` is ours."""

    query: TextList | Text
    model: Text | None = None
    prompts: list[Any] | None = None
    labels: list[Any] | None = None


@router.post("/get_reward", responses=SCORED)
async def get_reward(body: OpenRlhfRewardBody, context: ContextDep) -> JsonReply:
    """Rewards of finished texts. `?model=helpful=0.7%2Charmless=0.3` gives a mix; OpenRLHF splits URLs at commas."""
    queries = [body.query] if isinstance(body.query, str) else body.query
    selection = await context.select(body.model)
    texts = [FinishedText(query) for query in queries]
    outcomes = await context.score_all(selection, texts, at="query[{}]".format)
    return JsonReply(
        {
            "rewards": [selection.value(each) for each in outcomes],
            "scores": [compute_sigmoid(selection.standard(each)) for each in outcomes],
            "extra_logs": _logs(selection, outcomes),
        }
    )


def _logs(selection: RewardSelection, outcomes: list[Outcome]) -> dict[str, list[float]]:
    raw = {name: [each.raw[name] for each in outcomes] for name in selection.query.objectives}
    return raw | {"reward_tokens": [float(each.tokens) for each in outcomes]}
