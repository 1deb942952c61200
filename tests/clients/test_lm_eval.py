"""lm-eval's own program judges soups by a real server: each number is that of the merged model.

It runs in an environment of its own, which `make test-clients` makes; without it these tests are skipped.
"""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from clients.programs import ENVIRONMENTS, must_run
from serve.artifacts import build
from serve.experts import logprobs, merged
from serve.processes import Process, run_server

from tureen_core.soup import concatenate_adapters

PROGRAM = ENVIRONMENTS / "lm_eval/bin/lm_eval"
TASKS = Path(__file__).parent / "lm_eval_tasks"
SOUP = {"calm": 0.7, "dry": 0.3}
MIX = "calm=0.7+dry=0.3"
BY_NAME = {"model": f"tiny:{MIX}"}
BY_HEADER = {"model": "tiny", "header": {"X-Tureen-Preferences": MIX}}

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not must_run("lm_eval"), reason="`make test-clients` installs lm-eval and runs this"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("judged")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Process]:
    with run_server(build(folder)) as running:
        yield running


@pytest.fixture(scope="module")
def judged(folder: Path) -> Any:
    """The soup as a merged checkpoint."""
    stack = concatenate_adapters([tiny.adapter(name, seed) for seed, name in enumerate(SOUP, 10)])
    return merged(folder / "base", SOUP, of=stack)


def evaluate(server: Process, out: Path, model: Mapping[str, Any], *tasks: str, **more: Any) -> dict[str, list[Any]]:
    """Run lm-eval. Returns what it noted of each item, by task."""
    lines = {name: TASKS / f"{name}.jsonl" for name in ("choices", "texts")}
    for each in TASKS.glob("*.yaml"):
        text = each.read_text().replace("CHOICES", str(lines["choices"])).replace("TEXTS", str(lines["texts"]))
        (out / each.name).write_text(text)
    given = {"base_url": f"{server.address}/v1/completions", "max_length": 400, "num_concurrent": 2, "max_retries": 1}
    command = [str(PROGRAM), "--model", "local-completions", "--model_args", json.dumps({**given, **model})]
    command += ["--tasks", ",".join(tasks), "--include_path", str(out), "--batch_size", "4"]
    command += ["--output_path", str(out / "found"), "--log_samples"]
    for name, value in more.items():
        command += [f"--{name}", json.dumps(value)]
    caches = {"HF_HOME": str(out / "cache"), "HF_DATASETS_CACHE": str(out / "cache"), "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(
        command, env={**os.environ, **caches}, capture_output=True, text=True, check=False, timeout=600
    )
    assert ran.returncode == 0, ran.stderr[-20_000:]
    found = {}
    for task in tasks:
        (path,) = (out / "found").glob(f"**/samples_{task}_*.jsonl")
        found[task] = sorted(map(json.loads, path.read_text().splitlines()), key=lambda each: each["doc_id"])
    return found


def encode(text: str) -> list[int]:
    ids: list[int] = tiny.tokenizer()(text, add_special_tokens=False)["input_ids"]
    return ids


def read(model: Any, before: list[int], after: list[int]) -> tuple[float, bool]:
    """The log-probability of ids after others, and whether each of them is the likeliest."""
    rows = logprobs(model, [*before, *after])[len(before) - 1 : -1]
    chosen = rows.gather(1, torch.tensor(after)[:, None])[:, 0]
    return float(chosen.sum()), bool((rows.argmax(1) == torch.tensor(after)).all())


@pytest.mark.parametrize("model", [BY_NAME, BY_HEADER], ids=["in the model's name", "in a header"])
def test_choices_and_texts_are_judged_as_the_merged_model_judges_them(
    server: Process, judged: Any, tmp_path: Path, model: Mapping[str, Any]
) -> None:
    found = evaluate(server, tmp_path, model, "tureen_choices", "tureen_texts")
    for item in found["tureen_choices"]:
        for asked, told in zip(item["arguments"].values(), item["filtered_resps"], strict=True):
            before, whole = encode(asked["arg_0"]), encode(asked["arg_0"] + asked["arg_1"])
            value, greedy = read(judged, before, whole[len(before) :])
            assert float(told[0]) == pytest.approx(value, abs=1e-3)
            assert str(told[1]) == str(greedy)
    lines = [json.loads(line)["text"] for line in (TASKS / "texts.jsonl").read_text().splitlines()]
    tok = tiny.tokenizer()
    first = tok.bos_token_id or tok.eos_token_id  # as lm-eval chooses what stands before a text
    for item, text in zip(found["tureen_texts"], lines, strict=True):
        (told,) = item["filtered_resps"]
        assert float(told) == pytest.approx(read(judged, [first], encode(text))[0], abs=2e-3)


def test_texts_are_written_with_the_preferences_of_gen_kwargs(server: Process, judged: Any, tmp_path: Path) -> None:
    found = evaluate(server, tmp_path, {"model": "tiny"}, "tureen_writing", gen_kwargs={"preferences": SOUP})
    tok = tiny.tokenizer()
    for item in found["tureen_writing"]:
        ids = encode(item["arguments"]["gen_args_0"]["arg_0"])
        written: list[int] = []
        while len(written) < 6:
            written.append(int(logprobs(judged, [*ids, *written])[-1].argmax()))
            if written[-1] == tok.eos_token_id:
                break
        (told,) = item["filtered_resps"]
        whole = tok.decode(written, skip_special_tokens=True)
        assert told == whole.split("\n\n")[0].split("Q:")[0]


def test_a_run_whose_requests_fail_does_not_end_well(server: Process, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="harmless"):
        evaluate(server, tmp_path, {"model": "tiny:harmless=1"}, "tureen_choices")
