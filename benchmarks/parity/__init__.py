"""One program, two libraries: what ScaNN's Python API does, beside what swann does there.

The program is a list of small named cases (:mod:`benchmarks.parity.cases`). Every case runs against
the `scann` wheel and against swann, each in an environment and a process of its own, because some
of them end ScaNN's process. `python -m benchmarks.parity` shows both answers and fails where
swann's is worse; :mod:`benchmarks.parity.verdict` says what that means.
"""
