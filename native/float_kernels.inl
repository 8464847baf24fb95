// The float kernels, written once over F16 (16 floats) and compiled by each level file, which
// defines F16 and its operations (f16_load, f16_fma, ...) before it includes this page.
// Everything here has internal linkage: nothing compiled for one level can be linked into another.

namespace {

enum class Metric { dot, squared_l2 };

template <Metric metric>
inline F16 accumulate(F16 sum, F16 a, F16 b) noexcept {
  if constexpr (metric == Metric::dot) return f16_fma(a, b, sum);
  const F16 difference = f16_sub(a, b);
  return f16_fma(difference, difference, sum);
}

inline F16 load_row(const float* p) noexcept { return f16_load(p); }
inline F16 load_row(const uint16_t* p) noexcept { return f16_load_bf16(p); }
inline F16 load_row(const int8_t* p) noexcept { return f16_load_i8(p); }
// The last values of a row: what follows them may not be there to read, and 16 values before them
// only where `behind` says so.
inline F16 load_row_first(const float* p, size_t count, bool) noexcept {
  return f16_load_first(p, count);
}
template <typename Value>
inline F16 load_row_first(const Value* p, size_t count, bool behind) noexcept {
  if (kLoadsFirst || behind) return f16_load_first(p, count);
  Value buffer[16] = {};
  for (size_t i = 0; i < count; ++i) buffer[i] = p[i];
  return load_row(buffer);
}

// A tile of Q queries by X rows: acc[x][q] are 16 partial sums each.
template <Metric metric, int Q, int X, typename Value>
inline void tile_sums(const float* queries, const Value* rows, size_t dim,
                      F16 (&acc)[X][Q]) noexcept {
  for (int x = 0; x < X; ++x)
    for (int q = 0; q < Q; ++q) acc[x][q] = f16_zero();
  size_t j = 0;
  for (; j + 16 <= dim; j += 16) {
    F16 query[Q];
    for (int q = 0; q < Q; ++q) query[q] = f16_load(queries + q * dim + j);
    for (int x = 0; x < X; ++x) {
      const F16 row = load_row(rows + x * dim + j);
      for (int q = 0; q < Q; ++q) acc[x][q] = accumulate<metric>(acc[x][q], query[q], row);
    }
  }
  if (j < dim) {
    F16 query[Q];
    for (int q = 0; q < Q; ++q) query[q] = f16_load_first(queries + q * dim + j, dim - j);
    for (int x = 0; x < X; ++x) {
      const F16 row = load_row_first(rows + x * dim + j, dim - j, j > 0);
      for (int q = 0; q < Q; ++q) acc[x][q] = accumulate<metric>(acc[x][q], query[q], row);
    }
  }
}

template <Metric metric, int Q, int X, typename Value>
inline void tile(const float* queries, const Value* rows, size_t dim, float* out,
                 size_t stride) noexcept {
  F16 acc[X][Q];
  tile_sums<metric, Q, X>(queries, rows, dim, acc);
  f16_store_folded<Q, X>(acc, out, stride);
}

template <Metric metric, int Q, typename Value>
inline void query_strip(const float* queries, const Value* rows, size_t num_rows, size_t dim,
                        float* out, size_t stride) noexcept {
  constexpr int X = Q == 1 ? kSingleTileRows : kTileRows;
  size_t x = 0;
  for (; x + X <= num_rows; x += X)
    tile<metric, Q, X>(queries, rows + x * dim, dim, out + x, stride);
  for (; x < num_rows; ++x) tile<metric, Q, 1>(queries, rows + x * dim, dim, out + x, stride);
}

// Rows are taken in blocks that stay in the first-level cache while all queries pass over them.
template <Metric metric, typename Value>
void pairs(const float* queries, size_t num_queries, const Value* rows, size_t num_rows,
           size_t dim, float* out, size_t stride) noexcept {
  const size_t fit = 24 * 1024 / (dim * sizeof(Value) + 1);
  const size_t block = num_queries < 2 * kTileQueries ? num_rows
                       : fit < 16                     ? 16
                                                      : fit / 16 * 16;
  for (size_t x = 0; x < num_rows; x += block) {
    const size_t count = num_rows - x < block ? num_rows - x : block;
    size_t q = 0;
    for (; q + kTileQueries <= num_queries; q += kTileQueries)
      query_strip<metric, kTileQueries>(queries + q * dim, rows + x * dim, count, dim,
                                        out + q * stride + x, stride);
    for (; q < num_queries; ++q)
      query_strip<metric, 1>(queries + q * dim, rows + x * dim, count, dim, out + q * stride + x,
                             stride);
  }
}

void dot_f32(const float* queries, size_t num_queries, const float* rows, size_t num_rows,
             size_t dim, float* out, size_t stride) noexcept {
  pairs<Metric::dot>(queries, num_queries, rows, num_rows, dim, out, stride);
}

void squared_l2_f32(const float* queries, size_t num_queries, const float* rows, size_t num_rows,
                    size_t dim, float* out, size_t stride) noexcept {
  pairs<Metric::squared_l2>(queries, num_queries, rows, num_rows, dim, out, stride);
}

void dot_bf16(const float* queries, size_t num_queries, const uint16_t* rows, size_t num_rows,
              size_t dim, float* out, size_t stride) noexcept {
  pairs<Metric::dot>(queries, num_queries, rows, num_rows, dim, out, stride);
}

void squared_l2_bf16(const float* queries, size_t num_queries, const uint16_t* rows,
                     size_t num_rows, size_t dim, float* out, size_t stride) noexcept {
  pairs<Metric::squared_l2>(queries, num_queries, rows, num_rows, dim, out, stride);
}

void dot_i8(const float* queries, size_t num_queries, const int8_t* rows, size_t num_rows,
            size_t dim, float* out, size_t stride) noexcept {
  pairs<Metric::dot>(queries, num_queries, rows, num_rows, dim, out, stride);
}

// R rows by T tiles of sixteen vectors.
template <int R, int T>
inline void dots_of_tiles(const float* rows, const float* tiles, size_t dim, float* out,
                          size_t stride) noexcept {
  F16 acc[R][T];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) acc[r][t] = f16_zero();
  for (size_t j = 0; j < dim; ++j) {
    F16 vectors[T];
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) vectors[t] = f16_load(tiles + (t * dim + j) * 16);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const F16 value = f16_set(rows[r * dim + j]);
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) acc[r][t] = f16_fma(value, vectors[t], acc[r][t]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) f16_store(out + r * stride + 16 * t, acc[r][t]);
}

