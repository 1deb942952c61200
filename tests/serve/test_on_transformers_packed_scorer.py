"""Packed rewards against the padded scorer's, and what packing promises: no padding, no second compilation."""

import random
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import torch._dynamo
from serve.crowd import READINGS, close, crowd, only, rewards_on, scored
from serve.experts import stack, texts
from torch._dynamo.utils import counters
from transformers import AutoModel, BertConfig, BertModel, MistralConfig, MistralModel, Qwen2Config, Qwen2Model

from tureen.errors import Unavailable, Unprocessable
from tureen_core.artifact import Artifact
from tureen_core.base import locate_base
from tureen_core.heads import LinearHead
from tureen_core.lora import Adapter, LoraPair
from tureen_core.packed.attention import NAME
from tureen_core.soup import Stack, concatenate_adapters
from tureen_serve.runtimes.contract import BatchLimits, Row, Scorer
from tureen_serve.runtimes.on_transformers.models import TransformersRuntime, copy_module_tree
from tureen_serve.runtimes.on_transformers.packed_scorer import PackedScorer
from tureen_serve.runtimes.on_transformers.prompt_memory import PromptMemory, PromptStore
from tureen_serve.runtimes.on_transformers.rank_gate import attach_adapters
from tureen_serve.runtimes.on_transformers.scorer import TransformersScorer
from tureen_serve.runtimes.readout import ReadOut

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 300}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.base(tmp_path_factory.mktemp("packed") / "base")


@pytest.fixture(scope="module")
def artifacts(base: Path) -> dict[str, Artifact]:
    return rewards_on(base)


def load(base: Path, artifacts: dict[str, Artifact], packs: bool, dtype: str = "float32") -> Scorer:
    runtime = TransformersRuntime(dtype, "cpu", BatchLimits(), packs=packs)
    ((found, _),) = runtime.load_base(base, None, list(artifacts.values()), {}).scorers
    return found


def packed(
    base: Path, artifacts: dict[str, Artifact], dtype: str = "float32", compiler: str | None = None
) -> PackedScorer:
    """A scorer over weights of its own."""
    fresh = load(base, artifacts, packs=False, dtype=dtype)
    assert isinstance(fresh, TransformersScorer)
    return PackedScorer(fresh._backbone, fresh._readouts, fresh._gate, BatchLimits(), compiler)


@pytest.fixture(scope="module")
def padded(base: Path, artifacts: dict[str, Artifact]) -> Scorer:
    return load(base, artifacts, packs=False)


@pytest.fixture(scope="module")
def scorer(base: Path, artifacts: dict[str, Artifact]) -> PackedScorer:
    found = load(base, artifacts, packs=True)
    assert isinstance(found, PackedScorer)
    return found


# --------------------------------------------------------------------------- the same numbers


def test_all_readings_blends_and_prompts_in_one_batch_are_the_padded_rewards(
    scorer: PackedScorer, padded: Scorer
) -> None:
    rows = crowd()
    found, expected = scored(scorer, rows), scored(padded, rows)
    close(found, expected)
    assert [each.cached for each in found] == [each.cached for each in expected]


@pytest.mark.parametrize("name", READINGS)
@pytest.mark.parametrize("shared", [0, 6])
def test_each_reading_by_itself(scorer: PackedScorer, padded: Scorer, name: str, shared: int) -> None:
    (prompt,) = texts([6], seed=1)
    rows = [Row(prompt + answer, only(name), shared) for answer in texts([1, 5, 9], seed=2)]
    close(scored(scorer, rows), scored(padded, rows))


def test_a_score_does_not_depend_on_the_batch_or_the_order(scorer: PackedScorer) -> None:
    rows = crowd()
    alone = [scored(scorer, [Row(row.ids, row.blend)])[0] for row in rows]
    order = random.Random(0).sample(range(len(rows)), len(rows))
    close(scored(scorer, [rows[index] for index in order]), [alone[index] for index in order])
    for size in (1, 2, 5, 17):
        chunks = [scored(scorer, rows[start : start + size]) for start in range(0, len(rows), size)]
        close([rewards for chunk in chunks for rewards in chunk], alone)


