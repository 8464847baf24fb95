// Without a branch: which keys stay is not to be foreseen.
// Included inside a level file's unnamed namespace.

inline size_t drop_below(Key* keys, size_t size, Key least) noexcept {
  size_t kept = 0;
  for (size_t i = 0; i < size; ++i) {
    const Key key = keys[i];
    keys[kept] = key;
    kept += key >= least;
  }
  return kept;
}
