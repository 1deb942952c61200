"""The first page: HTML for browsers, JSON for all others, and the files that the page names."""

import asyncio
import gzip
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from serve.border import Caller, served
from serve.counting import CountingEngine
from serve.keys import KEY, bear, write_lines
from waiting import wait_until

from tureen_serve.api.playground import FOLDER, PAGE
from tureen_serve.app import create_app
from tureen_serve.settings import load_settings

BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
NAMED = re.compile(r'(?:src|href)="(/playground/[^"]+)"')
MOST_BYTES = 300_000


@pytest.mark.parametrize("accept", ["*/*", "application/json", "application/json, text/plain, */*"])
def test_clients_get_the_routes_and_need_a_key(tmp_path: Path, accept: str) -> None:
    with served(keys=write_lines(tmp_path, KEY)) as client:
        assert client.get("/", headers={"accept": accept}).status_code == 401
        assert client.get("/", headers={"accept": accept, **bear(KEY)}).json()["service"] == "tureen"
        assert client.post("/", headers=BROWSER).status_code == 401


def test_a_browser_gets_the_page_and_its_files_without_a_key(tmp_path: Path) -> None:
    with served(keys=write_lines(tmp_path, KEY)) as client:
        page = client.get("/", headers=BROWSER)
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert (page.headers["cache-control"], page.headers["vary"]) == ("no-store", "accept")
        names = NAMED.findall(page.text)
        assert {name.rpartition(".")[2] for name in names} == {"js", "css", "svg"}
        for name in names:
            reply = client.get(name)
            assert reply.status_code == 200
            assert reply.headers.get_list("cache-control") == ["public, max-age=31536000, immutable"]
            assert re.match(r"(text|application)/javascript|text/css|image/svg", reply.headers["content-type"])
        assert client.head("/", headers=BROWSER).headers["content-type"] == page.headers["content-type"]


@pytest.mark.parametrize("name", ["none.js", PAGE, "..%2Fapp.py", "%2e%2e/app.py", "../app.py"])
def test_no_other_file_is_served(name: str) -> None:
    with served() as client:
        assert client.get(f"/playground/{name}").status_code == 404


def test_the_page_runs_its_own_scripts_only_and_asks_nobody_else() -> None:
    with served() as client:
        policy = client.get("/", headers=BROWSER).headers["content-security-policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules.pop("default-src") == "'none'"
    assert rules.pop("trusted-types") == "dompurify"
    assert rules.pop("require-trusted-types-for") == "'script'"
    assert set(rules.values()) <= {"'self'", "'none'"}
    page = (FOLDER / PAGE).read_text()
    assert "http" not in page
    assert not re.search(r"<script(?![^>]* src=)|<style|style=| on\w+=", page)


def test_the_page_is_light() -> None:
    assert sum(len(gzip.compress(path.read_bytes())) for path in FOLDER.iterdir()) < MOST_BYTES


def test_the_page_comes_while_the_models_load() -> None:
    async def work() -> None:
        release = threading.Event()

        def slow(settings: Any, observe: Any) -> CountingEngine:
            release.wait(60)
            return CountingEngine()

        app = create_app(load_settings(), slow)
        async with app.router.lifespan_context(app):
            page = await Caller(app, "/", headers=BROWSER).done()
            assert (page.status, "<script" in page.text) == (200, True)
            release.set()
            await wait_until(lambda: app.state.server.engine is not None)

    asyncio.run(work())
