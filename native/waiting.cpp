#include "waiting.h"

#include <algorithm>
#include <cmath>

namespace swann {

void start_waiting(const Block& block) {
  Scratch& s = block.scratch;
  s.waiting.resize(block.count * room_to_wait(block.limits.candidates));
  s.num_waiting.assign(block.count, 0);
}

float least_bound(const Block& block, size_t q) {
  const Scratch& s = block.scratch;
  const float worst = from_ordered(key_score(s.candidates[q].worst));
  if (!block.index.squared_l2()) return worst;
  // <q, x> - |x|^2 / 2 >= (|q|^2 - d) / 2, d being the greatest squared distance of the best.
  const float half = s.widens ? s.wide.halves[q] : s.rounded.halves[q];
  return worst / 2 + half - 4 * rounding(block.index.dim) * (half + std::fabs(worst));
}

void score_entries(const Block& block, size_t q, const uint32_t* entries, size_t count) {
  Scratch& s = block.scratch;
  const bool any_dead = block.changes != nullptr && block.changes->dead > 0;
  size_t alive = 0;
  for (size_t i = 0; i < count; ++i) {
    s.entries[alive] = entries[i];
    s.rows[alive] = row_of_candidate(block.index, entries[i]);
    alive += !(any_dead && block.changes->is_dead(s.rows[alive]));
  }
  score_candidates(block, block.query(q), s.rows.data(), alive, s.scores.data(),
                   block.of_origins(q));
  Candidates& best = s.candidates[q];
  if (best.capacity - best.size < alive) best.trim();
  const int32_t worst = key_score(best.worst);
  for (size_t i = 0; i < alive; ++i)
    if (ordered(s.scores[i]) >= worst)
      best.keys[best.size++] = make_key(ordered(s.scores[i]), s.entries[i]);
  if (best.size > best.limit + best.limit / 4) best.cut();
  if (best.size > Candidates::most(best.limit))  // ties
    best.size = cut_to(best.keys, best.size, best.limit);
  s.num_scored += count;
}

namespace {

// Drops what cannot be among the best any more; returns how many are left.
size_t drop_hopeless(const Block& block, size_t q, Key* keys, size_t size) {
  const Key least = make_key(ordered(least_bound(block, q)), ~0u);  // the last of its score: ties stay
  return size_t(std::remove_if(keys, keys + size, [&](Key key) { return key < least; }) - keys);
}

}  // namespace

void score_best_waiting(const Block& block, size_t q, size_t most) {
  constexpr size_t kTogether = 16;
  Candidates& best = block.scratch.candidates[q];
  Key* const keys = waiting_of(block, q);
  uint32_t* const entries = block.scratch.passing.data();  // which is free now
  size_t size = block.scratch.num_waiting[q];
  const bool has_new = block.changes != nullptr && block.changes->slots > 0;
  // Twice as many each time, since those that are left are sorted again.
  for (size_t n = std::max(kTogether, best.limit / 4); size > most; n *= 2) {
    size = drop_hopeless(block, q, keys, size);
    if (size <= most) break;
    n = std::min({n, size, kRoundedRows});
    std::nth_element(keys, keys + (size - n), keys + size);
    size -= n;
    for (size_t i = 0; i < n; ++i) entries[i] = key_row(keys[size + i]);
    if (has_new)  // which lie apart
      std::partition(entries, entries + n,
                     [&](uint32_t entry) { return entry < block.index.num_entries; });
    score_entries(block, q, entries, n);
  }
  block.scratch.num_waiting[q] = uint32_t(size);
}

}  // namespace swann
