// The scan of 4-bit codes with AVX2. For few queries, registers hold two blocks of a group. For many,
// they hold one block of two groups, and codes are unpacked first, a byte each: then a shuffle takes
// them from memory by itself.
// Included inside avx2.cpp's unnamed namespace, after scan.inl.

// How far ahead of what is scanned codes are asked for, little by little: many requests at once would
// wait for each other, and stop everything else.
constexpr size_t kAhead = 8192;

using Load = __m256i (*)(const uint8_t*) noexcept;  // of what two blocks have, or the last block

inline __m256i load_two(const uint8_t* p) noexcept {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

inline __m256i load_one(const uint8_t* p) noexcept {  // the absent block looks up a table of zeros
  return _mm256_zextsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

inline __m256i low_codes(__m256i packed) noexcept {
  return _mm256_and_si256(packed, _mm256_set1_epi8(15));
}

inline __m256i high_codes(__m256i packed) noexcept {
  return low_codes(_mm256_srli_epi16(packed, 4));
}

// Of lookups that add up in 8 bits, a 16-bit lane holds two: `both` adds whole lanes (low byte plus 256
// times high byte), `odd` the high bytes; sums of the low bytes follow by subtraction.
struct Sums {
  __m256i both, odd;
  void add(__m256i bytes) noexcept {
    both = _mm256_add_epi16(both, bytes);
    odd = _mm256_add_epi16(odd, _mm256_srli_epi16(bytes, 8));
    __asm__("" : "+x"(both), "+x"(odd));  // stay where you are: no copies
  }
  __m256i even() const noexcept { return _mm256_sub_epi16(both, _mm256_slli_epi16(odd, 8)); }
};

// Of the first 16 datapoints of a group or of two, and of the others.
struct GroupSums {
  Sums low, high;
};

// All bits of a 16-bit lane, or none.
inline __m256i at_least(__m256i sums, __m256i threshold) noexcept {
  return _mm256_cmpeq_epi16(_mm256_max_epu16(sums, threshold), sums);
}

// The even and the odd ones of 32 numbers of 16 bits, in their order.
inline void part(const uint16_t* values, __m256i& even, __m256i& odd) noexcept {
  const auto* in = reinterpret_cast<const __m256i*>(values);
  const __m256i low = _mm256_loadu_si256(in), high = _mm256_loadu_si256(in + 1);
  const __m256i first = _mm256_set1_epi32(0xFFFF);
  even = _mm256_permute4x64_epi64(
      _mm256_packus_epi32(_mm256_and_si256(low, first), _mm256_and_si256(high, first)), 0xD8);
  odd = _mm256_permute4x64_epi64(
      _mm256_packus_epi32(_mm256_srli_epi32(low, 16), _mm256_srli_epi32(high, 16)), 0xD8);
}

// even and odd are the sums of the datapoints 0, 2, ... and 1, 3, ... of a group: the order in which
// `out` gets them, with corrections. Returns who survives.
inline uint32_t keep_sums(const PackedLeaf& leaf, size_t group, const ScanQuery& query,
                          __m256i even, __m256i odd, uint16_t* out) noexcept {
  if (leaf.corrections != nullptr) {
    const __m256i multiplier = _mm256_set1_epi16(int16_t(query.multiplier));
    __m256i e, o;
    part(leaf.corrections + group * kGroup, e, o);
    even = _mm256_add_epi16(even, _mm256_mulhi_epu16(e, multiplier));
    odd = _mm256_add_epi16(odd, _mm256_mulhi_epu16(o, multiplier));
  }
  _mm256_store_si256(reinterpret_cast<__m256i*>(out), even);
  _mm256_store_si256(reinterpret_cast<__m256i*>(out) + 1, odd);
  const __m256i threshold = _mm256_set1_epi16(int16_t(query.threshold));
  const __m256i in_turns = _mm256_blendv_epi8(at_least(odd, threshold), at_least(even, threshold),
                                              _mm256_set1_epi16(0xFF));
  return uint32_t(_mm256_movemask_epi8(in_turns)) & valid_mask(leaf, group);
}

// Of sums in that order.
inline uint32_t survivors(const PackedLeaf& leaf, size_t group, const ScanQuery& query,
                          uint16_t* sums) noexcept {
  const auto* in = reinterpret_cast<const __m256i*>(sums);
  return keep_sums(leaf, group, query, _mm256_load_si256(in), _mm256_load_si256(in + 1), sums);
}

inline void append_found(ScanQuery& query, uint32_t row, uint32_t mask,
                         const uint16_t* sums) noexcept {
  append_from(query, row, mask, sums, [](uint32_t i) { return kGroup / 2 * (i % 2) + i / 2; });
}

constexpr size_t kGroupsInPart = 8;  // whose survivors are appended together

// ---- Few queries

// Adds `count` lookups of two blocks each, for G groups and Q queries: two of either share what is
// loaded of tables and codes.
template <size_t G, size_t Q, size_t count, Load load>
__attribute__((always_inline)) inline void add_lookups(const uint8_t* codes, size_t group_bytes,
                                                       const uint8_t* const (&luts)[Q], size_t at,
                                                       GroupSums (&sums)[G][Q]) noexcept {
  __m256i low[G][Q], high[G][Q];
#pragma GCC unroll 3
  for (size_t i = 0; i < count; ++i) {
#pragma GCC unroll 2
    for (size_t g = 0; g < G; ++g) {
      const __m256i packed = load(codes + g * group_bytes + at + 32 * i);
      const __m256i low_found = low_codes(packed), high_found = high_codes(packed);
#pragma GCC unroll 2
      for (size_t q = 0; q < Q; ++q) {
        const __m256i table = load(luts[q] + at + 32 * i);
        const __m256i first = _mm256_shuffle_epi8(table, low_found);
        const __m256i second = _mm256_shuffle_epi8(table, high_found);
        low[g][q] = i == 0 ? first : _mm256_add_epi8(low[g][q], first);
        high[g][q] = i == 0 ? second : _mm256_add_epi8(high[g][q], second);
        // In this order: registers are few.
        __asm__ volatile("" : "+x"(low[g][q]), "+x"(high[g][q]));
      }
    }
  }
#pragma GCC unroll 2
  for (size_t g = 0; g < G; ++g)
#pragma GCC unroll 2
    for (size_t q = 0; q < Q; ++q) {
      sums[g][q].low.add(low[g][q]);
      sums[g][q].high.add(high[g][q]);
    }
}

// Adds the two blocks of the halves; those of the result are of the group.
inline __m256i blocks_added(__m256i low, __m256i high) noexcept {
  return _mm256_add_epi16(_mm256_permute2x128_si256(low, high, 0x20),
                          _mm256_permute2x128_si256(low, high, 0x31));
}

// G groups for Q queries; what is found goes to this place.
template <size_t G, size_t Q>
inline void scan_for_few(const PackedLeaf& leaf, size_t group, size_t place,
                         const ScanQuery* queries, Found<kGroupsInPart>* found) noexcept {
  const size_t bytes = leaf.blocks * 16;
  const uint8_t* codes = leaf.codes + group * bytes;
  const uint8_t* ahead[G];
  for (size_t g = 0; g < G; ++g) ahead[g] = codes_ahead(leaf, (group + g) * bytes, kAhead);
  const uint8_t* luts[Q];
  for (size_t q = 0; q < Q; ++q) luts[q] = queries[q].lut;
  GroupSums sums[G][Q] = {};
  size_t at = 0;
  for (; at + 96 <= bytes; at += 96) {
    for (size_t g = 0; g < G; ++g) fetch(ahead[g] + at, 96);
    add_lookups<G, Q, 3, load_two>(codes, bytes, luts, at, sums);
  }
  for (; at + 32 <= bytes; at += 32) add_lookups<G, Q, 1, load_two>(codes, bytes, luts, at, sums);
  if (at < bytes) add_lookups<G, Q, 1, load_one>(codes, bytes, luts, at, sums);
#pragma GCC unroll 2
  for (size_t g = 0; g < G; ++g)
#pragma GCC unroll 2
    for (size_t q = 0; q < Q; ++q) {
      const auto& [low, high] = sums[g][q];
      found[q].masks[place + g] =
          keep_sums(leaf, group + g, queries[q], blocks_added(low.even(), high.even()),
                    blocks_added(low.odd, high.odd), found[q].sums[place + g]);
    }
}

// ---- Many queries

constexpr size_t kUnpackedBlocks = 96;  // at a time, so that they stay in the first-level cache
constexpr size_t kPairs = 2;            // of groups, at a time

struct Unpacked {
  __m256i codes[kUnpackedBlocks][kPairs][2];  // of a pair's first 16 datapoints, of the others
};

// Unpacks `blocks` blocks of a pair; its second group may be absent.
inline void unpack(const uint8_t* codes, size_t group_bytes, size_t blocks, size_t pair,
                   bool has_second, Unpacked& to) noexcept {
  const uint8_t* second = has_second ? codes + group_bytes : codes;
  for (size_t m = 0; m < blocks; ++m) {
    const __m256i packed = _mm256_loadu2_m128i(reinterpret_cast<const __m128i*>(second + 16 * m),
                                               reinterpret_cast<const __m128i*>(codes + 16 * m));
    to.codes[m][pair][0] = low_codes(packed);
    to.codes[m][pair][1] = high_codes(packed);
  }
}

// Adds `count` lookups of one block each for P pairs.
template <size_t P, size_t count>
__attribute__((always_inline)) inline void add_unpacked(const __m256i (*codes)[kPairs][2],
                                                        const uint8_t* lut,
                                                        GroupSums (&sums)[P]) noexcept {
  __m256i low[P], high[P];
#pragma GCC unroll 3
  for (size_t i = 0; i < count; ++i) {
    const __m256i table = _mm256_broadcastsi128_si256(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(lut + 16 * i)));
#pragma GCC unroll 2
    for (size_t p = 0; p < P; ++p) {
      const __m256i first = _mm256_shuffle_epi8(table, codes[i][p][0]);
      const __m256i second = _mm256_shuffle_epi8(table, codes[i][p][1]);
      low[p] = i == 0 ? first : _mm256_add_epi8(low[p], first);
      high[p] = i == 0 ? second : _mm256_add_epi8(high[p], second);
      __asm__ volatile("" : "+x"(low[p]), "+x"(high[p]));  // as above
    }
  }
#pragma GCC unroll 2
  for (size_t p = 0; p < P; ++p) {
    sums[p].low.add(low[p]);
    sums[p].high.add(high[p]);
  }
}

// `lut` has the tables of those that are unpacked.
template <size_t P>
inline void add_blocks(const Unpacked& unpacked, size_t blocks, const uint8_t* lut,
                       GroupSums (&sums)[P]) noexcept {
  size_t m = 0;
  for (; m + 3 <= blocks; m += 3) add_unpacked<P, 3>(unpacked.codes + m, lut + 16 * m, sums);
  const size_t left = blocks - m;
  if (left == 2) add_unpacked<P, 2>(unpacked.codes + m, lut + 16 * m, sums);
  if (left == 1) add_unpacked<P, 1>(unpacked.codes + m, lut + 16 * m, sums);
}

// Of a pair of groups; the second may be absent.
inline void keep_pair(const PackedLeaf& leaf, size_t group, size_t place, bool has_second,
                      const GroupSums& sums, const ScanQuery& query,
                      Found<kGroupsInPart>& found) noexcept {
  const auto& [low, high] = sums;
  const __m256i low_even = low.even(), high_even = high.even();
  found.masks[place] =
      keep_sums(leaf, group, query, _mm256_permute2x128_si256(low_even, high_even, 0x20),
                _mm256_permute2x128_si256(low.odd, high.odd, 0x20), found.sums[place]);
  if (has_second)
    found.masks[place + 1] =
        keep_sums(leaf, group + 1, query, _mm256_permute2x128_si256(low_even, high_even, 0x31),
                  _mm256_permute2x128_si256(low.odd, high.odd, 0x31), found.sums[place + 1]);
}

// `count` groups, the last of which may be half a pair.
template <size_t P>
inline void scan_for_many(const PackedLeaf& leaf, size_t group, size_t place, size_t count,
                          const ScanQuery* queries, size_t num_queries,
                          Found<kGroupsInPart>* found) noexcept {
  GroupSums kept[kMaxScanQueries][P];  // from one part of the blocks to the next
  Unpacked unpacked;
  const size_t bytes = leaf.blocks * 16;
  const uint8_t* ahead = codes_ahead(leaf, group * bytes, kAhead);
  const size_t share = count * bytes / num_queries + 1;
  for (size_t from = 0; from < leaf.blocks; from += kUnpackedBlocks) {
    const size_t left = leaf.blocks - from;
    const size_t blocks = left < kUnpackedBlocks ? left : kUnpackedBlocks;
    for (size_t p = 0; p < P; ++p)
      unpack(leaf.codes + (group + 2 * p) * bytes + 16 * from, bytes, blocks, p, 2 * p + 1 < count,
             unpacked);
    for (size_t q = 0; q < num_queries; ++q) {
      if (from == 0) fetch(ahead + q * share, share);
      GroupSums sums[P] = {};
      if (from > 0)
#pragma GCC unroll 2
        for (size_t p = 0; p < P; ++p) sums[p] = kept[q][p];
      add_blocks(unpacked, blocks, queries[q].lut + 16 * from, sums);
      if (left > kUnpackedBlocks) {
#pragma GCC unroll 2
        for (size_t p = 0; p < P; ++p) kept[q][p] = sums[p];
      } else {
#pragma GCC unroll 2
        for (size_t p = 0; p < P; ++p)
          keep_pair(leaf, group + 2 * p, place + 2 * p, 2 * p + 1 < count, sums[p], queries[q],
                    found[q]);
      }
    }
  }
}

// ---- Any number of queries

constexpr size_t kMany = 4;  // from here on it pays to unpack

// Scans up to `left` groups from one on; returns how many.
inline size_t scan_groups(const PackedLeaf& leaf, size_t group, size_t place, size_t left,
                          const ScanQuery* queries, size_t num_queries,
                          Found<kGroupsInPart>* found) noexcept {
  const bool many = num_queries >= kMany;
  const size_t most = many ? 4 : 2, count = left < most ? left : most;
  if (many && count > 2) {
    scan_for_many<2>(leaf, group, place, count, queries, num_queries, found);
  } else if (many) {
    scan_for_many<1>(leaf, group, place, count, queries, num_queries, found);
  } else {
    if (num_queries > 1)
      for (size_t g = 0; g < count; ++g)
        scan_for_few<1, 2>(leaf, group + g, place + g, queries, found);
    const size_t last = num_queries - 1;
    if (num_queries != 2 && count == 2)
      scan_for_few<2, 1>(leaf, group, place, queries + last, found + last);
    if (num_queries != 2 && count == 1)
      scan_for_few<1, 1>(leaf, group, place, queries + last, found + last);
  }
  return count;
}

size_t lut16_scan(const PackedLeaf* leaf, size_t group, ScanQuery* queries,
                  size_t num_queries) noexcept {
  Found<kGroupsInPart> found[kMaxScanQueries];
  while (const size_t count = groups_from(*leaf, group, queries, num_queries, kGroupsInPart)) {
    for (size_t g = 0; g < count;)
      g += scan_groups(*leaf, group + g, g, count - g, queries, num_queries, found);
    take_found(*leaf, group, count, found, queries, num_queries, append_found);
  }
  return group;
}
