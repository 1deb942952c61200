"""Recipes: what they accept, what a change on the command line does, and what every refusal names."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tureen_train.config import (
    RECIPES,
    UNNAMED,
    DpoPolicy,
    ExpertRun,
    FamilyRun,
    FrontRun,
    OwnData,
    PpoPolicy,
    PromptPreferences,
    RankingLoss,
    Recipe,
    RecipeError,
    RewardRun,
    Source,
    describe_recipe,
    format_recipe,
    list_recipes,
    read_any,
    read_family,
    read_recipe,
    resolve_recipe,
)

REWARD: dict[str, Any] = {"kind": "reward", "name": "helpful", "data": {"train": [{"path": "pairs.json"}]}}
EXPERT: dict[str, Any] = {"kind": "expert", "name": "academy", "data": {"train": [{"path": "pairs.json"}]}}


def written(folder: Path, raw: dict[str, Any] | str) -> str:
    path = folder / "recipe.yaml"
    path.write_text(raw if isinstance(raw, str) else yaml.safe_dump(raw))
    return str(path)


def test_the_least_recipe_gets_every_default() -> None:
    run = resolve_recipe(REWARD)
    assert isinstance(run, RewardRun)
    assert run.objective == "helpful"
    assert run.output == "runs/helpful"
    assert run.model.lora is not None
    assert run.model.lora.rank == 8
    assert run.reading.max_length == 512
    assert isinstance(run.loss, RankingLoss)
    assert (run.loss.lm_coefficient, run.loss.lm_threshold) == (0.0, 0.85)
    assert run.scale.zero == 0


def test_kind_chooses_between_a_reward_model_and_an_expert() -> None:
    run = resolve_recipe(EXPERT)
    assert isinstance(run, ExpertRun)
    assert run.family == "policy"
    assert isinstance(run.policy, DpoPolicy)
    assert run.policy.beta == 0.1


@pytest.mark.parametrize("raw", [REWARD, EXPERT])
def test_a_dumped_recipe_reads_back_as_itself(raw: dict[str, Any], tmp_path: Path) -> None:
    run = resolve_recipe({**raw, "optimisation": {"learning_rate": 1e-6}, "licences": ["CC BY-NC 4.0: Ä"]})
    assert read_recipe(written(tmp_path, format_recipe(run))) == run


def test_yaml_that_reads_an_exponent_as_text_still_gives_a_number(tmp_path: Path) -> None:
    text = yaml.safe_dump(REWARD) + "optimisation: {learning_rate: 1e-4}\n"
    assert read_recipe(written(tmp_path, text)).optimisation.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"kind": "critic"}, "kind"),
        ({"name": "two words"}, "name: use 1 to 64"),
        ({"data": {"train": []}}, "data.train"),
        ({"data": {"train": [{}]}}, "data.train.0.path"),
        ({"data": {"train": [{"path": "a", "domian": "x"}]}}, "data.train.0.domian"),
        ({"data": {"train": [{"path": "a"}], "holdout": 1.0}}, "data.holdout"),
        ({"model": {"lora": {"rank": 0}}}, "model.lora.rank"),
        ({"model": {"precision": "fp8"}}, "model.precision"),
        ({"optimisation": {"learning_rate": 0}}, "optimisation.learning_rate"),
        ({"optimisation": {"schedule": "zigzag"}}, "optimisation.schedule"),
        ({"loss": {"lm_coefficient": -1}}, "loss.lm_coefficient"),
        ({"reading": {"pooling": "first"}}, "reading.pooling"),
        ({"reading": {"max_length": 4}}, "reading.max_length"),
        ({"scale": {"zero": 4}}, "scale.zero"),
        ({"scale": {"offload": True}}, "scale: offload needs zero: 2 or 3"),
        ({"scale": {"zero": 1, "offload": True}}, "scale: offload needs zero: 2 or 3"),
        ({"leraning_rate": 1}, "leraning_rate"),
    ],
)
def test_a_bad_value_is_named_by_its_key(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        resolve_recipe({**REWARD, **changes}, "here.yaml")
    assert str(caught.value).startswith("here.yaml: ")
    assert says in str(caught.value)


def test_all_faults_of_a_recipe_are_told_at_once() -> None:
    with pytest.raises(RecipeError, match=r"name.*; .*scale\.zero"):
        resolve_recipe({**REWARD, "name": 3, "scale": {"zero": 9}})


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ({"lora": None, "start": "runs/other/artifact"}, "model.start: .* name a checkpoint in model.base"),
        ({"head": "probe"}, "model.head"),
    ],
)
def test_an_expert_has_no_head_and_whole_weights_start_from_their_base(model: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        resolve_recipe({**EXPERT, "model": model})
    assert isinstance(resolve_recipe({**REWARD, "model": model}), RewardRun)


# --------------------------------------------------------------------------- files and changes


def test_changes_reach_into_groups_lists_and_absent_groups(tmp_path: Path) -> None:
    source = written(tmp_path, REWARD)
    changes = [
        "data.train.0.domain=academy",
        "data.train.0.exclude=[normal]",
        "data.eval.domains.path=other.json",
        "optimisation.epochs=2.5",
        "model.lora=null",
        "watch.trackers.0=wandb",
        "output=runs/a=b",
    ]
    run = read_recipe(source, [change for change in changes if not change.startswith("watch")])
    assert run.data.train == [Source(path="pairs.json", domain="academy", exclude=["normal"])]
    assert run.data.eval == {"domains": Source(path="other.json")}
    assert (run.optimisation.epochs, run.model.lora, run.output) == (2.5, None, "runs/a=b")
    with pytest.raises(RecipeError, match=r"watch\.trackers"):
        read_recipe(source, changes)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("optimisation.epochs", "write it as key.key=value"),
        ("data.train.7.path=x", "'7' is not an index of a list of 1"),
        ("data.train.first=x", "'first' is not an index"),
        ("name.first=x", "'name' has no keys"),
        ("name.first.second=x", "'first' is not a group"),
        ("name=[", "--set name: cannot read it as YAML"),
        ("modle.base=x", "modle"),
    ],
)
def test_a_change_that_cannot_be_made_says_why(change: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        read_recipe(written(tmp_path, REWARD), [change])
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- a list", "a recipe must be a mapping"),
        ("name: [", "cannot read it as YAML"),
        ("", "a recipe must be a mapping"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=says):
        read_recipe(written(tmp_path, text))


def test_an_unknown_name_lists_the_packaged_ones() -> None:
    with pytest.raises(
        RecipeError, match=r"'nothing' is neither a file nor one of the packaged recipes: .*starter/domain-reward"
    ):
        read_recipe("nothing")


def test_every_packaged_recipe_is_valid_and_says_what_it_is_for() -> None:
    names = list_recipes()
    assert {"starter/dialogue-reward", "starter/domain-reward", "starter/family"} <= set(names)
    assert {"dsp/grft", "dsp/crft"} <= set(names)
    for name in names:
        run = read_any(name)
        assert (RECIPES / f"{name}.yaml").read_text().startswith("# ")
        if isinstance(run, FrontRun):
            continue  # it trains on no data
        experts = [run.plan_expert(each, 0) for each in run.objectives] if isinstance(run, FamilyRun) else [run]
        own = all(source.path == UNNAMED for each in experts for source in each.data.train)
        assert all(bool(each.list_licences()) is not own for each in experts), f"{name} names no licence of its data"
        assert describe_recipe(name)


def test_the_customised_stage_of_dsp_goes_on_from_the_general_one() -> None:
    general, customised = read_recipe("dsp/grft"), read_recipe("dsp/crft")
    assert isinstance(general, RewardRun)
    assert isinstance(customised, RewardRun)
    assert general.model.start is None
    assert customised.model.start == f"{general.output}/artifact"
    assert customised.model.lora == general.model.lora
    assert customised.reading == general.reading
    assert isinstance(customised.loss, RankingLoss)
    assert customised.loss.lm_coefficient > 0
    assert set(general.data.eval) <= set(customised.data.eval)


def test_recipe_is_the_union_that_a_schema_is_made_of() -> None:
    from pydantic import TypeAdapter

    schema = TypeAdapter(Recipe).json_schema()
    assert schema["discriminator"]["propertyName"] == "kind"


@pytest.mark.parametrize("name", ["bradley-terry", "fixed", "random", "length", "cosine"])
def test_pcrms_recipes_have_the_published_loss_and_the_last_token_form_beside_it(name: str) -> None:
    published, last = (read_recipe(f"pcrm/{each}").model_dump() for each in (name, f"{name}-last"))
    loss, other = published.pop("loss"), last.pop("loss")
    assert (loss.pop("read"), loss.pop("span_padding")) == ("span", "published")
    assert (other.pop("read"), other.pop("span_padding")) == ("last", "hold")
    assert loss == other
    assert last["name"] == f"{published['name']}-last"
    for each in (published, last):
        for key in ("name", "output", "objective"):
            each.pop(key)
    assert published == last


def _compare(name: str, *own: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A recipe without the keys ``own`` and those that name it, and these keys."""
    recipe = read_recipe(name).model_dump()
    for key in ("name", "output", "objective"):
        recipe.pop(key)
    return recipe, {key: recipe.pop(key) for key in own}


