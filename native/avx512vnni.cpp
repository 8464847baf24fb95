// Level avx512vnni: bytes are looked up in 64 at a time (VBMI), and four of them added into 32 bits
// (VNNI): Ice Lake, Zen 4 and newer. The scans are all that it adds to avx512bw.
#include <immintrin.h>

#include <cstdint>
#include <utility>

#include "kernels.h"

namespace swann {
namespace {

#include "scan.inl"
#include "avx512_scan.inl"

// Calls f(0), ..., f(N - 1) with constants: arrays indexed by them live in registers, where the
// compiler's own unrolling would come too late for that.
#define SWANN_INLINE __attribute__((always_inline))
template <size_t N, typename F>
SWANN_INLINE inline void unrolled(const F& f) noexcept {
  [&]<size_t... I>(std::index_sequence<I...>) SWANN_INLINE {
    (f(std::integral_constant<size_t, I>{}), ...);
  }(std::make_index_sequence<N>{});
}

// Adds the four products of bytes in each lane. Saying that the sum is in a register keeps GCC 12
// from storing it in every turn of a loop.
SWANN_INLINE inline void add_products(__m512i& sum, __m512i unsigned_bytes,
                                      __m512i signed_bytes) noexcept {
  sum = _mm512_dpbusd_epi32(sum, unsigned_bytes, signed_bytes);
  __asm__("" : "+v"(sum));
}

// ---- Codes of 4 bits

// Scores of the datapoints 0 to 15 and 16 to 31 of a group.
struct Sums {
  __m512i low, high;
};

// Looks 64 bytes of codes (four blocks) up for G groups and Q queries. Turned, the codes of a
// datapoint in four blocks lie side by side, so that one register looks up in the tables of all
// four, and one instruction adds what was found. Absent blocks look up a table of zeros.
template <size_t G, size_t Q>
inline void add_lookups(const uint8_t* codes, size_t group_bytes, const ScanQuery* queries,
                        size_t at, __mmask64 present, Sums (&sums)[G][Q]) noexcept {
  const __m512i turn = _mm512_set_epi8(
      63, 47, 31, 15, 62, 46, 30, 14, 61, 45, 29, 13, 60, 44, 28, 12, 59, 43, 27, 11, 58, 42, 26,
      10, 57, 41, 25, 9, 56, 40, 24, 8, 55, 39, 23, 7, 54, 38, 22, 6, 53, 37, 21, 5, 52, 36, 20, 4,
      51, 35, 19, 3, 50, 34, 18, 2, 49, 33, 17, 1, 48, 32, 16, 0);
  const __m512i nibble = _mm512_set1_epi8(15), ones = _mm512_set1_epi8(1);
  const __m512i tables = _mm512_set1_epi32(0x30201000);  // where each block's entries begin
  constexpr int kAndOr = 0xEA;                           // a & b | c
  __m512i low[G], high[G];
#pragma GCC unroll 4
  for (size_t g = 0; g < G; ++g) {
    const __m512i packed = _mm512_permutexvar_epi8(
        turn, _mm512_maskz_loadu_epi8(present, codes + g * group_bytes + at));
    low[g] = _mm512_ternarylogic_epi32(packed, nibble, tables, kAndOr);
    high[g] = _mm512_ternarylogic_epi32(_mm512_srli_epi16(packed, 4), nibble, tables, kAndOr);
  }
#pragma GCC unroll 8
  for (size_t q = 0; q < Q; ++q) {
    const __m512i table = _mm512_maskz_loadu_epi8(present, queries[q].lut + at);
#pragma GCC unroll 4
    for (size_t g = 0; g < G; ++g) {
      Sums& s = sums[g][q];
      add_products(s.low, _mm512_permutexvar_epi8(low[g], table), ones);
      add_products(s.high, _mm512_permutexvar_epi8(high[g], table), ones);
    }
  }
}

// Appends the keys of the datapoints in `mask`, of 16 from `row` on: without a loop, whose end no
// processor foresees.
inline void append_keys(ScanQuery& query, uint32_t row, uint32_t mask, __m512i sums) noexcept {
  const __m512i count = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i rows = _mm512_sub_epi32(_mm512_set1_epi32(int32_t(~row)), count);
  const __m512i scores =
      _mm512_add_epi32(sums, _mm512_set1_epi32(int32_t(uint32_t(query.bias) ^ 0x80000000u)));
  const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i second =
      _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  Key* out = query.out + query.size;
  const auto low = __mmask8(mask), high = __mmask8(mask >> 8);
  _mm512_storeu_si512(
      out, _mm512_maskz_compress_epi64(low, _mm512_permutex2var_epi32(rows, first, scores)));
  _mm512_storeu_si512(
      out + __builtin_popcount(low),
      _mm512_maskz_compress_epi64(high, _mm512_permutex2var_epi32(rows, second, scores)));
  query.size += size_t(__builtin_popcount(mask));
}

inline void keep_survivors(const PackedLeaf& leaf, size_t group, Sums sums,
                           ScanQuery& query) noexcept {
  if (leaf.corrections != nullptr) {
    const __m512i added = _mm512_mulhi_epu16(
        _mm512_loadu_si512(leaf.corrections + group * kGroup),
        _mm512_set1_epi16(int16_t(query.multiplier)));
    sums.low = _mm512_add_epi32(sums.low,
                                _mm512_cvtepu16_epi32(_mm512_castsi512_si256(added)));
    sums.high = _mm512_add_epi32(sums.high,
                                 _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(added, 1)));
  }
  const __m512i threshold = _mm512_set1_epi32(query.threshold);
  uint32_t mask = uint32_t(_mm512_cmpge_epi32_mask(sums.low, threshold)) |
                  uint32_t(_mm512_cmpge_epi32_mask(sums.high, threshold)) << 16;
  mask &= valid_mask(leaf, group);
  if (mask == 0) return;
  const uint32_t row = leaf.first_row + uint32_t(group * kGroup);
  append_keys(query, row, mask & 0xFFFF, sums.low);
  append_keys(query, row + 16, mask >> 16, sums.high);
}

// Where to fetch from while `bytes` from `at` on are scanned: a little further on, or what comes
// after the leaf. Memory answers an early query in time, and no instruction waits for it.
inline const uint8_t* ahead(const PackedLeaf& leaf, size_t at, size_t bytes) noexcept {
  constexpr size_t kAhead = 6144;
  const size_t end = (leaf.count + kGroup - 1) / kGroup * leaf.blocks * 16;
  if (at + kAhead + bytes <= end || leaf.next == nullptr) return leaf.codes + at + kAhead;
  return leaf.next + (at + kAhead + bytes - end);
}

// G groups against Q queries in one pass.
template <size_t G, size_t Q>
inline void scan_tile(const PackedLeaf& leaf, size_t group, ScanQuery* queries) noexcept {
  constexpr __mmask64 kAll = ~__mmask64(0);
  const size_t bytes = leaf.blocks * 16;
  const uint8_t* codes = leaf.codes + group * bytes;
  if constexpr (Q == 1) {
    const uint8_t* fetched = ahead(leaf, group * bytes, G * bytes);
    for (size_t i = 0; i < G * bytes; i += 64)
      _mm_prefetch(reinterpret_cast<const char*>(fetched + i), _MM_HINT_T0);
  }
  Sums sums[G][Q];
#pragma GCC unroll 4
  for (size_t g = 0; g < G; ++g)
#pragma GCC unroll 8
    for (size_t q = 0; q < Q; ++q)
      sums[g][q] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  size_t at = 0;
  for (; at + 64 <= bytes; at += 64) add_lookups<G, Q>(codes, bytes, queries, at, kAll, sums);
  if (at < bytes)
    add_lookups<G, Q>(codes, bytes, queries, at, (__mmask64(1) << (bytes - at)) - 1, sums);
#pragma GCC unroll 8
  for (size_t q = 0; q < Q; ++q)
#pragma GCC unroll 4
    for (size_t g = 0; g < G; ++g) keep_survivors(leaf, group + g, sums[g][q], queries[q]);
}

template <size_t G, size_t Q>
inline size_t scan(const PackedLeaf& leaf, size_t group, ScanQuery* queries) noexcept {
  const size_t groups = (leaf.count + kGroup - 1) / kGroup;
  for (; group + G <= groups; group += G) {
    if (!has_room(queries, Q, G * kGroup)) break;
    scan_tile<G, Q>(leaf, group, queries);
  }
  for (; group < groups && has_room(queries, Q, kGroup); ++group)
    scan_tile<1, Q>(leaf, group, queries);
  return group;
}

size_t lut16_scan(const PackedLeaf* leaf, size_t first_group, ScanQuery* queries,
                  size_t num_queries) noexcept {
  switch (num_queries) {
    case 1: return scan<4, 1>(*leaf, first_group, queries);
    case 2: return scan<2, 2>(*leaf, first_group, queries);
    case 3: return scan<2, 3>(*leaf, first_group, queries);
    case 4: return scan<2, 4>(*leaf, first_group, queries);
    case 5: return scan<1, 5>(*leaf, first_group, queries);
    default: return scan<1, 6>(*leaf, first_group, queries);
  }
}

// ---- Codes of 8 bits

constexpr size_t kGroupsAtOnce = 8;

// Two groups, which lie group_bytes apart, fill a register.
template <size_t pairs>
inline void sums_of(const uint8_t* codes, size_t group_bytes, size_t blocks, const uint8_t* lut,
                    uint16_t* sums) noexcept {
  const __m512i sixth = _mm512_set1_epi8(64);
  __m512i both[pairs], odd[pairs];  // whole 16-bit lanes, and their upper bytes
#pragma GCC unroll 4
  for (size_t p = 0; p < pairs; ++p) both[p] = odd[p] = _mm512_setzero_si512();
  for (size_t m = 0; m < blocks; ++m, codes += kGroup, lut += kWords256) {
    const __m512i table[] = {_mm512_loadu_si512(lut), _mm512_loadu_si512(lut + 64),
                             _mm512_loadu_si512(lut + 128), _mm512_loadu_si512(lut + 192)};
#pragma GCC unroll 4
    for (size_t p = 0; p < pairs; ++p) {
      const uint8_t* at = codes + 2 * p * group_bytes;
      const __m512i code = _mm512_inserti64x4(
          _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at))),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at + group_bytes)), 1);
      // Of a code, six bits find an entry of a quarter, the two above them the quarter.
      const __mmask64 odd_quarter = _mm512_test_epi8_mask(code, sixth);
      __m512i lower = _mm512_permutexvar_epi8(code, table[0]);
      lower = _mm512_mask_permutexvar_epi8(lower, odd_quarter, code, table[1]);
      __m512i upper = _mm512_permutexvar_epi8(code, table[2]);
      upper = _mm512_mask_permutexvar_epi8(upper, odd_quarter, code, table[3]);
      const __m512i entry = _mm512_mask_blend_epi8(_mm512_movepi8_mask(code), lower, upper);
      both[p] = _mm512_add_epi16(both[p], entry);
      odd[p] = _mm512_add_epi16(odd[p], _mm512_srli_epi16(entry, 8));
    }
  }
