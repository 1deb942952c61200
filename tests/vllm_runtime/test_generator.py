"""Soups in one vLLM batch against the same soups merged into checkpoints; streams, caches, refusals."""

import asyncio
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from serve.experts import texts
from vllm import SamplingParams
from vllm_runtime.vllm_writing import EIGHT, expected, job, told, write
from waiting import wait_until

from tureen.errors import ServerFault, Unprocessable
from tureen_core.soup import Semantics
from tureen_serve.runtimes.contract import GenerationJob, Weights
from tureen_serve.runtimes.grammar_proof import GrammarProver, GrammarSource
from tureen_serve.runtimes.on_vllm.adapters import format_gate_name

pytestmark = pytest.mark.anyio
CLOSE = 1e-4


async def test_eight_soups_in_one_batch_are_their_merged_checkpoints(generator: Any, base: Path) -> None:
    jobs = [job(ids, weights) for ids, weights in zip(texts([40, 7, 33, 64, 5, 21, 90, 12]), EIGHT, strict=True)]
    for asked, deltas in zip(jobs, await write(generator, jobs), strict=True):
        tokens, found = told(deltas)
        assert len(tokens) == 10
        torch.testing.assert_close(found, expected(base, asked, tokens), atol=CLOSE, rtol=0)


async def test_factors_averaged_apart_are_their_merged_checkpoints_too(generator: Any, base: Path) -> None:
    ways: list[tuple[Weights, Semantics]] = [
        (EIGHT[4], "factor"),
        (EIGHT[4], "delta"),
        (EIGHT[5], "factor"),
        (EIGHT[0], "factor"),
    ]
    jobs = [job(ids, weights, semantics) for ids, (weights, semantics) in zip(texts([9, 9, 20, 35]), ways, strict=True)]
    for asked, deltas in zip(jobs, await write(generator, jobs), strict=True):
        tokens, found = told(deltas)
        torch.testing.assert_close(found, expected(base, asked, tokens), atol=CLOSE, rtol=0)


async def test_a_text_does_not_depend_on_its_company(generator: Any) -> None:
    asked = job(texts([30], seed=5)[0], EIGHT[4])
    (alone,) = await write(generator, [asked])
    jobs = [job(ids, weights) for ids, weights in zip(texts([17] * 8, seed=6), EIGHT, strict=True)]
    (together, *_) = await write(generator, [asked, *jobs])
    assert told(together)[0] == told(alone)[0]
    torch.testing.assert_close(told(together)[1], told(alone)[1], atol=CLOSE, rtol=0)


async def test_likelihood_is_the_merged_checkpoints(generator: Any, base: Path) -> None:
    (ids,) = texts([45], seed=8)
    for weights in (EIGHT[3], EIGHT[5], ()):
        found = await asyncio.to_thread(generator.likelihood, ids, 20, weights)
        wanted = expected(base, job(ids[:20], weights), ids[20:])
        torch.testing.assert_close(torch.tensor(found), wanted, atol=CLOSE, rtol=0)


async def test_the_prefix_cache_hits_on_repeats_and_never_across_preferences(generator: Any) -> None:
    (ids,) = texts([100], seed=9)

    async def cached(weights: Any, semantics: Any = "delta") -> int:
        name = format_gate_name(weights, semantics)
        adapter = generator._adapters.make_reference(weights, semantics)
        sampling = SamplingParams(max_tokens=1)
        outputs = [each async for each in generator._engine.generate(ids, sampling, adapter, name)]
        return int(outputs[-1].num_cached_tokens)

    def ask(*given: Any) -> int:
        return int(generator._engine.wait(cached(*given)))

    first = [await asyncio.to_thread(ask, weights) for weights in EIGHT]
    assert first == [0] * len(EIGHT)
    assert await asyncio.to_thread(ask, EIGHT[3], "factor") == 0
    assert [await asyncio.to_thread(ask, weights) for weights in EIGHT] == [96] * len(EIGHT)  # three blocks of 32


async def test_a_seed_repeats_a_text_and_another_does_not(generator: Any) -> None:
    (ids,) = texts([12], seed=10)
    jobs = [job(ids, EIGHT[3], temperature=1.5, seed=seed, max_tokens=24) for seed in (1, 1, 2)]
    first, again, other = [told(deltas)[0] for deltas in await write(generator, jobs)]
    assert first == again != other


async def test_a_stop_text_ends_the_stream_without_itself(generator: Any) -> None:
    (ids,) = texts([12], seed=11)
    (whole,) = await write(generator, [job(ids, EIGHT[0], max_tokens=24)])
    text = "".join(delta.text for delta in whole)
    stop = text[6:9]
    (cut,) = await write(generator, [job(ids, EIGHT[0], max_tokens=24, stop=(stop,))])
    assert "".join(delta.text for delta in cut) == text[: text.index(stop)]
    assert cut[-1].finish == "stop"
    assert whole[-1].finish == "length"


