// Rows that may be among a query's best, by bounds of their scores. They wait until many do: then those with the
// greatest bounds are scored, and most of the others need not be.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "block.h"

namespace swann {

// Rows that are held against thresholds at a time.
constexpr size_t kRoundedRows = 512;

// Rows of a query that wait while the next ones are held against thresholds, at most.
constexpr size_t most_waiting(size_t limit) noexcept {
  return std::clamp<size_t>(limit / 2, 32, 256);
}

// Room for those and for all of the next ones.
constexpr size_t room_to_wait(size_t limit) noexcept { return kRoundedRows + most_waiting(limit); }

// The keys of a query's rows: their bounds, and their entries.
inline Key* waiting_of(const Block& block, size_t q) {
  return block.scratch.waiting.data() + q * room_to_wait(block.limits.candidates);
}

// Makes room for a block, of which no row waits yet.
void start_waiting(const Block& block);

// What a bound has to reach for its row to be among the best of a query, which has a threshold. Under
// squared l2 bounds are of <q, x> - |x|^2 / 2.
float least_bound(const Block& block, size_t q);

// Has a row wait; entries of new ones go on from those of the index.
inline void wait(const Block& block, size_t q, float bound, uint32_t entry) {
  waiting_of(block, q)[block.scratch.num_waiting[q]++] = make_key(ordered(bound), entry);
}

// Scores rows that wait, the greatest bounds first, until no more than `most` are left.
void score_best_waiting(const Block& block, size_t q, size_t most);

// Scores entries, kRoundedRows at most, and adds those to the best that reach the threshold.
void score_entries(const Block& block, size_t q, const uint32_t* entries, size_t count);

// Has as many of a query's rows scored that there is room for the next ones.
inline void make_room_to_wait(const Block& block, size_t q) {
  const size_t most = most_waiting(block.limits.candidates);
  if (block.scratch.num_waiting[q] > most) score_best_waiting(block, q, most);
}

}  // namespace swann