def test_a_text_without_tokens_is_refused_as_when_padded(scorer: PackedScorer) -> None:
    with pytest.raises(ValueError, match="no tokens"):
        scorer.run([Row((5, 6), only("helpful")), Row((), only("helpful"))])


def test_bfloat16_reads_rewards_in_float32(base: Path, artifacts: dict[str, Artifact], padded: Scorer) -> None:
    found = packed(base, artifacts, "bfloat16")
    rows = [Row(each, only("helpful")) for each in texts([8, 15])]
    for one, exact in zip(scored(found, rows), scored(padded, rows), strict=True):
        assert one.values[0] == pytest.approx(exact.values[0], abs=0.5)
        assert torch.tensor(one.values[0]).bfloat16().item() != one.values[0]


# --------------------------------------------------------------------------- prompts of earlier batches


@pytest.fixture
def remembering(base: Path, artifacts: dict[str, Artifact]) -> PackedScorer:
    """A scorer with room for prompts of earlier batches."""
    found = packed(base, artifacts)
    found._memory = PromptMemory(PromptStore(2**20))
    return found


def tokens(scorer: PackedScorer, batches: Sequence[Sequence[Row]], fresh: bool = False) -> list[int]:
    """How many each batch computes."""
    counts: list[int] = []
    hook = scorer._backbone.embed_tokens.register_forward_hook(lambda module, args, out: counts.append(args[0].numel()))
    for rows in batches:
        scorer.run(rows, fresh)
    hook.remove()
    return counts


def test_a_prompt_of_an_earlier_batch_is_not_computed_again(remembering: PackedScorer, padded: Scorer) -> None:
    (prompt,) = texts([40])
    rows = [Row(prompt + answer, only("helpful"), 40) for answer in texts([3, 5, 4, 6], seed=5)]
    assert tokens(remembering, [rows[:1], rows[1:2], rows[2:]]) == [43, 5, 10]
    found = [rewards for row in rows for rewards in scored(remembering, [row])]
    assert [rewards.cached for rewards in found] == [40] * 4
    close(found, scored(padded, [Row(row.ids, row.blend) for row in rows]))


def test_known_and_new_prompts_of_all_readings_share_a_batch(remembering: PackedScorer, padded: Scorer) -> None:
    rows = crowd()
    scored(remembering, rows[::3])
    for _ in range(2):
        close(scored(remembering, rows), scored(padded, rows))


def test_a_prompt_is_known_under_its_own_blend_only(remembering: PackedScorer) -> None:
    (prompt,) = texts([20])
    first, other = (Row(prompt + (7, 8), only(name), 20) for name in ("helpful", "kind"))
    scored(remembering, [first])
    assert [scored(remembering, [row])[0].cached for row in (other, first, other)] == [0, 20, 20]


def test_a_fresh_batch_neither_finds_nor_leaves_prompts(remembering: PackedScorer) -> None:
    (prompt,) = texts([20])
    row = Row(prompt + (7, 8), only("helpful"), 20)
    assert tokens(remembering, [[row], [row]], fresh=True) == [22, 22]
    scored(remembering, [row])
    assert tokens(remembering, [[row]], fresh=True) == [22]
    assert tokens(remembering, [[row]]) == [2]


def test_an_answer_of_its_end_alone_is_read_at_its_prompts_end(remembering: PackedScorer, padded: Scorer) -> None:
    """The state there is not kept: the last layer ran only where the text before was read."""
    (prompt,) = texts([20])
    rows = [Row(prompt + (7, 8, 9), only("humor"), 20), Row(prompt + (9,), only("humor"), 20)]
    found = [rewards for row in rows for rewards in scored(remembering, [row])]
    close(found, scored(padded, [Row(row.ids, row.blend) for row in rows]))
    close(scored(remembering, rows), scored(padded, [Row(row.ids, row.blend) for row in rows]))


