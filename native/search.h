// The search pipeline: choose leaves, build lookup tables, scan, reorder. It owns no index memory.
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "bounds.h"
#include "bounds_trial.h"
#include "byte_rows.h"
#include "kernels.h"
#include "projection.h"
#include "rounded.h"
#include "rows.h"
#include "unpacked_codes.h"
#include "updates.h"

namespace swann {

enum class Distance { dot_product, squared_l2, cosine };

// A level of the tree above the centroids of the index, or above those of the level below: a
// partition of them, of which a query visits the best leaves. An entry is a centroid in a leaf;
// spilled centroids have two.
struct UpperLevel {
  size_t num_leaves = 0, num_entries = 0, num_below = 0;
  const float* centroids = nullptr;   // [num_leaves][dim] of the leaves
  const float* spreads = nullptr;     // [num_leaves], or null
  const uint32_t* starts = nullptr;   // [num_leaves + 1] first entry of each leaf
  const uint32_t* entries = nullptr;  // [num_entries] the centroid below
  ExactRows rows;                     // [num_entries] the centroids below as they are scored
  std::vector<float> reach;           // [num_entries] spreads of the centroids below, or empty
  size_t to_search = 1;               // leaves visited, more where they hold too few entries:
  float gather = 1;                   // fewer than this for each centroid wanted
};

// A searchable index: plain pointers into immutable arrays, in the order of the leaves. Without a
// tree there is one leaf and no centroid. An entry is a row in a leaf; spilled rows have two.
struct IndexView {
  Distance distance = Distance::dot_product;
  size_t dim = 0;                          // of datapoints and queries
  size_t reduced_dim = 0;                  // of the centroids and codes
  const float* projection = nullptr;       // [reduced_dim][dim]; null: onto the first dimensions
  RoundedBasis rounded_projection;         // the same in whole steps, or empty
  size_t num_rows = 0;
  size_t num_entries = 0;                  // more than rows where each lies in two leaves
  size_t num_leaves = 1;
  const float* centroids = nullptr;        // [num_leaves][reduced_dim], or null
  const float* spreads = nullptr;          // [num_leaves] leaves rank by <q, c> + |q| spread
  ExactRows rounded;                       // the centroids as they are scored, where not as above
  std::shared_ptr<const RoundedCentroids> bounds;  // the centroids again, or null: see bound_centroids
  std::shared_ptr<BoundsTrial> bounds_trial;
  float widest_spread = 0;
  std::vector<UpperLevel> upper;           // the lowest first; they say which centroids are scored
  const uint32_t* leaf_starts = nullptr;   // [num_leaves + 1] first entry of each leaf
  const uint32_t* entry_rows = nullptr;    // [entries] row of each entry, or null: they are the same
  bool spills = false;                     // a row may have two entries
  const uint32_t* ids = nullptr;           // [num_rows] datapoint of each row; null: the row itself
  ExactRows rows;                          // [num_rows], or absent: the codes' scores are final
  std::shared_ptr<ByteRows> byte_rows;     // rows that are searched, again, or null: see prepare_byte_rows
  // Asymmetric hashing; codes null: rows are scored exactly.
  const uint8_t* codes = nullptr;          // [groups][blocks][16 or 32]
  const float* codebook = nullptr;         // [reduced_dim][codewords]
  size_t codewords = kWords16;             // of a block: 16 or 256
  std::vector<uint16_t> usual_words;       // [blocks] where some are far longer than most of their block; or empty
  size_t dims_per_block = 0;
  size_t blocks = 0;
  const uint16_t* corrections = nullptr;   // [groups * 32] of residuals, or null
  double correction_low = 0, correction_span = 0;  // value = low + span * correction / 65535
  const float* code_center = nullptr;      // [reduced_dim] what tables and corrections count from, or null
  bool residual = true;                    // with centroids: codes are of residuals, not datapoints
  std::vector<size_t> group_starts;        // [num_leaves + 1] first group of each leaf
  ByteCodebook byte_codebook;              // the codebook again, or empty: see prepare_byte_codebook

