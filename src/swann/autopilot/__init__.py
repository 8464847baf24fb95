"""Settings that nobody has to choose: from the size of a database, and by measuring.

::

    choose.py   what suits n datapoints of d dimensions, without a look at them; whether an index
                has outgrown its settings
    sample.py   queries to measure with, and their exact neighbors
    measure.py  recall and cost of every number of leaves and candidates, from one search
    tune.py     build, measure, settle
    newest.py   whether an index that changes still finds what comes into it
"""

from swann.autopilot.choose import Choice, choose, choose_config, outgrown, sizes_that_fit
from swann.autopilot.tune import build_tuned, check_sample_queries, choose_for

__all__ = [
    "Choice",
    "build_tuned",
    "check_sample_queries",
    "choose",
    "choose_config",
    "choose_for",
    "outgrown",
    "sizes_that_fit",
]
