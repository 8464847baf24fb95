// What the scans of the levels with 512-bit registers share: the end of a group.
// Included inside each level file's unnamed namespace, after scan.inl.

inline void keep_survivors(const PackedLeaf& leaf, size_t group, __m512i sums,
                           ScanQuery& query) noexcept {
  if (leaf.corrections != nullptr) {
    const __m512i corrections = _mm512_loadu_si512(leaf.corrections + group * kGroup);
    sums = _mm512_add_epi16(
        sums, _mm512_mulhi_epu16(corrections, _mm512_set1_epi16(int16_t(query.multiplier))));
  }
  uint32_t mask = _mm512_cmpge_epu16_mask(sums, _mm512_set1_epi16(int16_t(query.threshold)));
  mask &= valid_mask(leaf, group);
  if (mask == 0) return;
  alignas(64) uint16_t values[kGroup];
  _mm512_store_si512(values, sums);
  append(query, leaf, group, mask, values);
}

inline void offer(const PackedLeaf& leaf, size_t group, const uint16_t* sums,
                  ScanQuery& query) noexcept {
  keep_survivors(leaf, group, _mm512_load_si512(sums), query);
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