#pragma GCC unroll 4
  for (size_t p = 0; p < pairs; ++p) {
    const __m512i even = _mm512_sub_epi16(both[p], _mm512_slli_epi16(odd[p], 8));
    store_in_order<false>(even, odd[p], sums + 2 * p * kGroup);
    store_in_order<true>(even, odd[p], sums + (2 * p + 1) * kGroup);
  }
}

void lut256_sums(const PackedLeaf& leaf, size_t group, size_t count, const uint8_t* lut,
                 uint16_t* sums) noexcept {
  const size_t bytes = leaf.blocks * kGroup;
  const uint8_t* codes = leaf.codes + group * bytes;
  if (count == 8) return sums_of<4>(codes, bytes, leaf.blocks, lut, sums);
  size_t g = 0;
  for (; g + 2 <= count; g += 2)
    sums_of<1>(codes + g * bytes, bytes, leaf.blocks, lut, sums + g * kGroup);
  // A last group alone is taken twice: there is room for the sums of eight.
  if (g < count) sums_of<1>(codes + g * bytes, 0, leaf.blocks, lut, sums + g * kGroup);
}

#include "lut256_scan.inl"

// ---- Exact search by 8-bit rows

inline __m512 load_first(const float* row, size_t count) noexcept {
  return _mm512_maskz_loadu_ps(count >= 16 ? __mmask16(0xFFFF) : __mmask16((1u << count) - 1),
                               row);
}

