"""Rewards against PEFT's own, and their independence of everything else that is scored."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from peft import PeftModel
from serve.crowd import READINGS, ROUNDING, TIGHT, close, crowd, only, rewards_on, scored
from serve.experts import texts
from transformers import AutoModel, AutoModelForSequenceClassification, BertConfig, BertModel

from tureen.errors import Unavailable, Unprocessable
from tureen_core.artifact import Artifact, read_weights
from tureen_core.base import locate_base
from tureen_core.heads import LinearHead
from tureen_core.lora import Adapter, LoraPair
from tureen_core.soup import concatenate_adapters
from tureen_serve.runtimes.contract import BatchLimits, Row
from tureen_serve.runtimes.on_transformers.models import TransformersRuntime
from tureen_serve.runtimes.on_transformers.prompt_memory import PromptMemory, PromptStore
from tureen_serve.runtimes.on_transformers.rank_gate import attach_adapters
from tureen_serve.runtimes.on_transformers.scorer import TransformersScorer
from tureen_serve.runtimes.readout import ReadOut


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.base(tmp_path_factory.mktemp("scorer") / "base")


@pytest.fixture(scope="module")
def artifacts(base: Path) -> dict[str, Artifact]:
    return rewards_on(base)


@pytest.fixture(scope="module")
def scorer(base: Path, artifacts: dict[str, Artifact]) -> TransformersScorer:
    return loaded(base, artifacts)


def loaded(base: Path, artifacts: dict[str, Artifact], dtype: str = "float32") -> TransformersScorer:
    standing = TransformersRuntime(dtype, "cpu", BatchLimits(), packs=False).load_base(
        base, None, list(artifacts.values()), {}
    )
    ((found, _),) = standing.scorers
    assert isinstance(found, TransformersScorer)
    return found


def peft_hidden(base: Path, artifact: Artifact, ids: Sequence[int]) -> tuple[Any, torch.Tensor]:
    labels = len(artifact.manifest.objectives)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels, dtype=torch.float32)
    model.config.pad_token_id = 0
    model = PeftModel.from_pretrained(model, artifact.folder).eval()
    with torch.inference_mode():
        out = model(input_ids=torch.tensor([list(ids)]), output_hidden_states=True)
    return out.logits[0], out.hidden_states[-1][0]


def test_rewards_are_peft_sequence_classification(
    base: Path, artifacts: dict[str, Artifact], scorer: TransformersScorer
) -> None:
    ids = texts([7, 19, 12])
    for name in ("helpful", "many"):
        found = scored(scorer, [Row(each, only(name)) for each in ids])
        for rewards, each in zip(found, ids, strict=True):
            expected, _ = peft_hidden(base, artifacts[name], each)
            # PEFT scales after B where we fold the scale into it: each rounds its own way, as far from float64
            torch.testing.assert_close(torch.tensor(rewards.values), expected, atol=5e-5, rtol=0)


@pytest.mark.parametrize("name", READINGS)
@pytest.mark.parametrize("shared", [0, 6])
def test_every_reading_is_what_it_says(
    base: Path, artifacts: dict[str, Artifact], scorer: TransformersScorer, name: str, shared: int
) -> None:
    (prompt,) = texts([6], seed=1)
    ids = [prompt + answer for answer in texts([1, 5, 9], seed=2)]
    _, head = read_weights(artifacts[name])
    assert head is not None
    found = scored(scorer, [Row(each, only(name), shared) for each in ids])
    for rewards, each in zip(found, ids, strict=True):
        _, hidden = peft_hidden(base, artifacts[name], each)
        pooled = {
            "helpful": hidden[-1],
            "humor": hidden[-2],
            "style": hidden.mean(0),
            "safety": hidden.amax(0),
            "bare": hidden[-1],
        }[name]
        torch.testing.assert_close(torch.tensor(rewards.values), head @ pooled, atol=TIGHT, rtol=ROUNDING)


def test_a_score_does_not_depend_on_the_batch(scorer: TransformersScorer) -> None:
    rows = crowd()
    alone = [scored(scorer, [Row(row.ids, row.blend)])[0] for row in rows]
    close(scored(scorer, rows), alone)
    for size in (2, 5, 17):
        chunks = [scored(scorer, rows[start : start + size]) for start in range(0, len(rows), size)]
        close([rewards for chunk in chunks for rewards in chunk], alone)


def test_a_score_does_not_depend_on_the_order(scorer: TransformersScorer) -> None:
    rows = crowd()
    order = random.Random(0).sample(range(len(rows)), len(rows))
    found, mixed = scored(scorer, rows), scored(scorer, [rows[index] for index in order])
    close([found[index] for index in order], mixed)


def test_cached_tokens_are_the_prompts_of_all_but_the_first(scorer: TransformersScorer) -> None:
    first, second = texts([5, 8])
    rows = [
        Row(prompt + answer, only("helpful"), len(prompt)) for prompt in (first, second) for answer in texts([2, 3])
    ]
    rows.append(Row(first + (9,), only("kind"), len(first)))
    rows.append(Row(first + (9,), only("helpful")))
    assert [rewards.cached for rewards in scored(scorer, rows)] == [0, 5, 0, 8, 0, 0]


def test_a_shared_prompt_is_computed_once(scorer: TransformersScorer) -> None:
    seen: list[torch.Size] = []
    hook = scorer._backbone.embed_tokens.register_forward_hook(lambda module, args, out: seen.append(args[0].shape))
    (prompt,) = texts([40])
    scored(scorer, [Row(prompt + answer, only("helpful"), 40) for answer in texts([3, 5, 4], seed=5)])
    hook.remove()
    assert seen == [(1, 40), (3, 5)]


@pytest.fixture
def remembering(base: Path, artifacts: dict[str, Artifact]) -> TransformersScorer:
    """The scorer with room for prompts of earlier batches."""
    scorer = loaded(base, artifacts)
    scorer._memory = PromptMemory(PromptStore(2**20))
    return scorer


def seen(
    scorer: TransformersScorer, batches: Sequence[Sequence[Row]], fresh: bool = False
) -> list[list[tuple[int, ...]]]:
    """The shapes that each batch ran in."""
    shapes: list[list[tuple[int, ...]]] = []
    hook = scorer._backbone.embed_tokens.register_forward_hook(
        lambda module, args, out: shapes[-1].append(args[0].shape)
    )
    for rows in batches:
        shapes.append([])
        scorer.run(rows, fresh)
    hook.remove()
    return shapes


def test_a_prompt_of_an_earlier_batch_is_not_computed_again(
    scorer: TransformersScorer, remembering: TransformersScorer
) -> None:
    (prompt,) = texts([40])
    rows = [Row(prompt + answer, only("helpful"), 40) for answer in texts([3, 5, 4, 6], seed=5)]
    assert seen(remembering, [rows[:1], rows[1:2], rows[2:]]) == [[(1, 43)], [(1, 5)], [(2, 6)]]
    found = [rewards for row in rows for rewards in scored(remembering, [row])]
    assert [rewards.cached for rewards in found] == [40] * 4
    close(found, scored(scorer, [Row(row.ids, row.blend) for row in rows]))


def test_known_and_new_prompts_of_all_lengths_share_a_batch(
    scorer: TransformersScorer, remembering: TransformersScorer
) -> None:
    rows = crowd()
    alone = [scored(scorer, [Row(row.ids, row.blend)])[0] for row in rows]
    scored(remembering, rows[::3])
    for _ in range(2):
        close(scored(remembering, rows), alone)


def test_a_prompt_is_known_under_its_own_blend_only(remembering: TransformersScorer) -> None:
    (prompt,) = texts([20])
    first, other = (Row(prompt + (7, 8), only(name), 20) for name in ("helpful", "kind"))
    scored(remembering, [first])
    assert [scored(remembering, [row])[0].cached for row in (other, first, other)] == [0, 20, 20]


def test_a_fresh_batch_neither_finds_nor_leaves_prompts(remembering: TransformersScorer) -> None:
    (prompt,) = texts([20])
    row = Row(prompt + (7, 8), only("helpful"), 20)
    assert seen(remembering, [[row], [row]], fresh=True) == [[(1, 22)]] * 2
    scored(remembering, [row])
    assert seen(remembering, [[row]], fresh=True) == [[(1, 22)]]
    assert seen(remembering, [[row]]) == [[(1, 2)]]


def test_a_blend_is_read_from_souped_adapters_and_heads(
    base: Path, artifacts: dict[str, Artifact], scorer: TransformersScorer
) -> None:
    (ids,) = texts([14])
    parts = {name: read_weights(artifacts[name]) for name in ("helpful", "kind")}
    weights = {"helpful": 0.3, "kind": 0.7}
    backbone = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=torch.float32).model
    for path, pair in parts["helpful"][0].modules.items():
        other = parts["kind"][0].modules[path]
        target = backbone.get_submodule(path.removeprefix("model."))
        target.weight.data += 0.3 * pair.scale * pair.b @ pair.a + 0.7 * other.scale * other.b @ other.a
    with torch.inference_mode():
        hidden = backbone(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
    one, other_head = parts["helpful"][1], parts["kind"][1]
    assert one is not None
    assert other_head is not None
    head = 0.3 * one + 0.7 * other_head
    found = scored(scorer, [Row(ids, tuple(weights.items()))])[0]
    torch.testing.assert_close(torch.tensor(found.values), head @ hidden, atol=TIGHT, rtol=ROUNDING)


def test_bfloat16_reads_rewards_in_float32(
    base: Path, artifacts: dict[str, Artifact], scorer: TransformersScorer
) -> None:
    low = loaded(base, artifacts, "bfloat16")
    rows = [Row(each, only("helpful")) for each in texts([8, 15])]
    for found, exact in zip(scored(low, rows), scored(scorer, rows), strict=True):
        assert found.values != exact.values
        assert found.values[0] == pytest.approx(exact.values[0], abs=0.5)
        assert torch.tensor(found.values[0]).bfloat16().item() != found.values[0]


def test_an_encoder_never_shares_and_agrees_with_itself() -> None:
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertModel(BertConfig(vocab_size=300, initializer_range=0.5, **size), add_pooling_layer=False).eval()
    pair = LoraPair(torch.randn(2, 16), torch.randn(16, 2), 1.0)
    gate = attach_adapters(
        model, concatenate_adapters([Adapter("cls", {"bert.encoder.layer.1.attention.self.value": pair})])
    )
    scorer = TransformersScorer(model, {"cls": ReadOut(LinearHead(16), "mean", False)}, gate, BatchLimits())
    (prompt,) = texts([6])
    rows = [Row(prompt + answer, only("cls"), 6) for answer in texts([2, 7, 4], seed=1)]
    found = scored(scorer, rows)
    assert [rewards.cached for rewards in found] == [0, 0, 0]
    close(found, [scored(scorer, [row])[0] for row in rows])


class Broken(torch.nn.Module):
    """A backbone that raises what a GPU raises."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, **_: Any) -> None:
        raise self.error