@pytest.mark.parametrize("prior", ["length", "cosine"])
def test_pcrms_policies_differ_by_their_constraint_alone(prior: str) -> None:
    plain, _ = _compare("pcrm/dpo", "policy")
    capped, own = _compare(f"pcrm/dpo-{prior}", "policy")
    assert capped == plain
    assert own["policy"]["constraint"]["prior"].startswith(prior)
    plain, _ = _compare("pcrm/ppo", "rewards")
    capped, own = _compare(f"pcrm/ppo-{prior}", "rewards")
    assert capped == plain
    assert [each["path"] for each in own["rewards"]] == [f"{read_recipe(f'pcrm/{prior}').output}/artifact"]


@pytest.mark.parametrize(
    ("name", "stated", "read"), [("rlhf", 0, "all"), ("psoups-member", 1, "all"), ("pmorl", 8, "each")]
)
def test_rlphfs_policies_differ_by_their_preferences_alone(name: str, stated: int, read: str) -> None:
    plain, _ = _compare("rlphf/rlhf", "preferences", "rewards")
    other, own = _compare(f"rlphf/{name}", "preferences", "rewards")
    assert other == plain
    assert len(PromptPreferences(**own["preferences"]).choices) == stated
    (reward,) = own["rewards"]
    assert (reward["path"], reward["preferences"]) == (f"{read_recipe('rlphf/reward').output}/artifact", read)


