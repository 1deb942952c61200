"""What a foreign ``model`` means: every spelling, what is no spelling, and no guess among several."""

import pytest
from serve.border import served
from serve.counting import SCALES, reward

from tureen.errors import NotFound, ServerFault, TureenError, Unprocessable
from tureen_serve.dialects.model_names import RewardSelection, check_aliases, select_rewards
from tureen_serve.inference.engine import Outcome

TWO = {name: reward(name) for name in SCALES}
ONE = {"calm": TWO["calm"]}
ALIASES = {"rm": "calm", "gpt-judge": "calm=1,funny=3", "pair": "funny,calm", "/ckpt/rm-final": "funny"}
OUTCOME = Outcome({"calm": 3.0, "funny": 2.0}, tokens=9)


def spelled(model: str | None, **aliases: str) -> RewardSelection:
    return select_rewards(model, TWO, {**ALIASES, **aliases})


def refused(model: str | None, rewards: object = TWO, **aliases: str) -> TureenError:
    with pytest.raises(TureenError) as caught:
        select_rewards(model, rewards, {**ALIASES, **aliases})  # type: ignore[arg-type]
    assert caught.value.param == "model"
    return caught.value


# --------------------------------------------------------------------------- several rewards are loaded


@pytest.mark.parametrize(
    ("model", "columns"),
    [
        ("calm", ("calm",)),
        ("calm,funny", ("calm", "funny")),
        ("funny, calm", ("funny", "calm")),
        ("funny+calm", ("funny", "calm")),
        ("funny;calm", ("funny", "calm")),
        ("org/calm+org/funny", ("calm", "funny")),
        ("/models/checkpoints/calm", ("calm",)),
        ("org/funny", ("funny",)),
        ("./calm/", ("calm",)),
        ("rm", ("calm",)),
        ("hub/rm", ("calm",)),
        ("pair", ("funny", "calm")),
        ("/ckpt/rm-final", ("funny",)),
        ("org/calm,org/funny", ("calm", "funny")),
        ("calm,calm", ("calm", "calm")),
    ],
)
def test_a_name_a_path_an_alias_or_a_list_of_them(model: str, columns: tuple[str, ...]) -> None:
    found = spelled(model)
    assert found.columns == columns
    assert found.query.weights is None
    assert set(found.query.objectives) == set(columns)
    assert found.values(OUTCOME) == [OUTCOME.raw[name] for name in columns]


@pytest.mark.parametrize(
    "model",
    [
        "calm=1,funny=3",
        " calm = 1 , funny=3",
        "gpt-judge",
        "calm=0.25,funny=0.75",
        "calm=0.25+funny=0.75",
        "calm=0.25;funny=0.75",
        "calm=0.25 funny=0.75",
        "org/calm=0.25+org/funny=0.75",
        "calm=1e+0+funny=+3",
    ],
)
def test_a_mix_is_one_column_on_the_calibrated_scale(model: str) -> None:
    found = spelled(model)
    assert len(found.columns) == 1
    assert found.query.weights == {"calm": 0.25, "funny": 0.75}
    assert found.values(OUTCOME) == [found.value(OUTCOME)] == [pytest.approx(0.25 * (3 - 1) / 2 + 0.75 * 2)]
    assert found.standard(OUTCOME) == found.value(OUTCOME)


@pytest.mark.parametrize(
    "model",
    [
        "none:calm=1+funny=-0.5",
        " none: calm=1, funny=-0.5",
        "none:org/calm=1+org/funny=-0.5",
        "none:org/calm=1;org/funny=-0.5",
        "brief",
    ],
)
def test_after_the_mark_weights_are_used_as_written(model: str) -> None:
    found = spelled(model, brief="none:calm=1+funny=-0.5")
    assert found.query.weights == {"calm": 1, "funny": -0.5}
    assert found.values(OUTCOME) == [(3 - 1) / 2 - 0.5 * 2]
    assert found.standard(OUTCOME) == found.value(OUTCOME)


def test_a_weight_of_nothing_is_not_computed() -> None:
    found = spelled("calm=1,funny=0")
    assert found.query.objectives == ("calm",)
    assert found.value(Outcome({"calm": 3.0})) == 1.0