def broken(scorer: TransformersScorer, error: Exception) -> TransformersScorer:
    found = TransformersScorer(scorer._backbone, scorer._readouts, None, BatchLimits())
    stand_in = Broken(error)
    stand_in.device = torch.device("cpu")  # type: ignore[assignment]
    found._backbone = stand_in
    return found


FULL = [
    torch.OutOfMemoryError("no"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    MemoryError(),
]


@pytest.mark.parametrize("error", FULL)
def test_one_text_that_does_not_fit_is_the_callers_fault(scorer: TransformersScorer, error: Exception) -> None:
    rows = [Row(each, only("helpful")) for each in texts([3, 4])]
    full = broken(scorer, error)
    with pytest.raises(type(error)):
        full.run(rows)
    with pytest.raises(Unprocessable) as caught:
        full.run(rows[:1])
    assert caught.value.code == "input_exceeds_device_memory"


def test_a_failed_accelerator_is_the_end(scorer: TransformersScorer) -> None:
    with pytest.raises(Unavailable) as caught:
        broken(scorer, torch.AcceleratorError("illegal memory access", 700)).run([Row((5, 6), only("helpful"))])
    assert caught.value.code == "engine_dead"


@pytest.mark.real
def test_sharing_is_exact_on_smollm2() -> None:
    folder = locate_base("smollm2-135m-instruct")
    runtime = TransformersRuntime("float32", "cpu", BatchLimits())
    backbone = runtime._load(AutoModel, folder)
    rng = torch.Generator().manual_seed(0)
    paths = [f"model.layers.{layer}.self_attn.q_proj" for layer in range(30)]
    adapters = [
        Adapter(
            name,
            {
                path: LoraPair(torch.randn(8, 576, generator=rng) / 24, torch.randn(576, 8, generator=rng) * 0.05, 1.0)
                for path in paths
            },
        )
        for name in ("one", "two")
    ]
    gate = attach_adapters(backbone, concatenate_adapters(adapters))
    torch.manual_seed(1)
    readouts = {name: ReadOut(LinearHead(576), "eos", True) for name in ("one", "two")}
    scorer = TransformersScorer(backbone, readouts, gate, BatchLimits())
    prompts = texts([24, 13], seed=6)
    rows = [
        Row(prompt + answer, only(name), len(prompt))
        for prompt in prompts
        for name in ("one", "two")
        for answer in texts([3, 8], seed=7)
    ]
    found = scored(scorer, rows)
    assert sum(rewards.cached for rewards in found) == 2 * (24 + 13)
    close(found, [scored(scorer, [Row(row.ids, row.blend)])[0] for row in rows], tolerance=1e-4)
