"""Who scores: this project's server on either runtime, vLLM's own server or vLLM in a process, Infinity, and a server
that blocks; all set up alike."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import yaml
from bench.flood import Answers, Flood
from bench.rewarding import NAME, Requests, Sample, Speech

from tureen_serve.runtimes.contract import BatchLimits
from tureen_serve.starter.demo import end_process, find_free_port
from tureen_serve.vllm_settings import VllmSettings

START = 900.0
INFINITY = Path(__file__).parents[2] / ".venv-infinity" / "bin" / "infinity_emb"
BLOCKING = Path(__file__).parent / "blocking.py"
QUIETLY = ["env", "DO_NOT_TRACK=1", "HF_HUB_OFFLINE=1"]
SHIPPED = {"model", "runner", "dtype", "max_model_len", "kv_cache_memory_bytes"}
# neither server refuses, and ours forgets: what is measured is computed
PLENTY = {"in_flight": 4096, "queue_tokens": 2**26, "deadline_seconds": 600.0, "kept_scores": 0}


@dataclass(frozen=True)
class Site:
    """A server that is ready: where it takes texts, and how requests and replies are put.

    ``body`` makes a request's JSON, ``read`` the rewards of a reply in order.
    """

    name: str
    url: str
    body: Callable[[Sequence[Sample]], Any]
    read: Callable[[Any], list[float]]

    def ask(self, flood: Flood, requests: Requests, in_flight: int) -> tuple[Answers, list[float]]:
        """The answers, and all rewards in order."""
        bodies = [json.dumps(self.body(request)).encode() for request in requests]
        answers = flood.ask(self.url, bodies, in_flight)
        return answers, [reward for reply in answers.replies for reward in self.read(json.loads(reply))]


@contextmanager
def ours(folder: Path, runtime: str, settings: VllmSettings, limits: Mapping[str, Any]) -> Iterator[Site]:
    """``tureen-serve`` for a checkpoint."""
    port = find_free_port()
    document = {
        "rewards": [{"path": str(folder)}],
        "runtime": runtime,
        "limits": {**PLENTY, **limits},
        "vllm": settings.model_dump(),
    }
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as config:
        yaml.safe_dump(document, config)
        config.flush()
        command = [sys.executable, "-m", "tureen_serve", "--config", config.name, "--port", str(port)]
        with run_process(command, f"http://127.0.0.1:{port}/health/ready"):
            yield Site(f"tureen, {runtime}", f"http://127.0.0.1:{port}/v1/score", _our_body, _our_rewards)


@contextmanager
def vllm_server(folder: Path, settings: VllmSettings, speech: Speech, shipped: bool = False) -> Iterator[Site]:
    """vLLM's own server (what ``vllm serve`` runs) with the settings of our engine; ``shipped`` with its own, but for
    the model's type, length and room.
    """
    port = find_free_port()
    engine = _engine(folder, settings)
    if shipped:
        engine = {name: value for name, value in engine.items() if name in SHIPPED}
    server = {"host": "127.0.0.1", "port": port, "served_model_name": NAME, **engine}
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *make_flags(server)]
    name = "vLLM's server" if shipped else "vLLM's server, our engine's settings"
    with run_process(command, f"http://127.0.0.1:{port}/health"):
        yield _classifying(name, f"http://127.0.0.1:{port}/classify", speech)


def in_their_dialect(site: Site, speech: Speech) -> Site:
    """The same server, asked as vLLM's is."""
    return _classifying(f"{site.name}, /classify", site.url.replace("/v1/score", "/classify"), speech)


def _classifying(name: str, url: str, speech: Speech) -> Site:
    def body(samples: Sequence[Sample]) -> Any:
        texts = [text for sample in samples for text in speech.texts(sample)]
        return {"model": NAME, "input": texts, "use_activation": False}

    return Site(name, url, body, _their_rewards)


