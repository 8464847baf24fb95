// What the scans of rows share: of an index (scan_rows.cpp), and of those that came later
// (scan_new_rows.cpp).
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "waiting.h"

namespace swann {

constexpr size_t kExactRows = 128;    // rows scored at a time
constexpr size_t kManyQueries = 24;   // from here on it pays to round rows
constexpr size_t kDense = 2;          // queries that want a row, on the mean: where more do, it is near

// What rows are called while they wait: entries of the index or, of a chunk, slots that go on from them.
struct EntryNames {
  const uint32_t* slots = nullptr;
  size_t entries = 0;  // of the index

  uint32_t name(size_t at) const { return uint32_t(slots == nullptr ? at : entries + slots[at]); }
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

// Has those of entries [first, first + n) wait that may be among the best, or scores them at once where many
// queries want the same. `rows` are the rounded ones from entry `base` on.
void filter_part(const Block& block, const EntryNames& names, const I8Rows& rows, size_t base,
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
