// Choosing codes (kernels.h, encode_tile and encode_one), over F16 like the page float_kernels.inl, after
// which it is included.

namespace {

template <size_t words>
inline F16 lookup(const float* table, const uint8_t* codes) noexcept {
  if constexpr (words == kWords16) return f16_lookup(table, codes);
  return f16_lookup256(table, codes);
}

// For 16 datapoints: the codeword of one block that minimises
//   sum_j (t_j - w_j)^2 + weight * (parallel + <t - w, direction>)^2,
// parallel being what the other blocks leave along the direction. Lanes keep their old code
// unless another is strictly better. A block whose width is known to the compiler stays in registers.
template <bool anisotropic, size_t words, size_t known>
inline F16 best_codeword(const float* target, const float* direction, const float* codebook,
                         size_t block_width, F16 weight, F16 parallel, F16* code) noexcept {
  const size_t width = known != 0 ? known : block_width;
  F16 best = f16_set(__builtin_inff()), chosen = f16_zero();
  for (size_t k = 0; k < words; ++k) {
    F16 square = f16_zero(), along = parallel;
    for (size_t j = 0; j < width; ++j) {
      const F16 e = f16_sub(f16_load(target + 16 * j), f16_set(codebook[words * j + k]));
      square = f16_fma(e, e, square);
      if constexpr (anisotropic) along = f16_fma(e, f16_load(direction + 16 * j), along);
    }
    if constexpr (anisotropic) square = f16_fma(f16_mul(along, along), weight, square);
    chosen = f16_select_less(square, best, f16_set(float(k)), chosen);
    best = f16_min(best, square);
  }
  *code = chosen;
  return best;
}

// <t - w_code, direction> and |t - w_code|^2 of one block, lane by lane.
template <size_t words, size_t known>
inline void block_error(const float* target, const float* direction, const float* codebook,
                        size_t block_width, const uint8_t* codes, F16* along,
                        F16* square) noexcept {
  const size_t width = known != 0 ? known : block_width;
  *along = f16_zero();
  *square = f16_zero();
  for (size_t j = 0; j < width; ++j) {
    const F16 e = f16_sub(f16_load(target + 16 * j), lookup<words>(codebook + words * j, codes));
    *square = f16_fma(e, e, *square);
    if (direction != nullptr) *along = f16_fma(e, f16_load(direction + 16 * j), *along);
  }
}

template <size_t words, size_t known>
inline void encode(const float* target, const float* direction, const float* weight,
                   const float* codebook, size_t dim, size_t dims_per_block, size_t sweeps,
                   bool warm, uint8_t* codes, float* loss) noexcept {
  const auto error = [](const float* t, const float* d, const float* book, size_t width,
                        const uint8_t* code, F16* along, F16* square) {
    if (width == known)
      block_error<words, known>(t, d, book, width, code, along, square);
    else
      block_error<words, 0>(t, d, book, width, code, along, square);
  };
  F16 parallel = f16_zero(), total = f16_zero();
  for (size_t j = 0, m = 0; j < dim; j += dims_per_block, ++m) {
    const size_t width = dim - j < dims_per_block ? dim - j : dims_per_block;
    const float* d = direction == nullptr ? nullptr : direction + 16 * j;
    if (!warm) {
      F16 code;
      const float *t = target + 16 * j, *book = codebook + words * j;
      if (width == known)
        best_codeword<false, words, known>(t, nullptr, book, width, total, total, &code);
      else
        best_codeword<false, words, 0>(t, nullptr, book, width, total, total, &code);
      f16_store_u8(codes + 16 * m, code);
    }
    F16 along, square;
    error(target + 16 * j, d, codebook + words * j, width, codes + 16 * m, &along, &square);
    parallel = f16_add(parallel, along);
    total = f16_add(total, square);
  }
  if (direction != nullptr) {
    const F16 w = f16_load(weight);
    for (size_t sweep = 0; sweep < sweeps; ++sweep) {
      bool changed = false;
      for (size_t j = 0, m = 0; j < dim; j += dims_per_block, ++m) {
        const size_t width = dim - j < dims_per_block ? dim - j : dims_per_block;
        const float* t = target + 16 * j;
        const float* d = direction + 16 * j;
        const float* book = codebook + words * j;
        uint8_t* code = codes + 16 * m;
        F16 along, square, found;
        error(t, d, book, width, code, &along, &square);
        const F16 rest = f16_sub(parallel, along);
        const F16 reached = f16_fma(f16_mul(parallel, parallel), w, square);
        const F16 best = width == known
                             ? best_codeword<true, words, known>(t, d, book, width, w, rest, &found)
                             : best_codeword<true, words, 0>(t, d, book, width, w, rest, &found);
        if (f16_at_least(best, reached) == 0xFFFFu) continue;  // none is better
        changed = true;
        alignas(16) uint8_t next[16], moves[16];
        f16_store_u8(next, found);
        f16_store_u8(moves, f16_select_less(best, reached, f16_set(255.0f), f16_zero()));
        for (int i = 0; i < 16; ++i) code[i] = uint8_t((next[i] & moves[i]) | (code[i] & ~moves[i]));
        F16 along_now, square_now;
        error(t, d, book, width, code, &along_now, &square_now);
        // Lanes that keep their code keep every bit: a code never depends on its tile mates.
        parallel = f16_select_less(best, reached, f16_add(rest, along_now), parallel);
        total = f16_add(total, f16_sub(square_now, square));
      }
      if (!changed) break;
    }
    total = f16_fma(f16_mul(parallel, parallel), w, total);
  }
  f16_store(loss, total);
}

void encode_tile(const float* target, const float* direction, const float* weight,
                 const float* codebook, size_t codewords, size_t dim, size_t dims_per_block,
                 size_t sweeps, bool warm, uint8_t* codes, float* loss) noexcept {
  const auto run = codewords != kWords16  ? encode<kWords256, 0>
                   : dims_per_block == 1 ? encode<kWords16, 1>
                   : dims_per_block == 2 ? encode<kWords16, 2>
                   : dims_per_block == 3 ? encode<kWords16, 3>
                   : dims_per_block == 4 ? encode<kWords16, 4>
                                         : encode<kWords16, 0>;
  run(target, direction, weight, codebook, dim, dims_per_block, sweeps, warm, codes, loss);
}

// The least of the values of all codewords: lane by lane, and the first codeword of the sixteen that
// it was among.
struct Least {
  F16 value = f16_set(__builtin_inff()), first = f16_zero();

