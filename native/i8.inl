// Rows and queries of 8 bits: packing, filtering, products (kernels.h, I8Rows), for levels without
// masked loads. Included inside a level file's unnamed namespace, after unrolled.inl. The level says
// what its registers hold (kI8Tile queries, kI8Groups groups) and brings
//   I16, i16_start(start)           sums of the products of a group's sixteen rows; where they begin,
//                                   `start` being the query's, for bytes that are not signed
//   I8Quad, i8_quad(bytes)          four bytes of a query, for all rows
//   add_products(sums, rows, quad)  adds the products of a quad; rows are [16][4]
//   f16_from(sums), not_below(x, y) sums as floats; a mask of the lanes where not x < y

// One row, as `place` of its group. Adds up squared lengths of the error and of what stands for the
// row, in steps (so that they are no less than a float may be), and of the row.
inline void pack_row(const float* row, size_t dim, const float* weights, float inverse,
                     size_t place, uint8_t* bytes, F16& error, F16& length, F16& square) noexcept {
  const F16 scale = f16_set(inverse);
  for (size_t j = 0; j < dim; j += 16) {
    const size_t left = dim - j;
    const F16 given = left >= 16 ? f16_load(row + j) : f16_load_first(row + j, left);
    const F16 x =
        f16_mul(given, left >= 16 ? f16_load(weights + j) : f16_load_first(weights + j, left));
    alignas(16) uint8_t all[16];
    f16_store_u8(all, f16_fma(x, scale, f16_set(128.5f)));
    alignas(16) int8_t whole[16];
    for (int i = 0; i < 16; ++i) whole[i] = int8_t(all[i] ^ 0x80);
    const F16 steps = f16_load_i8(whole), off = f16_fma(x, scale, f16_sub(f16_zero(), steps));
    error = f16_fma(off, off, error);
    length = f16_fma(steps, steps, length);
    square = f16_fma(given, given, square);
    for (size_t i = 0; i < 4 && j + 4 * i < dim; ++i)
      __builtin_memcpy(bytes + ((j / 4 + i) * kI8Group + place) * 4, all + 4 * i, 4);
  }
}

// The greatest size of a value of some rows, times the weight of its dimension.
inline float greatest_of(const float* rows, size_t count, size_t dim,
                         const float* weights) noexcept {
  F16 least = f16_zero(), greatest = f16_zero();
  for (size_t r = 0; r < count; ++r)
    for (size_t j = 0; j < dim; j += 16) {
      const float* row = rows + r * dim + j;
      const size_t left = dim - j;
      const F16 x = left >= 16 ? f16_mul(f16_load(row), f16_load(weights + j))
                               : f16_mul(f16_load_first(row, left), f16_load_first(weights + j, left));
      least = f16_min(least, x);
      greatest = f16_min(greatest, f16_sub(f16_zero(), x));
    }
  const float down = -f16_lowest(least), up = -f16_lowest(greatest);
  return down > up ? down : up;
}

void i8_pack(const float* rows, size_t count, size_t dim, const float* weights,
             const I8Rows* out) noexcept {
  const size_t quads = quads_of(dim), group_bytes = quads * kI8Group * 4;
  for (size_t first = 0, g = 0; first < count; first += kI8Group, ++g) {
    const size_t here = count - first < kI8Group ? count - first : kI8Group;
    const float greatest = greatest_of(rows + first * dim, here, dim, weights);
    // Below this, which is nothing beside other rows, everything rounds to zero.
    const float inverse = 127.0f / (greatest < 1e-18f ? 1e-18f : greatest);
    uint8_t* bytes = out->bytes + g * group_bytes;
    if (here < kI8Group) __builtin_memset(bytes, 128, group_bytes);
    float error = 0, length = 0;
    for (size_t r = 0; r < kI8Group; ++r) {
      F16 errors = f16_zero(), lengths = errors, squares = errors;
      if (r < here)
        pack_row(rows + (first + r) * dim, dim, weights, inverse, r, bytes, errors, lengths,
                 squares);
      const float e = f16_fold(errors), l = f16_fold(lengths);
      error = e > error ? e : error;
      length = l > length ? l : length;
      out->halves[g * kI8Group + r] = 0.5f * inverse * f16_fold(squares);
    }
    const float step = 1.0001f / inverse;  // and more: sums and roots are rounded, too
    out->inverses[g] = inverse;
    out->errors[g] = step * __builtin_sqrtf(error);
    out->lengths[g] = step * __builtin_sqrtf(length);
  }
}

inline F16 load_up_to_16(const float* p, size_t count) noexcept {
  return count >= 16 ? f16_load(p) : f16_load_first(p, count);
}

// What the products of a group must reach, for sixteen queries from q on.
inline void least_products(const I8Rows& rows, size_t group, const I8Queries& queries, size_t q,
                           float* least) noexcept {
  const size_t left = queries.count - q;
  const F16 by_row = f16_mul(load_up_to_16(queries.lengths + q, left), f16_set(rows.errors[group]));
  const F16 off = f16_fma(load_up_to_16(queries.errors + q, left), f16_set(rows.lengths[group]),
                          by_row);
  const F16 bound = f16_sub(load_up_to_16(queries.thresholds + q, left), off);
  const F16 products = f16_mul(f16_mul(bound, load_up_to_16(queries.inverses + q, left)),
                               f16_set(rows.inverses[group]));  // inverses alone may be too much
  // The roundings of this very computation.
  const F16 negative = f16_sub(f16_zero(), products), size = f16_sub(f16_zero(), f16_min(products, negative));
  f16_store(least, f16_sub(f16_fma(size, f16_set(-1e-5f), products), f16_set(2.0f)));
}

