"""The campaign for trust: what must never happen, tried often: ``python -m benchmarks.trust``.

Each experiment is a module in :data:`benchmarks.trust.registry.EXPERIMENTS`, with a short form that
the tests run. ``docs/trust.md`` says what came of the long ones.
"""
