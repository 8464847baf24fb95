// Selection of the best keys. Plain loops, which the compiler vectorises for each level.
// Included inside each level file's unnamed namespace.

inline size_t count_from(const Key* keys, size_t size, Key least) noexcept {
  size_t count = 0;
  for (size_t i = 0; i < size; ++i) count += keys[i] >= least;
  return count;
}

inline size_t drop_below(Key* keys, size_t size, Key least) noexcept {
  size_t kept = 0;
  for (size_t i = 0; i < size; ++i) {
    const Key key = keys[i];
    keys[kept] = key;
    kept += key >= least;
  }
  return kept;
}

inline void range_of(const Key* keys, size_t size, uint32_t* low, uint32_t* high) noexcept {
  Key least = ~Key(0), most = 0;
  for (size_t i = 0; i < size; ++i) {
    least = keys[i] < least ? keys[i] : least;
    most = keys[i] > most ? keys[i] : most;
  }
  *low = uint32_t(least >> 32);
  *high = uint32_t(most >> 32);
}

// Scores between which the limit-th best lies. The best of each of `lanes` >= limit strided lanes
// are that many keys, so the limit-th best is no worse than the worst of them.
inline void bracket(const Key* keys, size_t size, size_t limit, uint32_t* low,
                    uint32_t* high) noexcept {
  constexpr size_t kMost = 512;
  const size_t lanes = (limit + 7) / 8 * 8;
  if (lanes > kMost || 2 * lanes > size) return range_of(keys, size, low, high);
  Key best[kMost];
  for (size_t l = 0; l < lanes; ++l) best[l] = keys[l];
  for (size_t i = lanes; i < size; i += lanes) {
    const size_t width = size - i < lanes ? size - i : lanes;
    for (size_t l = 0; l < width; ++l) best[l] = best[l] < keys[i + l] ? keys[i + l] : best[l];
  }
  range_of(best, lanes, low, high);
}

// Bisects for the greatest score that `limit` keys reach: counting is cheaper than moving. Stops
// early when at most `enough` reach it. On return *low is reached by `limit` keys at least.
inline void bisect(const Key* keys, size_t size, size_t limit, size_t enough, uint32_t* low,
                   uint32_t* high) noexcept {
  while (*low < *high) {
    const uint32_t middle = *low + (*high - *low) / 2 + 1;
    const size_t count = count_from(keys, size, Key(middle) << 32);
    if (count >= limit) {
      *low = middle;
      if (count <= enough) return;
    } else {
      *high = middle - 1;
    }
  }
}

size_t keep_best(Key* keys, size_t size, size_t limit) noexcept {
  if (size <= limit) return size;
  uint32_t low, high;
  bracket(keys, size, limit, &low, &high);
  bisect(keys, size, limit, limit + limit / 4 + 16, &low, &high);
  size = drop_below(keys, size, Key(low) << 32);  // few are left: find the exact score among them
  bisect(keys, size, limit, limit, &low, &high);
  return drop_below(keys, size, Key(low) << 32);
}

// A float as an int32 of the same order; negative zero counts as zero.
inline int32_t in_order(float value) noexcept {
  value += 0.0f;
  int32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  return bits ^ ((bits >> 31) & 0x7FFFFFFF);
}

void keys_from_f32(const float* scores, const float* reach, float length, size_t count,
                   Key* keys) noexcept {
  if (reach == nullptr) {
    for (size_t i = 0; i < count; ++i) keys[i] = make_key(in_order(scores[i]), uint32_t(i));
    return;
  }
  for (size_t i = 0; i < count; ++i)
    keys[i] = make_key(in_order(scores[i] + length * reach[i]), uint32_t(i));
}
