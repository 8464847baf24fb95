// Choosing codes (kernels.h, encode_tile and encode_one), over F16 like the page float_kernels.inl,
// after which it is included.

namespace {

template <size_t words>
inline F16 lookup(const float* table, const uint8_t* codes) noexcept {
  if constexpr (words == kWords16) return f16_lookup(table, codes);
  return f16_lookup256(table, codes);
}

// What a block's codeword is to minimise, e = t - w being its error and u the direction there.
enum class Aim {
  square,  // |e|^2
  priced,  // |e|^2 + factor <e, u>
  loss,    // |e|^2 + factor (parallel + <e, u>)^2, parallel being what the other blocks leave
};

// For 16 datapoints: the codeword of one block, the first of those that are alike. A block whose
// width is known to the compiler stays in registers.
template <Aim what, size_t words, size_t known>
inline F16 best_codeword(const float* target, const float* direction, const float* codebook,
                         size_t block_width, F16 factor, F16 parallel, F16* code) noexcept {
  const size_t width = known != 0 ? known : block_width;
  F16 best = f16_set(__builtin_inff()), chosen = f16_zero();
  for (size_t k = 0; k < words; ++k) {
    F16 square = f16_zero(), along = what == Aim::loss ? parallel : f16_zero();
    for (size_t j = 0; j < width; ++j) {
      const F16 e = f16_sub(f16_load(target + 16 * j), f16_set(codebook[words * j + k]));
      square = f16_fma(e, e, square);
      if constexpr (what != Aim::square)
        along = f16_fma(e, f16_load(direction + 16 * j), along);
    }
    if constexpr (what == Aim::priced) square = f16_fma(along, factor, square);
    if constexpr (what == Aim::loss) square = f16_fma(f16_mul(along, along), factor, square);
    chosen = f16_select_less(square, best, f16_set(float(k)), chosen);
    best = f16_min(best, square);
  }
  *code = chosen;
  return best;
}

// Errors along the direction, and squared.
struct Errors {
  F16 along, square;
};

// Those of one block, the former on top of `along`.
template <size_t words, size_t known>
inline Errors block_error(const float* target, const float* direction, const float* codebook,
                          size_t block_width, const uint8_t* codes, F16 along) noexcept {
  const size_t width = known != 0 ? known : block_width;
  F16 square = f16_zero();
  for (size_t j = 0; j < width; ++j) {
    const F16 e = f16_sub(f16_load(target + 16 * j), lookup<words>(codebook + words * j, codes));
    square = f16_fma(e, e, square);
    if (direction != nullptr) along = f16_fma(e, f16_load(direction + 16 * j), along);
  }
  return {along, square};
}

// Sixteen datapoints. What goes through all their blocks is called, not inlined, which makes it
// faster. It takes no vector as an argument, nor returns one: where it does, GCC 12 puts no
// `vzeroupper` at the end of what calls it, and all that follows there runs at a third of its speed.
struct Tile {
  const float *target, *direction, *codebook;  // of the first block
  size_t dim, dims_per_block;
};

// Chooses each block's codeword by itself; with `keep` codes are those that are there.
template <size_t words, size_t known, Aim aim, bool keep>
[[gnu::noinline]] void choose(const Tile& tile, const float* factors, uint8_t* codes,
                              Errors& errors) noexcept {
  const F16 factor = aim == Aim::square ? f16_zero() : f16_load(factors);
  const auto [target, direction, codebook, dim, dims_per_block] = tile;
  Errors sums{f16_zero(), f16_zero()};
  for (size_t j = 0, m = 0; j < dim; j += dims_per_block, ++m) {
    const size_t width = dim - j < dims_per_block ? dim - j : dims_per_block;
    const float *t = target + 16 * j, *book = codebook + words * j;
    const float* d = direction == nullptr ? nullptr : direction + 16 * j;
    uint8_t* code = codes + 16 * m;
    if constexpr (!keep) {
      F16 found;
      if (width == known)
        best_codeword<aim, words, known>(t, d, book, width, factor, f16_zero(), &found);
      else
        best_codeword<aim, words, 0>(t, d, book, width, factor, f16_zero(), &found);
      f16_store_u8(code, found);
    }
    const Errors own = width == known
                           ? block_error<words, known>(t, d, book, width, code, f16_zero())
                           : block_error<words, 0>(t, d, book, width, code, f16_zero());
    sums = {f16_add(sums.along, own.along), f16_add(sums.square, own.square)};
  }
  errors = sums;
}

// Codes of the lanes where `moves` is 255 and not 0.
inline void put_where(F16 moves, F16 found, uint8_t* codes) noexcept {
  uint8_t next[16], mask[16];
  f16_store_u8(next, found);
  f16_store_u8(mask, moves);
  for (int half = 0; half < 16; half += 8) {
    uint64_t of, to, where;
    __builtin_memcpy(&of, codes + half, 8);
    __builtin_memcpy(&to, next + half, 8);
    __builtin_memcpy(&where, mask + half, 8);
    of ^= (of ^ to) & where;
    __builtin_memcpy(codes + half, &of, 8);
  }
}

// Each block's best codeword in turn, given the others; whether any changed.
template <size_t words, size_t known>
[[gnu::noinline]] bool descend(const Tile& tile, const float* weights, uint8_t* codes,
                               Errors& errors) noexcept {
  const F16 weight = f16_load(weights);
  const auto [target, direction, codebook, dim, dims_per_block] = tile;
  Errors sums = errors;
  bool changed = false;
  for (size_t j = 0, m = 0; j < dim; j += dims_per_block, ++m) {
    const size_t width = dim - j < dims_per_block ? dim - j : dims_per_block;
    const float *t = target + 16 * j, *d = direction + 16 * j, *book = codebook + words * j;
    uint8_t* code = codes + 16 * m;
    const auto error = [&](F16 before) {
      return width == known ? block_error<words, known>(t, d, book, width, code, before)
                            : block_error<words, 0>(t, d, book, width, code, before);
    };
    const Errors own = error(f16_zero());
    const F16 rest = f16_sub(sums.along, own.along);
    const F16 now = error(rest).along;  // in the way in which others come to theirs
    const F16 reached = f16_fma(f16_mul(now, now), weight, own.square);
    F16 found;
    const F16 best =
        width == known
            ? best_codeword<Aim::loss, words, known>(t, d, book, width, weight, rest, &found)
            : best_codeword<Aim::loss, words, 0>(t, d, book, width, weight, rest, &found);
    if (f16_at_least(best, reached) == 0xFFFFu) continue;  // none is better
    changed = true;
    put_where(f16_select_less(best, reached, f16_set(255.0f), f16_zero()), found, code);
    const Errors next = error(f16_zero());
    // Lanes that keep their code keep every bit: a code never depends on its tile mates.
    sums.along = f16_select_less(best, reached, f16_add(rest, next.along), sums.along);
    sums.square = f16_add(sums.square, f16_sub(next.square, own.square));
  }
  errors = sums;
  return changed;
}

// Where a descent begins. All that ties the blocks together is the error p along the direction. If
// each paid a price for its part of p, in place of weight p^2 for all of it, they would be apart;
// twice weight p is the price that leads to the best codes, nearly. Of three prices the one is taken
// whose codes lose least: none, what it would be if codewords lay everywhere, and what it is if p
// goes on to fall as it did by that.
constexpr int kPrices = 2;  // beside none

// `p` is what the nearest codewords leave. Where errors along the direction are welcome there is none.
inline float first_price(float p, float weight) noexcept {
  return weight > 0.0f ? 2.0f * p * (weight / (1.0f + weight)) : 0.0f;
}

// `then` is what codes at the price leave.
inline float next_price(float price, float p, float then, float weight) noexcept {
  constexpr float kLeast = 1.0f / 3.0f;
  const float fall = 1.0f / (1.0f + weight) + (p == 0.0f ? 1.0f : 1.0f - then / p);
  return price / (fall > kLeast ? fall : kLeast);
}

// From the nearest codewords, whose errors `errors` are.
template <size_t words, size_t known>
inline void choose_at_prices(const Tile& tile, const float* weights, uint8_t* codes,
                             Errors& errors) noexcept {
  const auto loss = [&] {
    return f16_fma(f16_mul(errors.along, errors.along), f16_load(weights), errors.square);
  };
  float nearest[16], then[16], price[16], best[16] = {}, least[16], reached[16];
  f16_store(nearest, errors.along);
  f16_store(least, loss());
  for (int turn = 0; turn < kPrices; ++turn) {
    for (int i = 0; i < 16; ++i)
      price[i] = turn == 0 ? first_price(nearest[i], weights[i])
                           : next_price(price[i], nearest[i], then[i], weights[i]);
    choose<words, known, Aim::priced, false>(tile, price, codes, errors);
    f16_store(then, errors.along);
    f16_store(reached, loss());
    for (int i = 0; i < 16; ++i)
      if (reached[i] < least[i]) least[i] = reached[i], best[i] = price[i];
  }
  if (__builtin_memcmp(best, price, sizeof best) != 0)
    choose<words, known, Aim::priced, false>(tile, best, codes, errors);
}

template <size_t words, size_t known>
inline void encode(const float* target, const float* direction, const float* weight,
                   const float* codebook, size_t dim, size_t dims_per_block, size_t sweeps,
                   bool warm, uint8_t* codes, float* loss) noexcept {
  const Tile tile{target, direction, codebook, dim, dims_per_block};
  Errors sums;
  if (warm)
    choose<words, known, Aim::square, true>(tile, nullptr, codes, sums);
  else
    choose<words, known, Aim::square, false>(tile, nullptr, codes, sums);
  if (direction != nullptr) {
    if (!warm && sweeps > 0) choose_at_prices<words, known>(tile, weight, codes, sums);
    for (size_t sweep = 0; sweep < sweeps; ++sweep)
      if (!descend<words, known>(tile, weight, codes, sums)) break;
    sums.square = f16_fma(f16_mul(sums.along, sums.along), f16_load(weight), sums.square);
  }
  f16_store(loss, sums.square);
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
                         float* scratch, uint8_t* codes, float* reached) noexcept {
  const size_t blocks = blocks_of(dim, dims_per_block);
  float* const errors = scratch;
  float* const squares = scratch + words * dim;
  float* const alongs = squares + words * blocks;
  for (size_t j = 0, m = 0; j < dim; j += dims_per_block, ++m) {
    const size_t end = dim - j < dims_per_block ? dim : j + dims_per_block;
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
    }
  }
  F16 parallel, total;
  // Each block's best codeword at a price, the nearest at none; returns the error along the direction.
  const auto choose = [&](float price) {
    parallel = total = f16_zero();
    for (size_t m = 0; m < blocks; ++m) {
      Least least;
      for (size_t k = words * m; k < words * (m + 1); k += 16) {
        const F16 square = f16_load(squares + k);
        least.offer(f16_fma(f16_load(alongs + k), f16_set(price), square), k - words * m);
      }
      codes[m] = uint8_t(least.codeword<words>());
      parallel = f16_add(parallel, f16_set(alongs[words * m + codes[m]]));
      total = f16_add(total, f16_set(squares[words * m + codes[m]]));
    }
    return f16_lowest(parallel);
  };
  const F16 w = f16_set(weight);
  const auto loss = [&] { return f16_lowest(f16_fma(f16_mul(parallel, parallel), w, total)); };
  const float nearest = choose(0.0f);
  if (direction != nullptr && sweeps > 0) {
    float price = 0.0f, best = 0.0f, least = loss(), then = nearest;
    for (int turn = 0; turn < kPrices; ++turn) {
      price = turn == 0 ? first_price(nearest, weight) : next_price(price, nearest, then, weight);
      then = choose(price);
      if (loss() < least) least = loss(), best = price;
    }
    if (best != price) choose(best);
  }
  bool changed = direction != nullptr;
  for (size_t sweep = 0; changed && sweep < sweeps; ++sweep) {
    changed = false;
    for (size_t j = 0, m = 0; j < dim; j += dims_per_block, ++m) {
      const size_t end = dim - j < dims_per_block ? dim : j + dims_per_block;
      const F16 now = f16_set(squares[words * m + codes[m]]);
      const F16 rest = f16_sub(parallel, f16_set(alongs[words * m + codes[m]]));
      F16 old = rest;
      for (size_t i = j; i < end; ++i)
        old = f16_fma(f16_set(errors[words * i + codes[m]]), f16_set(direction[i]), old);
      const F16 current = f16_fma(f16_mul(old, old), w, now);
      Least cheapest;
      for (size_t k = 0; k < words; k += 16) {
        F16 along = rest;
        for (size_t i = j; i < end; ++i)
          along = f16_fma(f16_load(errors + words * i + k), f16_set(direction[i]), along);
        cheapest.offer(f16_fma(f16_mul(along, along), w, f16_load(squares + words * m + k)), k);
      }
      if (f16_at_least(cheapest.value, current) == 0xFFFFu) continue;  // none is better
      const size_t best = cheapest.codeword<words>();
      codes[m] = uint8_t(best);
      changed = true;
      parallel = f16_add(rest, f16_set(alongs[words * m + best]));
      total = f16_add(total, f16_sub(f16_set(squares[words * m + best]), now));
    }
  }
  *reached = direction == nullptr ? f16_lowest(total) : loss();
}

void encode_one(const float* target, const float* direction, float weight, const float* codebook,
                size_t codewords, size_t dim, size_t dims_per_block, size_t sweeps, float* scratch,
                uint8_t* codes, float* loss) noexcept {
  const auto run = codewords == kWords16 ? encode_alone<kWords16> : encode_alone<kWords256>;
  run(target, direction, weight, codebook, dim, dims_per_block, sweeps, scratch, codes, loss);
}

}  // namespace
