// What the scans of rows share: of an index (scan_rows.cpp), and of those that came later
// (scan_new_rows.cpp).
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "block.h"

namespace swann {

constexpr size_t kExactRows = 128;    // rows scored at a time
constexpr size_t kRoundedRows = 512;  // rows held against thresholds at a time
constexpr size_t kManyQueries = 24;   // from here on it pays to round rows

// The rows of entries: of those of the index or, where they are new, of the places of a chunk.
struct EntryRows {
  const ExactRows& rows;
  const uint32_t* of_entries;  // or null: they are the same
  bool are_new;
};

// Makes room for what is scored.
void make_room(const Block& block);

// The queries of `count` visits side by side: of all of a block, or of one, as they lie.
const float* visiting(const Block& block, const uint32_t* visits, size_t count);

// The scores of the origins of rows of the queries that visit a leaf.
const float* const* origins_of(const Block& block, const uint32_t* visits, size_t count);

// Adds the keys of scores that reach the threshold; returns how many keys there were before, after
// a cut where there was no room.
size_t offer_scores(Candidates& best, const float* scores, size_t count, uint32_t first_row,
                    uint32_t* found);

// The rounded queries of `count` visits side by side.
const RoundedQueries& rounded_visiting(const Block& block, const uint32_t* visits, size_t count);

// Whether each query has seen enough rows to have a threshold.
bool have_thresholds(const Block& block, const uint32_t* visits, size_t count);

// Scores, of entries [first, first + n), those that may be among the best. `rows` are the rounded
// ones from entry `base` on.
void filter_part(const Block& block, const EntryRows& from, const I8Rows& rows, size_t base,
                 size_t first, size_t n, const RoundedQueries& queries, const uint32_t* visits,
                 size_t count);

// Goes through rows in pieces: short ones first, after which thresholds are far better.
template <typename Run>
size_t in_pieces(size_t rows, Run run) {
  size_t most = kExactRows;
  for (size_t at = 0, n; at < rows; at += n, most = std::min(2 * most, kRoundedRows)) {
    n = std::min(most, rows - at);
    if (!run(at, n)) return at;
  }
  return rows;
}

}  // namespace swann