@contextmanager
def infinity(folder: Path, speech: Speech) -> Iterator[Site]:
    """Infinity, which takes one prompt a request, rendered, as a query; it strips the white space that ends it."""
    port = find_free_port()
    flags = {"model_id": folder, "served_model_name": NAME, "host": "127.0.0.1", "port": port, "device": "cpu"}
    flags |= {"dtype": "float32", "engine": "torch"}
    off = ["--no-bettertransformer", "--no-model-warmup"]
    command = [*QUIETLY, str(INFINITY), "v2", *make_flags(flags), *off]

    def body(samples: Sequence[Sample]) -> Any:
        (sample,) = samples
        opened, answers = speech.parts(sample)
        return {"model": NAME, "query": opened, "documents": answers, "raw_scores": True}

    with run_process(command, f"http://127.0.0.1:{port}/health"):
        yield Site("Infinity", f"http://127.0.0.1:{port}/rerank", body, _reranked)


@contextmanager
def blocking(folder: Path, speech: Speech) -> Iterator[Site]:
    """A server that computes each request by itself in its event loop, as OpenRLHF's ``serve_rm`` does."""
    port = find_free_port()

    def body(samples: Sequence[Sample]) -> Any:
        return {"query": [text for sample in samples for text in speech.texts(sample)]}

    with run_process([sys.executable, str(BLOCKING), str(folder), str(port)], f"http://127.0.0.1:{port}/openapi.json"):
        yield Site("blocking", f"http://127.0.0.1:{port}/get_reward", body, lambda reply: reply["rewards"])


@contextmanager
def vllm_offline(folder: Path, settings: VllmSettings) -> Iterator[Callable[[list[str]], tuple[float, list[float]]]]:
    """A function of vLLM's ``LLM.classify``: seconds and rewards of texts."""
    from vllm import LLM, PoolingParams

    llm = LLM(**_engine(folder, settings))

    def classify(texts: list[str]) -> tuple[float, list[float]]:
        began = time.perf_counter()
        found = llm.classify(texts, pooling_params=PoolingParams(use_activation=False), use_tqdm=False)
        return time.perf_counter() - began, [each.outputs.probs[0] for each in found]

    try:
        yield classify
    finally:
        llm.llm_engine.engine_core.shutdown()


def _engine(folder: Path, settings: VllmSettings) -> dict[str, Any]:
    """The engine arguments that our runtime would take for a checkpoint."""
    from tureen_serve.runtimes.on_vllm.models import VllmRuntime

    return {"runner": "pooling", **VllmRuntime("auto", "auto", BatchLimits(), settings)._make_arguments(NAME, folder)}


def make_flags(arguments: Mapping[str, Any]) -> list[str]:
    flags = []
    for name, value in arguments.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            flags.append(flag)
        elif value is not None and value is not False:
            flags += [flag, str(value)]
    return flags


@contextmanager
def run_process(command: Sequence[str], ready: str) -> Iterator[None]:
    """A process, ready, for as long as the block runs.

    Raises:
        RuntimeError: it ended, or was not ready in a quarter of an hour; the message is the end of its log.
    """
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            last = time.monotonic() + START
            while not _answers(ready):
                if process.poll() is not None or time.monotonic() > last:
                    log.seek(0)
                    raise RuntimeError(f"{' '.join(command[:3])} is not ready: {log.read()[-4000:]}")
                time.sleep(0.5)
            yield
        finally:
            end_process(process)


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=10).status_code == 200
    except httpx2.TransportError:
        return False


def _our_body(samples: Sequence[Sample]) -> Any:
    items = [{"prompt": sample.prompt, "candidates": list(sample.answers)} for sample in samples]
    return {"items": items, "rewards": [NAME]}


def _our_rewards(reply: Any) -> list[float]:
    return [candidate["scores"][NAME]["raw"] for item in reply["data"] for candidate in item["candidates"]]


def _reranked(reply: Any) -> list[float]:
    return [row["relevance_score"] for row in sorted(reply["results"], key=lambda row: row["index"])]


def _their_rewards(reply: Any) -> list[float]:
    return [row["probs"][0] for row in sorted(reply["data"], key=lambda row: row["index"])]
