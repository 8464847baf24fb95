// A block of queries on its way through an index, and what the files of the scan share.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "aligned.h"
#include "rounded.h"
#include "search.h"

namespace swann {

// Room for what i8_filter finds, as in I8Found.
struct FoundRows {
  Aligned<uint32_t> rows, queries;
  AlignedFloats products;

  I8Found of(size_t groups, size_t count) {
    const size_t most = groups * kI8Group * count + kI8Group;
    rows.resize(most);
    queries.resize(most);
    products.resize(most);
    return {rows.data(), queries.data(), products.data()};
  }
};

// A row that was found for a query.
struct FoundRow {
  uint32_t row;
  float product;
};

// One thread's working memory for a block of queries, kept between calls.
struct Scratch {
  std::vector<LeafChoice> choices;
  Aligned<uint8_t> luts;  // [count][table_bytes]
  std::vector<Table> tables;
  std::vector<Key> keys;
  std::vector<Candidates> candidates;
  std::vector<uint32_t> visit_starts, visits;  // leaf -> the choices that name it
  std::vector<float> scores, gathered, reduced;
  std::vector<float> queries;                  // of a block that was put together
  std::vector<float> origin_scores;            // [count][num_origins], where rows alone are scored
  std::vector<const float*> of_origins;        // those of the queries that visit a leaf
  std::vector<uint32_t> rows, slots;
  std::vector<uint64_t> places;
  RoundedQueries rounded, visiting;
  bool is_rounded = false;  // the block's queries are, for rows or for unpacked codes
  RoundedRows rounded_rows;
  WideQueries wide;
  RowCopies row_copies;           // of new rows, for many queries
  std::vector<float> thresholds;  // of queries against rounded rows
  FoundRows found;                // of rounded rows; and those of each query side by side
  std::vector<FoundRow> found_rows;
  std::vector<uint32_t> found_starts;
  std::vector<uint16_t> masks;    // of unpacked codes that pass
  std::vector<uint32_t> passing, entries;  // of rows that pass, and are scored
  std::vector<Key> waiting;       // of each query, by their bounds (waiting.h)
  std::vector<uint32_t> num_waiting;
  std::vector<float> gathered_rows;
  ByteRows* kept = nullptr;       // of the index, where the block goes by them
  bool rounds = false;            // else rows may be rounded for the block
  bool widens = false;            // else rows of int8 are held against queries in 16 bits
  size_t num_filtered = 0, num_scored = 0;  // pairs of a query and an entry
  std::vector<int8_t> query_bytes;       // [count][quads][4] of the queries, rounded for unpacked codes
  std::vector<UnpackedQuery> unpacked_queries;  // [count]
  std::vector<uint8_t> leaf_codes;       // of a leaf, unpacked
  std::vector<ScanQuery> unpacked_scans;
  std::vector<uint32_t> unpacked_visits;  // of those scans
};

struct Block {
  const IndexView& index;
  const Changes* changes;  // or null
  const SearchLimits& limits;
  const float* queries;  // [count][dim], for exact scores
  const float* reduced;  // [count][reduced_dim], for centroids and codes
  size_t count;
  Scratch& scratch;

  const float* query(size_t q) const { return queries + q * index.dim; }
  // A query's scores of the origins of rows, or null.
  const float* of_origins(size_t q) const {
    const size_t n = index.rows.num_origins;
    return n == 0 ? nullptr : scratch.origin_scores.data() + q * n;
  }
  const float* reduced_query(size_t q) const { return reduced + q * index.reduced_dim; }
  // A query's table begins on a cache line.
  uint8_t* lut(size_t q) const { return scratch.luts.data() + q * table_bytes(index); }
  static size_t table_bytes(const IndexView& index) {
    return ceil_div(index.blocks * index.codewords, 64) * 64;
  }
};

inline size_t leaf_size(const IndexView& index, size_t leaf) {
  return index.leaf_starts[leaf + 1] - index.leaf_starts[leaf];
}

inline uint32_t row_of(const IndexView& index, uint32_t entry) {
  return index.entry_rows == nullptr ? entry : index.entry_rows[entry];
}

// The same of a candidate; rows of new datapoints go on from those of the index, and their entries likewise.
inline uint32_t row_of_candidate(const IndexView& index, uint32_t entry) {
  return entry < index.num_entries ? row_of(index, entry)
                                   : uint32_t(entry - index.num_entries + index.num_rows);
}

// Scores such rows exactly. of_origins: the query's scores of the origins, where they are known.
void score_candidates(const Block& block, const float* query, const uint32_t* rows, size_t count,
                      float* scores, const float* of_origins = nullptr);

// Drops the keys from `size` on whose datapoints are dead.
void drop_dead(const Block& block, Candidates& best, size_t size);

// Of new datapoints: keys from `size` on name places among `slots`; makes them name entries, which
// go on from those of the index, and drops the dead.
void name_new(const Block& block, const uint32_t* slots, Candidates& best, size_t size);

const uint8_t* codes_of(const IndexView& index, size_t leaf);

// Scores one leaf for the choices (positions in scratch.choices) that name it. `next` are the codes
// of the leaf that comes after this one, where that is known.
void scan_leaf(const Block& block, size_t leaf, const uint32_t* visits, size_t count,
               const uint8_t* next = nullptr);

// Before and after the rows of a block are scored.
void start_rows(const Block& block);
void end_rows(const Block& block);

// Scores rows of one leaf exactly for the queries that visit it: `visits` are positions in
// scratch.choices. New ones likewise.
void scan_rows(const Block& block, size_t leaf, const uint32_t* visits, size_t count);
void scan_new_rows(const Block& block, const NewLeaf& leaf, const uint32_t* visits, size_t count);

// What was found for query q, from its candidates: the result, or what gather_block says.
void write_result(const Block& block, size_t q, int64_t* ids, float* distances);
void write_found(const Block& block, size_t q, const uint32_t* whole_starts, const Found& found);

}  // namespace swann