template <int T>
inline void rows_by_tiles(const float* rows, size_t num_rows, const float* tiles, size_t dim,
                          float* out, size_t stride) noexcept {
  size_t i = 0;
  for (; i + kTiledRows <= num_rows; i += kTiledRows)
    dots_of_tiles<kTiledRows, T>(rows + i * dim, tiles, dim, out + i * stride, stride);
  for (; i < num_rows; ++i)
    dots_of_tiles<1, T>(rows + i * dim, tiles, dim, out + i * stride, stride);
}

template <int together>
inline void rows_by_all_tiles(const float* rows, size_t num_rows, const float* tiles,
                              size_t num_tiles, size_t dim, float* out, size_t stride) noexcept {
  size_t t = 0;
  for (; t + together <= num_tiles; t += together)
    rows_by_tiles<together>(rows, num_rows, tiles + t * dim * 16, dim, out + t * 16, stride);
  if constexpr (together > 1)
    rows_by_all_tiles<1>(rows, num_rows, tiles + t * dim * 16, num_tiles - t, dim, out + t * 16,
                         stride);
}

void dot_tiles_f32(const float* rows, size_t num_rows, const float* tiles, size_t num_tiles,
                   size_t dim, float* out, size_t stride) noexcept {
  rows_by_all_tiles<kTilesAtOnce>(rows, num_rows, tiles, num_tiles, dim, out, stride);
}

// Rows that lie apart. Each has one chain of sums: several at a time do not wait for their own.
template <Metric metric, int X, typename Value>
inline void gather_tile(const float* query, const Value* rows, const uint32_t* ids, size_t dim,
                        float* out) noexcept {
  const Value* row[X];
  F16 acc[X];
#pragma GCC unroll 8
  for (int x = 0; x < X; ++x) row[x] = rows + ids[x] * dim, acc[x] = f16_zero();
  size_t j = 0;
  for (; j + 16 <= dim; j += 16) {
    const F16 q = f16_load(query + j);
#pragma GCC unroll 8
    for (int x = 0; x < X; ++x) acc[x] = accumulate<metric>(acc[x], q, load_row(row[x] + j));
  }
  if (const size_t left = dim % 16; left != 0) {
    const F16 q = f16_load_first(query + j, left);
#pragma GCC unroll 8
    for (int x = 0; x < X; ++x)
      acc[x] = accumulate<metric>(acc[x], q, load_row_first(row[x] + j, left, j > 0));
  }
  for (int x = 0; x < X; ++x) out[x] = f16_fold(acc[x]);
}

