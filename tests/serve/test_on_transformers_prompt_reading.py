"""Log-probabilities of prompts, in a batch of soups with shared beginnings, against merged models."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from serve.experts import causal, logprobs, merged, stack, texts
from transformers import Gemma2ForCausalLM, MistralForCausalLM

from tureen.errors import TureenError
from tureen_core.base import load_tokenizer
from tureen_core.capped_attention import keep_attention_cap
from tureen_core.lora import Adapter, LoraPair
from tureen_core.soup import Semantics, concatenate_adapters
from tureen_serve.runtimes.contract import GenerationJob, TextDelta, Weights
from tureen_serve.runtimes.on_transformers import prompt_reading
from tureen_serve.runtimes.on_transformers.generator import TransformersStepper
from tureen_serve.runtimes.on_transformers.rank_gate import Mixture, attach_adapters
from tureen_serve.runtimes.on_transformers.running_text import StepLimits
from tureen_serve.runtimes.sampling_fields import Sampling

MIXED: Weights = (("academy", 0.6), ("poetry", 0.4))
MINUS: Weights = (("academy", 1.4), ("business", -0.4))
SOUPS: list[tuple[Weights, Semantics]] = [(MIXED, "delta"), (MINUS, "delta"), ((), "delta"), (MIXED, "factor")]
CLOSE = 1e-4
NO_END = ((2, -100.0),)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.base(tmp_path_factory.mktemp("reading") / "base")


@pytest.fixture(scope="module")
def model(base: Path) -> Any:
    return causal(base)


@pytest.fixture(scope="module")
def stepper(base: Path, model: Any) -> TransformersStepper:
    return TransformersStepper(model, attach_adapters(model, stack()), load_tokenizer(base), StepLimits())


def job(ids: Sequence[int], weights: Weights = (), semantics: Semantics = "delta", **sampling: Any) -> GenerationJob:
    wants = {"max_tokens": 0, "temperature": 0.0, "prompt_logprobs": 2, "logit_bias": NO_END, **sampling}
    return GenerationJob(tuple(ids), Sampling(**wants), weights, semantics)


def play(stepper: TransformersStepper, jobs: Sequence[GenerationJob]) -> list[list[TextDelta]]:
    said: dict[Any, list[TextDelta]] = {key: [] for key in range(len(jobs))}
    for key in said:
        stepper.add(key, jobs[key])
    while stepper.active:
        for key, delta in stepper.step():
            assert isinstance(delta, TextDelta), delta
            said[key].append(delta)
    return list(said.values())


def values(delta: TextDelta) -> torch.Tensor:
    assert delta.prompt is not None
    return torch.tensor([each.logprob for each in delta.prompt])


def expect(base: Path, asked: GenerationJob) -> torch.Tensor:
    """The log-probabilities ``[T - 1, V]`` of a merged model, which reads the prompt alone."""
    return logprobs(merged(base, dict(asked.weights), asked.semantics), asked.ids)[:-1]


@pytest.fixture(params=[2**27, 4 * 300 * 40], ids=["whole", "in chunks"])
def chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_reading, "CHUNK_BYTES", request.param)


@pytest.mark.usefixtures("chunks")
def test_prompts_of_many_soups_are_read_as_their_merged_models_read_them(
    base: Path, stepper: TransformersStepper
) -> None:
    stem, *tails = texts([12, 1, 4, 9, 2], seed=1)
    jobs = [job((*stem, *tail), *soup) for soup in SOUPS for tail in (*tails, ())]
    jobs += [job(ids, *soup) for ids, soup in zip(texts([7, 30, 1, 2]), SOUPS, strict=True)]
    for asked, (delta,) in zip(jobs, play(stepper, jobs), strict=True):
        rows = expect(base, asked)
        assert (delta.text, delta.tokens, delta.finish) == ("", 0, "length")
        assert delta.prompt is not None
        assert [each.id for each in delta.prompt] == list(asked.ids[1:])
        wanted = rows.gather(1, torch.tensor(asked.ids[1:], dtype=torch.long)[:, None])[:, 0]
        torch.testing.assert_close(values(delta), wanted, atol=CLOSE, rtol=0)
        for row, each in zip(rows, delta.prompt, strict=True):
            assert each.rank == 1 + int((row > row[each.id] + 1e-6).sum())
            best = torch.tensor([value for _, _, value in each.top])
            torch.testing.assert_close(best, row.topk(2).values, atol=CLOSE, rtol=0)


@pytest.mark.usefixtures("chunks")
def test_a_text_after_a_prompt_that_is_read_is_the_text_without_reading(stepper: TransformersStepper) -> None:
    stem, *tails = texts([12, 1, 4, 9], seed=2)
    prompts = [(*stem, *tail) for tail in (*tails, ())]
    for temperature in (0.0, 0.9):
        read = [job(ids, MIXED, max_tokens=6, logprobs=1, temperature=temperature, seed=3) for ids in prompts]
        plain = [
            job(ids, MIXED, max_tokens=6, logprobs=1, temperature=temperature, seed=3, prompt_logprobs=None)
            for ids in prompts
        ]
        said, alone = play(stepper, [*read, *plain[:1]]), play(stepper, plain)
        for mine, theirs in zip(said, alone, strict=False):
            assert [each.logprobs[0].id for each in mine] == [each.logprobs[0].id for each in theirs]
            found, wanted = ([each.logprobs[0].logprob for each in deltas] for deltas in (mine, theirs))
            assert found == pytest.approx(wanted, abs=CLOSE)
            assert mine[0].prompt is not None
            assert all(each.prompt is None for each in (*mine[1:], *theirs))


def test_temperature_and_penalties_change_no_log_probability_of_a_prompt(stepper: TransformersStepper) -> None:
    (ids,) = texts([15], seed=3)
    cold = play(stepper, [job(ids, MIXED)])[0][0]
    other = job(ids, MIXED, temperature=2.0, top_p=0.1, presence_penalty=2.0, logit_bias=((7, 90.0),), max_tokens=1)
    torch.testing.assert_close(values(play(stepper, [other])[0][0]), values(cold), atol=1e-6, rtol=0)


def test_the_chosen_token_that_is_likeliest_has_exactly_the_likeliest_value(stepper: TransformersStepper) -> None:
    (ids,) = texts([10], seed=4)
    said = play(stepper, [job(ids, MIXED, max_tokens=20, logprobs=1)])[0]
    written = tuple(each.logprobs[0].id for each in said)
    delta = play(stepper, [job((*ids, *written), MIXED)])[0][0]
    assert delta.prompt is not None
    assert all(each.logprob == each.top[0][2] and each.rank == 1 for each in delta.prompt[len(ids) - 1 :])


def test_what_prompts_begin_with_alike_runs_once(stepper: TransformersStepper, model: Any) -> None:
    stem, *tails = texts([50, 3, 3, 5, 2], seed=5)
    seen: list[int] = []
    hook = model.model.embed_tokens.register_forward_hook(lambda module, args, out: seen.append(args[0].numel()))
    play(stepper, [job((*stem, *tail), MIXED) for tail in tails] * 2)
    hook.remove()
    assert seen == [50, 4 * 5]


def test_a_prompt_of_one_token_has_no_log_probability(stepper: TransformersStepper) -> None:
    assert play(stepper, [job((5,))])[0] == [TextDelta("", finish="length", prompt=())]


def test_a_prompt_may_fill_the_whole_context(stepper: TransformersStepper) -> None:
    (ids,) = texts([stepper.context], seed=6)
    asked = job(ids, MIXED)
    stepper.check(asked)
    assert len(values(play(stepper, [asked])[0][0])) == stepper.context - 1


@pytest.mark.parametrize(("kind", "more"), [(MistralForCausalLM, {}), (Gemma2ForCausalLM, {"head_dim": 8})])
def test_a_sliding_window_slides_over_stem_and_tail(kind: Any, more: Any) -> None:
    config = kind.config_class(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=6,
        initializer_range=0.3,
        **more,
    )
    torch.manual_seed(0)
    slider = keep_attention_cap(kind(config).eval())
    place = "model.layers.1.self_attn.q_proj"
    low = LoraPair(torch.randn(4, 32), torch.randn(4 * 8, 4), 1.0)
    gate = attach_adapters(slider, concatenate_adapters([Adapter("academy", {place: low})]))
    stem, *tails = texts([11, 2, 9, 5], seed=8)
    prompts: list[tuple[tuple[int, ...], Mixture]]
    prompts = [((*stem, *tail), ((("academy", 1.0),), "delta")) for tail in tails]
    prompts.append((tails[1], ((), "delta")))
    read = prompt_reading.read_prompts(slider, gate, prompts, 1)
    for (ids, mixture), found, last in zip(prompts, read.readings, read.logits, strict=True):
        gate.set_rows([mixture])
        rows = logprobs(slider, ids)
        wanted = rows[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
        torch.testing.assert_close(found.logprobs, wanted, atol=CLOSE, rtol=0)
        torch.testing.assert_close(last.log_softmax(-1), rows[-1], atol=CLOSE, rtol=0)
    assert read.cache.get_seq_length() == read.mask.shape[1]


def test_logits_that_are_not_finite_are_an_error_and_no_number(stepper: TransformersStepper, model: Any) -> None:
    (ids,) = texts([6], seed=7)
    weight = model.model.norm.weight
    kept = weight.data.clone()
    weight.data[:] = float("nan")
    try:
        stepper.add("ill", job((*ids, 7)))
        ((_, said),) = stepper.step()
    finally:
        weight.data[:] = kept
    assert isinstance(said, TureenError)
    assert said.code == "non_finite_logits"
