"""Where the system gives no more threads, those there are do the work."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import resource
import numpy as np
import swann

rng = np.random.default_rng(0)
db, queries = rng.standard_normal((500, 8), np.float32), rng.standard_normal((64, 8), np.float32)
searcher = swann.builder(db, 5, "dot_product").score_brute_force().build()
alone = [searcher.search(query) for query in queries]
searcher.search_batched(queries)

def numbers(name):
    with open("/proc/self/status") as file:
        return int(next(line for line in file if line.startswith(name)).split()[1])

before = numbers("Threads:")
resource.setrlimit(resource.RLIMIT_AS, (numbers("VmSize:") * 1024 + (2 << 20),) * 2)
searcher.set_num_threads(8)
found = searcher.search_batched_parallel(queries)
assert numbers("Threads:") == before, "the limit is of no effect"
assert [list(row) for row in found.indices] == [list(one.indices) for one in alone]
print("the same")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_batch_without_more_threads() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.stdout == "the same\n", done.stderr
