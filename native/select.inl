// Selection of the best keys. Plain loops, which the compiler vectorises for each level.
// Included inside each level file's unnamed namespace.

inline uint32_t score_bits(Key key) noexcept { return uint32_t(key >> 32); }

size_t keep_best(Key* keys, size_t size, size_t limit) noexcept {
  if (size <= limit) return size;
  uint32_t low = 0xFFFFFFFFu, high = 0;
  for (size_t i = 0; i < size; ++i) {
    const uint32_t score = score_bits(keys[i]);
    low = score < low ? score : low;
    high = score > high ? score : high;
  }
  // Bisect for the greatest score that `limit` keys reach: counting is cheaper than moving.
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2 + 1;
    const Key least = Key(middle) << 32;
    size_t count = 0;
    for (size_t i = 0; i < size; ++i) count += keys[i] >= least;
    if (count >= limit) {
      low = middle;
      if (count == limit) break;
    } else {
      high = middle - 1;
    }
  }
  const Key least = Key(low) << 32;
  size_t kept = 0;
  for (size_t i = 0; i < size; ++i) {
    const Key key = keys[i];
    keys[kept] = key;
    kept += key >= least;
  }
  return kept;
}
