"""The keys of LiteLLM's proxy and their budgets, for litellm.yaml beside this file; no database is needed.

``PROXY_BUDGETS`` is a JSON object: the US dollars that each key may spend. The proxy counts in its memory: that is lost
when it ends, and each of several proxies counts alone. Files and batches are not counted and not refused.
"""

import json
import os

from fastapi import HTTPException, Request
from litellm.proxy._types import UserAPIKeyAuth

BUDGETS: dict[str, float] = json.loads(os.environ["PROXY_BUDGETS"])


async def check(request: Request, api_key: str) -> UserAPIKeyAuth:  # noqa: ARG001, the proxy gives both by name
    """Let a known key in, with its budget.

    Raises:
        HTTPException: 401, nobody knows the key.
    """
    if api_key not in BUDGETS:
        raise HTTPException(401, "this key is not known here")
    return UserAPIKeyAuth(api_key=api_key, max_budget=BUDGETS[api_key])