@pytest.mark.parametrize("model", ["nobody", "/models/nobody", "calm,nobody", "nobody=1,calm=1", "calm,", ",", "=1"])
def test_what_is_not_loaded_is_not_found(model: str) -> None:
    error = refused(model)
    assert isinstance(error, NotFound)
    assert error.code == "unknown_reward"
    assert repr(model) in error.message
    assert "send one of /ckpt/rm-final, calm, funny, gpt-judge, pair, rm" in error.message


@pytest.mark.parametrize(
    ("model", "strangers"),
    [
        ("calm=0.7,wrong=0.3", "'wrong'"),
        ("wrong=0.7,calm=0.1,worse=0.2", "'wrong' or 'worse'"),
        ("calm,/ckpt/wrong", "'/ckpt/wrong'"),
    ],
)
def test_of_a_mix_the_part_is_named_that_is_not_loaded(model: str, strangers: str) -> None:
    assert refused(model).message.startswith(f"no reward is called {strangers} (in {model!r}); send one of")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("calm=much,funny=1", "'calm=much' is not a weight; write it as name=0.7"),
        ("calm=0.5,funny", "'funny' is not a weight; write it as name=0.7"),
        ("calm=1,calm=2", "'calm' has two weights; send one"),
        ("calm=0,funny=0", "all weights are zero"),
        ("calm=-1,funny=2", "negative: write `none:` before the weights to subtract a reward, as none:a=1+b=-0.5"),
        ("none:calm=1", "has one weight; after `none:` write two or more, of which one may be 0. If some are missing"),
        ("none:calm=-1", "has one weight"),
        ("none:calm=0,funny=0", "all weights are zero"),
        ("none:calm", "'none:calm' has no weights: write them as none:a=1+b=-0.5"),
        ("none:calm,funny", "has no weights"),
        ("none:calm=17,funny=1", "beyond"),
        ("calm=nan,funny=1", "not a finite number"),
        ("calm=inf", "not a finite number"),
        ("calm=1e9", "beyond"),
        ("calm=0.7", "the weights in 'calm=0.7' add up to 0.7; write weights that add up to 1. If some are missing, a"),
        ("funny=2", "add up to 2"),
    ],
)
def test_weights_that_cannot_be_used(model: str, words: str) -> None:
    error = refused(model)
    assert isinstance(error, Unprocessable)
    assert words in error.message


@pytest.mark.parametrize("model", [None, ""])
def test_among_several_none_is_guessed(model: str | None) -> None:
    error = refused(model)
    assert isinstance(error, NotFound)
    assert "2 rewards are loaded and `model` is missing" in error.message


@pytest.mark.parametrize("model", [None, "", "default"])
def test_the_alias_default_answers_who_names_none(model: str | None) -> None:
    assert spelled(model, default="funny").columns == ("funny",)
    assert spelled(model, default="calm=1,funny=1").query.weights == {"calm": 0.5, "funny": 0.5}
    assert isinstance(refused("nobody", default="funny"), NotFound)


# --------------------------------------------------------------------------- one is loaded


@pytest.mark.parametrize(
    "model",
    [
        None,
        "",
        "calm",
        "nobody",
        "/ckpt/step_900",
        "/ckpt/lr=1e-5,bs=4/step_900",
        "/ckpt/sft+dpo/step_900",
        "/my runs/step_900",
        "a,b",
        "reward-model:v2",
    ],
)
def test_the_only_reward_answers_to_every_name(model: str | None) -> None:
    found = select_rewards(model, ONE, {})
    assert (found.name, found.columns, found.query.objectives) == ("calm", ("calm",), ("calm",))


@pytest.mark.parametrize(
    "model",
    ["calm=0.7,funny=0.3", "calm,funny", "calm=0.7+funny=0.3", "calm+funny", "calm funny", "none:calm=1,funny=-1"],
)
def test_a_mix_with_what_is_not_loaded_is_not_taken_for_the_only_reward(model: str) -> None:
    error = refused(model, ONE)
    assert isinstance(error, NotFound)


def test_the_alias_default_is_heard_before_the_only_reward() -> None:
    found = select_rewards(None, ONE, {"default": "calm=1"})
    assert found.value(Outcome({"calm": 3.0})) == 1.0


