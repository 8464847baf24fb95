// The whole contract between the pipeline and the instruction sets: plain pointers and sizes.
//
// Each level (scalar, avx2, avx512bw, avx512vnni, amx; neon, neondot) puts what it has into a copy of the
// KernelTable of the level below. Integer kernels agree exactly between levels. Float kernels sum in a fixed
// order: lane j % 16 takes dimension j by fused multiply-add, then lanes fold 16 -> 8 -> 4 -> 2
// -> 1. Levels with fma therefore agree bit for bit, and a score never depends on how many
// queries or rows were computed beside it. The scalar level rounds each product on its own.
#pragma once
#include <cstddef>
#include <cstdint>

#include "ceil_div.h"

namespace swann {

constexpr size_t kGroup = 32;         // datapoints in one group of packed codes
constexpr size_t kLanes = 16;         // datapoints in a training tile
constexpr size_t kMaxScanQueries = 12;  // queries that share one pass over a leaf, at most

constexpr size_t groups_of(size_t datapoints) noexcept { return ceil_div(datapoints, kGroup); }
constexpr size_t tiles_of(size_t datapoints) noexcept { return ceil_div(datapoints, kLanes); }
constexpr size_t quads_of(size_t dim) noexcept { return ceil_div(dim, 4); }
constexpr size_t blocks_of(size_t dim, size_t dims_per_block) noexcept {
  return ceil_div(dim, dims_per_block);
}

// A block has 16 codewords, and codes of 4 bits (LUT16), or 256, and codes of 8 bits (LUT256).
constexpr size_t kWords16 = 16, kWords256 = 256;
constexpr int kMaxEntry = 255;  // of their quantized lookup tables
// Scans of LUT16 add three lookups in 8 bits: no entries of blocks m, m + s and m + 2 s, s being one of these,
// may be more than kMaxEntry together.
constexpr size_t kAdded[] = {1, 2, 4};
// Bytes that one block of a group takes.
constexpr size_t block_bytes(size_t codewords) noexcept {
  return codewords == kWords16 ? kGroup / 2 : kGroup;
}

// A candidate is one 64-bit number, greater is better: the score as an order-preserving unsigned
// 32-bit number above, the complement of the row below, so that ties go to the lowest row.
using Key = uint64_t;

inline Key make_key(int32_t score, uint32_t row) noexcept {
  return (uint64_t(uint32_t(score) ^ 0x80000000u) << 32) | uint32_t(~row);
}
inline int32_t key_score(Key key) noexcept { return int32_t(uint32_t(key >> 32) ^ 0x80000000u); }
inline uint32_t key_row(Key key) noexcept { return ~uint32_t(key); }

// One leaf of packed codes. A group holds block after block. A block of LUT16 takes 16 bytes: byte
// i has the code of datapoint i in its low half and that of datapoint 16 + i in its high half. A
// block of LUT256 takes 32 bytes: byte i has the code of datapoint i.
struct PackedLeaf {
  const uint8_t* codes;         // [ceil(count / 32)][blocks][16 or 32]
  const uint16_t* corrections;  // [ceil(count / 32) * 32], or null
  size_t blocks;
  size_t count;                 // datapoints
  uint32_t first_row;           // row of the leaf's first datapoint
  const uint8_t* next;          // codes that are scanned after these, or null: fetched ahead
};

// One query's side of a scan: sums at or above the threshold are appended to out as keys.
struct ScanQuery {
  const uint8_t* lut;  // [blocks][codewords]; a sum is at most 65535 (and see kAdded)
  int32_t threshold;   // in 0..65535
  int32_t bias;        // score = sum + bias
  uint32_t multiplier; // a correction c adds (c * multiplier) >> 16
  Key* out;
  size_t size;         // keys in out
  size_t capacity;     // the scan stops at a group when fewer than 32 places are left
};

// Rows rounded to 8 bits, 16 in a group, which has one scale: a byte b stands for
// (b - 128) / inverse. A quad is four dimensions; absent rows and dimensions are zeros.
constexpr size_t kI8Group = 16;
struct I8Rows {
  uint8_t* bytes;   // [groups][quads][16][4]
  float* inverses;  // [groups]
  float* errors;    // [groups] the greatest |x - x'| of a group, x' being what stands for x, both
                    // with their weights
  float* lengths;   // [groups] the greatest |x'|
  float* halves;    // [groups][16] |x|^2 / 2, without weights, times inverse
};

// Queries rounded to 8 bits: a byte b stands for b / inverse.
constexpr size_t kI8Queries = 16;  // go together
struct I8Queries {
  const int8_t* bytes;      // [count, up to a multiple of 16][quads][4]
  const int32_t* starts;    // [count] -128 times the sum of the bytes
  const float* inverses;    // [count]
  const float* lengths;     // [count] |q|
  const float* errors;      // [count] |q - q'|, and more for roundings of exact scores
  const float* thresholds;  // [count]
  size_t count;
};

// Rows that may reach the threshold of a query.
struct I8Found {
  uint32_t *rows, *queries;
  float* products;  // of their bytes
};

// A block of a codebook of 16 codewords, and what it has of some tiles of 16 datapoints (codebook.cpp says
// what is solved).
constexpr size_t kMostSumsWidth = 4;
struct BlockSums {
  const float *target, *direction;  // [tiles][width][16]
  const uint8_t* codes;             // [tiles][16]
  const float* weights;             // [tiles][16]
  const float* words;               // [width][16]
  size_t width, tiles;              // width: at most kMostSumsWidth
  float* parallel;                  // [tiles][16] errors along the direction, brought up to date:
  const float* moved_direction;     // another block has moved by `moves` [moved_width][16], unless
  const uint8_t* moved_codes;       // that is null
  const float* moves;
  size_t moved_width;
};

// A vector in 8 bits, by itself: a byte b stands for b * step.
struct RoundedVector {
  int32_t start;  // -128 times the sum of the bytes
  float step;
  float length;   // |x|, at most
  float error;    // |x - x'|, at most
};

// A vector in 16 bits: values [dim], of most_wide at most, stand for so many steps.
struct WideQuery {
  const int16_t* values;
  float step;
  float off;  // by so much, times the scale of a row, a score may be higher
};
// The greatest value of a WideQuery: a lane sums up ceil(dim / 32) pairs of products with 2^7 at most.
constexpr int32_t most_wide(size_t dim) noexcept {
  const size_t most = ((size_t(1) << 31) - 1) / (ceil_div(dim, 32) * 256);
  return most < 32767 ? int32_t(most) : 32767;
}

// What bounds of scores know of each row of 8 bits, [count]: a byte b of it stands for
// (b - 128) * step.
struct BoundRows {
  const float* steps;
  const float* errors;   // |x - x'|
  const float* lengths;  // |x'|
  const float* biases;   // that are added to its scores
};

constexpr size_t kMostBest = 1024;      // that least_of_best_f32 finds
constexpr size_t kMostUnpacked = 1024;  // datapoints of a leaf at a time
constexpr size_t kAllScanned = ~size_t(0);
// Bytes of a datapoint's unpacked codes.
constexpr size_t unpacked_bytes(size_t blocks) noexcept { return ceil_div(blocks, 64) * 64; }

struct KernelTable {
  const char* level;
  size_t scan_queries;  // that share one pass of the scans below, at most kMaxScanQueries