template <Metric metric, typename Value>
void gather(const float* query, const Value* rows, const uint32_t* ids, size_t count, size_t dim,
            float* out) noexcept {
  constexpr size_t kTogether = kSingleTileRows < 8 ? kSingleTileRows : 8;
  constexpr size_t kLong = 256;  // dimensions: short rows overlap by themselves
  const size_t bytes = dim * sizeof(Value), ahead = rows_ahead(bytes);
  for (size_t i = 0; i < count && i < ahead; ++i) prefetch_bytes(rows + ids[i] * dim, bytes);
  const auto ask = [&](size_t i) {
    if (i + ahead < count) prefetch_bytes(rows + ids[i + ahead] * dim, bytes);
  };
  size_t i = 0;
  for (; dim >= kLong && i + kTogether <= count; i += kTogether) {
    for (size_t r = i; r < i + kTogether; ++r) ask(r);
    gather_tile<metric, kTogether>(query, rows, ids + i, dim, out + i);
  }
  for (; i < count; ++i) {
    ask(i);
    gather_tile<metric, 1>(query, rows, ids + i, dim, out + i);
  }
}

void dot_gather_f32(const float* query, const float* rows, const uint32_t* ids, size_t count,
                    size_t dim, float* out) noexcept {
  gather<Metric::dot>(query, rows, ids, count, dim, out);
}

void squared_l2_gather_f32(const float* query, const float* rows, const uint32_t* ids,
                           size_t count, size_t dim, float* out) noexcept {
  gather<Metric::squared_l2>(query, rows, ids, count, dim, out);
}

void dot_gather_bf16(const float* query, const uint16_t* rows, const uint32_t* ids, size_t count,
                     size_t dim, float* out) noexcept {
  gather<Metric::dot>(query, rows, ids, count, dim, out);
}

void squared_l2_gather_bf16(const float* query, const uint16_t* rows, const uint32_t* ids,
                            size_t count, size_t dim, float* out) noexcept {
  gather<Metric::squared_l2>(query, rows, ids, count, dim, out);
}

void dot_gather_i8(const float* query, const int8_t* rows, const uint32_t* ids, size_t count,
                   size_t dim, float* out) noexcept {
  gather<Metric::dot>(query, rows, ids, count, dim, out);
}

template <size_t words>
inline void lookup_tables(const float* query, const float* codebook, size_t dim,
                          size_t dims_per_block, bool squared_l2, float* lut, float* lows,
                          float* highs) noexcept {
  for (size_t j = 0, m = 0; j < dim; j += dims_per_block, ++m) {
    const size_t end = dim - j < dims_per_block ? dim : j + dims_per_block;
    F16 low = f16_set(__builtin_inff()), high = f16_set(-__builtin_inff());
    for (size_t k = 0; k < words; k += 16) {
      F16 entry = f16_zero();
      for (size_t i = j; i < end; ++i) {
        const F16 codewords = f16_load(codebook + words * i + k);
        if (squared_l2)
          entry = f16_fma(f16_sub(f16_set(query[i] + query[i]), codewords), codewords, entry);
        else
          entry = f16_fma(f16_set(query[i]), codewords, entry);
      }
      f16_store(lut + words * m + k, entry);
      low = f16_min(low, entry);
      high = f16_select_less(high, entry, entry, high);
    }
    lows[m] = f16_lowest(low);
    highs[m] = f16_highest(high);
  }
}

void lut_f32(const float* query, const float* codebook, size_t codewords, size_t dim,
             size_t dims_per_block, bool squared_l2, float* lut, float* lows,
             float* highs) noexcept {
  const auto tables = codewords == kWords16 ? lookup_tables<kWords16> : lookup_tables<kWords256>;
  tables(query, codebook, dim, dims_per_block, squared_l2, lut, lows, highs);
}

void lut_quantize_u8(const float* lut, const float* lows, size_t codewords, size_t blocks,
                     float scale, int most, uint8_t* out) noexcept {
  const F16 s = f16_set(scale), half = f16_set(0.5f), limit = f16_set(float(most));
  for (size_t m = 0; m < blocks; ++m) {
    const F16 low = f16_set(lows[m]);
    for (size_t k = m * codewords; k < (m + 1) * codewords; k += 16)
      f16_store_u8(out + k, f16_min(f16_fma(f16_sub(f16_load(lut + k), low), s, half), limit));
  }
}

