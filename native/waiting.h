// Rows that may be among a query's best, by bounds of their scores. They wait until it is known better what
// the best are: then those with the greatest bounds are scored, and most of the others need not be.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "block.h"

namespace swann {

// Rows that are held against thresholds at a time, and of which none waits.
constexpr size_t kRoundedRows = 512;

// Rows of a query that wait from one such time to the next, at most.
constexpr size_t most_waiting(size_t limit) noexcept {
  return std::clamp<size_t>(limit / 2, 32, 256);
}

// Room for the rows of a query that wait.
constexpr size_t room_to_wait(size_t limit) noexcept { return kRoundedRows + most_waiting(limit); }

// No row waits then.
void start_waiting(const Block& block);

// What a bound has to reach for its row to be among the best of a query, which has a threshold. Under
// squared l2 bounds are of <q, x> - |x|^2 / 2.
float least_bound(const Block& block, size_t q);

// Has a row wait; new ones go on from the entries of the index.
inline void wait(Scratch& s, size_t q, float bound, uint32_t entry) {
  Key* const keys = s.waiting.data() + q * room_to_wait(s.candidates[q].limit);
  keys[s.num_waiting[q]++] = make_key(ordered(bound), entry);
}

// Scores rows that wait, the greatest bounds first, until no more than `most` are left.
void score_best_waiting(const Block& block, size_t q, size_t most);

// Scores entries, kRoundedRows at most, and adds those to the best that reach the threshold.
void score_entries(const Block& block, size_t q, const uint32_t* entries, size_t count);

// Makes room for the next ones.
inline void make_room_to_wait(const Block& block, size_t q) {
  const size_t most = most_waiting(block.limits.candidates);
  if (block.scratch.num_waiting[q] > most) score_best_waiting(block, q, most);
}

}  // namespace swann