# --------------------------------------------------------------------------- the last layer


def computed(scorer: PackedScorer, rows: list[Row]) -> int:
    """How many tokens the last MLP computes."""
    counts: list[int] = []
    down = scorer._backbone.layers[-1].mlp.down_proj
    hook = down.register_forward_hook(lambda module, args, out: counts.append(args[0].shape[1]))
    scored(scorer, rows)
    hook.remove()
    (count,) = counts
    return count


def test_the_last_layer_is_computed_where_it_is_read(base: Path, artifacts: dict[str, Artifact]) -> None:
    found = packed(base, artifacts)
    one, two, nine = texts([1, 2, 9])
    rows = {name: [Row(ids, only(name)) for ids in (one, two, nine)] for name in READINGS}
    assert {name: computed(found, rows[name]) for name in READINGS} == {
        name: 12 if name in {"style", "safety"} else 5 for name in READINGS
    }
    assert computed(found, [*rows["helpful"], *rows["style"]]) == 24


# --------------------------------------------------------------------------- other backbones


def pair(model: Any, target: str, pooling: str) -> tuple[TransformersScorer, PackedScorer]:
    """Both scorers over one model's weights with one random adapter."""
    rng = torch.Generator().manual_seed(1)
    factors = LoraPair(torch.randn(2, 32, generator=rng), torch.randn(32, 2, generator=rng), 1.0)
    experts = concatenate_adapters([Adapter("it", {target: factors})])
    torch.manual_seed(2)
    readouts = {"it": ReadOut(LinearHead(32).requires_grad_(False), pooling, False)}  # type: ignore[arg-type]
    other = copy_module_tree(model)
    return (
        TransformersScorer(model, readouts, attach_adapters(model, experts), BatchLimits()),
        PackedScorer(other, readouts, attach_adapters(other, experts), BatchLimits()),
    )


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (MistralModel, MistralConfig(**SIZE, num_key_value_heads=2, sliding_window=6, initializer_range=0.3)),
        (
            Qwen2Model,
            Qwen2Config(**SIZE, num_key_value_heads=2, sliding_window=6, use_sliding_window=True, max_window_layers=1),
        ),
    ],
)
def test_a_sliding_window_slides_over_prompt_and_answer(kind: Any, config: Any) -> None:
    torch.manual_seed(0)
    padded, packed = pair(kind(config).eval(), "model.layers.1.self_attn.q_proj", "mean")
    prompt, *answers = texts([10, 2, 9, 5])
    rows = [Row(prompt + answer, only("it"), 10) for answer in answers] + [Row(prompt, only("it"))]
    whole = [Row(row.ids, row.blend) for row in rows]
    expected = [scored(padded, [row])[0] for row in whole]
    close(scored(packed, rows), expected)
    close(scored(packed, whole), expected)
    wide = type(config)(**{**config.to_dict(), "sliding_window": 4096})
    torch.manual_seed(0)
    unlike = scored(pair(kind(wide).eval(), "model.layers.1.self_attn.q_proj", "mean")[1], rows)
    assert max(abs(one.values[0] - other.values[0]) for one, other in zip(unlike, expected, strict=True)) > 1e-3


def test_an_encoder_is_packed_without_sharing() -> None:
    torch.manual_seed(0)
    model = BertModel(BertConfig(**SIZE, initializer_range=0.5), add_pooling_layer=False).eval()
    padded, packed = pair(model, "bert.encoder.layer.1.attention.self.value", "mean")
    (prompt,) = texts([6])
    rows = [Row(prompt + answer, only("it"), 6) for answer in texts([2, 7, 4], seed=1)]
    found = scored(packed, rows)
    assert [each.cached for each in found] == [0, 0, 0]
    close(found, scored(padded, rows))


# --------------------------------------------------------------------------- what it computes


