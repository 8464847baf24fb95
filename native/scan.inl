// What the scans of every level share: room, the short last group, survivors, codes asked for ahead.
// Included inside each level file's unnamed namespace.

inline uint32_t valid_mask(const PackedLeaf& leaf, size_t group) noexcept {
  const size_t left = leaf.count - group * kGroup;
  return left >= kGroup ? 0xFFFFFFFFu : (1u << left) - 1;
}

// Appends the keys of the datapoints in `mask`, of a group that begins with this row; sums[place(i)] is
// that of datapoint i. Two at a time: one or two survive, and nobody foresees which. There is room for 32.
template <typename Place>
inline void append_from(ScanQuery& query, uint32_t row, uint32_t mask, const uint16_t* sums,
                        Place place) noexcept {
  Key* out = query.out + query.size;
  query.size += size_t(__builtin_popcount(mask));
  for (; mask != 0; mask &= mask - 1, out += 2) {
    const auto i = uint32_t(__builtin_ctz(mask));
    mask &= mask - 1;
    const auto j = uint32_t(__builtin_ctz(mask | 0x80000000u));
    out[0] = make_key(int32_t(sums[place(i)]) + query.bias, row + i);
    out[1] = make_key(int32_t(sums[place(j)]) + query.bias, row + j);
  }
}

// The same for sums in the order of the datapoints.
inline void append(ScanQuery& query, uint32_t row, uint32_t mask, const uint16_t* sums) noexcept {
  append_from(query, row, mask, sums, [](uint32_t i) { return i; });
}

// How many groups from this one on are scanned together: up to `most`, as many as the leaf has and all
// queries have room for.
inline size_t groups_from(const PackedLeaf& leaf, size_t group, const ScanQuery* queries,
                          size_t num_queries, size_t most) noexcept {
  const size_t left = groups_of(leaf.count) - group;
  most = left < most ? left : most;
  for (size_t q = 0; q < num_queries; ++q) {
    const size_t room = (queries[q].capacity - queries[q].size) / kGroup;
    most = room < most ? room : most;
  }
  return most;
}

// What one query found in up to `most` groups.
template <size_t most>
struct Found {
  static_assert(most <= 32);
  static constexpr size_t kMost = most;
  alignas(64) uint16_t sums[most][kGroup];
  alignas(64) uint32_t masks[most] = {};  // who survives in each group
};

// Appends the survivors of `count` groups that were scanned together, and goes on behind them. A branch
// for each as it is scanned is foreseen by no processor, and what it has begun of the next would be lost.
template <size_t most, typename Append>
inline void take_found(const PackedLeaf& leaf, size_t& group, size_t count, const Found<most>* found,
                       ScanQuery* queries, size_t num_queries, Append append) noexcept {
  const uint32_t row = leaf.first_row + uint32_t(group * kGroup);
  for (size_t q = 0; q < num_queries; ++q) {
    uint32_t any = 0;
    for (uint32_t g = 0; g < most; ++g) any |= found[q].masks[g] != 0 ? 1u << g : 0;
    for (any &= ~0u >> (32 - count); any != 0; any &= any - 1) {
      const auto g = size_t(__builtin_ctz(any));
      append(queries[q], row + uint32_t(g * kGroup), found[q].masks[g], found[q].sums[g]);
    }
  }
  group += count;
}

// What to ask for while the codes from `at` on are scanned: those that come `distance` later, in the
// leaf or in what is scanned after it. Without `next` only what follows in memory is of use.
inline const uint8_t* codes_ahead(const PackedLeaf& leaf, size_t at, size_t distance) noexcept {
  const size_t end = groups_of(leaf.count) * leaf.blocks * 16;
  const bool inside = at + distance < end || leaf.next == nullptr;
  return inside ? leaf.codes + at + distance : leaf.next + (at + distance - end);
}

// Far memory is asked early, and answers into the second-level cache: the first holds the tables and
// little more.
inline void fetch(const uint8_t* from, size_t bytes) noexcept {
  for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(from + i, 0, 2);
}
