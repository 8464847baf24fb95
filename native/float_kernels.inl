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
inline F16 load_row_first(const float* p, size_t count) noexcept {
  return f16_load_first(p, count);
}
// The last values of a row, by way of a buffer: what follows them may not be there to read.
template <typename Value>
inline F16 load_row_first(const Value* p, size_t count) noexcept {
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
      const F16 row = load_row_first(rows + x * dim + j, dim - j);
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

template <typename Value>
inline void prefetch_row(const Value* row, size_t dim) noexcept {
  const char* p = reinterpret_cast<const char*>(row);
  for (size_t b = 0; b < dim * sizeof(Value); b += 64) __builtin_prefetch(p + b);
}

// Rows lie anywhere in memory: ask for them well before they are used.
template <Metric metric, typename Value>
void gather(const float* query, const Value* rows, const uint32_t* ids, size_t count, size_t dim,
            float* out) noexcept {
  const size_t bytes = dim * sizeof(Value), ahead = bytes <= 512 ? 8 : bytes <= 2048 ? 3 : 1;
  for (size_t i = 0; i < count && i < ahead; ++i) prefetch_row(rows + ids[i] * dim, dim);
  for (size_t i = 0; i < count; ++i) {
    if (i + ahead < count) prefetch_row(rows + ids[i + ahead] * dim, dim);
    tile<metric, 1, 1>(query, rows + ids[i] * dim, dim, out + i, 0);
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

void lut_f32(const float* query, const float* codebook, size_t dim, size_t dims_per_block,
             bool squared_l2, float* lut, float* lows, float* highs) noexcept {
  for (size_t j = 0, m = 0; j < dim; ++m) {
    const size_t end = dim - j < dims_per_block ? dim : j + dims_per_block;
    F16 entry = f16_zero();
    for (; j < end; ++j) {
      const F16 codewords = f16_load(codebook + 16 * j);
      if (squared_l2)
        entry = f16_fma(f16_sub(f16_set(query[j] + query[j]), codewords), codewords, entry);
      else
        entry = f16_fma(f16_set(query[j]), codewords, entry);
    }
    f16_store(lut + 16 * m, entry);
    lows[m] = f16_lowest(entry);
    highs[m] = f16_highest(entry);
  }
}

void lut_quantize_u8(const float* lut, const float* lows, size_t blocks, float scale,
                     uint8_t* out) noexcept {
  const F16 s = f16_set(scale), half = f16_set(0.5f), most = f16_set(float(kMaxEntry));
  for (size_t m = 0; m < blocks; ++m) {
    const F16 above = f16_sub(f16_load(lut + 16 * m), f16_set(lows[m]));
    f16_store_u8(out + 16 * m, f16_min(f16_fma(above, s, half), most));
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

// For 16 datapoints: the codeword of one block that minimises
//   sum_j (t_j - w_j)^2 + weight * (parallel + <t - w, direction>)^2,
// parallel being what the other blocks leave along the direction. Lanes keep their old code
// unless another is strictly better.
template <bool anisotropic>
inline F16 best_codeword(const float* target, const float* direction, const float* codebook,
                         size_t width, F16 weight, F16 parallel, F16* code) noexcept {
  F16 best = f16_set(__builtin_inff()), chosen = f16_zero();
  for (int k = 0; k < 16; ++k) {
    F16 square = f16_zero(), along = parallel;
    for (size_t j = 0; j < width; ++j) {
      const F16 e = f16_sub(f16_load(target + 16 * j), f16_set(codebook[16 * j + k]));
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
inline void block_error(const float* target, const float* direction, const float* codebook,
                        size_t width, const uint8_t* codes, F16* along, F16* square) noexcept {
  *along = f16_zero();
  *square = f16_zero();
  for (size_t j = 0; j < width; ++j) {
    const F16 e = f16_sub(f16_load(target + 16 * j), f16_lookup(codebook + 16 * j, codes));
    *square = f16_fma(e, e, *square);
    if (direction != nullptr) *along = f16_fma(e, f16_load(direction + 16 * j), *along);
  }
}

void encode_tile(const float* target, const float* direction, const float* weight,
                 const float* codebook, size_t dim, size_t dims_per_block, size_t sweeps,
                 bool warm, uint8_t* codes, float* loss) noexcept {
  F16 parallel = f16_zero(), total = f16_zero();
  for (size_t j = 0, m = 0; j < dim; j += dims_per_block, ++m) {
    const size_t width = dim - j < dims_per_block ? dim - j : dims_per_block;
    const float* d = direction == nullptr ? nullptr : direction + 16 * j;
    if (!warm) {
      F16 code;
      best_codeword<false>(target + 16 * j, nullptr, codebook + 16 * j, width, total, total,
                           &code);
      f16_store_u8(codes + 16 * m, code);
    }
    F16 along, square;
    block_error(target + 16 * j, d, codebook + 16 * j, width, codes + 16 * m, &along, &square);
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
        const float* words = codebook + 16 * j;
        uint8_t* code = codes + 16 * m;
        F16 along, square, found;
        block_error(t, d, words, width, code, &along, &square);
        const F16 rest = f16_sub(parallel, along);
        const F16 reached = f16_fma(f16_mul(parallel, parallel), w, square);
        const F16 best = best_codeword<true>(t, d, words, width, w, rest, &found);
        const uint32_t better = ~f16_at_least(best, reached) & 0xFFFFu;
        if (better == 0) continue;
        changed = true;
        uint8_t next[16];
        f16_store_u8(next, found);
        for (int i = 0; i < 16; ++i)
          if ((better >> i & 1) != 0) code[i] = next[i];
        F16 along_now, square_now;
        block_error(t, d, words, width, code, &along_now, &square_now);
        parallel = f16_add(rest, along_now);
        total = f16_add(total, f16_sub(square_now, square));
      }
      if (!changed) break;
    }
    total = f16_fma(f16_mul(parallel, parallel), w, total);
  }
  f16_store(loss, total);
}

}  // namespace
