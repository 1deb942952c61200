"""Batches of a server over HTTP: start one, wait for its end, and read what it made."""

import re
from typing import Any

import httpx2
from waiting import block_until

OWN = re.compile(rb'"(batch_req|req)_[0-9a-f]{32}"')


def submit_lines(address: str, content: bytes, endpoint: str) -> str:
    """Start a batch once the store is open, and return its id."""
    with httpx2.Client(base_url=address, timeout=60) as http:
        block_until(lambda: http.get("/v1/files").status_code != 503)
        upload = {"file": ("in.jsonl", content)}
        file = http.post("/v1/files", files=upload, data={"purpose": "batch"}).raise_for_status().json()["id"]
        body = {"input_file_id": file, "endpoint": endpoint, "completion_window": "24h"}
        made: str = http.post("/v1/batches", json=body).raise_for_status().json()["id"]
        return made


def get_batch(address: str, name: str) -> dict[str, Any]:
    """The batch as it stands; the store may be opening still."""
    replies: list[httpx2.Response] = []

    def answered() -> bool:
        replies.append(httpx2.get(f"{address}/v1/batches/{name}", timeout=60))
        return replies[-1].status_code != 503

    block_until(answered)
    found: dict[str, Any] = replies[-1].raise_for_status().json()
    return found


def wait_for_end(address: str, name: str) -> dict[str, Any]:
    """The batch once it is completed."""
    block_until(lambda: get_batch(address, name)["status"] == "completed", 600)
    return get_batch(address, name)


def read_outputs(address: str, ended: dict[str, Any]) -> tuple[bytes, bytes]:
    """Output and errors without the ids that each run draws anew."""
    kinds = ("output_file_id", "error_file_id")
    raws = [httpx2.get(f"{address}/v1/files/{ended[kind]}/content", timeout=60).content for kind in kinds]
    return OWN.sub(b'""', raws[0]), OWN.sub(b'""', raws[1])
