"""Random indexes of random data, searched, changed and kept, against NumPy."""
