// The float kernels, written once over F16 (16 floats) and compiled by each level file, which
// defines F16 and its operations (f16_load, f16_fma, ...) before it includes this file.
// Everything here has internal linkage: nothing compiled for one level can be linked into another.

namespace {

#include "unrolled.inl"

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
SWANN_INLINE inline void tile_sums(const float* queries, const Value* rows, size_t dim,
                                   F16 (*acc)[Q]) noexcept {
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

template <Metric metric, int Q, int X, typename Value>
inline void row_strip(const float* queries, const Value* rows, size_t num_rows, size_t dim,
                      float* out, size_t stride) noexcept {
  size_t x = 0;
  for (; x + X <= num_rows; x += X)
    tile<metric, Q, X>(queries, rows + x * dim, dim, out + x, stride);
  for (; x < num_rows; ++x) tile<metric, Q, 1>(queries, rows + x * dim, dim, out + x, stride);
}

// One query: X rows after the other.
template <Metric metric, int X, typename Value>
inline void lone_strip(const float* query, const Value* rows, size_t num_rows, size_t dim,
                       float* out) noexcept {
  constexpr size_t kRows = kSingleTileRows;
  size_t x = 0;
  for (; x + kRows <= num_rows; x += kRows) {
    F16 sums[kRows][1];
    unrolled<kRows / X>([&](auto i) SWANN_INLINE {
      tile_sums<metric, 1, X>(query, rows + (x + i * X) * dim, dim, sums + i * X);
    });
    f16_store_folded<1, int(kRows)>(sums, out + x, 1);
  }
  for (; x < num_rows; ++x) tile<metric, 1, 1>(query, rows + x * dim, dim, out + x, 1);
}

// For one query rows come fastest in one stream. Pairs of short ones, which nobody takes for two streams,
// share what is read of the query.
template <Metric metric, int Q, typename Value>
inline void query_strip(const float* queries, const Value* rows, size_t num_rows, size_t dim,
                        float* out, size_t stride) noexcept {
  constexpr size_t kShort = 512;  // bytes
  constexpr int kPair = kSingleTileRows < 2 ? 1 : 2;
  if constexpr (Q > 1)
    row_strip<metric, Q, kTileRows>(queries, rows, num_rows, dim, out, stride);
  else if (dim * sizeof(Value) < kShort)
    lone_strip<metric, kPair>(queries, rows, num_rows, dim, out);
  else
    lone_strip<metric, 1>(queries, rows, num_rows, dim, out);
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
                     float scale, uint8_t* out) noexcept {
  const F16 s = f16_set(scale), half = f16_set(0.5f), limit = f16_set(float(kMaxEntry));
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

// Sixteen lanes, which the compiler would rather unroll than vectorise if they were loops.
double square_f64(const float* x, size_t dim) noexcept {
  using F8 = float __attribute__((vector_size(32)));
  using D8 = double __attribute__((vector_size(64)));
  D8 low = {}, high = {};
  size_t j = 0;
  for (; j + 16 <= dim; j += 16) {
    F8 halves[2];
    __builtin_memcpy(halves, x + j, sizeof halves);
    const D8 a = __builtin_convertvector(halves[0], D8), b = __builtin_convertvector(halves[1], D8);
    low += a * a;
    high += b * b;
  }
  double rest = 0;
  for (; j < dim; ++j) rest += double(x[j]) * double(x[j]);
  low += high;
  return ((low[0] + low[4]) + (low[2] + low[6])) + ((low[1] + low[5]) + (low[3] + low[7])) + rest;
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

}  // namespace