def seen_by(scorer: PackedScorer, rows: Sequence[Row]) -> list[tuple[int, ...]]:
    shapes: list[tuple[int, ...]] = []
    embed = scorer._backbone.embed_tokens
    hook = embed.register_forward_hook(lambda module, args, out: shapes.append(tuple(args[0].shape)))
    scorer.run(rows)
    hook.remove()
    return shapes


def test_nothing_is_padded_and_a_prompt_is_computed_once(scorer: PackedScorer) -> None:
    (prompt,) = texts([40])
    rows = [Row(prompt + answer, only("helpful"), 40) for answer in texts([3, 5, 4], seed=5)]
    assert seen_by(scorer, rows) == [(1, 40 + 3 + 5 + 4)]
    assert seen_by(scorer, [Row(row.ids, row.blend) for row in rows]) == [(1, 43 + 45 + 44)]
    assert seen_by(scorer, [*rows, Row(rows[0].ids, only("kind"), 40)]) == [(1, 52 + 43)]


# --------------------------------------------------------------------------- compiled


@pytest.fixture
def compiled(base: Path, artifacts: dict[str, Artifact]) -> Iterator[PackedScorer]:
    """Traced by dynamo and run as traced: what would be compiled again is the same with every backend."""
    torch._dynamo.reset()
    counters.clear()
    yield packed(base, artifacts, compiler="eager")
    torch._dynamo.reset()


def batches() -> list[list[Row]]:
    """Of unequal tokens, texts, adapters, longest texts and prompts, shared or not."""
    rng, rows = random.Random(0), crowd()
    found = [rng.sample(rows, rng.randint(1, len(rows))) for _ in range(12)]
    found += [
        [Row(each, only("helpful")) for each in texts([length] * count)] for length, count in [(1, 1), (2, 1), (90, 7)]
    ]
    prompt, *answers = texts([70, 1, 30, 2])
    return [*found, [Row(prompt + answer, only("style"), 70) for answer in answers]]


def test_no_batch_is_compiled_anew(compiled: PackedScorer, padded: Scorer) -> None:
    assert compiled.description.endswith(", compiled")
    assert counters["stats"]["unique_graphs"] == 1
    with torch._dynamo.config.patch(error_on_recompile=True):
        for rows in batches():
            close(scored(compiled, rows), scored(padded, rows))
    assert counters["stats"]["unique_graphs"] == 1


def test_another_thread_compiles_nothing(compiled: PackedScorer) -> None:
    """A lane runs its scorer in a thread of its own, not in the one that loaded it."""
    worker = threading.Thread(target=compiled.run, args=(crowd(),))
    worker.start()
    worker.join()
    assert counters["stats"]["unique_graphs"] == 1


def broken_backend(graph: Any, inputs: Any) -> Any:
    raise RuntimeError("no C compiler here\nand a long story")


def test_what_cannot_be_compiled_runs_as_it_is(base: Path, artifacts: dict[str, Artifact], padded: Scorer) -> None:
    torch._dynamo.reset()
    if "broken" not in torch._dynamo.list_backends():
        torch._dynamo.register_backend(broken_backend, name="broken")
    found = packed(base, artifacts, compiler="broken")
    assert found.description == "packed: no padding, each shared prompt once, not compiled: no C compiler here"
    rows = crowd()
    close(scored(found, rows), scored(padded, rows))


# --------------------------------------------------------------------------- which scorer it is


def test_the_runtime_pads_where_it_is_asked_to_and_says_so(padded: Scorer) -> None:
    assert isinstance(padded, TransformersScorer)
    assert padded.description == "padded: packing is off"


def test_the_runtime_packs_on_a_cpu_too(scorer: PackedScorer) -> None:
    assert scorer.description == "packed: no padding, each shared prompt once"
    assert (scorer.threads, scorer.failure, scorer.limits) == (1, None, BatchLimits(padded=False))


