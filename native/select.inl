// Selection of the best keys and scores. Plain loops, which the compiler vectorises for each level.
// Included inside each level file's unnamed namespace, after its drop_below(keys, size, least),
// which keeps the keys that are not below `least`, in their order.

// What is selected from is keys, or their scores alone: the upper halves, half as long.
template <typename T>
constexpr int kScoreAt = sizeof(T) == sizeof(Key) ? 32 : 0;

template <typename T>
inline size_t count_from(const T* values, size_t size, uint32_t score) noexcept {
  const T least = T(score) << kScoreAt<T>;
  T count = 0;
  for (size_t i = 0; i < size; ++i) count += values[i] >= least;
  return size_t(count);
}

template <typename T>
inline void range_of(const T* values, size_t size, uint32_t* low, uint32_t* high) noexcept {
  T least = ~T(0), most = 0;
  for (size_t i = 0; i < size; ++i) {
    least = values[i] < least ? values[i] : least;
    most = values[i] > most ? values[i] : most;
  }
  *low = uint32_t(least >> kScoreAt<T>);
  *high = uint32_t(most >> kScoreAt<T>);
}

// Narrows the scores between which the limit-th best lies, until at most `most` reach *low or it is
// that score; `limit` at least reach it all the while. Counting is cheaper than moving. In turns the
// middle is tried and, as the counts let it expect, where the limit-th best may be.
template <typename T>
inline void narrow(const T* values, size_t size, size_t limit, size_t most, uint32_t* low,
                   uint32_t* high) noexcept {
  size_t above_low = count_from(values, size, *low), above_high = 0;
  for (bool guess = false; *low < *high && above_low > most; guess = !guess) {
    const uint32_t width = *high - *low;
    uint32_t step = width / 2;
    if (guess) {
      const double share =
          double(above_low - (limit + most) / 2) / double(above_low - above_high);
      step = uint32_t(share * share * double(width - 1));  // scores thin out upwards
    }
    const uint32_t middle = *low + step + 1;
    const size_t count = count_from(values, size, middle);
    if (count >= limit) {
      *low = middle;
      above_low = count;
    } else {
      *high = middle - 1;
      above_high = count;
    }
  }
}

// The best of each of some strided lanes: best[l] of the values l, l + lanes, ...
template <typename T>
inline void best_of_lanes(const T* values, size_t size, size_t lanes, T* best) noexcept {
  for (size_t l = 0; l < lanes; ++l) best[l] = values[l];
  for (size_t i = lanes; i < size; i += lanes) {
    const size_t width = size - i < lanes ? size - i : lanes;
    for (size_t l = 0; l < width; ++l) best[l] = best[l] < values[i + l] ? values[i + l] : best[l];
  }
}

// With four lanes for each that is wanted, the limit-th best of the lanes' best is hardly worse than
// that of all, and never better.
constexpr size_t kMostLanes = kMostBest;
inline size_t lanes_for(size_t limit) noexcept { return (4 * limit + 7) / 8 * 8; }

inline size_t a_few_more(size_t limit) noexcept { return limit + limit / 4 + 16; }

// Scores between which the limit-th best lies.
template <typename T>
inline void bracket(const T* values, size_t size, size_t limit, uint32_t* low,
                    uint32_t* high) noexcept {
  const size_t lanes = lanes_for(limit);
  if (lanes > kMostLanes || 2 * lanes > size) return range_of(values, size, low, high);
  T best[kMostLanes];
  best_of_lanes(values, size, lanes, best);
  range_of(best, lanes, low, high);
  uint32_t top = *high;
  narrow(best, lanes, limit, limit + limit / 4 + 4, low, &top);
}

// The least score of the limit best, or one that `most` reach at most.
template <typename T>
inline uint32_t least_of_best(const T* values, size_t size, size_t limit, size_t most) noexcept {
  uint32_t low, high;
  bracket(values, size, limit, &low, &high);
  narrow(values, size, limit, most, &low, &high);
  return low;
}

constexpr size_t kMostScores = 4096;  // that are worth a copy

inline uint32_t least_of_keys(const Key* keys, size_t size, size_t limit, size_t most) noexcept {
  if (size > kMostScores) return least_of_best(keys, size, limit, most);
  uint32_t scores[kMostScores];
  for (size_t i = 0; i < size; ++i) scores[i] = uint32_t(keys[i] >> 32);
  return least_of_best(scores, size, limit, most);
}

size_t keep_best(Key* keys, size_t size, size_t limit, size_t most, Key* least) noexcept {
  *least = 0;
  if (size <= most) return size;
  const size_t few = a_few_more(limit);
  *least = Key(least_of_keys(keys, size, limit, most < few ? few : most)) << 32;
  size = drop_below(keys, size, *least);
  if (size <= most) return size;
  *least = Key(least_of_keys(keys, size, limit, most)) << 32;  // among the few that are left
  return drop_below(keys, size, *least);
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

float least_of_best_f32(const float* scores, size_t count, size_t limit) noexcept {
  size_t lanes = lanes_for(limit);
  if (2 * lanes > count) lanes = count;
  if (lanes > kMostLanes) lanes = kMostLanes;
  if (lanes < limit) return -__builtin_inff();
  float best[kMostLanes];
  best_of_lanes(scores, count, lanes, best);
  uint32_t values[kMostLanes];
  for (size_t l = 0; l < lanes; ++l) values[l] = uint32_t(in_order(best[l])) ^ 0x80000000u;
  uint32_t low, high;
  range_of(values, lanes, &low, &high);
  narrow(values, lanes, limit, limit + limit / 8 + 2, &low, &high);
  const int32_t bits = int32_t(low ^ 0x80000000u);
  const int32_t turned = bits ^ ((bits >> 31) & 0x7FFFFFFF);
  float least;
  __builtin_memcpy(&least, &turned, 4);
  return least;
}
