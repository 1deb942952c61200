"""A good body for every route that scores or writes, about the answer ``calm``. None of them is refused."""

import json
from typing import Any

TURN = {"type": "message", "role": "assistant", "content": "calm"}
DIALECTS: dict[str, Any] = {
    "/classify": {"input": "calm"},
    "/pooling": {"input": "calm"},
    "/score": {"queries": "q", "documents": "calm"},
    "/rerank": {"query": "q", "documents": ["calm"]},
    "/tokenize": {"prompt": "calm"},
    "/detokenize": {"tokens": [1]},
    "/vllm/v1/score": {"queries": "q", "documents": "calm"},
    "/vllm/v2/rerank": {"query": "q", "documents": ["calm"]},
    "/v1/rerank": {"query": "q", "documents": [{"text": "calm"}]},
    "/v2/rerank": {"query": "q", "documents": ["calm"]},
    "/tei/predict": {"inputs": "calm"},
    "/tei/rerank": {"query": "q", "texts": ["calm"]},
    "/sglang/classify": {"text": "calm"},
    "/sglang/v1/embeddings": {"input": "calm"},
    "/sglang/v1/score": {"query": "q ", "items": ["calm"]},
    "/sglang/v1/rerank": {"query": "q", "documents": ["calm"]},
    "/gym/verify": {"responses_create_params": {"input": "q"}, "response": {"output": [TURN]}},
    "/llamafactory/v1/score/evaluation": {"model": "calm", "messages": ["calm"]},
    "/infinity/rerank": {"query": "q", "documents": ["calm"]},
    "/infinity/classify": {"input": ["calm"]},
}
SHARED: dict[str, Any] = {
    "/v1/score": {"items": [{"prompt": "q", "candidates": ["calm"]}]},
    "/v1/preferences": {"items": [{"prompt": "q", "candidates": ["calm", "funny"]}]},
    "/get_reward": {"query": "calm"},
    "/slime": {"prompt": "q", "response": "calm"},
}
SCORING: dict[str, Any] = {
    **SHARED,
    **{path: body for path, body in DIALECTS.items() if "tokenize" not in path},
    "/v1/score/explain": {"prompt": "q", "answer": "calm"},
    "/v1/preferences/fit": {"pairs": [{"prompt": "q", "chosen": "calm", "rejected": "funny"}]},
}
ASKED = [{"role": "user", "content": "q"}]
WRITING: dict[str, Any] = {
    "/v1/chat/completions": {"messages": ASKED},
    "/v1/completions": {"prompt": "q"},
    "/v1/responses": {"input": "q"},
}


def about(body: Any, answer: str) -> Any:
    """The body about another answer."""
    text = json.dumps(body).replace('"calm"', json.dumps(answer))
    return json.loads(text.replace(f'"model": {json.dumps(answer)}', '"model": "calm"'))
