"""Builds larger than memory, by tasks that any process may run."""
