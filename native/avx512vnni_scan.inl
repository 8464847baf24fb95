// The scan of 4-bit codes with VBMI, GFNI and VNNI: one shuffle looks up in the tables of four blocks.
// Included inside avx512vnni.cpp's unnamed namespace, after avx512_scan.inl.

// Scores of the datapoints 0 to 15 and 16 to 31 of a group.
struct Sums {
  __m512i low, high;
};

inline __m512i in_16_bits(const Sums& sums) noexcept {
  const __m512i lower_halves = _mm512_set_epi16(
      62, 60, 58, 56, 54, 52, 50, 48, 46, 44, 42, 40, 38, 36, 34, 32, 30, 28, 26, 24, 22, 20, 18,
      16, 14, 12, 10, 8, 6, 4, 2, 0);
  return _mm512_permutex2var_epi16(sums.low, lower_halves, sums.high);
}

// Four rows of 16 bytes (of four blocks) turned, so that what a datapoint has of them lies side by side.
inline __m512i turned(__m512i rows) noexcept {
  const __m512i turn = _mm512_set_epi8(
      63, 47, 31, 15, 62, 46, 30, 14, 61, 45, 29, 13, 60, 44, 28, 12, 59, 43, 27, 11, 58, 42, 26,
      10, 57, 41, 25, 9, 56, 40, 24, 8, 55, 39, 23, 7, 54, 38, 22, 6, 53, 37, 21, 5, 52, 36, 20, 4,
      51, 35, 19, 3, 50, 34, 18, 2, 49, 33, 17, 1, 48, 32, 16, 0);
  return _mm512_permutexvar_epi8(turn, rows);
}

// The codes of four blocks turned, each with the place where its block's table begins in a register of
// four tables.
inline void turn_codes(__m512i codes, __m512i& low, __m512i& high) noexcept {
  const __m512i nibble = _mm512_set1_epi8(15), tables = _mm512_set1_epi32(0x30201000);
  constexpr int kAndOr = 0xEA;  // a & b | c
  const __m512i packed = turned(codes);
  low = _mm512_ternarylogic_epi32(packed, nibble, tables, kAndOr);
  high = _mm512_ternarylogic_epi32(_mm512_srli_epi16(packed, 4), nibble, tables, kAndOr);
}

// The upper halves of all bytes. As a product of bits this is one operation, of ports that shuffles leave free.
inline __m512i upper_halves(__m512i bytes) noexcept {
  const __m512i upper = _mm512_set1_epi64(0x1020408000000000);
  return _mm512_gf2p8affine_epi64_epi8(bytes, upper, 0);
}

// 64 bytes, the last of S times as many only where they are present.
template <size_t S>
SWANN_INLINE inline __m512i load(const uint8_t* from, size_t s, __mmask64 present) noexcept {
  return s + 1 < S ? _mm512_loadu_si512(from + 64 * s)
                   : _mm512_maskz_loadu_epi8(present, from + 64 * s);
}

