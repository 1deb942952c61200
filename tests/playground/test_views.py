"""Each view over the starter's server, as a person uses it: by mouse, and by the keyboard alone."""

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from playground.browsing import Playground, opened
from playwright.sync_api import Browser, expect

REWARDS = ["academy", "business", "entertainment", "harmless", "helpful", "literature"]
ANSWERS = [
    "Abscission is regulated by ethylene and auxin.",
    "Gold letters let go of the bough, one by one.",
    "No idea.",
]
QUESTION = "Why do leaves fall in autumn?"


@pytest.fixture
def playground(request: pytest.FixtureRequest, browser: Browser, starter: str) -> Iterator[Playground]:
    """The page at the view that the test is marked with."""
    with opened(browser, starter, request.param) as found:
        yield found


def at(view: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("playground", [view], indirect=True)


def ask(address: str, path: str, body: Any) -> Any:
    reply = httpx2.post(f"{address}{path}", json=body, timeout=120)
    assert reply.status_code == 200, reply.text
    return reply.json()


def show(value: float) -> str:
    return f"{'−' if value < 0 else '+'}{abs(value):.2f}"


@at("Score")
def test_answers_are_ranked_and_explained(playground: Playground, starter: str) -> None:
    playground.click("Score")
    body = {"items": [{"prompt": QUESTION, "candidates": ANSWERS}], "rewards": REWARDS, "preferences": {"academy": 1}}
    label = ask(starter, "/v1/preferences", {**body, "matrix": True})["data"][0]
    rows = playground.view.get_by_role("region", name="Ranking").get_by_role("row")
    expect(rows).to_have_count(1 + len(ANSWERS))
    for place, index in enumerate(label["ranking"], 1):
        told = rows.nth(place).inner_text()
        assert ANSWERS[index] in told
        for score in label["candidates"][index]["scores"].values():
            assert show(score["calibrated"]) in told
            assert show(score["raw"]) in told
    best, other = label["ranking"][:2]
    matrix = playground.view.get_by_role("region", name="Bradley-Terry probabilities")
    expect(matrix).to_contain_text(f"{100 * label['matrix'][best][other]:.1f} %")
    pairs = playground.save_lines("Download as TRL pairs")
    assert [pair["chosen"][0]["content"] for pair in pairs] == [ANSWERS[best]] * 2
    assert pairs[0]["rejected"][0]["content"] == ANSWERS[other]

    playground.click("Explain the score of answer 1")
    explanation = ask(starter, "/v1/score/explain", {"prompt": QUESTION, "answer": ANSWERS[0], "rewards": REWARDS})
    pieces = playground.view.locator(".explained span")
    expect(pieces).to_have_count(len(explanation["segments"]))
    assert "".join(pieces.all_inner_texts()) == ANSWERS[0]
    first = explanation["segments"][0]["changes"]
    assert pieces.first.get_attribute("title") == show(first["academy"])
    playground.view.get_by_role("combobox", name="Reward").select_option("literature")
    assert pieces.first.get_attribute("title") == show(first["literature"])
    playground.view.get_by_label("leave pieces out").check()
    expect(pieces).to_have_count(1)
    playground.check("score")


@at("Score")
def test_answers_are_ranked_by_keyboard(playground: Playground) -> None:
    view, keyboard = playground.view, playground.page.keyboard
    playground.tab_to(view.get_by_label("Answer 3"))
    keyboard.press("Control+a")
    keyboard.type("Because days grow short.")
    playground.press_on(playground.button("Score"), "Enter")
    expect(view.get_by_role("region", name="Ranking")).to_contain_text("Because days grow short.")
    expect(view).to_contain_text("By academy 100 %.")
    playground.press_on(view.get_by_role("slider", name="literature"), "End")
    expect(view).to_contain_text("The weights have changed since")
    playground.tab_to(playground.button("Score"), "Shift+Tab")
    keyboard.press("Enter")
    expect(view).to_contain_text("By academy 50 %, literature 50 %.")
    expect(view).not_to_contain_text("The weights have changed since")
    playground.press_on(playground.button("Explain the score of answer 3"), "Enter")
    expect(view.locator(".explained")).to_have_text("Because days grow short.")


@at("Taste")
def test_a_soup_is_tasted_compared_and_chosen(playground: Playground) -> None:
    view = playground.view
    view.get_by_label("Longest answer, in tokens").fill("12")
    playground.click("Send")
    turns = view.get_by_role("article")
    expect(turns.nth(0)).to_contain_text("Rewards, the base in grey")
    expect(turns.nth(0).get_by_role("row")).to_have_count(len(REWARDS))

    view.get_by_label("compare settings").check()
    for preset, objective in (("playful", "entertainment"), ("literary", "literature")):
        expect(playground.button("Send")).to_be_disabled()
        playground.click(preset)
        playground.click(f"Add {objective} 100 %")
    view.get_by_label("Your next message").fill("And the snow?")
    playground.click("Send")
    expect(turns.nth(1)).to_contain_text("Rewards, the base in grey")
    expect(turns.nth(1).get_by_role("heading")).to_have_text(["entertainment 100 %", "literature 100 %"])
    turns.nth(1).get_by_label("Go on with this one").nth(1).check()

    view.get_by_label("best of several").check()
    view.get_by_label("Your next message").fill("And the wind?")
    playground.click("Send")
    expect(turns.nth(2)).to_contain_text("3 that were not chosen")
    expect(turns.nth(2)).to_contain_text("Rewards, the base in grey")
    turns.nth(2).get_by_text("3 that were not chosen").click()
    expect(turns.nth(2)).to_contain_text("the chosen one has")
    playground.check("taste")


@at("Taste")
def test_the_triangle_is_dragged(playground: Playground) -> None:
    handle = playground.view.get_by_role("slider", name="Weights of academy, business, entertainment")
    box = playground.view.locator(".triangle").bounding_box()
    assert box is not None
    mouse = playground.page.mouse
    mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    mouse.down()
    mouse.move(box["x"] + box["width"] / 2, box["y"], steps=4)
    mouse.up()
    expect(handle).to_have_attribute("aria-valuetext", "academy 100.0 %, business 0.0 %, entertainment 0.0 %")


@at("Taste")
def test_a_soup_is_tasted_by_keyboard(playground: Playground) -> None:
    view, keyboard = playground.view, playground.page.keyboard
    playground.tab_to(view.get_by_label("Your message"))
    keyboard.press("Control+a")
    keyboard.type("Hello")
    handle = view.get_by_role("slider", name="Weights of academy, business, entertainment")
    playground.press_on(handle, "ArrowDown", "ArrowRight")
    told = handle.get_attribute("aria-valuetext")
    assert told is not None
    assert "academy 100.0 %" not in told
    playground.tab_to(view.get_by_label("Longest answer, in tokens"))
    keyboard.press("Control+a")
    keyboard.type("6")
    playground.tab_to(playground.button("Send"), "Shift+Tab")
    keyboard.press("Enter")
    expect(view.get_by_role("article")).to_contain_text("Rewards, the base in grey")


@at("Sweep")
def test_two_objectives_are_swept(playground: Playground) -> None:
    view = playground.view
    view.get_by_label("Prompts, one in each line").fill("Describe the rain.\nHow do I cook rice?")
    view.get_by_label("Weights on each side").select_option("3")
    view.get_by_label("Longest answer, in tokens").fill("8")
    playground.click("Sweep")
    expect(view).to_contain_text("2 of 2 prompts")
    playground.wait_until_still()
    rows = view.get_by_role("region", name="Mean rewards of all weights").get_by_role("row")
    expect(rows).to_have_count(4)
    expect(rows.filter(has_text="yes")).not_to_have_count(0)
    view.locator(".pick > *").nth(1).click()
    texts = view.get_by_role("region", name="Texts")
    expect(texts).to_contain_text("academy 50 %, business 50 %")
    saved = playground.save_lines("Download")
    assert len(saved) == 6
    assert set(saved[0]["rewards"]) == set(REWARDS)
    assert saved[2]["text"].split() == texts.locator(".text").nth(1).inner_text().split()
    playground.check("sweep")


@at("Sweep")
def test_three_objectives_are_swept_by_keyboard_and_stopped(playground: Playground) -> None:
    view, keyboard = playground.view, playground.page.keyboard
    playground.press_on(view.get_by_label("entertainment"), "Space")
    playground.press_on(view.get_by_label("Weights on each side"), "ArrowUp")
    playground.tab_to(view.get_by_label("Longest answer, in tokens"))
    keyboard.press("Control+a")
    keyboard.type("4")
    playground.press_on(playground.button("Sweep"), "Enter")
    expect(view).to_contain_text("1 of 3 prompts")
    playground.press_on(playground.button("Stop"), "Enter")
    playground.wait_until_still()
    read = view.get_by_role("button", name="Read the texts of").first
    playground.press_on(read, "Enter")
    expect(view.get_by_role("region", name="Texts")).to_contain_text("Describe the rain.")
    expect(view.get_by_role("region", name="Mean rewards of all weights").get_by_role("row")).to_have_count(7)


@at("Label")
def test_choices_find_weights(playground: Playground) -> None:
    lines = [json.dumps({"prompt": QUESTION, "chosen": one, "rejected": other}) for one, other in _pairs()]
    file = {"name": "pairs.jsonl", "mimeType": "application/jsonl", "buffer": "\n".join(lines).encode()}
    view = playground.view
    view.get_by_label("Or pairs of a JSON Lines file").set_input_files(file)  # type: ignore[arg-type]
    for number, (one, other) in enumerate(_pairs()):
        expect(view.locator(".board .answers")).to_contain_text(one)
        expect(view.locator(".board .answers")).to_contain_text(other)
        playground.click("← A is better" if number % 2 else "B is better →")
    expect(view).to_contain_text("Your weights after 3 choices")
    expect(view).to_contain_text("the file has no more pairs")
    expect(view.get_by_role("row")).to_have_count(len(REWARDS))
    weights = json.loads(playground.save("Save as a preset"))["mine"]
    assert set(weights) <= set(REWARDS)
    assert sum(weights.values()) == pytest.approx(1)
    saved = playground.save_lines("Save as training pairs")
    assert [pair["chosen"][0]["content"] for pair in saved] == [_pairs()[0][1], _pairs()[1][0], _pairs()[2][1]]
    playground.check("label")


def _pairs() -> list[tuple[str, str]]:
    return [(ANSWERS[0], ANSWERS[1]), (ANSWERS[1], ANSWERS[2]), (ANSWERS[2], ANSWERS[0])]


@at("Label")
def test_pairs_are_written_and_judged_by_keyboard(playground: Playground) -> None:
    view, keyboard = playground.view, playground.page.keyboard
    playground.press_on(playground.button("Write pairs"), "Enter")
    board = view.get_by_role("group", name="Two answers")
    expect(board).to_be_focused()
    keyboard.press("ArrowLeft")
    expect(view).to_contain_text("Your weights after 1 choice")
    expect(playground.button("Skip ↓")).to_be_enabled()
    keyboard.press("ArrowRight")
    expect(view).to_contain_text("Your weights after 2 choices")
    keyboard.press("u")
    expect(view).to_contain_text("Your weights after 1 choice")


@at("Models")
def test_models_and_batches_are_shown(playground: Playground, starter: str) -> None:
    view = playground.view
    expect(view).to_contain_text("73.3 % of 330 pairs (68.3 % to 77.8 %)")
    expect(view).to_contain_text("CC BY-NC 4.0")
    expect(view).to_contain_text("There are none.")
    body = {"items": [{"prompt": QUESTION, "candidates": ANSWERS}]}
    lines = [{"custom_id": f"line-{n}", "method": "POST", "url": "/v1/score", "body": body} for n in range(2)]
    content = "\n".join(map(json.dumps, lines)).encode()
    upload = httpx2.post(f"{starter}/v1/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", content)})
    made = {"input_file_id": upload.json()["id"], "endpoint": "/v1/score", "completion_window": "24h"}
    ask(starter, "/v1/batches", made)
    batches = view.get_by_role("region", name="Batches")
    expect(batches).to_contain_text("completed")
    expect(batches).to_contain_text("2 of 2")
    results = playground.save_lines("Save results")
    assert [each["custom_id"] for each in results] == ["line-0", "line-1"]
    expect(view.get_by_role("img", name="The scores of academy now")).to_be_visible()
    playground.check("models")


@at("Models")
def test_views_are_reached_by_keyboard(playground: Playground) -> None:
    for name in ("Score", "Taste", "Sweep", "Label", "Models"):
        link = playground.page.get_by_role("link", name=name)
        playground.press_on(link, "Enter")
        expect(playground.page.get_by_role("region", name=name, exact=True)).to_be_visible()
        expect(link).to_have_attribute("aria-current", "page")
