// What the scans of every level share: room, the short last group, appending survivors.
// Included inside each level file's unnamed namespace.

inline bool has_room(const ScanQuery* queries, size_t num_queries, size_t places) noexcept {
  for (size_t q = 0; q < num_queries; ++q)
    if (queries[q].capacity - queries[q].size < places) return false;
  return true;
}

inline uint32_t valid_mask(const PackedLeaf& leaf, size_t group) noexcept {
  const size_t left = leaf.count - group * kGroup;
  return left >= kGroup ? 0xFFFFFFFFu : (1u << left) - 1;
}

inline void append(ScanQuery& query, const PackedLeaf& leaf, size_t group, uint32_t mask,
                   const uint16_t* sums) noexcept {
  const uint32_t row = leaf.first_row + uint32_t(group * kGroup);
  for (; mask != 0; mask &= mask - 1) {
    const uint32_t i = uint32_t(__builtin_ctz(mask));
    query.out[query.size++] = make_key(int32_t(sums[i]) + query.bias, row + i);
  }
}

// What to ask for while the codes from `at` on are scanned: those that come `distance` later, in the
// leaf or in what is scanned after it. Without `next` only what follows in memory is of use.
inline const uint8_t* codes_ahead(const PackedLeaf& leaf, size_t at, size_t distance) noexcept {
  const size_t end = (leaf.count + kGroup - 1) / kGroup * leaf.blocks * 16;
  const bool inside = at + distance < end || leaf.next == nullptr;
  return inside ? leaf.codes + at + distance : leaf.next + (at + distance - end);
}

// Far memory is asked early, and answers into the second-level cache: the first holds the tables and
// little more.
inline void fetch(const uint8_t* from, size_t bytes) noexcept {
  for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(from + i, 0, 2);
}