  // out[i * stride + j] = <queries[i], rows[j]>, and |queries[i] - rows[j]|^2.
  void (*dot_f32)(const float* queries, size_t num_queries, const float* rows, size_t num_rows,
                  size_t dim, float* out, size_t stride) noexcept;
  void (*squared_l2_f32)(const float* queries, size_t num_queries, const float* rows,
                         size_t num_rows, size_t dim, float* out, size_t stride) noexcept;

  // The same for rows in bfloat16 (the upper half of a float32) and in int8 (read as numbers).
  void (*dot_bf16)(const float* queries, size_t num_queries, const uint16_t* rows,
                   size_t num_rows, size_t dim, float* out, size_t stride) noexcept;
  void (*squared_l2_bf16)(const float* queries, size_t num_queries, const uint16_t* rows,
                          size_t num_rows, size_t dim, float* out, size_t stride) noexcept;
  void (*dot_i8)(const float* queries, size_t num_queries, const int8_t* rows, size_t num_rows,
                 size_t dim, float* out, size_t stride) noexcept;

  // The same for one query and the rows named in ids, fetched ahead.
  void (*dot_gather_f32)(const float* query, const float* rows, const uint32_t* ids, size_t count,
                         size_t dim, float* out) noexcept;
  void (*squared_l2_gather_f32)(const float* query, const float* rows, const uint32_t* ids,
                                size_t count, size_t dim, float* out) noexcept;
  void (*dot_gather_bf16)(const float* query, const uint16_t* rows, const uint32_t* ids,
                          size_t count, size_t dim, float* out) noexcept;
  void (*squared_l2_gather_bf16)(const float* query, const uint16_t* rows, const uint32_t* ids,
                                 size_t count, size_t dim, float* out) noexcept;
  void (*dot_gather_i8)(const float* query, const int8_t* rows, const uint32_t* ids, size_t count,
                        size_t dim, float* out) noexcept;

