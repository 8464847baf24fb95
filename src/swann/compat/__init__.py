"""ScaNN's own module names over swann's objects."""
