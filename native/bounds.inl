// A vector in 8 bits, and bounds of its scores (kernels.h, round_i8 and bounds_f32), over F16 like
// the page float_kernels.inl, after which it is included.

namespace {

template <bool shifted>
inline F16 values_at(const float* x, const float* origin, size_t j, size_t dim) noexcept {
  const bool whole = dim - j >= 16;
  const F16 given = whole ? f16_load(x + j) : f16_load_first(x + j, dim - j);
  if constexpr (!shifted) return given;
  return f16_sub(given, whole ? f16_load(origin + j) : f16_load_first(origin + j, dim - j));
}

// Where there are fewer than sixteen bytes left, so many are written as are in the quads.
inline void store_bytes(int8_t* to, size_t left, F16 whole) noexcept {
  alignas(16) uint8_t all[16];
  f16_store_u8(all, f16_add(whole, f16_set(128.0f)));
  for (int i = 0; i < 16; ++i) all[i] ^= 0x80;
  if (left >= 16) {
    __builtin_memcpy(to, all, 16);
    return;
  }
  for (size_t i = 0; i < left; i += 4) __builtin_memcpy(to + i, all + i, 4);
}

template <bool shifted>
inline void round_values(const float* x, const float* origin, size_t dim, int32_t most,
                         int8_t* bytes, float* rest, RoundedVector* out) noexcept {
  F16 least = f16_zero(), greatest = f16_zero();
  for (size_t j = 0; j < dim; j += 16) {
    const F16 value = values_at<shifted>(x, origin, j, dim);
    least = f16_min(least, value);
    greatest = f16_min(greatest, f16_sub(f16_zero(), value));
  }
  const float down = -f16_lowest(least), up = -f16_lowest(greatest);
  float size = down > up ? down : up;
  size = size < 1e-18f ? 1e-18f : size;  // below this everything rounds to zero
  const float step = size / float(most);
  const F16 steps = f16_set(step), inverse = f16_set(float(most) / size);
  const F16 magic = f16_set(12582912.0f);  // next to it floats are whole numbers: sums are rounded
  F16 errors = f16_zero(), squares = f16_zero(), sums = f16_zero();
  for (size_t j = 0; j < dim; j += 16) {
    const F16 value = values_at<shifted>(x, origin, j, dim);
    const F16 whole = f16_sub(f16_add(f16_mul(value, inverse), magic), magic);
    const F16 off = f16_sub(value, f16_mul(whole, steps));
    errors = f16_fma(off, off, errors);
    squares = f16_fma(value, value, squares);
    sums = f16_add(sums, whole);
    store_bytes(bytes + j, dim - j, whole);
    if (rest != nullptr) f16_store(rest + j, off);
  }
  // Differences, sums and roots are rounded, too, and squares of very small numbers are zero.
  constexpr float kUp = 1.0001f, kOff = 3e-7f, kLost = 1e-16f;
  const float sum = f16_fold(sums);
  out->start = sum - sum == 0 ? -128 * int32_t(sum) : 0;  // values may not be numbers in a damaged index
  out->step = step;
  out->length = kUp * __builtin_sqrtf(f16_fold(squares)) + kLost;
  out->error = kUp * __builtin_sqrtf(f16_fold(errors)) + kOff * out->length + kLost;
}

void round_i8(const float* x, const float* origin, size_t dim, int32_t most, int8_t* bytes,
              float* rest, RoundedVector* out) noexcept {
  if (origin == nullptr)
    round_values<false>(x, origin, dim, most, bytes, rest, out);
  else
    round_values<true>(x, origin, dim, most, bytes, rest, out);
}

float bounds_f32(const float* products, const float* more, const BoundRows* rows, size_t count,
                 float length, float error, float extra, float* lower, float* upper) noexcept {
  const F16 lengths = f16_set(length), off_by = f16_set(error), always = f16_set(extra);
  F16 least = f16_set(__builtin_inff());
  for (size_t i = 0; i < count; i += 16) {
    F16 product = f16_load(products + i);
    if (more != nullptr) product = f16_add(product, f16_load(more + i));
    const F16 score = f16_fma(product, f16_load(rows->steps + i), f16_load(rows->biases + i));
    const F16 off = f16_fma(lengths, f16_load(rows->errors + i),
                            f16_fma(off_by, f16_load(rows->lengths + i), always));
    f16_store(lower + i, f16_sub(score, off));
    f16_store(upper + i, f16_add(score, off));
    least = f16_min(least, f16_sub(off, score));
  }
  return -f16_lowest(least);
}

inline F16 f16_max(F16 a, F16 b) noexcept { return f16_select_less(a, b, b, a); }

float spill_gains_f32(const float* lower, const float* upper, const float* along_lower,
                      const float* along_upper, size_t count, float own, float less, float more,
                      float* gains) noexcept {
  const F16 mine = f16_set(own), fewer = f16_set(-less), most = f16_set(-more);
  F16 greatest = f16_set(-__builtin_inff());
  for (size_t i = 0; i < count; i += 16) {
    const F16 above = f16_sub(mine, f16_load(along_lower + i));
    const F16 below = f16_sub(f16_load(along_upper + i), mine);
    const F16 far = f16_max(above, below), low = f16_load(lower + i), up = f16_load(upper + i);
    // The interval of own - a is [-below, above]; nearer to zero than either end, it holds zero.
    const F16 near = f16_min(f16_min(above, below), f16_zero());
    f16_store(gains + i, f16_fma(f16_mul(fewer, near), near, f16_add(up, up)));
    greatest = f16_max(greatest, f16_fma(f16_mul(most, far), far, f16_add(low, low)));
  }
  return f16_highest(greatest);
}

}  // namespace