@pytest.mark.parametrize("model", [None, "calm"])
def test_no_reward_is_loaded(model: str | None) -> None:
    error = refused(model, {})
    assert isinstance(error, NotFound)
    assert error.message == "this server has loaded no reward models"


# --------------------------------------------------------------------------- values


def test_several_columns_have_no_single_value() -> None:
    with pytest.raises(Unprocessable, match=r"name one, or a weighted mix as calm=0.5\+funny=0.5") as caught:
        spelled("calm,funny").value(OUTCOME)
    assert caught.value.param == "model"


def test_one_reward_is_raw_and_its_standard_is_calibrated() -> None:
    found = spelled("calm")
    assert (found.value(OUTCOME), found.standard(OUTCOME)) == (3.0, 1.0)


@pytest.mark.parametrize("model", ["calm", "calm=1,funny=1"])
def test_a_text_without_a_reward_has_no_value(model: str) -> None:
    error = ServerFault("the reward is not finite", code="non_finite_score")
    failed = Outcome({}, error=error)
    for read in (spelled(model).values, spelled(model).value, spelled(model).standard):
        with pytest.raises(ServerFault) as caught:
            read(failed)
        assert caught.value is error


# --------------------------------------------------------------------------- aliases, at the start


def test_aliases_that_stand_for_what_is_loaded() -> None:
    assert check_aliases({**ALIASES, "default": "calm", "brief": "none:calm=1+funny=-0.5"}, TWO) is None
    assert check_aliases({"brief": "none:calm=1+funny=-0.5"}, {}, {"calm", "funny"}) is None
    assert check_aliases({}, {}) is None


@pytest.mark.parametrize(
    ("alias", "words"),
    [
        ("nobody", "aliases.mine: no reward is called 'nobody'; loaded: calm, funny"),
        ("calm,nobody", "aliases.mine: no reward is called 'nobody' (in 'calm,nobody'); loaded: calm, funny"),
        ("calm=1,nobody=1", "aliases.mine: no reward is called 'nobody' (in 'calm=1,nobody=1'); loaded: calm, funny"),
        ("calm=much", "aliases.mine: 'calm=much' is not a weight"),
        ("calm=0", "aliases.mine: all weights are zero"),
        ("calm=0.7", "aliases.mine: the weights in 'calm=0.7' add up to 0.7"),
        ("calm=1,funny=-1", "aliases.mine: the weight of 'funny' is negative: write `none:` before the weights"),
        ("none:calm=1,nobody=-1", "aliases.mine: no reward is called 'nobody' (in 'none:calm=1,nobody=-1'); loaded:"),
        ("", "aliases.mine: "),
    ],
)
def test_an_alias_for_nothing_is_told(alias: str, words: str) -> None:
    told = check_aliases({"good": "calm", "mine": alias}, TWO)
    assert told is not None
    assert told.startswith(words)


def test_an_alias_is_no_guess_even_where_one_reward_is_loaded() -> None:
    assert check_aliases({"mine": "nobody"}, ONE) is not None
    assert check_aliases({"mine": "calm"}, {}) == "aliases.mine: no reward is called 'calm'; loaded: none"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/get_reward", {"query": ["calm funny funny"]}),
        ("/tei/predict", {"inputs": "calm funny funny", "raw_scores": True}),
        ("/tei/rerank", {"query": "q", "texts": ["calm funny funny"], "raw_scores": True}),
        ("/slime", {"prompt": "q", "response": "calm funny funny"}),
        ("/sglang/classify", {"text": "calm funny funny"}),
    ],
)
def test_a_model_in_the_body_is_heard_where_the_protocol_has_none(path: str, body: dict[str, object]) -> None:
    with served(aliases={"default": "calm"}) as client:
        calm, funny = (client.post(path, json=body | more) for more in ({}, {"model": "funny"}))
        unknown = client.post(path, json=body | {"model": "nobody"})
    assert (calm.status_code, funny.status_code, unknown.status_code) == (200, 200, 404)
    assert calm.json() != funny.json()
    assert "?model=" in unknown.text


def test_an_alias_hides_no_reward() -> None:
    told = check_aliases({"calm": "funny"}, TWO)
    assert told == "aliases.calm: a loaded reward has this name; choose another name for the alias"
