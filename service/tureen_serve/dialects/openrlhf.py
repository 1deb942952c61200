"""OpenRLHF's ``/get_reward``: what its loops ask at ``--reward.remote_url`` (before 0.11: ``--remote_rm_url``).

Texts are decoded prompts with their responses, special tokens kept, so they meet no template. Answers are those of all
three generations: ``rewards`` (0.5 and 0.6 read nothing else), ``scores`` in (0, 1) for dynamic filtering, and
``extra_logs``. An empty batch is answered with empty lists: some versions send one to spare servers.
"""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from tureen.wire import Text
from tureen_core.calibration import compute_sigmoid
from tureen_serve.api.strict_route import StrictRoute
from tureen_serve.dialects.dialect_context import ContextDep, DialectBody
from tureen_serve.dialects.model_names import RewardSelection
from tureen_serve.faults import document_errors
from tureen_serve.inference.engine import FinishedText, Outcome

router = APIRouter(route_class=StrictRoute, tags=["dialects"])


class OpenRlhfRewardBody(DialectBody):
    """``prompts`` and ``labels`` are sent along by newer versions and not read; ``model`` is ours."""

    query: list[Text] | Text
    model: Text | None = None
    prompts: list[Any] | None = None
    labels: list[Any] | None = None


@router.post("/get_reward", responses=document_errors(400, 404, 413, 415, 422, 503, 504))
async def get_reward(body: OpenRlhfRewardBody, context: ContextDep) -> JSONResponse:
    """Rewards of finished texts; ``?model=helpful=0.7%2Charmless=0.3`` weighs several (it splits URLs at commas)."""
    queries = [body.query] if isinstance(body.query, str) else body.query
    selection = context.select(body.model)
    pad = {reward.renderer.tokenizer.pad_token for reward in context.engine.scoring.values()}
    texts = [FinishedText(_unpadded(query, pad)) for query in queries]
    outcomes = await context.score_all(selection, texts, at="query[{}]".format)
    return JSONResponse(
        {
            "rewards": [selection.value(each) for each in outcomes],
            "scores": [compute_sigmoid(selection.standard(each)) for each in outcomes],
            "extra_logs": _logs(selection, outcomes),
        }
    )


def _unpadded(query: str, pads: set[str]) -> str:
    """Without the padding that a batch's decoder may leave on either side."""
    for pad in pads:
        while query.startswith(pad):
            query = query.removeprefix(pad)
        while query.endswith(pad):
            query = query.removesuffix(pad)
    return query


def _logs(selection: RewardSelection, outcomes: list[Outcome]) -> dict[str, list[float]]:
    raw = {name: [each.raw[name] for each in outcomes] for name in selection.query.objectives}
    return raw | {"reward_tokens": [float(each.tokens) for each in outcomes]}
