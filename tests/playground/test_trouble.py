"""What goes wrong: keys, servers that end, hostile texts, long texts and files; over real servers without a model."""

import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playground.browsing import Playground, opened
from playwright.sync_api import Browser, expect
from serve.border import application, listening, listening_app
from serve.counting import CONTEXT, CountingEngine
from serve.keys import KEY, write_lines
from waiting import block_until

from tureen_serve.runtimes.contract import TextDelta

HOSTILE = [
    "<img src=x onerror=\"document.title='broken'\">",
    "<script>document.title='broken'</script>",
    "[a link](javascript:document.title='broken') and [the web](https://example.org)",
    "![picture](https://example.org/x.png)",
    "<style>body{display:none}</style><form action=https://example.org><input></form>",
    "\x1b[31mred\x1b[0m and \u202egnihtemos\u202c",
]


@pytest.fixture
def plain(browser: Browser) -> Iterator[Playground]:
    with listening(CountingEngine()) as address, opened(browser, address, "Score") as found:
        yield found


def fill(playground: Playground, *answers: str) -> None:
    for number, answer in enumerate(answers, 1):
        playground.view.get_by_label(f"Answer {number}").fill(answer)


def test_a_key_is_asked_for_and_forgotten(browser: Browser, tmp_path: Path) -> None:
    with (
        listening(CountingEngine(), keys=write_lines(tmp_path, KEY)) as address,
        opened(browser, address, "Score") as playground,
    ):
        page = playground.page
        dialog = page.get_by_role("dialog", name="This server needs a key")
        expect(dialog).to_contain_text("send a key that this server knows")
        dialog.get_by_label("Key").fill("not-a-key-of-this-server")
        page.keyboard.press("Enter")
        expect(dialog.get_by_label("Key")).to_have_value("")
        dialog.get_by_label("Key").fill(KEY)
        dialog.get_by_role("button", name="Use this key").click()
        expect(playground.button("Score")).to_be_visible()
        stored = page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]")
        assert stored == [0, 0, ""]
        page.reload()
        expect(dialog).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("alert").filter(has_text="this server needs a key")).to_be_visible()


def test_a_server_that_ends_in_a_stream_is_told(browser: Browser) -> None:
    engine = CountingEngine()
    engine.pause_after = 3
    with ExitStack() as ends:
        address = ends.enter_context(listening_app(application(engine)))
        playground = ends.enter_context(opened(browser, address, "Taste"))
        playground.click("Send")
        expect(playground.view.get_by_role("article").locator(".markdown")).not_to_be_empty()
        written = playground.view.get_by_role("article").locator(".markdown").inner_text()
        assert written
        engine.broken = RuntimeError("the process ends")
        engine.gate.set()
        expect(playground.view.get_by_role("alert")).not_to_be_empty()
        expect(playground.view.get_by_role("article").locator(".markdown")).to_contain_text(written)
        expect(playground.button("Send")).to_be_enabled()


def test_a_server_that_is_gone_is_told(browser: Browser) -> None:
    with ExitStack() as ends:
        address = ends.enter_context(listening(CountingEngine()))
        with opened(browser, address, "Score") as playground:
            expect(playground.button("Score")).to_be_visible()
            ends.close()
            playground.click("Score")
            expect(playground.view.get_by_role("alert")).to_contain_text("the server cannot be reached")


class HostileEngine(CountingEngine):
    """Writes what a page must not believe."""

    async def generate(self, *asked: Any, **more: Any) -> AsyncGenerator[TextDelta]:
        for text in HOSTILE:
            yield TextDelta(f"{text}\n\n", tokens=1)
        yield TextDelta("", finish="stop")


def test_hostile_texts_are_texts(browser: Browser) -> None:
    with listening(HostileEngine()) as address, opened(browser, address, "Taste") as playground:
        playground.click("Send")
        expect(playground.view).to_contain_text("Rewards, the base in grey")
        answer = playground.view.locator(".card .markdown")
        assert answer.locator("img, script, style, form, input, iframe, [onerror]").count() == 0
        assert [link.get_attribute("href") for link in answer.locator("a[href]").all()] == ["https://example.org"]
        for text in (HOSTILE[0], HOSTILE[1], HOSTILE[4]):
            expect(answer).to_contain_text(text)
        expect(answer).to_contain_text("⟨1B⟩[31mred⟨1B⟩[0m and ⟨202E⟩gnihtemos⟨202C⟩")
        assert playground.page.title() == "Tureen playground"


