"""Settings of the test run."""

import os

from hypothesis import settings

# In CI a change is judged by the same examples every time; elsewhere new ones are tried.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