// One row, as `place` of its group. Adds up squared lengths of the error, of what stands for the
// row, and of the row.
inline void pack_row(const float* row, size_t dim, const float* weights, float inverse,
                     size_t place, uint8_t* bytes, __m512& error, __m512& length,
                     __m512& square) noexcept {
  const __m512 scale = _mm512_set1_ps(inverse), step = _mm512_set1_ps(1.0f / inverse);
  for (size_t j = 0; j < dim; j += 16) {
    const __m512 given = load_first(row + j, dim - j);
    const __m512 x = _mm512_mul_ps(given, load_first(weights + j, dim - j));
    const __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(x, scale));
    const __m512 near = _mm512_mul_ps(_mm512_cvtepi32_ps(whole), step);
    const __m512 off = _mm512_sub_ps(x, near);
    error = _mm512_fmadd_ps(off, off, error);
    length = _mm512_fmadd_ps(near, near, length);
    square = _mm512_fmadd_ps(given, given, square);
    alignas(16) uint8_t all[16];
    _mm_store_si128(reinterpret_cast<__m128i*>(all),
                    _mm_xor_si128(_mm512_cvtepi32_epi8(whole), _mm_set1_epi8(-128)));
    for (size_t i = 0; i < 4 && j + 4 * i < dim; ++i)
      __builtin_memcpy(bytes + ((j / 4 + i) * kI8Group + place) * 4, all + 4 * i, 4);
  }
}