def test_the_runtime_pads_what_cannot_be_packed_and_says_why(tmp_path: Path) -> None:
    folder = tiny.base(tmp_path / "base")
    config = folder / "config.json"
    rope = '"rope_type": "dynamic", "factor": 2.0'
    config.write_text(config.read_text().replace('"rope_type": "default"', rope))
    found = load(folder, {"it": tiny.reward(tmp_path / "it", folder, "it", 1)}, packs=True)
    assert isinstance(found, TransformersScorer)
    assert found.description == "padded: its positions depend on the longest text of a batch"
    assert scored(found, [Row((5, 6, 7), only("it"))])[0].cached == 0


def test_a_family_on_the_same_weights_attends_as_before(base: Path, artifacts: dict[str, Artifact]) -> None:
    families: dict[str, Stack] = {"tiny": stack()}
    runtime = TransformersRuntime("float32", "cpu", BatchLimits(), packs=True)
    standing = runtime.load_base(base, tiny.tokenizer(), list(artifacts.values()), families)
    (text,) = texts([9])
    found = standing.families[0].likelihood(text, 4, (("academy", 1.0),))
    alone = TransformersRuntime("float32", "cpu", BatchLimits()).load_base(base, tiny.tokenizer(), [], families)
    assert isinstance(standing.scorers[0][0], PackedScorer)
    assert standing.scorers[0][0]._backbone.config._attn_implementation == NAME
    assert found == pytest.approx(alone.families[0].likelihood(text, 4, (("academy", 1.0),)), abs=1e-5)


# --------------------------------------------------------------------------- failures


class Broken(torch.nn.Module):
    """A backbone that raises what a GPU raises."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error
        self.device = torch.device("cpu")

    def forward(self, **_: Any) -> None:
        raise self.error


@pytest.fixture
def doomed(base: Path, artifacts: dict[str, Artifact]) -> PackedScorer:
    return packed(base, {"helpful": artifacts["helpful"]})


def test_one_text_that_does_not_fit_is_the_callers_fault(doomed: PackedScorer) -> None:
    rows = [Row(each, only("helpful")) for each in texts([3, 4])]
    doomed._backbone = Broken(torch.OutOfMemoryError("no"))
    with pytest.raises(torch.OutOfMemoryError):
        doomed.run(rows)
    with pytest.raises(Unprocessable) as caught:
        doomed.run(rows[:1])
    assert caught.value.code == "input_exceeds_device_memory"


def test_a_failed_accelerator_is_the_end(doomed: PackedScorer) -> None:
    doomed._backbone = Broken(torch.AcceleratorError("illegal memory access", 700))
    with pytest.raises(Unavailable) as caught:
        doomed.run([Row((5, 6), only("helpful"))])
    assert caught.value.code == "engine_dead"


# --------------------------------------------------------------------------- the real one


@pytest.mark.real
def test_packing_is_exact_on_smollm2() -> None:
    runtime = TransformersRuntime("float32", "cpu", BatchLimits())
    backbone = runtime._load(AutoModel, locate_base("smollm2-135m-instruct"))
    other = copy_module_tree(backbone)
    rng = torch.Generator().manual_seed(0)
    adapters = [
        Adapter(
            name,
            {
                f"model.layers.{layer}.self_attn.q_proj": LoraPair(
                    torch.randn(8, 576, generator=rng) / 24, torch.randn(576, 8, generator=rng) * 0.05, 1.0
                )
                for layer in range(30)
            },
        )
        for name in ("one", "two")
    ]
    torch.manual_seed(1)
    readouts = {name: ReadOut(LinearHead(576).requires_grad_(False), "eos", True) for name in ("one", "two")}
    padded = TransformersScorer(
        backbone, readouts, attach_adapters(backbone, concatenate_adapters(adapters)), BatchLimits()
    )
    packed = PackedScorer(other, readouts, attach_adapters(other, concatenate_adapters(adapters)), BatchLimits())
    rows = [
        Row(prompt + answer, only(name), len(prompt))
        for prompt in texts([24, 13], seed=6)
        for name in ("one", "two")
        for answer in texts([3, 8], seed=7)
    ]
    found = scored(packed, rows)
    assert sum(each.cached for each in found) == 2 * (24 + 13)
    close(found, scored(padded, rows))