def test_hostile_answers_are_shown_as_they_are(plain: Playground) -> None:
    fill(plain, HOSTILE[0], HOSTILE[1], HOSTILE[-1])
    plain.click("Score")
    ranking = plain.view.get_by_role("region", name="Ranking")
    for text in HOSTILE[:2]:
        expect(ranking).to_contain_text(text)
    expect(ranking).to_contain_text("⟨202E⟩gnihtemos")
    assert ranking.locator("img, script").count() == 0
    assert plain.page.title() == "Tureen playground"


def test_a_text_that_is_too_long_is_cut_and_told(plain: Playground) -> None:
    fill(plain, "calm " * CONTEXT, "calm", "funny")
    plain.click("Score")
    row = plain.view.get_by_role("region", name="Ranking").get_by_role("row").nth(1)
    expect(row).to_contain_text("Too long: its beginning was cut.")


def put(playground: Playground, lines: list[Any]) -> None:
    content = "\n".join(each if isinstance(each, str) else json.dumps(each) for each in lines).encode()
    file = {"name": "answers.jsonl", "mimeType": "application/jsonl", "buffer": content}
    playground.view.get_by_label("Drop a JSON Lines file").set_input_files(file)  # type: ignore[arg-type]


def test_a_file_of_5000_lines_is_scored(plain: Playground) -> None:
    put(plain, [{"prompt": "q", "candidates": ["calm " * (n % 20 + 1), "funny"]} for n in range(5000)])
    expect(plain.view).to_contain_text("5000 of 5000 lines")
    expect(plain.view).to_contain_text("10000 answers scored")
    expect(plain.view.get_by_role("img", name="Reward against length; correlation +")).to_be_visible()
    pairs = plain.save_lines("Download 5000 TRL pairs")
    assert len(pairs) == 5000
    assert pairs[19]["chosen"] == [{"role": "assistant", "content": "calm " * 20}]


def test_pairs_of_a_file_tell_how_often_the_reward_agrees(plain: Playground) -> None:
    put(plain, [{"prompt": "q", "chosen": "calm " * n, "rejected": "funny"} for n in (3, 4)])
    expect(plain.view).to_contain_text("prefers the chosen answer in 2 of 2 pairs")
    put(plain, [{"prompt": "q", "chosen": a, "rejected": b} for a, b in (("calm", "funny"), ("funny", "calm"))])
    expect(plain.view).to_contain_text("prefers the chosen answer in 1 of 2 pairs")


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (['{"prompt": "q", "candidates": ["a"]}', "{broken"], "line 2 is not JSON"),
        ([{"text": "no answers"}], "line 1: give prompt with candidates"),
        ([""], "the file has no lines"),
    ],
)
def test_a_file_that_cannot_be_read_names_its_line(plain: Playground, lines: list[Any], told: str) -> None:
    put(plain, lines)
    expect(plain.view.get_by_role("alert")).to_contain_text(told)


def test_a_line_that_cannot_be_scored_does_not_stop_the_file(plain: Playground) -> None:
    put(plain, [{"prompt": "q", "candidates": ["calm"]}, {"prompt": "q", "candidates": [[{"role": "critic"}]]}])
    expect(plain.view).to_contain_text("2 of 2 lines")
    expect(plain.view).to_contain_text("1 answers scored")


def test_a_server_that_loads_is_asked_again(browser: Browser) -> None:
    engine = CountingEngine()
    app = application(engine)
    with listening_app(app) as address:
        app.state.server.engine = None
        with opened(browser, address, "Score") as playground:
            expect(playground.page.get_by_role("alert")).to_contain_text("the models are still loading")
            app.state.server.engine = engine
            expect(playground.button("Score")).to_be_visible()
    block_until(lambda: not app.state.in_flight)