void i8_pack(const float* rows, size_t count, size_t dim, const float* weights,
             const I8Rows* out) noexcept {
  const size_t quads = (dim + 3) / 4, group_bytes = quads * kI8Group * 4;
  for (size_t first = 0, g = 0; first < count; first += kI8Group, ++g) {
    const size_t here = count - first < kI8Group ? count - first : kI8Group;
    __m512 most = _mm512_setzero_ps();
    for (size_t r = 0; r < here; ++r)
      for (size_t j = 0; j < dim; j += 16)
        most = _mm512_max_ps(
            most, _mm512_abs_ps(_mm512_mul_ps(load_first(rows + (first + r) * dim + j, dim - j),
                                              load_first(weights + j, dim - j))));
    const float greatest = _mm512_reduce_max_ps(most);
    // Below this, which is nothing beside other rows, everything rounds to zero.
    const float inverse = 127.0f / (greatest < 1e-18f ? 1e-18f : greatest);
    uint8_t* bytes = out->bytes + g * group_bytes;
    if (here < kI8Group) __builtin_memset(bytes, 128, group_bytes);
    float error = 0, length = 0;
    for (size_t r = 0; r < kI8Group; ++r) {
      __m512 errors = _mm512_setzero_ps(), lengths = errors, squares = errors;
      if (r < here)
        pack_row(rows + (first + r) * dim, dim, weights, inverse, r, bytes, errors, lengths,
                 squares);
      const float e = _mm512_reduce_add_ps(errors), l = _mm512_reduce_add_ps(lengths);
      error = e > error ? e : error;
      length = l > length ? l : length;
      out->halves[g * kI8Group + r] = 0.5f * inverse * _mm512_reduce_add_ps(squares);
    }
    constexpr float kUp = 1.0001f;  // sums and roots are rounded, too
    out->inverses[g] = inverse;
    out->errors[g] = kUp * _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(error)));
    out->lengths[g] = kUp * _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(length)));
  }
}

