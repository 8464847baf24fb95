"""The index: immutable arrays in the order of the leaves, how they are built and stored."""
