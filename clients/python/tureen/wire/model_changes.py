"""The bodies of the routes that load, unload and shadow reward models while the server runs."""

from typing import Annotated, Literal

from pydantic import Field

from tureen.wire.base import Reply, Request, Text

Path = Annotated[Text, Field(min_length=1, max_length=4096)]


class LoadRequest(Request):
    """The body of ``POST /v1/models/{name}/load``.

    Attributes:
        path: the folder of the new version, below one of the server's ``load_roots``. Without it the folder that the
            reward was loaded from is read again.
        rename: serve the only reward of ``path`` under the name in the URL, although its artifact calls it otherwise.
        promote: take the shadow of this reward instead of a path.
    """

    path: Path | None = None
    rename: bool = False
    promote: bool = False


class ShadowRequest(Request):
    """The body of ``POST /v1/models/{name}/shadow``.

    Attributes:
        path: as of :class:`LoadRequest`.
        share: the share of the reward's inputs that the shadow scores too.
        rename: as of :class:`LoadRequest`.
    """

    path: Path | None = None
    share: Annotated[float, Field(gt=0, le=1)] = 0.1
    rename: bool = False


class ModelChange(Reply):
    """What a load or an unload has done.

    Attributes:
        id: the name in the URL.
        rewards: all rewards of the artifact that was loaded or unloaded.
        fingerprint: of what is served from now on; None if nothing is.
        replaced: the fingerprint of what was served before; None if nothing was.
        seconds: the time of the load.
    """

    id: str
    action: Literal["loaded", "promoted", "unloaded"]
    rewards: list[str]
    version: str | None = None
    fingerprint: str | None = None
    replaced: str | None = None
    seconds: float = 0.0


class Drift(Reply):
    """Recent scores against a calibration; None below 512 texts, or without a calibration."""

    population_stability: float | None = None
    kolmogorov_smirnov: float | None = None


class ShadowComparison(Reply):
    """How far the shadow of one reward agrees with the live one, on the same texts.

    Attributes:
        unit: ``deviations`` if both have a calibration, else ``raw``.
        texts: the number of texts that were compared; the correlation and the differences are of the last 2,048.
        pairs: the number of pairs of answers to one prompt.
        pair_agreement: the share of these pairs that both order the same way.
        rank_correlation: Spearman's, over all recent texts.
        mean_difference: of shadow minus live.
        largest_difference: the largest distance.
        live_drift, shadow_drift: the scores of these texts against the calibration of each.
    """

    reward: str
    live_fingerprint: str | None = None
    unit: Literal["deviations", "raw"] = "raw"
    texts: int = 0
    pairs: int = 0
    pair_agreement: float | None = None
    rank_correlation: float | None = None
    mean_difference: float | None = None
    largest_difference: float | None = None
    live_drift: Drift = Drift()
    shadow_drift: Drift = Drift()


class ShadowReport(Reply):
    """A shadow and what is known of it.

    Attributes:
        id: the name in the URL.
        compared, dropped, failed: texts by what became of them. They are dropped when the server is busy.
        waiting: inputs that wait for an idle moment.
    """

    id: str
    version: str | None = None
    fingerprint: str
    share: float
    compared: int = 0
    dropped: int = 0
    failed: int = 0
    waiting: int = 0
    comparisons: list[ShadowComparison]