// What the 8-bit dot products of a group must reach, for 16 queries from q on.
inline __m512 least_products(const I8Rows& rows, size_t group, const I8Queries& queries,
                             size_t q) noexcept {
  const size_t left = queries.count - q;
  const float length = rows.lengths[group];
  const __m512 bound = _mm512_fnmadd_ps(
      load_first(queries.lengths + q, left), _mm512_set1_ps(rows.errors[group]),
      _mm512_fnmadd_ps(load_first(queries.errors + q, left), _mm512_set1_ps(length),
                       load_first(queries.thresholds + q, left)));
  const __m512 products = _mm512_mul_ps(
      bound, _mm512_mul_ps(load_first(queries.inverses + q, left),
                           _mm512_set1_ps(rows.inverses[group])));
  // The roundings of this very computation.
  return _mm512_sub_ps(_mm512_fnmadd_ps(_mm512_abs_ps(products), _mm512_set1_ps(1e-5f), products),
                       _mm512_set1_ps(2.0f));
}

// G groups against Q queries from q on; `least` has a row a group, for the queries from `base` on.
template <size_t G, size_t Q, bool squared_l2>
inline void filter_tile(const I8Rows& rows, size_t group, size_t quads, const I8Queries& queries,
                        size_t q, const float (*least)[16], size_t base, float slack,
                        uint16_t* masks) noexcept {
  __m512i sums[G * Q];
  unrolled<Q>([&](auto i) SWANN_INLINE {
    const __m512i start = _mm512_set1_epi32(queries.starts[q + i]);
    unrolled<G>([&](auto g) SWANN_INLINE { sums[g * Q + i] = start; });
  });
  const uint8_t* bytes = rows.bytes + group * quads * 64;
  const int8_t* query = queries.bytes + q * quads * 4;
  for (size_t j = 0; j < quads; ++j) {
    __m512i row[G];
    unrolled<G>([&](auto g) SWANN_INLINE {
      row[g] = _mm512_loadu_si512(bytes + (g * quads + j) * 64);
    });
    unrolled<Q>([&](auto i) SWANN_INLINE {
      int32_t four;
      __builtin_memcpy(&four, query + (i * quads + j) * 4, 4);
      const __m512i all = _mm512_set1_epi32(four);
      unrolled<G>([&](auto g) SWANN_INLINE {
        add_products(sums[g * Q + i], row[g], all);
      });
    });
  }
  unrolled<G>([&](auto g) SWANN_INLINE {
    unrolled<Q>([&](auto i) SWANN_INLINE {
      __m512 bound = _mm512_set1_ps(least[g][q - base + i]);
      if (squared_l2) {
        const __m512 halves = _mm512_mul_ps(_mm512_loadu_ps(rows.halves + (group + g) * kI8Group),
                                            _mm512_set1_ps(queries.inverses[q + i]));
        bound = _mm512_add_ps(bound, _mm512_mul_ps(halves, _mm512_set1_ps(1.0f - 1e-5f - slack)));
      }
      masks[g * queries.count + q + i] =
          _mm512_cmp_ps_mask(_mm512_cvtepi32_ps(sums[g * Q + i]), bound, _CMP_NLT_UQ);
    });
  });
}

template <size_t G, bool squared_l2>
inline void filter_groups(const I8Rows& rows, size_t group, size_t quads, const I8Queries& queries,
                          float slack, uint16_t* masks) noexcept {
  alignas(64) float least[G][16];
  for (size_t base = 0; base < queries.count; base += 12) {
    const size_t end = queries.count - base < 12 ? queries.count : base + 12;
#pragma GCC unroll 4
    for (size_t g = 0; g < G; ++g)
      _mm512_store_ps(least[g], least_products(rows, group + g, queries, base));
    size_t q = base;
    for (; q + 6 <= end; q += 6)
      filter_tile<G, 6, squared_l2>(rows, group, quads, queries, q, least, base, slack,
                                   masks);
    for (; q < end; ++q)
      filter_tile<G, 1, squared_l2>(rows, group, quads, queries, q, least, base, slack,
                                   masks);
  }
}

