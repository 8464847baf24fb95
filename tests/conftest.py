"""Settings of the test run."""

import os

import pytest
from hypothesis import settings

# No deadlines: a busy machine, or a sanitizer, makes any example slow. In CI a change is judged by
# the same examples every time; elsewhere new ones are tried.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.fixture
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is flushed to the disk: of tests that make thousands of changes, and no crash."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