// Looks 4 S blocks up for G groups and Q queries: what S registers find is added in 8 bits, then that of
// four blocks by one instruction. Of the last four, absent blocks look up a table of zeros. For one query
// or two it is what was found that is turned, for more the codes, once for all.
template <size_t G, size_t Q, size_t S>
inline void add_lookups(const uint8_t* codes, size_t group_bytes, const ScanQuery* queries,
                        size_t at, __mmask64 present, Sums (&sums)[G][Q]) noexcept {
  constexpr bool kTurned = Q > 2;
  const __m512i ones = _mm512_set1_epi8(1), nibble = _mm512_set1_epi8(15);
  __m512i low[G][S], high[G][S];
#pragma GCC unroll 4
  for (size_t g = 0; g < G; ++g)
#pragma GCC unroll 4
    for (size_t s = 0; s < S; ++s) {
      const __m512i packed = load<S>(codes + g * group_bytes + at, s, present);
      if constexpr (kTurned)
        turn_codes(packed, low[g][s], high[g][s]);
      else
        low[g][s] = _mm512_and_si512(packed, nibble), high[g][s] = upper_halves(packed);
    }
#pragma GCC unroll 8
  for (size_t q = 0; q < Q; ++q) {
    __m512i tables[S];
#pragma GCC unroll 4
    for (size_t s = 0; s < S; ++s) tables[s] = load<S>(queries[q].lut + at, s, present);
    const auto look_up = [&](__m512i place, size_t s) SWANN_INLINE {
      return kTurned ? _mm512_permutexvar_epi8(place, tables[s])
                     : _mm512_shuffle_epi8(tables[s], place);
    };
#pragma GCC unroll 4
    for (size_t g = 0; g < G; ++g) {
      __m512i lower = look_up(low[g][0], 0), upper = look_up(high[g][0], 0);
#pragma GCC unroll 4
      for (size_t s = 1; s < S; ++s) {
        lower = _mm512_add_epi8(lower, look_up(low[g][s], s));
        upper = _mm512_add_epi8(upper, look_up(high[g][s], s));
      }
      add_products(sums[g][q].low, kTurned ? lower : turned(lower), ones);
      add_products(sums[g][q].high, kTurned ? upper : turned(upper), ones);
    }
  }
}

// Registers whose lookups are added in 8 bits (kAdded).
constexpr size_t kSteps = 3;

// The same for the blocks that are left, 4 S at most.
template <size_t G, size_t Q, size_t S>
inline void add_last(const uint8_t* codes, size_t group_bytes, const ScanQuery* queries, size_t at,
                     Sums (&sums)[G][Q]) noexcept {
  const size_t left = group_bytes - at;
  if constexpr (S > 1)
    if (left <= 64 * (S - 1)) return add_last<G, Q, S - 1>(codes, group_bytes, queries, at, sums);
  const __mmask64 present = ~__mmask64(0) >> (64 * S - left);
  add_lookups<G, Q, S>(codes, group_bytes, queries, at, present, sums);
}

