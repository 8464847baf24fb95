"""What an index will cost, before it is built: memory, machines, build time, latency.

::

    layout.py     bytes of every array, exactly
    profile.py    what has to be looked at for a recall: laws fitted to data, or to your sample
    speed.py      what counted work takes on a core: queries and builds
    machine.py    kinds of machines
    cluster.py    what fanning out to shards adds
    building.py   build time and memory
    settings.py   what autopilot would choose
    model.py      plan: all of it together
    answer.py     Plan: what comes out
    calibrate.py  measures the machine that it runs on

docs/scale.md tells how far it can be believed, docs/bench/plan.md what was measured.
"""

from swann.plan.answer import Plan
from swann.plan.calibrate import calibrate
from swann.plan.cluster import Cluster
from swann.plan.layout import array_bytes
from swann.plan.machine import THIS, Machine, keep, machines
from swann.plan.model import plan
from swann.plan.profile import Profile, measured
from swann.plan.settings import profile_of_file
from swann.plan.speed import Speed

__all__ = [
    "THIS",
    "Cluster",
    "Machine",
    "Plan",
    "Profile",
    "Speed",
    "array_bytes",
    "calibrate",
    "keep",
    "machines",
    "measured",
    "plan",
    "profile_of_file",
]
