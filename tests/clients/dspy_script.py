"""DSPy before a server: prints what it read as one JSON."""

import json
import os
from typing import Any

import dspy
import litellm

PROMPT = "why do leaves fall?"
CONNECTION: Any = {
    "model": f"openai/{os.environ['MODEL']}",
    "api_base": os.environ["OPENAI_BASE_URL"],
    "api_key": os.environ["OPENAI_API_KEY"],
    "cache": False,
    "num_retries": 0,
}


def main() -> None:
    plain = dspy.LM(**CONNECTION, temperature=0, max_tokens=16)
    responses = dspy.LM(**CONNECTION, model_type="responses", temperature=0, max_tokens=16)
    # as DSPy finds out whether a model that nobody knows takes schemas
    known = {"litellm_provider": "openai", "mode": "chat", "supports_response_schema": True}
    litellm.register_model({os.environ["MODEL"]: known})
    shaping = dspy.LM(**CONNECTION, temperature=1, max_tokens=2000, seed=1)
    found: dict[str, Any] = {"chat": plain(PROMPT), "responses": responses(PROMPT)}
    with dspy.context(lm=shaping, adapter=dspy.JSONAdapter()):
        found["city"] = dspy.Predict('question -> city: Literal["Oslo", "Rome"]')(question=PROMPT).city
    try:
        plain("a b " * 9000)
    except Exception as error:
        found["fault"] = [type(error).__name__, str(error)]
    print(json.dumps(found, default=str))


if __name__ == "__main__":
    main()
