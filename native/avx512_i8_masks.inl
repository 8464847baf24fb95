// What 8-bit dot products are held against (kernels.h, i8_filter).
// Included inside the unnamed namespace of each level file that computes them.

inline __m512 load_first(const float* row, size_t count) noexcept {
  return _mm512_maskz_loadu_ps(count >= 16 ? __mmask16(0xFFFF) : __mmask16((1u << count) - 1),
                               row);
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
  const __m512 products =  // inverses alone may be too much
      _mm512_mul_ps(_mm512_mul_ps(bound, load_first(queries.inverses + q, left)),
                    _mm512_set1_ps(rows.inverses[group]));
  // The roundings of this very computation.
  return _mm512_sub_ps(_mm512_fnmadd_ps(_mm512_abs_ps(products), _mm512_set1_ps(1e-5f), products),
                       _mm512_set1_ps(2.0f));
}

// The rows of a group whose products with query q reach `least`, that of least_products.
template <bool squared_l2>
inline uint16_t reaching(const I8Rows& rows, size_t group, const I8Queries& queries, size_t q,
                         __m512i products, float least, float slack) noexcept {
  __m512 bound = _mm512_set1_ps(least);
  if (squared_l2) {
    const __m512 halves = _mm512_mul_ps(_mm512_loadu_ps(rows.halves + group * kI8Group),
                                        _mm512_set1_ps(queries.inverses[q]));
    bound = _mm512_add_ps(bound, _mm512_mul_ps(halves, _mm512_set1_ps(1.0f - 1e-5f - slack)));
  }
  return _mm512_cmp_ps_mask(_mm512_cvtepi32_ps(products), bound, _CMP_NLT_UQ);
}

// Adds the rows of a group that are set in the mask to the `count` that were found before.
__attribute__((always_inline)) inline void add_found(uint16_t mask, size_t group, size_t q,
                                                     __m512i products, const I8Found& found,
                                                     size_t& count) noexcept {
  if (__builtin_expect(mask == 0, 1)) return;
  const __m512i lanes =
      _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i first = _mm512_set1_epi32(int32_t(group * kI8Group));
  _mm512_storeu_si512(found.rows + count,
                      _mm512_add_epi32(_mm512_maskz_compress_epi32(mask, lanes), first));
  _mm512_storeu_si512(found.queries + count, _mm512_set1_epi32(int32_t(q)));
  _mm512_storeu_ps(found.products + count,
                   _mm512_maskz_compress_ps(mask, _mm512_cvtepi32_ps(products)));
  count += size_t(__builtin_popcount(mask));
}

// The same of those that `reaching` names.
template <bool squared_l2>
__attribute__((always_inline)) inline void find_reaching(
    const I8Rows& rows, size_t group, const I8Queries& queries, size_t q, __m512i products,
    float least, float slack, const I8Found& found, size_t& count) noexcept {
  add_found(reaching<squared_l2>(rows, group, queries, q, products, least, slack), group, q,
            products, found, count);
}
