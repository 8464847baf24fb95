"""Settings of the test run."""

import os

from hypothesis import settings

# No deadlines: a busy machine, or a sanitizer, makes any example slow. In CI a change is judged by
# the same examples every time; elsewhere new ones are tried.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")