  // Lookup tables of one query: lut[m][k] = sum over the dimensions j of block m of
  // q_j w_jk (dot product) or (2 q_j - w_jk) w_jk (squared l2); codebook is [dim][codewords].
  // lows and highs [blocks] get the least and greatest entry of each block.
  void (*lut_f32)(const float* query, const float* codebook, size_t codewords, size_t dim,
                  size_t dims_per_block, bool squared_l2, float* lut, float* lows,
                  float* highs) noexcept;
  // out[m][k] = floor((lut[m][k] - lows[m]) * scale + 0.5), at most kMaxEntry.
  void (*lut_quantize_u8)(const float* lut, const float* lows, size_t codewords, size_t blocks,
                          float scale, uint8_t* out) noexcept;

  // Scans groups of a leaf from first_group on, for up to scan_queries queries; returns the
  // group it stopped before (the number of groups when done).
  size_t (*lut16_scan)(const PackedLeaf* leaf, size_t first_group, ScanQuery* queries,
                       size_t num_queries) noexcept;
  // The same for codes of 8 bits.
  size_t (*lut256_scan)(const PackedLeaf* leaf, size_t first_group, ScanQuery* queries,
                        size_t num_queries) noexcept;

  // Index of the greatest bias[j] + scores[j] (the lowest such j); *best gets the value.
  size_t (*argmax_f32)(const float* scores, const float* bias, size_t count,
                       float* best) noexcept;
  // Positions j with scores[j] >= threshold, ascending; returns how many.
  size_t (*at_least_f32)(const float* scores, size_t count, float threshold,
                         uint32_t* out) noexcept;

  // Codes of a tile of 16 datapoints. target and direction are [dim][16] (direction null: plain
  // l2), weight[i] = eta - 1, codebook is [dim][codewords]. From what prices choose (encode.inl),
  // coordinate descent over the blocks on |e|^2 + weight <e, direction>^2 until nothing changes or
  // `sweeps` passes; none, and codes are those of l2. codes [blocks][16]. With `warm` the descent
  // starts from the codes given. loss [16] gets what was reached.
  void (*encode_tile)(const float* target, const float* direction, const float* weight,
                      const float* codebook, size_t codewords, size_t dim, size_t dims_per_block,
                      size_t sweeps, bool warm, uint8_t* codes, float* loss) noexcept;

  // The same for one datapoint, cold: target and direction are [dim], scratch
  // [dim + 2 blocks][codewords]; codes [blocks] and the loss are those of a lane of encode_tile, bit for bit.
  void (*encode_one)(const float* target, const float* direction, float weight,
                     const float* codebook, size_t codewords, size_t dim, size_t dims_per_block,
                     size_t sweeps, float* scratch, uint8_t* codes, float* loss) noexcept;

  // Keeps, in their order, the keys from *least on, which it finds: `limit` at least, and `most`
  // at most where scores differ. With most = limit these are all that score at least as high as the
  // limit-th best. Zero, and nothing is dropped, where there are no more than `most`.
  size_t (*keep_best)(Key* keys, size_t size, size_t limit, size_t most, Key* least) noexcept;
  // keys[i] = the key of scores[i] + length * reach[i] (reach null: of scores[i]) and row i.
  void (*keys_from_f32)(const float* scores, const float* reach, float length, size_t count,
                        Key* keys) noexcept;
  // A score that `limit` of the scores reach at least, and few more; -infinity where there are too few,
  // or more than kMostBest are wanted. Scores are numbers.
  float (*least_of_best_f32)(const float* scores, size_t count, size_t limit) noexcept;

  // out[i * stride + j] = <rows[i], vector j>, of vectors in tiles of sixteen: [tiles][dim][16]. A
  // lane is a vector, so dimensions are summed one after the other (by fused multiply-add): where
  // the vectors stay and rows come by the thousands, nearer to the machine's limit than dot_f32.
  void (*dot_tiles_f32)(const float* rows, size_t num_rows, const float* tiles, size_t num_tiles,
                        size_t dim, float* out, size_t stride) noexcept;

  // Rounds x, less the origin where that is not null, to whole steps of up to `most`; bytes are [quads][4].
  // What is lost goes to `rest`, where that is not null: [dim, up to a multiple of 16].
  void (*round_i8)(const float* x, const float* origin, size_t dim, int32_t most, int8_t* bytes,
                   float* rest, RoundedVector* out) noexcept;
  // Bounds of the scores of a vector, of this length and error, and `count` rows, a multiple of 16;
  // returns the greatest of the lower ones. products, and `more` where that is not null, add up to those
  // of its bytes, times its step. `extra` is added to how far off they may be.
  float (*bounds_f32)(const float* products, const float* more, const BoundRows* rows, size_t count,
                      float length, float error, float extra, float* lower, float* upper) noexcept;