template <bool squared_l2>
inline void filter_all(const I8Rows& rows, size_t groups, size_t quads, const I8Queries& queries,
                       float slack, uint16_t* masks) noexcept {
  size_t g = 0;
  for (; g + 4 <= groups; g += 4)
    filter_groups<4, squared_l2>(rows, g, quads, queries, slack, masks + g * queries.count);
  for (; g < groups; ++g)
    filter_groups<1, squared_l2>(rows, g, quads, queries, slack, masks + g * queries.count);
}

void i8_filter(const I8Rows* rows, size_t groups, size_t quads, const I8Queries* queries,
               bool squared_l2, float slack, uint16_t* masks) noexcept {
  if (squared_l2)
    filter_all<true>(*rows, groups, quads, *queries, slack, masks);
  else
    filter_all<false>(*rows, groups, quads, *queries, slack, masks);
}

template <size_t G, bool squared_l2>
inline void bound_groups(const I8Rows& rows, size_t group, size_t quads, const I8Queries& query,
                         float slack, float extra, float* lower, float* upper) noexcept {
  __m512i sums[G];
  unrolled<G>([&](auto g) SWANN_INLINE { sums[g] = _mm512_set1_epi32(query.starts[0]); });
  const uint8_t* bytes = rows.bytes + group * quads * 64;
  for (size_t j = 0; j < quads; ++j) {
    int32_t four;
    __builtin_memcpy(&four, query.bytes + j * 4, 4);
    const __m512i all = _mm512_set1_epi32(four);
    unrolled<G>([&](auto g) SWANN_INLINE {
      add_products(sums[g], _mm512_loadu_si512(bytes + (g * quads + j) * 64), all);
    });
  }
  unrolled<G>([&](auto g) SWANN_INLINE {
    const size_t at = group + g;
    const float step = 1.0f / rows.inverses[at];
    __m512 score = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[g]),
                                 _mm512_set1_ps(step / query.inverses[0]));
    __m512 off = _mm512_set1_ps(query.lengths[0] * rows.errors[at] +
                                query.errors[0] * rows.lengths[at] + extra);
    if (squared_l2) {
      const __m512 halves =
          _mm512_mul_ps(_mm512_loadu_ps(rows.halves + at * kI8Group), _mm512_set1_ps(step));
      score = _mm512_sub_ps(score, halves);
      off = _mm512_fmadd_ps(halves, _mm512_set1_ps(slack), off);
    }
    _mm512_storeu_ps(lower + at * kI8Group, _mm512_sub_ps(score, off));
    _mm512_storeu_ps(upper + at * kI8Group, _mm512_add_ps(score, off));
  });
}

template <bool squared_l2>
inline void bound_all(const I8Rows& rows, size_t groups, size_t quads, const I8Queries& query,
                      float slack, float extra, float* lower, float* upper) noexcept {
  size_t g = 0;
  for (; g + 8 <= groups; g += 8)
    bound_groups<8, squared_l2>(rows, g, quads, query, slack, extra, lower, upper);
  for (; g < groups; ++g)
    bound_groups<1, squared_l2>(rows, g, quads, query, slack, extra, lower, upper);
}

void i8_bounds(const I8Rows* rows, size_t groups, size_t quads, const I8Queries* queries,
               bool squared_l2, float slack, float extra, float* lower, float* upper) noexcept {
  if (squared_l2)
    bound_all<true>(*rows, groups, quads, *queries, slack, extra, lower, upper);
  else
    bound_all<false>(*rows, groups, quads, *queries, slack, extra, lower, upper);
}

constexpr KernelTable only_the_scans() noexcept {
  KernelTable table = {};
  table.level = "avx512vnni";
  table.scan_queries = 6;
  table.lut16_scan = lut16_scan;
  table.lut16_wide_scan = lut16_scan;  // adds in 32 bits
  table.lut256_scan = lut256_scan;
  table.i8_pack = i8_pack;
  table.i8_filter = i8_filter;
  table.i8_bounds = i8_bounds;
  return table;
}

}  // namespace

constinit const KernelTable avx512vnni_table = only_the_scans();

}  // namespace swann