size_t argmax_f32(const float* scores, const float* bias, size_t count, float* best) noexcept {
  const float infinity = __builtin_inff();
  F16 top = f16_set(-infinity), where = f16_set(0.0f);
  const F16 step = f16_set(16.0f);
  alignas(64) float lane[16], at[16];
  for (int i = 0; i < 16; ++i) lane[i] = float(i);
  F16 position = f16_load(lane);  // exact in a float: count stays under 2^24
  size_t j = 0;
  for (; j + 16 <= count; j += 16) {
    const F16 value = f16_add(f16_load(scores + j), f16_load(bias + j));
    where = f16_select_less(top, value, position, where);
    top = f16_select_less(top, value, value, top);
    position = f16_add(position, step);
  }
  f16_store(lane, top);
  f16_store(at, where);
  float value = -infinity, index = 0.0f;
  for (int i = 0; i < 16; ++i)
    if (lane[i] > value || (lane[i] == value && at[i] < index)) value = lane[i], index = at[i];
  size_t found = size_t(index);
  for (; j < count; ++j)
    if (scores[j] + bias[j] > value) value = scores[j] + bias[j], found = j;
  *best = value;
  return found;
}

void add_row(const float* row, size_t dim, double* sums) noexcept {
  for (size_t j = 0; j < dim; ++j) sums[j] += double(row[j]);
}

size_t at_least_f32(const float* scores, size_t count, float threshold, uint32_t* out) noexcept {
  const F16 least = f16_set(threshold);
  size_t found = 0, j = 0;
  for (; j + 16 <= count; j += 16) {
    uint32_t mask = f16_at_least(f16_load(scores + j), least);
    for (; mask != 0; mask &= mask - 1) out[found++] = uint32_t(j) + __builtin_ctz(mask);
  }
  for (; j < count; ++j)
    if (scores[j] >= threshold) out[found++] = uint32_t(j);
  return found;
}

template <size_t words>
inline F16 lookup(const float* table, const uint8_t* codes) noexcept {
  if constexpr (words == kWords16) return f16_lookup(table, codes);
  return f16_lookup256(table, codes);
}

// For 16 datapoints: the codeword of one block that minimises
//   sum_j (t_j - w_j)^2 + weight * (parallel + <t - w, direction>)^2,
// parallel being what the other blocks leave along the direction. Lanes keep their old code
// unless another is strictly better.
template <bool anisotropic, size_t words>
inline F16 best_codeword(const float* target, const float* direction, const float* codebook,
                         size_t width, F16 weight, F16 parallel, F16* code) noexcept {
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
template <size_t words>
inline void block_error(const float* target, const float* direction, const float* codebook,
                        size_t width, const uint8_t* codes, F16* along, F16* square) noexcept {
  *along = f16_zero();
  *square = f16_zero();
  for (size_t j = 0; j < width; ++j) {
    const F16 e = f16_sub(f16_load(target + 16 * j), lookup<words>(codebook + words * j, codes));
    *square = f16_fma(e, e, *square);
    if (direction != nullptr) *along = f16_fma(e, f16_load(direction + 16 * j), *along);
  }
}

template <size_t words>
inline void encode(const float* target, const float* direction, const float* weight,
                   const float* codebook, size_t dim, size_t dims_per_block, size_t sweeps,
                   bool warm, uint8_t* codes, float* loss) noexcept {
  F16 parallel = f16_zero(), total = f16_zero();
  for (size_t j = 0, m = 0; j < dim; j += dims_per_block, ++m) {
    const size_t width = dim - j < dims_per_block ? dim - j : dims_per_block;
    const float* d = direction == nullptr ? nullptr : direction + 16 * j;
    if (!warm) {
      F16 code;
      best_codeword<false, words>(target + 16 * j, nullptr, codebook + words * j, width, total,
                                  total, &code);
      f16_store_u8(codes + 16 * m, code);
    }
    F16 along, square;
    block_error<words>(target + 16 * j, d, codebook + words * j, width, codes + 16 * m, &along,
                       &square);
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
        block_error<words>(t, d, book, width, code, &along, &square);
        const F16 rest = f16_sub(parallel, along);
        const F16 reached = f16_fma(f16_mul(parallel, parallel), w, square);
        const F16 best = best_codeword<true, words>(t, d, book, width, w, rest, &found);
        const uint32_t better = ~f16_at_least(best, reached) & 0xFFFFu;
        if (better == 0) continue;
        changed = true;
        uint8_t next[16];
        f16_store_u8(next, found);
        for (int i = 0; i < 16; ++i)
          if ((better >> i & 1) != 0) code[i] = next[i];
        F16 along_now, square_now;
        block_error<words>(t, d, book, width, code, &along_now, &square_now);
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
  const auto run = codewords == kWords16 ? encode<kWords16> : encode<kWords256>;
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
