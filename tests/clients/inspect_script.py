"""What inspect finds on a server that it takes for OpenAI's; run in an environment of its own. Prints one JSON."""

import json
import os
from typing import Any, Literal

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog
from inspect_ai.model import GenerateConfig, ResponseSchema
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, use_tools
from inspect_ai.tool import Tool, tool
from inspect_ai.util import json_schema
from pydantic import BaseModel, ConfigDict

MODEL = os.environ["MODEL"]
QUESTIONS = ("why do leaves fall?", "the quick brown fox")


class Answer(BaseModel):
    """An answer."""

    model_config = ConfigDict(extra="forbid")  # the random model would go on with other fields

    verdict: Literal["yes", "no"]


@tool  # type: ignore[untyped-decorator]
def find_city() -> Tool:
    """Make the tool."""

    async def execute(city: Literal["Oslo", "Rome"]) -> str:
        """Find a city.

        Args:
            city: Its name.
        """
        return city

    return execute


def judge(model: str, solver: Any, **config: Any) -> EvalLog:
    """Run a task of two questions whose answers must have an e."""
    task = Task(
        dataset=[Sample(input=each, target="e") for each in QUESTIONS],
        solver=solver,
        scorer=includes(),
        config=GenerateConfig(temperature=0, max_retries=0, **config),
    )
    (log,) = eval(task, model=f"openai-api/tureen/{model}", display="none", log_dir=os.environ["LOGS"])
    return log


def tell(log: EvalLog) -> Any:
    samples = log.samples or []
    results = log.results
    return {
        "status": log.status,
        "texts": [sample.output.completion for sample in samples],
        "calls": [
            [call.function, call.arguments]
            for sample in samples
            for choice in sample.output.choices
            for call in choice.message.tool_calls or []
        ],
        "accuracy": results.scores[0].metrics["accuracy"].value if results else None,
        "tokens": {name: usage.output_tokens for name, usage in log.stats.model_usage.items()},
        "error": str(log.error.message) if log.error else "",
    }


def main() -> None:
    shape = ResponseSchema(name="Answer", json_schema=json_schema(Answer))
    calling = [use_tools(find_city(), tool_choice="any"), generate(tool_calls="none")]
    runs = {
        "plain": judge(MODEL, generate(), max_tokens=8),
        "shaped": judge(MODEL, generate(), response_schema=shape, max_tokens=200),
        "calling": judge(MODEL, calling, parallel_tool_calls=False, max_tokens=200),
        "failing": judge("tiny:harmless=1", generate(), max_tokens=8),
    }
    print(json.dumps({name: tell(log) for name, log in runs.items()}))


if __name__ == "__main__":
    main()
