"""Approximate nearest neighbours: ScaNN's design, as a fast and typed Python package."""
