// Selection of the best keys. Plain loops, which the compiler vectorises for each level.
// Included inside each level file's unnamed namespace, after its drop_below(keys, size, least),
// which keeps the keys that are not below `least`, in their order.

inline size_t count_from(const Key* keys, size_t size, Key least) noexcept {
  size_t count = 0;
  for (size_t i = 0; i < size; ++i) count += keys[i] >= least;
  return count;
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

// Narrows the scores between which the limit-th best lies, until at most `most` keys reach *low or
// it is that score; `limit` keys at least reach it all the while. Counting is cheaper than moving.
// In turns the middle is tried and, as the counts let it expect, where the limit-th best may be.
inline void narrow(const Key* keys, size_t size, size_t limit, size_t most, uint32_t* low,
                   uint32_t* high) noexcept {
  size_t above_low = size, above_high = 0;
  for (bool guess = false; *low < *high; guess = !guess) {
    const uint32_t width = *high - *low;
    uint32_t step = width / 2;
    if (guess) {
      const double share =
          double(above_low - (limit + most) / 2) / double(above_low - above_high);
      step = uint32_t(share * share * double(width - 1));  // scores thin out upwards
    }
    const uint32_t middle = *low + step + 1;
    const size_t count = count_from(keys, size, Key(middle) << 32);
    if (count >= limit) {
      *low = middle;
      above_low = count;
      if (count <= most) return;
    } else {
      *high = middle - 1;
      above_high = count;
    }
  }
}

size_t keep_best(Key* keys, size_t size, size_t limit, size_t most, Key* least) noexcept {
  *least = 0;
  if (size <= most) return size;
  uint32_t low, high;
  bracket(keys, size, limit, &low, &high);
  const size_t few = limit + limit / 4 + 16;
  narrow(keys, size, limit, most < few ? few : most, &low, &high);
  size = drop_below(keys, size, Key(low) << 32);
  if (size > most) {  // few are left: find the exact score among them
    narrow(keys, size, limit, most, &low, &high);
    size = drop_below(keys, size, Key(low) << 32);
  }
  *least = Key(low) << 32;
  return size;
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
