"""What all tests share."""

import hypothesis
import pytest

pytest_plugins = ["browser"]  # of tests/support: fixtures that several rooms take

# How long an example takes says how busy the machine is, here with other tests.
hypothesis.settings.register_profile("unhurried", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