inline __m512i sixteen_from(uint32_t first) noexcept {
  return _mm512_add_epi32(
      _mm512_set1_epi32(int32_t(first)),
      _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
}

// Sixteen keys, of rows (their complements) and scores in order.
inline void store_16_keys(__m512i rows, __m512i scores, Key* out) noexcept {
  const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i second =
      _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  _mm512_storeu_si512(out, _mm512_permutex2var_epi32(rows, first, scores));
  _mm512_storeu_si512(out + 8, _mm512_permutex2var_epi32(rows, second, scores));
}

// Appends the keys of those of 16 rows that are in `mask`: without a loop, whose end no processor
// foresees. There is room for 16.
inline void append_rows(ScanQuery& query, __m512i named, uint32_t mask, __m512i sums) noexcept {
  const __m512i rows = _mm512_xor_si512(named, _mm512_set1_epi32(-1));
  const __m512i scores =
      _mm512_add_epi32(sums, _mm512_set1_epi32(int32_t(uint32_t(query.bias) ^ 0x80000000u)));
  store_16_keys(_mm512_maskz_compress_epi32(__mmask16(mask), rows),
                _mm512_maskz_compress_epi32(__mmask16(mask), scores), query.out + query.size);
  query.size += size_t(__builtin_popcount(mask));
}

inline void store_keys(__m256i sums, __m256i places, __m512i bias, __m512i row, Key* out) noexcept {
  const __m512i scores = _mm512_add_epi32(_mm512_cvtepu16_epi32(sums), bias);
  const __m512i rows = _mm512_add_epi32(_mm512_cvtepu16_epi32(places), row);
  store_16_keys(_mm512_xor_si512(rows, _mm512_set1_epi32(-1)), scores, out);
}

// What `append` does, up to 16 keys without a branch.
inline void append_compressed(ScanQuery& query, uint32_t row, uint32_t mask,
                              const uint16_t* sums) noexcept {
  const __m512i all = _mm512_set_epi16(31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17,
                                       16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512i bias = _mm512_set1_epi32(int32_t(uint32_t(query.bias) ^ 0x80000000u));
  const __m512i first = _mm512_set1_epi32(int32_t(row));
  const __m512i found = _mm512_maskz_compress_epi16(mask, _mm512_load_si512(sums));
  const __m512i places = _mm512_maskz_compress_epi16(mask, all);
  const auto size = size_t(__builtin_popcount(mask));
  Key* const out = query.out + query.size;
  store_keys(_mm512_castsi512_si256(found), _mm512_castsi512_si256(places), bias, first, out);
  if (size > 16)
    store_keys(_mm512_extracti64x4_epi64(found, 1), _mm512_extracti64x4_epi64(places, 1), bias,
               first, out + 16);
  query.size += size;
}

// G groups against Q queries in one pass.
template <size_t G, size_t Q, size_t most>
inline void scan_tile(const PackedLeaf& leaf, size_t group, size_t place, const ScanQuery* queries,
                      const __m512i (&thresholds)[Q], Found<most> (&found)[Q]) noexcept {
  const size_t bytes = leaf.blocks * 16;
  const uint8_t* codes = leaf.codes + group * bytes;
  const Ahead<G, Q> ahead(leaf, group);
  Sums sums[G][Q];
#pragma GCC unroll 4
  for (size_t g = 0; g < G; ++g)
#pragma GCC unroll 8
    for (size_t q = 0; q < Q; ++q)
      sums[g][q] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  size_t at = 0;
  for (; at + 64 * kSteps <= bytes; at += 64 * kSteps) {
#pragma GCC unroll 4
    for (size_t s = 0; s < kSteps; ++s) ahead.fetch(at + 64 * s);
    add_lookups<G, Q, kSteps>(codes, bytes, queries, at, ~__mmask64(0), sums);
  }
  if (at < bytes) {
    for (size_t line = at; line + 64 <= bytes; line += 64) ahead.fetch(line);
    add_last<G, Q, kSteps>(codes, bytes, queries, at, sums);
  }
#pragma GCC unroll 4
  for (size_t g = 0; g < G; ++g)
#pragma GCC unroll 8
    for (size_t q = 0; q < Q; ++q)
      found[q].masks[place + g] = keep_sums(leaf, group + g, queries[q], thresholds[q],
                                            in_16_bits(sums[g][q]), found[q].sums[place + g]);
}

template <size_t G, size_t Q>
inline size_t scan(const PackedLeaf& leaf, size_t group, ScanQuery* queries) noexcept {
  Found<Q == 1 ? 32 : 16> found[Q];
  __m512i thresholds[Q];
  for (size_t q = 0; q < Q; ++q) thresholds[q] = threshold_of(queries[q]);
  while (const size_t count = groups_from(leaf, group, queries, Q, found->kMost)) {
    size_t g = 0;
    for (; g + G <= count; g += G)
      scan_tile<G, Q>(leaf, group + g, g, queries, thresholds, found);
    // One group alone waits for its own sums: two are as fast.
    if constexpr (G > 2)
      if (g + 2 <= count) {
        scan_tile<2, Q>(leaf, group + g, g, queries, thresholds, found);
        g += 2;
      }
    if constexpr (G > 1)
      if (g < count) scan_tile<1, Q>(leaf, group + g, g, queries, thresholds, found);
    take_found(leaf, group, count, found, queries, Q, append_compressed);
  }
  return group;
}

size_t lut16_scan(const PackedLeaf* leaf, size_t first_group, ScanQuery* queries,
                  size_t num_queries) noexcept {
  switch (num_queries) {
    case 1: return scan<4, 1>(*leaf, first_group, queries);
    case 2: return scan<2, 2>(*leaf, first_group, queries);
    case 3: return scan<2, 3>(*leaf, first_group, queries);
    case 4: return scan<1, 4>(*leaf, first_group, queries);
    case 5: return scan<1, 5>(*leaf, first_group, queries);
    case 6: return scan<1, 6>(*leaf, first_group, queries);
    case 7: return scan<1, 7>(*leaf, first_group, queries);
    default: return scan<1, 8>(*leaf, first_group, queries);
  }
}
