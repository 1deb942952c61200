"""The plot is a picture of the type that its name has."""

import builtins
from pathlib import Path
from typing import Any

import pytest

from tureen.bench.plot import plot_bench
from tureen.bench.trial import TIMED_OUT, Load, Trial
from tureen.errors import Unprocessable

TRIALS = [Trial(0.1 * at, 0.1 * at, 0.1 * at + 0.01, 200) for at in range(20)]
FOUND = [(Load(rate=5.0), TRIALS), (Load(rate=9.0), [Trial(0, 0, 1, 503), Trial(1, 1, 2, None, TIMED_OUT)])]


@pytest.mark.parametrize("found", [FOUND, [(Load(concurrency=1), [])]], ids=["some", "none"])
def test_a_plot_of_loads(tmp_path: Path, found: Any) -> None:
    plot_bench(found, tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    plot_bench(found, tmp_path / "out.svg")
    assert "<svg" in (tmp_path / "out.svg").read_text()


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = builtins.__import__

    def importing(name: str, *rest: Any, **more: Any) -> Any:
        if name == "matplotlib":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(Unprocessable, match="pip install matplotlib"):
        plot_bench(FOUND, tmp_path / "out.png")
