// Rows and queries of 8 bits: packing, filtering, products (kernels.h, I8Rows).
// Included inside avx512vnni.cpp's unnamed namespace, after avx512_i8_masks.inl. It packs rows as i8.inl does,
// but rounds and loads by instructions that F16 has not.

// One row, as `place` of its group. Adds up squared lengths of the error and of what stands for the
// row, in steps (so that they are no less than a float may be), and of the row.
inline void pack_row(const float* row, size_t dim, const float* weights, float inverse,
                     size_t place, uint8_t* bytes, __m512& error, __m512& length,
                     __m512& square) noexcept {
  const __m512 scale = _mm512_set1_ps(inverse);
  for (size_t j = 0; j < dim; j += 16) {
    const __m512 given = load_first(row + j, dim - j);
    const __m512 x = _mm512_mul_ps(given, load_first(weights + j, dim - j));
    const __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(x, scale));
    const __m512 steps = _mm512_cvtepi32_ps(whole), off = _mm512_fmsub_ps(x, scale, steps);
    error = _mm512_fmadd_ps(off, off, error);
    length = _mm512_fmadd_ps(steps, steps, length);
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
  const size_t quads = quads_of(dim), group_bytes = quads * kI8Group * 4;
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
    const float step = 1.0001f / inverse;  // and more: sums and roots are rounded, too
    out->inverses[g] = inverse;
    out->errors[g] = step * _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(error)));
    out->lengths[g] = step * _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(length)));
  }
}

// G groups against Q queries from q on; `least` has a row a group, for the queries from `base` on.
template <size_t G, size_t Q, bool squared_l2>
inline void filter_tile(const I8Rows& rows, size_t group, size_t quads, const I8Queries& queries,
                        size_t q, const float (*least)[16], size_t base, float slack,
                        const I8Found& found, size_t& count) noexcept {
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
      find_reaching<squared_l2>(rows, group + g, queries, q + i, sums[g * Q + i],
                                least[g][q - base + i], slack, found, count);
    });
  });
}

// One query against a group, whose bytes come in one stream, the one that memory delivers fastest:
// sums lie side by side instead of groups.
template <bool squared_l2>
inline uint16_t filter_lone(const I8Rows& rows, size_t group, size_t quads,
                            const I8Queries& queries, size_t q, float least, float slack,
                            int32_t* products) noexcept {
  constexpr size_t kSums = 4;
  __m512i sums[kSums] = {_mm512_set1_epi32(queries.starts[q])};
  unrolled<kSums - 1>([&](auto i) SWANN_INLINE { sums[i + 1] = _mm512_setzero_si512(); });
  const uint8_t* bytes = rows.bytes + group * quads * 64;
  const int8_t* query = queries.bytes + q * quads * 4;
  const auto add = [&](size_t j, __m512i& sum) SWANN_INLINE {
    int32_t four;
    __builtin_memcpy(&four, query + j * 4, 4);
    add_products(sum, _mm512_loadu_si512(bytes + j * 64), _mm512_set1_epi32(four));
  };
  size_t j = 0;
  for (; j + kSums <= quads; j += kSums)
    unrolled<kSums>([&](auto i) SWANN_INLINE { add(j + i, sums[i]); });
  for (; j < quads; ++j) add(j, sums[0]);
  const __m512i all = _mm512_add_epi32(_mm512_add_epi32(sums[0], sums[1]),
                                       _mm512_add_epi32(sums[2], sums[3]));
  _mm512_store_si512(products, all);
  return reaching<squared_l2>(rows, group, queries, q, all, least, slack);
}

template <size_t G, bool squared_l2>
inline void filter_groups(const I8Rows& rows, size_t group, size_t quads, const I8Queries& queries,
                          float slack, const I8Found& found, size_t& count) noexcept {
  alignas(64) float least[G][16];
  for (size_t base = 0; base < queries.count; base += 12) {
    const size_t end = queries.count - base < 12 ? queries.count : base + 12;
#pragma GCC unroll 4
    for (size_t g = 0; g < G; ++g)
      _mm512_store_ps(least[g], least_products(rows, group + g, queries, base));
    size_t q = base;
    for (; q + 6 <= end; q += 6)
      filter_tile<G, 6, squared_l2>(rows, group, quads, queries, q, least, base, slack, found, count);
    for (; q < end; ++q) {
      alignas(64) int32_t products[G][kI8Group];
      uint16_t masks[G];
#pragma GCC unroll 4
      for (size_t g = 0; g < G; ++g)
        masks[g] = filter_lone<squared_l2>(rows, group + g, quads, queries, q, least[g][q - base],
                                           slack, products[g]);
      for (size_t g = 0; g < G; ++g)
        add_found(masks[g], group + g, q, _mm512_load_si512(products[g]), found, count);
    }
  }
}

