"""Texts in a running batch against the same texts alone and against explicitly merged models."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from serve.experts import causal, logprobs, merged, stack, texts
from transformers import DynamicCache

from tureen.errors import ServerFault, Unavailable, Unprocessable
from tureen_core.base import load_tokenizer
from tureen_serve.runtimes.contract import GenerationJob, TextDelta, Weights
from tureen_serve.runtimes.grammar_proof import LIMITS, GrammarProver, GrammarSource
from tureen_serve.runtimes.grammars import Grammar
from tureen_serve.runtimes.on_transformers import cache_rows
from tureen_serve.runtimes.on_transformers.generator import TransformersStepper
from tureen_serve.runtimes.on_transformers.rank_gate import attach_adapters
from tureen_serve.runtimes.on_transformers.running_text import StepLimits
from tureen_serve.runtimes.sampling_fields import Sampling

ACADEMY: Weights = (("academy", 1.0),)
MIXED: Weights = (("academy", 0.6), ("poetry", 0.4))
MINUS: Weights = (("academy", 1.4), ("business", -0.4))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.base(tmp_path_factory.mktemp("generator") / "base")


@pytest.fixture(scope="module")
def model(base: Path) -> Any:
    return causal(base)


@pytest.fixture(scope="module")
def gate(model: Any) -> Any:
    return attach_adapters(model, stack())


@pytest.fixture
def stepper(base: Path, model: Any, gate: Any) -> TransformersStepper:
    return TransformersStepper(model, gate, load_tokenizer(base), StepLimits())


def job(ids: Sequence[int], weights: Weights = (), **sampling: Any) -> GenerationJob:
    semantics = sampling.pop("semantics", "delta")
    return GenerationJob(
        tuple(ids), Sampling(**{"max_tokens": 12, "temperature": 0.0, "logprobs": 3, **sampling}), weights, semantics
    )


def play(
    stepper: TransformersStepper, jobs: Mapping[Any, GenerationJob], late: Mapping[int, Any] | None = None
) -> dict[Any, Any]:
    """All deltas by key. ``late`` says after which step a job joins; the others are there from the start."""
    joining = {key: step for step, key in (late or {}).items()}
    said: dict[Any, list[Any]] = {key: [] for key in jobs}
    for key, each in jobs.items():
        if key not in joining:
            stepper.add(key, each)
    for step in range(400):
        for key in [key for key, when in joining.items() if when == step]:
            stepper.add(key, jobs[key])
            del joining[key]
        if not stepper.active and not joining:
            return said
        for key, delta in stepper.step():
            said[key].append(delta)
    raise AssertionError("the texts do not end")


def text(deltas: Sequence[TextDelta]) -> str:
    return "".join(delta.text for delta in deltas)


def tokens(deltas: Sequence[TextDelta]) -> list[int]:
    return [each.id for delta in deltas for each in delta.logprobs]


def greedy(model: Any, ids: Sequence[int], count: int, end: int) -> tuple[list[int], list[float]]:
    """What a merged model says, computed whole at every token, and the log-probabilities of it."""
    made: list[int] = []
    values: list[float] = []
    while len(made) < count and end not in made:
        row = logprobs(model, [*ids, *made])[-1]
        made.append(int(row.argmax()))
        values.append(float(row.max()))
    return made, values


def test_every_text_of_a_mixed_batch_is_its_merged_model(base: Path, stepper: TransformersStepper) -> None:
    soups: list[tuple[Weights, str]] = [
        (ACADEMY, "delta"),
        (MIXED, "delta"),
        (MINUS, "delta"),
        ((), "delta"),
        (MIXED, "factor"),
    ]
    prompts = texts([9, 4, 15, 7, 11])
    jobs = {
        index: job(ids, weights, semantics=semantics)
        for index, (ids, (weights, semantics)) in enumerate(zip(prompts, soups, strict=True))
    }
    said = play(stepper, jobs)
    end = load_tokenizer(base).eos_token_id
    for index, (weights, semantics) in enumerate(soups):
        made, values = greedy(merged(base, dict(weights), semantics), prompts[index], 12, end)  # type: ignore[arg-type]
        assert tokens(said[index]) == made
        found = [each.logprob for delta in said[index] for each in delta.logprobs]
        torch.testing.assert_close(torch.tensor(found), torch.tensor(values), atol=1e-4, rtol=0)


def test_texts_that_join_in_mid_flight_are_the_same_as_alone(stepper: TransformersStepper) -> None:
    prompts = texts([6, 21, 3, 13, 9], seed=1)
    weights = [ACADEMY, (), MIXED, MINUS, ACADEMY]
    jobs = {
        index: job(ids, each, max_tokens=4 + 5 * index, seed=index, temperature=0.0 if index % 2 else 0.9)
        for index, (ids, each) in enumerate(zip(prompts, weights, strict=True))
    }
    alone = {key: play(stepper, {key: each})[key] for key, each in jobs.items()}
    together = play(stepper, jobs, late={2: 1, 3: 2, 9: 3, 30: 4})
    for key in jobs:
        assert tokens(together[key]) == tokens(alone[key])
        assert text(together[key]) == text(alone[key])


def test_a_seed_gives_the_same_text_whatever_else_runs(stepper: TransformersStepper) -> None:
    (ids,) = texts([8], seed=2)
    mine = job(ids, MIXED, seed=7, temperature=1.0, top_p=0.95, max_tokens=20)
    alone = play(stepper, {"mine": mine})["mine"]
    others = {index: job(each, ACADEMY, temperature=1.0) for index, each in enumerate(texts([3, 30, 12], seed=3))}
    crowded = play(stepper, {**others, "mine": mine})["mine"]
    assert tokens(crowded) == tokens(alone)
    other = play(stepper, {"mine": job(ids, MIXED, seed=8, temperature=1.0, top_p=0.95, max_tokens=20)})["mine"]
    assert tokens(other) != tokens(alone)


def test_answers_to_one_prompt_prefill_it_once(stepper: TransformersStepper, model: Any) -> None:
    (ids,) = texts([10], seed=4)
    seen: list[torch.Size] = []
    hook = model.model.embed_tokens.register_forward_hook(lambda module, args, out: seen.append(args[0].shape))
    said = play(stepper, {index: job(ids, ACADEMY, seed=index, temperature=1.5, max_tokens=3) for index in range(4)})
    hook.remove()
    assert seen[0] == (1, 10)
    assert seen[1] == (4, 1)
    assert len({tuple(tokens(deltas)) for deltas in said.values()}) > 1


def test_one_prompt_under_two_gates_is_two_prompts(base: Path, stepper: TransformersStepper) -> None:
    (ids,) = texts([10], seed=5)
    said = play(stepper, {"a": job(ids, ACADEMY), "b": job(ids, (("business", 1.0),))})
    assert tokens(said["a"]) != tokens(said["b"])
    assert tokens(said["a"]) == tokens(play(stepper, {"a": job(ids, ACADEMY)})["a"])


def test_max_tokens_ends_a_text_by_length(stepper: TransformersStepper) -> None:
    (ids,) = texts([5], seed=6)
    said = play(stepper, {"a": job(ids, max_tokens=6, logit_bias=((2, -100.0),))})["a"]
    assert [delta.finish for delta in said] == [None] * 5 + ["length"]
    assert sum(delta.tokens for delta in said) == 6


def test_an_end_token_ends_a_text_and_is_counted_and_not_shown(base: Path, stepper: TransformersStepper) -> None:
    (ids,) = texts([5], seed=6)
    end = load_tokenizer(base).eos_token_id
    said = play(stepper, {"a": job(ids, logit_bias=((end, 100.0),))})["a"]
    assert said[0].finish == "stop"
    assert (len(said), said[0].text, said[0].tokens) == (1, "", 1)
    assert said[0].logprobs[0].token == "<|im_end|>"


def test_every_end_token_of_the_generation_config_ends_a_text(base: Path, model: Any, gate: Any) -> None:
    model.generation_config.eos_token_id = [2, 77]
    try:
        many = TransformersStepper(model, gate, load_tokenizer(base), StepLimits())
    finally:
        model.generation_config.eos_token_id = 2
    (ids,) = texts([5])
    said = play(many, {77: job(ids, logit_bias=((77, 100.0),)), 2: job(ids, logit_bias=((2, 100.0),))})
    assert [said[key][-1].finish for key in (77, 2)] == ["stop", "stop"]
    assert [len(said[key]) for key in (77, 2)] == [1, 1]


def test_a_stop_string_ends_a_text_before_it(stepper: TransformersStepper) -> None:
    (ids,) = texts([8], seed=7)
    free = play(stepper, {"a": job(ids, ACADEMY, max_tokens=20)})["a"]
    whole = text(free)
    stop = whole[6:9]
    said = play(stepper, {"a": job(ids, ACADEMY, max_tokens=20, stop=(stop,))})["a"]
    assert said[-1].finish == "stop"
    assert text(said) == whole[: whole.index(stop)]
    assert len(said) < len(free)


def test_logprobs_are_raw_whatever_the_sampling(base: Path, stepper: TransformersStepper) -> None:
    (ids,) = texts([8], seed=8)
    sampling = {"temperature": 0.3, "top_p": 0.5, "frequency_penalty": 1.0, "logit_bias": ((5, 3.0),), "seed": 1}
    said = play(stepper, {"a": job(ids, ACADEMY, max_tokens=4, logprobs=5, **sampling)})["a"]
    reference = merged(base, dict(ACADEMY))
    made = tokens(said)
    rows = logprobs(reference, [*ids, *made])
    for index, token in enumerate(made):
        row = rows[len(ids) - 1 + index]
        (found,) = said[index].logprobs
        assert found.logprob == pytest.approx(float(row[token]), abs=1e-4)
        values, alternatives = row.topk(5)
        assert [each[1] for each in found.top] == alternatives.tolist()
        assert [each[2] for each in found.top] == pytest.approx(values.tolist(), abs=1e-4)


def test_logprobs_are_given_only_when_asked_for(stepper: TransformersStepper) -> None:
    (ids,) = texts([5])
    assert play(stepper, {"a": job(ids, logprobs=None, max_tokens=2)})["a"][0].logprobs == ()
    (alone,) = play(stepper, {"a": job(ids, logprobs=0, max_tokens=2)})["a"][0].logprobs
    assert alone.top == ()


def test_a_dropped_text_leaves_and_the_others_do_not_notice(stepper: TransformersStepper) -> None:
    prompts = texts([25, 5, 9], seed=9)
    jobs = {index: job(ids, MIXED, max_tokens=10, seed=index) for index, ids in enumerate(prompts)}
    alone = play(stepper, {1: jobs[1]})[1]
    for key, each in jobs.items():
        stepper.add(key, each)
    said: list[TextDelta] = []
    for step in range(12):
        if step == 3:
            stepper.drop(0)
            stepper.drop(2)
            assert stepper.running == 1
            assert stepper._rows.width < 25
        said += [delta for key, delta in stepper.step() if key == 1 and isinstance(delta, TextDelta)]
    assert tokens(said) == tokens(alone)
    assert not stepper.active


def test_a_waiting_job_can_be_dropped(stepper: TransformersStepper) -> None:
    stepper.add("a", job((5, 6)))
    stepper.drop("a")
    stepper.drop("unknown")
    assert not stepper.active


def test_jobs_wait_in_order_for_rows(base: Path, model: Any, gate: Any) -> None:
    narrow = TransformersStepper(model, gate, load_tokenizer(base), StepLimits(rows=2))
    for index in range(4):
        narrow.add(index, job((5 + index, 6), max_tokens=3, logit_bias=((2, -100.0),)))
    narrow.step()
    assert (narrow.running, narrow.waiting) == (2, 2)
    order = [key for _ in range(8) for key, delta in narrow.step() if isinstance(delta, TextDelta) and delta.finish]
    assert order == [0, 1, 2, 3]


def test_the_cache_never_outgrows_its_room(base: Path, model: Any, gate: Any) -> None:
    small = TransformersStepper(model, gate, load_tokenizer(base), StepLimits(cache_tokens=60))
    for index, ids in enumerate(texts([10, 15, 3, 40, 100])):
        small.add(index, job(ids, max_tokens=10))
    alone = []
    while small.active:
        small.step()
        assert small._rows.width * len(small._rows) <= 60 or small.running == 1
        alone.append(small.running)
    assert max(alone) == 2


def test_prefill_is_spread_over_steps(base: Path, model: Any, gate: Any) -> None:
    slow = TransformersStepper(model, gate, load_tokenizer(base), StepLimits(prefill_tokens=20))
    for index, ids in enumerate(texts([10, 10, 30, 5])):
        slow.add(index, job(ids, max_tokens=8, logit_bias=((2, -100.0),)))
    running = []
    for _ in range(4):
        slow.step()
        running.append(slow.running)
    assert running == [2, 3, 4, 4]


def test_a_prompt_longer_than_the_prefill_room_goes_when_nothing_runs(base: Path, model: Any, gate: Any) -> None:
    tight = TransformersStepper(model, gate, load_tokenizer(base), StepLimits(prefill_tokens=4, cache_tokens=4))
    (ids,) = texts([30])
    assert tokens(play(tight, {"a": job(ids)})["a"]) == tokens(play(tight, {"a": job(ids)})["a"])


def test_likelihood_is_the_merged_models(base: Path, stepper: TransformersStepper) -> None:
    (ids,) = texts([14], seed=10)
    rows = logprobs(merged(base, dict(MIXED)), ids)
    expected = [float(rows[index - 1, ids[index]]) for index in range(5, 14)]
    assert stepper.likelihood(ids, 5, MIXED) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        (job(()), "prompt"),
        (job((5,) * 505), "max_tokens"),
        (job((5, 6), logit_bias=((100_000, 1.0),)), "logit_bias.100000"),
        (job((5, 6), logit_bias=((-1, 1.0),)), "logit_bias.-1"),
    ],
)
def test_a_job_that_cannot_run_is_refused_by_field(
    stepper: TransformersStepper, wrong: GenerationJob, param: str
) -> None:
    with pytest.raises(Unprocessable) as caught:
        stepper.check(wrong)
    assert caught.value.param == param


def test_a_job_that_just_fits_the_context_runs(stepper: TransformersStepper) -> None:
    fits = job(texts([510])[0], max_tokens=2)
    stepper.check(fits)
    assert play(stepper, {"a": fits})["a"][-1].finish


def test_logits_that_are_not_finite_end_their_text_alone(base: Path, stepper: TransformersStepper, model: Any) -> None:
    prompts = {"sound": (7, 8, 9), "poison": (200, 201)}
    alone = play(stepper, {"sound": job(prompts["sound"], logit_bias=((201, -100.0),))})["sound"]
    embeddings = model.model.embed_tokens
    hook = embeddings.register_forward_hook(
        lambda module, args, out: out.masked_fill((args[0] == 201).unsqueeze(-1), float("nan"))
    )
    try:
        said = play(stepper, {key: job(ids, logit_bias=((201, -100.0),)) for key, ids in prompts.items()})
    finally:
        hook.remove()
    (fault,) = said["poison"]
    assert isinstance(fault, ServerFault)
    assert fault.code == "non_finite_logits"
    assert tokens(said["sound"]) == tokens(alone)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (torch.OutOfMemoryError("no"), "input_exceeds_device_memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "input_exceeds_device_memory"),
        (RuntimeError("could not create a primitive"), "input_exceeds_device_memory"),
        (RuntimeError("std::bad_alloc"), "input_exceeds_device_memory"),
        (ZeroDivisionError(), "runtime_failed"),
    ],
)
def test_a_prompt_that_cannot_be_run_fails_alone(
    stepper: TransformersStepper, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    jobs = {number: job(ids, MIXED) for number, ids in enumerate(texts([5, 9, 3, 7, 4, 6]))}
    alone = {key: tokens(play(stepper, {key: each})[key]) for key, each in jobs.items()}
    prefill, runs = stepper._rows.prefill, 0

    def fail(prompts: Sequence[Sequence[int]], owners: Sequence[int]) -> torch.Tensor:
        nonlocal runs
        runs += 1
        if jobs[3].ids in prompts:
            raise error
        return prefill(prompts, owners)

    monkeypatch.setattr(stepper._rows, "prefill", fail)
    said = play(stepper, jobs, late={2: 3, 3: 4, 4: 3})
    (fault,) = said.pop(3)
    assert fault.code == code
    assert {key: tokens(deltas) for key, deltas in said.items()} == {key: alone[key] for key in said}
    assert runs <= 7


def test_prompts_without_memory_beside_others_wait_until_these_have_ended(
    stepper: TransformersStepper, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = [5, 9, 3, 7, 4, 6]
    jobs = {key: job(ids, MIXED, max_tokens=3 + key) for key, ids in enumerate(texts(lengths))}
    alone = {key: tokens(play(stepper, {key: each})[key]) for key, each in jobs.items()}
    prefill, most, order = stepper._rows.prefill, 0, list[int]()

    def fail(prompts: Sequence[Sequence[int]], owners: Sequence[int]) -> torch.Tensor:
        nonlocal most
        if len(stepper._texts) + len(owners) > 2:
            raise torch.OutOfMemoryError("no")
        most = max(most, len(stepper._texts) + len(owners))
        order.extend(len(ids) for ids in prompts)
        return prefill(prompts, owners)

    monkeypatch.setattr(stepper._rows, "prefill", fail)
    said = play(stepper, jobs)
    assert {key: tokens(deltas) for key, deltas in said.items()} == alone
    assert (most, order) == (2, lengths)


SEEDED = {"temperature": 1.0, "logit_bias": ((2, -100.0),)}


def make_crowd() -> dict[Any, GenerationJob]:
    """Seven texts of several lengths, gates and seeds, which none of them ends early."""
    lengths = [5, 9, 3, 7, 4, 6, 8]
    blends = [MIXED, ACADEMY, (), MINUS, MIXED, (), ACADEMY]
    made = [
        job(ids, blend, seed=n, **SEEDED) for n, (ids, blend) in enumerate(zip(texts(lengths), blends, strict=True))
    ]
    return dict(enumerate(made))


def write_alone(stepper: TransformersStepper, jobs: Mapping[Any, GenerationJob]) -> dict[Any, list[int]]:
    return {key: tokens(play(stepper, {key: each})[key]) for key, each in jobs.items()}


@contextmanager
def fit_texts(stepper: TransformersStepper, most: int) -> Iterator[list[int]]:
    """Let memory run out in a layer amid each step of more than some texts. The list has the texts of each step."""
    layer, steps = stepper._model.model.layers[-1].self_attn.k_proj, list[int]()

    def run_out(_: Any, args: Any) -> None:
        if args[0].shape[1] > 1:
            return
        steps.append(len(args[0]))
        if len(args[0]) > most:
            raise torch.OutOfMemoryError("no")

    hook = layer.register_forward_pre_hook(run_out)
    try:
        yield steps
    finally:
        hook.remove()


@pytest.mark.parametrize("most", [1, 2, 3, 6])
def test_texts_without_memory_in_a_later_step_pause_and_none_is_changed(
    stepper: TransformersStepper, most: int
) -> None:
    jobs = make_crowd()
    alone = write_alone(stepper, jobs)
    with fit_texts(stepper, most) as steps:
        said = play(stepper, jobs, late={1: 5, 3: 6})
    assert {key: tokens(deltas) for key, deltas in said.items()} == alone
    assert all(deltas[-1].finish == "length" for deltas in said.values())
    failed = sum(each > most for each in steps)
    assert stepper.memory_failures >= failed > 0
    assert failed <= len(jobs)
    assert (stepper.running, stepper.waiting, stepper.active) == (0, 0, False)


def test_a_running_text_that_does_not_fit_alone_ends_with_an_error_and_the_others_go_on(
    stepper: TransformersStepper, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = make_crowd()
    alone = write_alone(stepper, jobs)
    layer = stepper._model.model.embed_tokens

    def run_out(_: Any, args: Any) -> None:
        ids = args[0].flatten().tolist()
        if alone[4][4] in ids and alone[4][5] not in ids:
            raise torch.OutOfMemoryError("no")

    hook = layer.register_forward_pre_hook(run_out)
    said = play(stepper, jobs)
    hook.remove()
    *written, fault = said.pop(4)
    assert tokens(written) == alone[4][:5]
    assert (fault.code, fault.status) == ("input_exceeds_device_memory", 422)
    assert {key: tokens(deltas) for key, deltas in said.items()} == {key: alone[key] for key in said}


@pytest.mark.parametrize("where", ["draw", "logprobs"])
def test_a_token_that_cannot_be_drawn_is_drawn_later(
    stepper: TransformersStepper, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    jobs = make_crowd()
    alone = write_alone(stepper, jobs)
    calls = 0

    def run_out(called: Any) -> Any:
        def run(*args: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls % 11 == 0 and len(stepper._texts) > 1:
                raise torch.OutOfMemoryError("no")
            return called(*args, **options)

        return run

    name = "multinomial" if where == "draw" else "logsumexp"
    owner: Any = torch if where == "draw" else torch.Tensor
    monkeypatch.setattr(owner, name, run_out(getattr(owner, name)))
    said = play(stepper, jobs)
    assert {key: tokens(deltas) for key, deltas in said.items()} == alone
    assert stepper.memory_failures > 3


def test_texts_that_cannot_be_kept_when_one_leaves_are_computed_again(
    stepper: TransformersStepper, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = {key: job(ids, MIXED, max_tokens=3 + key % 3) for key, ids in enumerate(texts([5, 9, 3, 7, 4, 6]))}
    alone = write_alone(stepper, jobs)

    def run_out(layers: Any, chosen: torch.Tensor) -> None:
        layers.layers[0].batch_select_indices(chosen)
        raise torch.OutOfMemoryError("no")

    stay, monkey = stepper._rows.prefill, pytest.MonkeyPatch()

    def prefill(*args: Any) -> torch.Tensor:  # which selects rows too
        monkey.undo()
        found = stay(*args)
        monkey.setattr(DynamicCache, "batch_select_indices", run_out)
        return found

    monkeypatch.setattr(stepper._rows, "prefill", prefill)
    try:
        said = play(stepper, jobs)
    finally:
        monkey.undo()
    assert {key: tokens(deltas) for key, deltas in said.items()} == alone
    assert stepper.memory_failures > 0


def test_a_cache_that_is_torn_by_a_text_that_joins_is_computed_again(
    stepper: TransformersStepper, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = {"a": job((5, 6), MIXED), "b": job((7, 8, 9)), "c": job((3, 4, 5, 6), ACADEMY)}
    alone = write_alone(stepper, jobs)
    widen, calls = cache_rows._widen, 0

    def run_out(*args: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 6:  # in the second layer
            raise torch.OutOfMemoryError("no")
        return widen(*args)

    monkeypatch.setattr(cache_rows, "_widen", run_out)
    said = play(stepper, jobs, late={2: "b", 3: "c"})
    assert {key: tokens(deltas) for key, deltas in said.items()} == alone
    assert stepper.memory_failures > 0


def test_a_paused_text_can_be_dropped(stepper: TransformersStepper) -> None:
    jobs = make_crowd()
    alone = write_alone(stepper, jobs)
    for key, each in jobs.items():
        stepper.add(key, each)
    said: dict[Any, list[Any]] = {key: [] for key in jobs}
    with fit_texts(stepper, 3):
        for step in range(100):
            for key, delta in stepper.step() if stepper.active else ():
                said[key].append(delta)
            if step == 2:
                stepper.drop(6)
    assert tokens(said.pop(6)) == alone[6][:1]
    assert {key: tokens(deltas) for key, deltas in said.items()} == {key: alone[key] for key in said}


def test_the_batch_grows_again_after_memory_ran_out(stepper: TransformersStepper) -> None:
    for key, ids in enumerate(texts([3] * 8)):
        stepper.add(key, job(ids, max_tokens=2))
    with fit_texts(stepper, 2) as steps:
        for _ in range(4):
            stepper.step()
    for key, ids in enumerate(texts([3] * 60)):
        stepper.add(100 + key, job(ids, max_tokens=2 + key % 2))
    most = 0
    while stepper.active:
        stepper.step()
        most = max(most, stepper.running)
    assert max(steps) > 2
    assert most > 4


def test_a_failed_accelerator_is_the_end(stepper: TransformersStepper, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise torch.AcceleratorError("illegal memory access", 700)

    monkeypatch.setattr(stepper._rows, "prefill", fail)
    stepper.add("a", job((5, 6)))
    with pytest.raises(Unavailable) as caught:
        stepper.step()
    assert caught.value.code == "engine_dead"


# --------------------------------------------------------------------------- grammars


@pytest.fixture(scope="module")
def prover() -> Iterator[GrammarProver]:
    made = GrammarProver()
    yield made
    made.close()


def test_every_text_of_a_batch_has_its_own_grammar_and_its_own_soup(
    stepper: TransformersStepper, prover: GrammarProver
) -> None:
    """Texts without one are as alone; a mask stands before temperature and log-probabilities."""

    def compiled(pattern: str) -> Grammar:
        return stepper.grammars.compile(GrammarSource("regex", pattern, "field"), prover)

    prompts = texts([5, 9, 3, 7])
    jobs = {
        "digits": job(prompts[0], MIXED, grammar=compiled("[0-9]{4}")),
        "letters": job(prompts[1], ACADEMY, grammar=compiled("[a-z]+!"), temperature=1.0, seed=3, max_tokens=8),
        "free": job(prompts[2], MINUS),
        "same": job(prompts[3], MINUS, grammar=compiled("[0-9]{4}"), temperature=2.0, top_p=0.9, seed=5),
    }
    said = play(stepper, jobs, late={2: "same"})
    assert re.fullmatch("[0-9]{4}", text(said["digits"]))
    assert re.fullmatch("[0-9]{4}", text(said["same"]))
    assert re.fullmatch("[a-z]+!?", text(said["letters"]))
    for key in jobs:
        assert text(play(stepper, {key: jobs[key]})[key]) == text(said[key])
    first = said["digits"][0].logprobs[0]
    assert all(name in "0123456789" for name, _, _ in first.top)
    assert said["digits"][-1].finish == "stop"


def test_a_text_whose_grammar_fails_ends_with_an_error_and_no_other(
    stepper: TransformersStepper, prover: GrammarProver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LIMITS, "max_lexer_states", 100)
    grammar = stepper.grammars.compile(GrammarSource("regex", "(.*[a-m].{50}[a-z])", "field"), prover)
    prompts = texts([5, 6])
    jobs = {
        "hard": job(prompts[0], grammar=grammar, max_tokens=300, temperature=2.0, seed=1),
        "free": job(prompts[1], MIXED, max_tokens=300),
    }
    said = play(stepper, jobs)
    assert isinstance(said["hard"][-1], Unprocessable)
    assert said["hard"][-1].code == "grammar_too_complex"
    assert said["free"][-1].finish