def test_a_member_of_rewarded_soups_is_morlhf_with_one_reward() -> None:
    whole, both = _compare("ric/morlhf", "rewards")
    member, one = _compare("ric/soups-member", "rewards")
    assert member == whole
    assert [each["path"] for each in both["rewards"]] == ["rewards/harmless", "rewards/helpful"]
    assert [each["path"] for each in one["rewards"]] == ["rewards/harmless"]


ON_POLICY = {**EXPERT, "policy": {"method": "ppo"}, "rewards": [{"source": "artifact", "path": "a"}]}


def test_the_method_chooses_a_policys_settings() -> None:
    run = resolve_recipe(ON_POLICY)
    assert isinstance(run, ExpertRun)
    assert isinstance(run.policy, PpoPolicy)
    assert (run.policy.clip, run.policy.trace, run.policy.kl_target) == (0.2, 0.95, 6.0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rewards": []}, "rewards: policy.method: ppo needs at least one source"),
        ({"policy": {"method": "dpo"}}, "rewards: policy.method: dpo reads none"),
        ({"policy": {"method": "ppo", "clip": 0}}, "policy.clip: "),
        ({"policy": {"method": "rejection", "select": {"keep": "best_and_worst"}}}, "policy: select.keep"),
        ({"policy": {"method": "iterative-dpo", "select": {"keep": "best"}}}, "policy: select.keep"),
        ({"sampling": {"engine": "server"}}, "sampling: url"),
        ({"sampling": {"temperature": 0}}, "sampling: temperature"),
        ({"sampling": {"min_tokens": 200}}, "sampling: min_tokens"),
        ({"sampling": {"engine": "server", "url": "http://h", "top_k": 3}}, "sampling: top_k: OpenAI's requests"),
        ({"sampling": {"engine": "server", "url": "http://h", "min_tokens": 2}}, "sampling: min_tokens: OpenAI's"),
        ({"sampling": {"engine": "server", "url": "http://h", "temperature": 3}}, "a server takes at most 2"),
        ({"sampling": {"model": "m"}}, "sampling: model: it is for engine: server"),
        ({"sampling": {"preferences": {"a": 1}}}, "sampling: preferences: it is for engine: server"),
        ({"sampling": {"engine": "server", "url": "http://h"}}, "sampling.engine: the weights of a server do not"),
        (
            {
                "sampling": {"engine": "server", "url": "http://h"},
                "policy": {"method": "rejection", "rounds": 2},
            },
            "sampling.engine: the weights of a server do not",
        ),
        ({"rewards": [{"source": "function", "function": "f"}]}, "function: write it as module:function"),
    ],
)
def test_what_on_policy_training_cannot_run_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        resolve_recipe({**ON_POLICY, **changes})


