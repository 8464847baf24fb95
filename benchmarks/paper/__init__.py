"""The experiments of the ScaNN paper, run again on public data: ``python -m benchmarks.paper``.

Guo et al., "Accelerating Large-Scale Inference with Anisotropic Vector Quantization", ICML 2020,
arXiv 1908.10396. Each experiment is a module of :mod:`benchmarks.paper.experiments`.
"""
