// Upper bounds of the scores of int8 rows as they lie (kernels.h, upper_i8). Included inside a level
// file's unnamed namespace, after float_kernels.inl. The level brings
//   I16, i16_zero()                       sixteen sums
//   add_wide_products(sums, query, row)   adds the products of 32 values
//   f16_from(sums)                        sums as floats

constexpr size_t kWide = 32;

// Of one row. `last` has the query's values that are left after 32s, behind zeros: they meet the last
// 32 of the row.
inline I16 wide_sum(const int16_t* query, const int16_t* last, const int8_t* row,
                    size_t dim) noexcept {
  I16 sum = i16_zero();
  size_t j = 0;
  for (; j + kWide <= dim; j += kWide) add_wide_products(sum, query + j, row + j);
  if (j < dim) add_wide_products(sum, last, row + dim - kWide);
  return sum;
}

// One row after the other: what comes in one stream comes fastest.
template <int X>
inline void wide_sums(const int16_t* query, const int16_t* last, const int8_t* rows, size_t dim,
                      float* out) noexcept {
  F16 sums[X][1];
  unrolled<X>([&](auto x) SWANN_INLINE {
    sums[x][0] = f16_from(wide_sum(query, last, rows + x * dim, dim));
  });
  f16_store_folded<1, X>(sums, out, 1);
}

void upper_i8(const WideQuery* query, const int8_t* rows, const float* scales, size_t num_rows,
              size_t dim, float* out) noexcept {
  const size_t left = dim % kWide;
  alignas(64) int16_t last[kWide] = {};
  __builtin_memcpy(last + kWide - left, query->values + dim - left, left * sizeof(int16_t));
  if (dim < kWide) {
    for (size_t r = 0; r < num_rows; ++r) {
      alignas(64) int8_t row[kWide] = {};
      __builtin_memcpy(row + kWide - dim, rows + r * dim, dim);
      wide_sums<1>(last, nullptr, row, kWide, out + r);
    }
  } else {
    constexpr int kRows = kSingleTileRows;
    size_t r = 0;
    for (; r + kRows <= num_rows; r += kRows)
      wide_sums<kRows>(query->values, last, rows + r * dim, dim, out + r);
    for (; r < num_rows; ++r) wide_sums<1>(query->values, last, rows + r * dim, dim, out + r);
  }
  const F16 step = f16_set(query->step), off = f16_set(query->off);
  for (size_t r = 0; r < num_rows; r += 16) {
    const size_t n = num_rows - r;
    const F16 scale = n >= 16 ? f16_load(scales + r) : f16_load_first(scales + r, n);
    f16_store(out + r, f16_mul(scale, f16_fma(f16_load(out + r), step, off)));
  }
}
