"""What is slow and tries what goes wrong: `make test-faults`. FUZZ_SECONDS says how long each fuzzer goes on,
in seconds of the processor."""

import os

import pytest


@pytest.fixture(scope="session")
def seconds() -> float:
    """For which each fuzzer goes on."""
    return float(os.environ.get("FUZZ_SECONDS", 20))