template <bool squared_l2>
inline void filter_all(const I8Rows& rows, size_t groups, size_t quads, const I8Queries& queries,
                       float slack, const I8Found& found, size_t& count) noexcept {
  size_t g = 0;
  for (; g + 4 <= groups; g += 4)
    filter_groups<4, squared_l2>(rows, g, quads, queries, slack, found, count);
  for (; g < groups; ++g) filter_groups<1, squared_l2>(rows, g, quads, queries, slack, found, count);
}

size_t i8_filter(const I8Rows* rows, size_t groups, size_t quads, const I8Queries* queries,
                 bool squared_l2, float slack, const I8Found* found) noexcept {
  size_t count = 0;
  if (squared_l2)
    filter_all<true>(*rows, groups, quads, *queries, slack, *found, count);
  else
    filter_all<false>(*rows, groups, quads, *queries, slack, *found, count);
  return count;
}

// G groups by Q queries, from the first of each on.
template <size_t G, size_t Q>
inline void product_tile(const uint8_t* rows, size_t quads, const int8_t* queries,
                         const int32_t* starts, const float* factors, float* out,
                         size_t stride) noexcept {
  __m512i sums[G * Q];
  unrolled<Q>([&](auto q) SWANN_INLINE {
    const __m512i start = _mm512_set1_epi32(starts[q]);
    unrolled<G>([&](auto g) SWANN_INLINE { sums[g * Q + q] = start; });
  });
  for (size_t j = 0; j < quads; ++j) {
    __m512i row[G];
    unrolled<G>([&](auto g) SWANN_INLINE {
      row[g] = _mm512_loadu_si512(rows + (g * quads + j) * 64);
    });
    unrolled<Q>([&](auto q) SWANN_INLINE {
      int32_t four;
      __builtin_memcpy(&four, queries + (q * quads + j) * 4, 4);
      const __m512i all = _mm512_set1_epi32(four);
      unrolled<G>([&](auto g) SWANN_INLINE { add_products(sums[g * Q + q], row[g], all); });
    });
  }
  unrolled<Q>([&](auto q) SWANN_INLINE {
    const __m512 factor = _mm512_set1_ps(factors[q]);
    unrolled<G>([&](auto g) SWANN_INLINE {
      _mm512_storeu_ps(out + q * stride + g * kI8Group,
                       _mm512_mul_ps(_mm512_cvtepi32_ps(sums[g * Q + q]), factor));
    });
  });
}

template <size_t Q, size_t G>
inline void products_of(const uint8_t* rows, size_t groups, size_t quads, const int8_t* queries,
                        const int32_t* starts, const float* factors, float* out,
                        size_t stride) noexcept {
  size_t g = 0;
  for (; g + G <= groups; g += G)
    product_tile<G, Q>(rows + g * quads * 64, quads, queries, starts, factors,
                       out + g * kI8Group, stride);
  for (; g < groups; ++g)
    product_tile<1, Q>(rows + g * quads * 64, quads, queries, starts, factors,
                       out + g * kI8Group, stride);
}

void i8_products(const uint8_t* rows, size_t groups, size_t quads, const int8_t* queries,
                 const int32_t* starts, const float* factors, size_t count, float* out,
                 size_t stride) noexcept {
  size_t q = 0;
  for (; q + 6 <= count; q += 6)
    products_of<6, 2>(rows, groups, quads, queries + q * quads * 4, starts + q, factors + q,
                      out + q * stride, stride);
  for (; q + 2 <= count; q += 2)
    products_of<2, 8>(rows, groups, quads, queries + q * quads * 4, starts + q, factors + q,
                      out + q * stride, stride);
  for (; q < count; ++q)
    products_of<1, 8>(rows, groups, quads, queries + q * quads * 4, starts + q, factors + q,
                      out + q * stride, stride);
}