  void offer(F16 values, size_t k) noexcept {
    first = f16_select_less(values, value, f16_set(float(k)), first);
    value = f16_min(value, values);
  }

  // The lowest codeword that has the least value.
  template <size_t words>
  size_t codeword() const noexcept {
    uint32_t lanes = f16_at_least(f16_set(f16_lowest(value)), value);
    if constexpr (words == 16) return lanes == 0 ? 0 : size_t(__builtin_ctz(lanes));
    float of_lane[16];
    f16_store(of_lane, first);
    size_t lowest = lanes == 0 ? 0 : words;
    for (; lanes != 0; lanes &= lanes - 1) {
      const size_t lane = size_t(__builtin_ctz(lanes)), word = size_t(of_lane[lane]) + lane;
      lowest = word < lowest ? word : lowest;
    }
    return lowest;
  }
};

// Lanes are codewords here. scratch [dim + 2 blocks][words]: the errors of each dimension, then of
// each block the squared errors and the errors along the direction.
template <size_t words>
inline void encode_alone(const float* target, const float* direction, float weight,
                         const float* codebook, size_t dim, size_t dims_per_block, size_t sweeps,
                         float* scratch, uint8_t* codes, float* loss) noexcept {
  const size_t blocks = (dim + dims_per_block - 1) / dims_per_block;
  float* const errors = scratch;
  float* const squares = scratch + words * dim;
  float* const alongs = squares + words * blocks;
  F16 parallel = f16_zero(), total = f16_zero();
  for (size_t j = 0, m = 0; j < dim; j += dims_per_block, ++m) {
    const size_t end = dim - j < dims_per_block ? dim : j + dims_per_block;
    Least nearest;
    for (size_t k = 0; k < words; k += 16) {
      F16 square = f16_zero(), along = f16_zero();
      for (size_t i = j; i < end; ++i) {
        const F16 e = f16_sub(f16_set(target[i]), f16_load(codebook + words * i + k));
        f16_store(errors + words * i + k, e);
        square = f16_fma(e, e, square);
        if (direction != nullptr) along = f16_fma(e, f16_set(direction[i]), along);
      }
      f16_store(squares + words * m + k, square);
      f16_store(alongs + words * m + k, along);
      nearest.offer(square, k);
    }
    codes[m] = uint8_t(nearest.codeword<words>());
    parallel = f16_add(parallel, f16_set(alongs[words * m + codes[m]]));
    total = f16_add(total, f16_set(squares[words * m + codes[m]]));
  }
  const F16 w = f16_set(weight);
  bool changed = direction != nullptr;
  for (size_t sweep = 0; changed && sweep < sweeps; ++sweep) {
    changed = false;
    for (size_t j = 0, m = 0; j < dim; j += dims_per_block, ++m) {
      const size_t end = dim - j < dims_per_block ? dim : j + dims_per_block;
      const F16 now = f16_set(squares[words * m + codes[m]]);
      const F16 rest = f16_sub(parallel, f16_set(alongs[words * m + codes[m]]));
      const F16 reached = f16_fma(f16_mul(parallel, parallel), w, now);
      Least cheapest;
      for (size_t k = 0; k < words; k += 16) {
        F16 along = rest;
        for (size_t i = j; i < end; ++i)
          along = f16_fma(f16_load(errors + words * i + k), f16_set(direction[i]), along);
        cheapest.offer(f16_fma(f16_mul(along, along), w, f16_load(squares + words * m + k)), k);
      }
      if (f16_at_least(cheapest.value, reached) == 0xFFFFu) continue;  // none is better
      const size_t best = cheapest.codeword<words>();
      codes[m] = uint8_t(best);
      changed = true;
      parallel = f16_add(rest, f16_set(alongs[words * m + best]));
      total = f16_add(total, f16_sub(f16_set(squares[words * m + best]), now));
    }
  }
  if (direction != nullptr) total = f16_fma(f16_mul(parallel, parallel), w, total);
  *loss = f16_lowest(total);
}

void encode_one(const float* target, const float* direction, float weight, const float* codebook,
                size_t codewords, size_t dim, size_t dims_per_block, size_t sweeps, float* scratch,
                uint8_t* codes, float* loss) noexcept {
  const auto run = codewords == kWords16 ? encode_alone<kWords16> : encode_alone<kWords256>;
  run(target, direction, weight, codebook, dim, dims_per_block, sweeps, scratch, codes, loss);
}

}  // namespace