async def test_the_end_mark_ends_a_text(generator: Any) -> None:
    (deltas,) = await write(generator, [job(texts([9])[0], (), logit_bias=((2, 100.0),), logprobs=None)])
    assert [delta.finish for delta in deltas] == ["stop"]
    assert sum(delta.tokens for delta in deltas) == 1


async def test_alternatives_are_the_likeliest_of_the_raw_distribution(generator: Any, base: Path) -> None:
    (deltas,) = await write(generator, [job(texts([9])[0], EIGHT[2], max_tokens=3, logprobs=3, logit_bias=())])
    for told_token in (each for delta in deltas for each in delta.logprobs):
        values = [logprob for _, _, logprob in told_token.top]
        assert len(values) == 3
        assert values == sorted(values, reverse=True)
        assert told_token.logprob == pytest.approx(values[0], abs=CLOSE)  # greedy


async def test_closing_a_stream_frees_its_place(generator: Any) -> None:
    stream = generator.stream(job(texts([9])[0], EIGHT[1], max_tokens=400))
    await anext(stream)
    await stream.aclose()
    processor = generator._engine._engine.output_processor
    await wait_until(lambda: not processor.has_unfinished_requests())


def test_a_job_that_cannot_run_is_refused(generator: Any) -> None:
    for asked, param in (
        (job((), ()), "prompt"),
        (job(texts([20])[0], (), max_tokens=500), "max_tokens"),
        (job(texts([20])[0], (), logit_bias=((99999, 1.0),)), "logit_bias.99999"),
    ):
        with pytest.raises(Unprocessable) as caught:
            generator.check(asked)
        assert caught.value.param == param


def test_the_runtime_says_how_it_works(generator: Any) -> None:
    assert generator.description == "vLLM, the rank gate"
    assert generator.failure is None


@pytest.mark.parametrize("most", [0, 3])
async def test_prompts_are_read_as_their_merged_checkpoints_read_them(generator: Any, base: Path, most: int) -> None:
    stem, *tails = texts([40, 7, 1, 33, 12, 5, 2, 9, 90], seed=11)
    wants: dict[str, Any] = {"max_tokens": most, "prompt_logprobs": 2, "temperature": 0.7, "logit_bias": ((2, -100.0),)}
    jobs = [job((*stem, *tail), weights, **wants) for tail, weights in zip(tails, EIGHT, strict=True)]
    for asked, deltas in zip(jobs, await write(generator, jobs), strict=True):
        (prompt,) = [each.prompt for each in deltas if each.prompt is not None]
        assert [each.id for each in prompt] == list(asked.ids[1:])
        wanted = expected(base, replace(asked, ids=asked.ids[:1]), asked.ids[1:])
        torch.testing.assert_close(torch.tensor([each.logprob for each in prompt]), wanted, atol=CLOSE, rtol=0)
        assert all(len(each.top) == 2 and each.rank >= 1 for each in prompt)
        assert (sum(each.tokens for each in deltas), deltas[-1].finish) == (most, "length")


async def test_a_prompt_that_fills_the_context_is_refused_by_name(generator: Any) -> None:
    (ids,) = texts([generator.context], seed=12)
    with pytest.raises(Unprocessable, match="maximum context length"):
        generator.check(job(ids, EIGHT[3], max_tokens=0, prompt_logprobs=0))


async def test_every_text_of_a_batch_has_its_own_grammar_and_its_own_soup(generator: Any) -> None:
    """Also the mask stands before the log-probabilities, as on transformers."""
    prover = GrammarProver()

    def asked(pattern: str | None, weights: Weights, **sampling: Any) -> GenerationJob:
        source = GrammarSource("regex", pattern or "", "field")
        grammar = generator.grammars.compile(source, prover) if pattern else None
        return job(texts([9])[0], weights, grammar=grammar, logit_bias=(), **sampling)

    jobs = [
        asked("[0-9]{4}", EIGHT[0]),
        asked("[a-z]+!", EIGHT[4], temperature=1.0, seed=3),
        asked(None, EIGHT[2]),
        asked("[0-9]{4}", EIGHT[5], temperature=2.0, top_p=0.9, seed=5),
    ]
    digits, letters, free, more = await write(generator, jobs)
    prover.close()
    assert re.fullmatch("[0-9]{4}", "".join(each.text for each in digits))
    assert re.fullmatch("[a-z]+!?", "".join(each.text for each in letters))
    assert re.fullmatch("[0-9]{4}", "".join(each.text for each in more))
    assert told(free)[0] == told((await write(generator, [asked(None, EIGHT[2])]))[0])[0]
    assert all(name in "0123456789" for name, _, logprob in digits[0].logprobs[0].top if logprob > -1e4)


async def test_a_grammar_that_vllm_does_not_keep_is_an_error(generator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    prover = GrammarProver()
    grammar = generator.grammars.compile(GrammarSource("regex", "[0-9]{4}", "field"), prover)
    prover.close()
    monkeypatch.setattr("tureen_serve.runtimes.on_vllm.generator.StructuredOutputsParams", lambda **_: None)
    with pytest.raises(ServerFault, match="does not allow"):
        await write(generator, [job(texts([9])[0], (), grammar=grammar)])
