"""``tureen-serve key new``: the key that it prints opens a server with the entry that it prints."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from tureen_serve.__main__ import app
from tureen_serve.security.key_ring import read_key_ring
from tureen_serve.security.scopes import USER_SCOPES

RUN = CliRunner()


def test_the_entry_put_under_keys_knows_the_key(tmp_path: Path) -> None:
    said = RUN.invoke(app, ["key", "new", "--name", "loop"])
    assert said.exit_code == 0, said.output
    key, _, rest = said.stdout.partition("\n")
    entry = rest[rest.index("  - id") :]
    (tmp_path / "keys.yaml").write_text(f"keys:\n{entry}")
    caller = read_key_ring(tmp_path / "keys.yaml").find_caller(key.encode())
    assert caller is not None
    assert (caller.name, caller.tenant, caller.scopes, caller.expires) == ("loop", "default", USER_SCOPES, None)
    assert said.stdout.count(key) == 1
    assert key.rpartition("_")[2] not in entry


def test_every_option_is_in_the_entry(tmp_path: Path) -> None:
    options = [
        "--name",
        "ci",
        "--tenant",
        "team-a",
        "--scopes",
        "admin,score",
        "--expires",
        "2126-01-31",
        "--requests-per-minute",
        "60",
    ]
    said = RUN.invoke(app, ["key", "new", *options, "--tokens-per-minute", "1000", "--json"])
    told = json.loads(said.stdout)
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [told["entry"]]}))
    caller = read_key_ring(tmp_path / "keys.json").find_caller(told["key"].encode())
    assert caller is not None
    assert caller.quota is not None
    assert (caller.tenant, sorted(caller.scopes), caller.quota.limits) == ("team-a", ["admin", "score"], (60, 1000))
    assert caller.expires is not None
    assert caller.expires.isoformat() == "2126-01-31T00:00:00+00:00"
    assert yaml.safe_load(yaml.safe_dump(told["entry"])) == told["entry"]


def test_no_two_keys_are_equal() -> None:
    told = [json.loads(RUN.invoke(app, ["key", "new", "--name", "a", "--json"]).stdout) for _ in range(2)]
    assert len({each["key"] for each in told}) == len({each["entry"]["digest"] for each in told}) == 2


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        (["--name", "a b"], "--name"),
        (["--name", "a", "--scopes", "score,root"], "--scopes"),
        (["--name", "a", "--tenant", ""], "--tenant"),
        (["--name", "a", "--expires", "soon"], "--expires"),
        (["--name", "a", "--expires", "["], "--expires"),
        (["--name", "a", "--expires", "2126-01-01T00:00:00"], "--expires"),
        (["--name", "a", "--requests-per-minute", "0"], "--requests-per-minute"),
    ],
)
def test_a_bad_option_is_named(options: list[str], flag: str) -> None:
    said = RUN.invoke(app, ["key", "new", *options])
    assert said.exit_code == 2
    assert f"{flag}: " in " ".join(said.stderr.split())
    assert "tur_" not in said.output
