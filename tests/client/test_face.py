"""The public face: what ``tureen`` exports, and that nothing of it is missing."""

import tureen
from tureen import errors, http_requests


def test_the_face_is_sorted_and_complete() -> None:
    assert tureen.__all__ == sorted(tureen.__all__)
    assert all(hasattr(tureen, name) for name in tureen.__all__)


def test_every_error_can_be_imported_from_the_face() -> None:
    tree: set[type[errors.TureenError]] = {errors.TureenError, errors.ConnectionFailed, *errors.BY_STATUS.values()}
    assert {kind.__name__ for kind in tree} <= set(tureen.__all__)
    assert all(getattr(tureen, kind.__name__) is kind for kind in tree)


def test_what_the_clients_return_can_be_imported_from_the_face() -> None:
    for client in (tureen.Client, tureen.AsyncClient):
        for name in ("score", "preferences", "sweep", "models"):
            kind = getattr(client, name).__annotations__["return"]
            assert getattr(tureen, kind.__name__) is kind


def test_both_clients_offer_the_same() -> None:
    def offered(client: type) -> set[str]:
        return {name for name in dir(client) if not name.startswith("_")}

    assert offered(tureen.Client) == offered(tureen.AsyncClient)


def test_the_agent_names_the_installed_version() -> None:
    assert http_requests.build_headers(None)["user-agent"].split("/")[1].count(".") == 2