// The rows of a group whose products with query q reach `least`, that of least_products.
template <bool squared_l2>
inline uint16_t reaching(const I8Rows& rows, size_t group, const I8Queries& queries, size_t q,
                         I16 products, float least, float slack) noexcept {
  F16 bound = f16_set(least);
  if (squared_l2) {
    const F16 halves =
        f16_mul(f16_load(rows.halves + group * kI8Group), f16_set(queries.inverses[q]));
    bound = f16_add(bound, f16_mul(halves, f16_set(1.0f - 1e-5f - slack)));
  }
  return uint16_t(not_below(f16_from(products), bound));
}

// Adds the rows of a group that are set in the mask to the `count` that were found before.
inline void add_found(uint32_t mask, size_t group, size_t q, const float* products,
                      const I8Found& found, size_t& count) noexcept {
  for (; mask != 0; mask &= mask - 1, ++count) {
    const uint32_t row = uint32_t(__builtin_ctz(mask));
    found.rows[count] = uint32_t(group * kI8Group) + row;
    found.queries[count] = uint32_t(q);
    found.products[count] = products[row];
  }
}

// A group against Q queries from q on; `least` is of these.
template <size_t Q, bool squared_l2>
inline void filter_tile(const I8Rows& rows, size_t group, size_t quads, const I8Queries& queries,
                        size_t q, const float* least, float slack, const I8Found& found,
                        size_t& count) noexcept {
  I16 sums[Q];
  unrolled<Q>([&](auto i) SWANN_INLINE { sums[i] = i16_start(queries.starts[q + i]); });
  const uint8_t* bytes = rows.bytes + group * quads * 64;
  const int8_t* query = queries.bytes + q * quads * 4;
  for (size_t j = 0; j < quads; ++j)
    unrolled<Q>([&](auto i) SWANN_INLINE {
      add_products(sums[i], bytes + j * 64, i8_quad(query + (i * quads + j) * 4));
    });
  unrolled<Q>([&](auto i) SWANN_INLINE {
    const uint16_t mask =
        reaching<squared_l2>(rows, group, queries, q + i, sums[i], least[i], slack);
    if (__builtin_expect(mask == 0, 1)) return;
    alignas(64) float products[kI8Group];
    f16_store(products, f16_from(sums[i]));
    add_found(mask, group, q + i, products, found, count);
  });
}

template <bool squared_l2>
inline void filter_all(const I8Rows& rows, size_t groups, size_t quads, const I8Queries& queries,
                       float slack, const I8Found& found, size_t& count) noexcept {
  alignas(64) float least[16];
  for (size_t g = 0; g < groups; ++g)
    for (size_t base = 0; base < queries.count; base += 16) {
      const size_t end = queries.count - base < 16 ? queries.count : base + 16;
      least_products(rows, g, queries, base, least);
      size_t q = base;
      for (; q + kI8Tile <= end; q += kI8Tile)
        filter_tile<kI8Tile, squared_l2>(rows, g, quads, queries, q, least + (q - base), slack,
                                         found, count);
      for (; q < end; ++q)
        filter_tile<1, squared_l2>(rows, g, quads, queries, q, least + (q - base), slack, found, count);
    }
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
  I16 sums[G][Q];
  for (size_t g = 0; g < G; ++g)
    for (size_t q = 0; q < Q; ++q) sums[g][q] = i16_start(starts[q]);
  for (size_t j = 0; j < quads; ++j)
    unrolled<Q>([&](auto q) SWANN_INLINE {
      const I8Quad quad = i8_quad(queries + (q * quads + j) * 4);
      unrolled<G>([&](auto g) SWANN_INLINE {
        add_products(sums[g][q], rows + (g * quads + j) * 64, quad);
      });
    });
  for (size_t g = 0; g < G; ++g)
    for (size_t q = 0; q < Q; ++q)
      f16_store(out + q * stride + g * kI8Group, f16_mul(f16_from(sums[g][q]), f16_set(factors[q])));
}

void i8_products(const uint8_t* rows, size_t groups, size_t quads, const int8_t* queries,
                 const int32_t* starts, const float* factors, size_t count, float* out,
                 size_t stride) noexcept {
  size_t q = 0;
  for (; q + kI8Tile <= count; q += kI8Tile)
    for (size_t g = 0; g < groups; ++g)
      product_tile<1, kI8Tile>(rows + g * quads * 64, quads, queries + q * quads * 4, starts + q,
                               factors + q, out + q * stride + g * kI8Group, stride);
  for (; q < count; ++q) {
    size_t g = 0;
    for (; g + kI8Groups <= groups; g += kI8Groups)
      product_tile<kI8Groups, 1>(rows + g * quads * 64, quads, queries + q * quads * 4, starts + q,
                                 factors + q, out + q * stride + g * kI8Group, stride);
    for (; g < groups; ++g)
      product_tile<1, 1>(rows + g * quads * 64, quads, queries + q * quads * 4, starts + q,
                         factors + q, out + q * stride + g * kI8Group, stride);
  }
}
