"""The names by which a server may be called."""

import pytest

from tureen.errors import Forbidden
from tureen_serve.security.host_names import HostNames
from tureen_serve.settings import SettingsError, load_settings


@pytest.mark.parametrize(
    "host",
    [
        "",
        "localhost",
        "LOCALHOST:8900",
        "localhost.:1",
        "127.0.0.1",
        "127.9.9.9:80",
        "[::1]:8900",
        "[::1]",
        "10.2.3.4:80",
    ]
    + ["tureen", "tureen:8900", "a.localhost:8900", "rewards.example.org", "Rewards.Example.org:443"],
)
def test_addresses_names_without_a_dot_and_those_of_the_settings_hold(host: str) -> None:
    HostNames(["rewards.example.org"]).check(host.encode())


@pytest.mark.parametrize(
    "host",
    ["evil.example.org", "evil.example.org:8900", "127.0.0.1.evil.example.org", "1.2.3", "localhost.evil.example.org"]
    + ["xlocalhost.org", "a.rewards.example.org", "evil.org.", "0x7f.1", "[::1].evil.org", "[evil.org]", "\xe4.org"],
)
def test_any_other_does_not(host: str) -> None:
    with pytest.raises(Forbidden) as caught:
        HostNames(["rewards.example.org"]).check(host.encode("latin-1"))
    assert caught.value.code == "foreign_host"


def test_a_star_is_all() -> None:
    HostNames(["*"]).check(b"evil.example.org")


@pytest.mark.parametrize("host", ["https://a.org", "a.org:80", "", "a b", ".org"])
def test_what_is_no_name_is_refused_at_the_start(host: str) -> None:
    with pytest.raises(SettingsError, match=r"access.hosts.* is not a host name"):
        load_settings(access={"hosts": [host]})
