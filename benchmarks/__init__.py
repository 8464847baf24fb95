"""The comparison: swann beside other libraries, on the same data, in turns, in one run.

``python -m benchmarks --help`` says what can be run; ``benchmarks/README.md`` how it works.
"""