def test_licences_belong_to_the_data_files_of_the_recipe() -> None:
    name = "rlhflow/bradley-terry-smollm2"
    assert read_recipe(name, ["data.root=elsewhere", "data.holdout=0.5"]).licences == ["hh-rlhf: MIT"]
    for change in ("data.train.0.path=mine.jsonl", "data.train=[{path: mine.jsonl}]", "data.eval={x: {path: my.csv}}"):
        assert read_recipe(name, [change]).licences == []
    told = read_recipe(name, ["licences=[mine]", "data.train.0.path=mine.jsonl"])
    assert told.licences == ["mine"]
    family = read_family("starter/family", ["expert.data.train.0.path=mine.jsonl"])
    assert family.plan_expert("academy", 0).licences == []


def test_the_licence_of_a_data_file_follows_its_path() -> None:
    def licences(*changes: str) -> list[str]:
        return read_recipe("dsp/crft", changes).list_licences()

    domains, dialogues = licences()
    assert ("domain_specific" in domains, "hh-rlhf" in dialogues) == (True, True)
    mine = "data.train.0.path=mine/answers.jsonl"
    assert licences(mine) == [domains, dialogues, "answers.jsonl: not stated"]  # of the files that judge
    assert licences(mine, "data.eval={}") == []
    assert licences(mine, "data.eval={}", "data.train.0.licence=CC0") == ["CC0"]
    assert licences("data.train.0.licence=CC0", mine, "data.eval={}") == ["CC0"]
    assert licences(mine, "data.eval={}", "licences=[CC0]") == ["CC0"]
    assert licences("data.train.0.path=dsp/helpful.test.json", "data.eval={}") == [dialogues]
    assert licences("data.train=[{path: dsp/harmless.test.json}]", "data.eval={}") == [dialogues]
    two = read_recipe("dsp/grft", ["data.train.1.path=mine.jsonl"])
    assert [each.licence for each in two.data.train] == [dialogues, None]
    assert two.list_licences() == [dialogues, "mine.jsonl: not stated"]
    assert read_recipe("dsp/grft", ["data.holdout=0.5", "data.root=elsewhere"]).list_licences() == [dialogues]


def test_own_data_take_the_place_of_the_recipes_and_are_where_the_user_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.csv").write_text("question,chosen,rejected\n")
    for name in ("my-pairs", "dsp/crft"):
        run = read_recipe(name, own=OwnData([Path("mine.csv")], {"question": "prompt"}))
        assert run.data.train == [Source(path="mine.csv", map={"question": "prompt"})]
        assert (run.data.root, run.data.eval, run.list_licences()) == (str(tmp_path), {}, [])
    changed = read_recipe("dsp/crft", ["data.train.0.path=mine.csv"]).data
    assert (changed.root, changed.train[0].path) == ("../shared/data", str(tmp_path / "mine.csv"))
    below = read_recipe("dsp/crft", ["data.root=elsewhere", "data.train.0.path=mine.csv"]).data
    assert below.train[0].path == "mine.csv"
    with pytest.raises(RecipeError, match=r"--data: there is no gone.csv, seen from "):
        read_recipe("my-pairs", own=OwnData([Path("gone.csv")]))
