import pytest
from deploy.fetch_helm import LAYERS, fetch
from deploy.helm import TRAINING, Helm


@pytest.fixture(scope="session")
def helm() -> Helm:
    """The newest helm: what most tests of the chart render with."""
    return Helm(fetch("4.3.1"))


@pytest.fixture(scope="session")
def training_helm() -> Helm:
    """The newest helm, with the chart of training runs."""
    return Helm(fetch("4.3.1"), TRAINING)


@pytest.fixture(scope="session", params=list(LAYERS))
def any_helm(request: pytest.FixtureRequest) -> Helm:
    """Each major release of helm in turn."""
    return Helm(fetch(request.param))
