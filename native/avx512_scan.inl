// What the scans of the levels with 512-bit registers share: codes asked for ahead, who survives.
// Included inside each level file's unnamed namespace, after scan.inl.

// Bytes from what is scanned to what is asked for: by one query, and by several, which take longer.
constexpr size_t kAhead = 16384, kAheadOfMany = 4096;

// What to ask for while G groups are scanned for Q queries: not beyond the next leaf, as far as
// leaves are alike.
template <size_t G, size_t Q>
struct Ahead {
  const uint8_t* codes[G];

  Ahead(const PackedLeaf& leaf, size_t group) noexcept {
    const size_t bytes = leaf.blocks * 16, leaf_bytes = groups_of(leaf.count) * bytes;
    const size_t distance = Q > 1 ? kAheadOfMany : leaf_bytes < kAhead ? leaf_bytes : kAhead;
#pragma GCC unroll 4
    for (size_t g = 0; g < G; ++g) codes[g] = codes_ahead(leaf, (group + g) * bytes, distance);
  }

  // A line of each group: a burst of requests would be waited for.
  void fetch(size_t at) const noexcept {
#pragma GCC unroll 4
    for (size_t g = 0; g < G; ++g)
      if constexpr (Q == 1)
        __builtin_prefetch(codes[g] + at, 0, 2);
      else
        __builtin_prefetch(codes[g] + at);
  }
};

constexpr auto append_found = append;  // sums are in the order of the datapoints

inline __m512i threshold_of(const ScanQuery& query) noexcept {
  return _mm512_set1_epi16(int16_t(query.threshold));
}

// Puts the sums of a group, with corrections, into `out`; returns who survives.
inline uint32_t keep_sums(const PackedLeaf& leaf, size_t group, const ScanQuery& query,
                          __m512i threshold, __m512i sums, uint16_t* out) noexcept {
  if (leaf.corrections != nullptr) {
    const __m512i corrections = _mm512_loadu_si512(leaf.corrections + group * kGroup);
    sums = _mm512_add_epi16(
        sums, _mm512_mulhi_epu16(corrections, _mm512_set1_epi16(int16_t(query.multiplier))));
  }
  _mm512_store_si512(out, sums);
  return _mm512_cmpge_epu16_mask(sums, threshold) & valid_mask(leaf, group);
}

inline uint32_t survivors(const PackedLeaf& leaf, size_t group, const ScanQuery& query,
                          uint16_t* sums) noexcept {
  return keep_sums(leaf, group, query, threshold_of(query), _mm512_load_si512(sums), sums);
}

// The sums of 32 datapoints from those of the even and the odd ones, which the halves of `even`
// and `odd` hold for two groups; `second` chooses the group.
template <bool second>
inline void store_in_order(__m512i even, __m512i odd, uint16_t* sums) noexcept {
  constexpr int s = second ? 16 : 0;
  const __m512i order = _mm512_set_epi16(
      47 + s, 15 + s, 46 + s, 14 + s, 45 + s, 13 + s, 44 + s, 12 + s, 43 + s, 11 + s, 42 + s,
      10 + s, 41 + s, 9 + s, 40 + s, 8 + s, 39 + s, 7 + s, 38 + s, 6 + s, 37 + s, 5 + s, 36 + s,
      4 + s, 35 + s, 3 + s, 34 + s, 2 + s, 33 + s, 1 + s, 32 + s, 0 + s);
  _mm512_store_si512(sums, _mm512_permutex2var_epi16(even, order, odd));
}
