"""Builds larger than memory, in this process, in others, or on a cluster."""

from swann.distributed.build import build
from swann.distributed.executor import Executor, LocalExecutor, ProcessExecutor, RayExecutor

__all__ = ["Executor", "LocalExecutor", "ProcessExecutor", "RayExecutor", "build"]