  // For SOAR's costs -2 s + lambda (own - a)^2, of which bounds of s and of a are given: gains are minus the
  // least that they may be with lambda = `less`; returns minus the least that is certain with `more`.
  float (*spill_gains_f32)(const float* lower, const float* upper, const float* along_lower,
                           const float* along_upper, size_t count, float own, float less,
                           float more, float* gains) noexcept;
  // The sum of the squares, in double: the same bits on every level.
  double (*square_f64)(const float* x, size_t dim) noexcept;
  // sums[j] += row[j].
  void (*add_row)(const float* row, size_t dim, double* sums) noexcept;
  // What the equations of a block consist of; out [16][terms]: of the datapoints that have each
  // codeword the sums of 1, of their right sides [width], of the lower halves of their matrices.
  void (*block_sums)(const BlockSums* block, float* out) noexcept;

  // Exact search by rounded rows and queries; null where a level has nothing faster than floats.
  // Rounds rows [count][dim], of lengths up to 1e18, each value times the weight [dim] of its
  // dimension; queries are to be divided by the weights. Weights are 2^-20 to 2^20.
  void (*i8_pack)(const float* rows, size_t count, size_t dim, const float* weights,
                  const I8Rows* out) noexcept;
  // Finds the rows x that may have <q, x> >= threshold or, squared_l2, <q, x> - |x|^2 / 2 >= threshold: a
  // few that have not, but all that have. `slack` times |x|^2 / 2 is forgiven, too. `found`, with room for all
  // rows of all queries and 16 more, gets those of a query in their order. Returns how many there are.
  size_t (*i8_filter)(const I8Rows* rows, size_t groups, size_t quads, const I8Queries* queries,
                      bool squared_l2, float slack, const I8Found* found) noexcept;
  // out[q * stride + r] = <query q, row r> times factors[q], of rows [groups][quads][16][4] and queries
  // [count][quads][4] of whole numbers, as they are in I8Rows and I8Queries: exact but for the
  // conversion to float and its product.
  void (*i8_products)(const uint8_t* rows, size_t groups, size_t quads, const int8_t* queries,
                      const int32_t* starts, const float* factors, size_t count, float* out,
                      size_t stride) noexcept;

  // Upper bounds of the scores of int8 rows as they lie, or null: out[r] = scales[r] * (<query, row r> *
  // step + off), exact but for what converting and adding up sixteen sums as floats may lose. out has
  // room up to a multiple of 16.
  void (*upper_i8)(const WideQuery* query, const int8_t* rows, const float* scales, size_t num_rows,
                   size_t dim, float* out) noexcept;

  // A leaf of 4-bit codes unpacked for i8_filter; null where that is. Blocks go by fours: `words`
  // is [fours][dims_per_block][4][16], the codebook in 8 bits as in I8Rows, 128 where there is none.
  // Of sixteens of datapoints, two a group, `rows` gets [sixteens][fours * dims_per_block][16][4].
  // `codes` gets [sixteens][16][unpacked_bytes]: of block m the code plus 16 (m % 8); with
  // blocks that are not there, eights are filled up by what looks up nothing, the rest is 0.
  void (*lut16_unpack)(const PackedLeaf* leaf, const uint8_t* words, size_t dims_per_block,
                       uint8_t* rows, uint8_t* codes) noexcept;
  // lut16_scan, for one query and any entries, of the datapoints of an unpacked leaf (of
  // kMostUnpacked at most, without corrections) whose bits are set in masks[sixteen * stride], from
  // the `first` of these on. Returns the one it stopped before, for want of 16 places, or
  // kAllScanned.
  size_t (*lut16_scan_marked)(const PackedLeaf* leaf, const uint8_t* codes, const uint16_t* masks,
                              size_t stride, size_t first, ScanQuery* query) noexcept;
  // The greatest byte of a query, either way, that i8_filter and i8_products take.
  int32_t i8_most = 127;
};

// Levels in the order of preference, best first.
struct Level {
  const char* name;
  const KernelTable* table;
};
const Level* levels(size_t* count) noexcept;          // those this machine can run
const KernelTable* find_level(const char* name) noexcept;  // null when it cannot run
const KernelTable& kernels() noexcept;                // the chosen one; see cpu.cpp
const char* level_error() noexcept;                   // null, or why SWANN_SIMD was not obeyed

// What the level files export; each may be called where the machine can run the level.
void put_scalar(KernelTable& table) noexcept;
#if defined(__x86_64__)
void put_avx2(KernelTable& table) noexcept;
void put_avx512bw(KernelTable& table) noexcept;
void put_avx512vnni(KernelTable& table) noexcept;
void put_amx(KernelTable& table) noexcept;
// Whether two levels' i8_filter say the same of some rows: tiles are trusted only after this.
bool filters_agree(const KernelTable& one, const KernelTable& other) noexcept;
#elif defined(__aarch64__)
void put_neon(KernelTable& table) noexcept;
void put_neondot(KernelTable& table) noexcept;
#endif
void put_emulated(KernelTable& table) noexcept;

}  // namespace swann