  size_t group_bytes() const noexcept { return blocks * block_bytes(codewords); }
  bool squared_l2() const noexcept { return distance == Distance::squared_l2; }
  bool projects() const noexcept { return projection != nullptr || reduced_dim != dim; }
  bool codes_of_residuals() const noexcept { return residual && centroids != nullptr; }
  uint32_t id_of(size_t row) const noexcept { return ids == nullptr ? uint32_t(row) : ids[row]; }
};

struct SearchLimits {
  size_t neighbors;   // k
  size_t candidates;  // kept by the scan for reordering; k where nothing is reordered
  size_t leaves;      // searched
};

// Rounds the centroids of an index to 8 bits, where single queries will gain from it.
void bound_centroids(IndexView& index);

// Prepares to keep the rows of an index in 8 bits, where searches will gain from it.
void prepare_byte_rows(IndexView& index);

struct LeafChoice {
  uint32_t leaf;
  float score;  // <q, c>, or -|q - c|^2
};

// Searches `count` queries ([count][dim], finite, unit length for cosine) on one thread, in the
// index and the changes to it, where there are any. A query's answer does not depend on the others
// beside it. ids and distances are [count][neighbors], best first, ended by -1 and NaN where fewer
// exist.
void search_block(const IndexView& index, const Changes* changes, const SearchLimits& limits,
                  const float* queries, size_t count, int64_t* ids, float* distances);

// Queries that come with the leaves they visit.
struct ChosenQueries {
  const float* whole;          // [..][dim]
  const float* reduced;        // [..][reduced_dim]
  const LeafChoice* choices;   // [..][leaves], the best ones first
};

// The same for the queries named in numbers [count]; what is found goes to their places in ids and
// distances.
void search_chosen(const IndexView& index, const Changes* changes, const SearchLimits& limits,
                   const ChosenQueries& queries, const uint32_t* numbers, size_t count,
                   int64_t* ids, float* distances);

// The same as search_block for any number of queries, on threads.
void search_batch(const IndexView& index, const Changes* changes, const SearchLimits& limits,
                  const float* queries, size_t count, size_t threads, int64_t* ids,
                  float* distances);

// What a part of an index finds for a query: its best candidates in any order, ended by keys of 0.
struct Found {
  Key* first;        // (score by which candidates are chosen, entry of the whole index)
  Key* last;         // (exact score, number of the datapoint)
  float* distances;
};

// Searches leaves that were chosen before ([count][limits.leaves], with their scores) in an index
// that may have only some of them, and gathers limits.candidates candidates of each query.
// `whole_starts` [num_leaves + 1]: the first entry of each leaf in the whole index.
void gather_block(const IndexView& index, const Changes* changes, const SearchLimits& limits,
                  const float* queries, size_t count, const uint32_t* leaves, const float* scores,
                  const uint32_t* whole_starts, const Found& found);

// What one part found for some of the queries: `queries` [count] ascending, the rest [count][width].
struct FoundPart {
  const uint32_t* queries;
  const Key* first;
  const Key* last;
  const float* distances;
  size_t count, width;
};

// Puts together what the parts of an index found for `count` queries, as the whole would have found
// it: of each query the best `limits.candidates` by their first keys, datapoints once, then the best
// by their last keys. ids and distances are [count][limits.neighbors], ended by -1 and NaN.
void merge_found(const FoundPart* parts, size_t num_parts, const SearchLimits& limits, size_t count,
                 size_t threads, int64_t* ids, float* distances);

// Queries a block may have: enough that a leaf's codes are used many times while in the cache, and
// so few that a thread's working memory stays small also where many neighbors are asked for.
size_t most_queries(const IndexView& index, const SearchLimits& limits) noexcept;

// ---- Parts shared by the files of the pipeline (centroids.cpp, tables.cpp, candidates.cpp, search.cpp).

// A float as an int32 of the same order.
inline int32_t ordered(float value) noexcept {
  const int32_t bits = std::bit_cast<int32_t>(value + 0.0f);  // no negative zero
  return bits ^ ((bits >> 31) & 0x7FFFFFFF);
}
inline float from_ordered(int32_t value) noexcept {
  return std::bit_cast<float>(value ^ ((value >> 31) & 0x7FFFFFFF));
}

// The best `limit` keys seen so far, and others: grows to capacity, then is trimmed.
struct Candidates {
  Key* keys = nullptr;
  size_t size = 0;
  size_t limit = 0;
  size_t capacity = 0;
  Key worst = 0;  // keys below cannot be among the best; 0 while fewer than limit were seen

  // Keys that are left by trimming, at most: finding just the best would take longer.
  static constexpr size_t most(size_t limit) noexcept { return limit + limit / 4 + 16; }
  void trim() noexcept;
  void cut() noexcept;   // to the best exactly, but for ties
};

// Moves the best `limit` keys, exactly, to the front, those above the least score in their order; returns
// how many there are.
size_t cut_to(Key* keys, size_t size, size_t limit) noexcept;

// One query's lookup table, quantized: score ~ (sum of entries + bias) / scale.
struct Table {
  double scale = 1;
  double base = 0;          // what the entries' zero stands for
  uint32_t multiplier = 0;  // of corrections
  bool cramped = false;     // finer than this, the scores in reach would have no room
};

// The bias of leaves so far behind the best that the scores of theirs have no room beside its own.
constexpr double kLeastBias = -double(1 << 30);

// Datapoints [count][dim] in the space of the centroids and codes: themselves, or in `buffer`.
const float* reduce(const IndexView& index, const float* vectors, size_t count, size_t threads,
                    std::vector<float>& buffer);
// Queries likewise.
const float* reduce_queries(const IndexView& index, const float* queries, size_t count,
                            size_t threads, std::vector<float>& buffer);

// Leaves of a query that come in their order, before all others: a query alone gets a good threshold
// by them.
constexpr size_t kFirstLeaves = 3;

// Fills choices [count][leaves] with each query's best leaves, ties to the lowest number. The first
// few come first. Without a tree there is one leaf. Queries are
// reduced, here and below.
void choose_leaves(const IndexView& index, const float* queries, size_t count, size_t leaves,
                   LeafChoice* choices);

// Finds a codeword of middling length in each block, where others are far longer.
void find_outliers(IndexView& index);

// Fills lut [blocks][codewords]. `reach` is the greatest magnitude of a score that is added to the entries.
Table build_table(const IndexView& index, const float* query, float reach, uint8_t* lut);

}  // namespace swann
