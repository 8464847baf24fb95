// Exact scores of rows that came later: in the chunks of a leaf, as those of the leaf itself
// (scan_rows.cpp).
#include <algorithm>

#include "scan_rows.h"

namespace swann {
namespace {

// Scores the new rows that are named for all visits of a leaf. Many queries share the reading of rows.
void score_new(const Block& block, const ExactRows& rows, const uint32_t* slots, size_t n,
               const float* queries, const uint32_t* visits, size_t count) {
  constexpr size_t kShare = 4;
  const IndexView& index = block.index;
  Scratch& s = block.scratch;
  const float* const* of_origins = origins_of(block, visits, count);
  const bool in_order = slots[n - 1] - slots[0] == n - 1 && std::is_sorted(slots, slots + n);
  if (in_order)
    score_run(rows, index.squared_l2(), queries, count, slots[0], n, s.scores.data(), kExactRows,
              of_origins);
  else if (count >= kShare)
    score_run(s.row_copies.take(rows, slots, n), index.squared_l2(), queries, count, 0, n,
              s.scores.data(), kExactRows, of_origins);
  else
    for (size_t i = 0; i < count; ++i)
      score_rows(rows, index.squared_l2(), queries + i * index.dim, slots, n,
                 s.scores.data() + i * kExactRows, of_origins[i]);
}

// The rows of a chunk: their store, and which they are there.
struct ChunkRows {
  const ExactRows& rows;
  const uint32_t* slots;
};

// Rounds the rows in slots [first, first + count) of a chunk.
void take_slots(const Block& block, const ChunkRows& from, size_t first, size_t count,
                const float* weights, const I8Rows& out) {
  const size_t dim = block.index.dim;
  std::vector<float>& buffer = block.scratch.gathered_rows;
  buffer.resize(count * dim);
  for (size_t i = 0; i < count; ++i)
    copy_row(from.rows, from.slots[first + i], buffer.data() + i * dim);
  kernels().i8_pack(buffer.data(), count, dim, weights, &out);
}

EntryNames names_of(const Block& block, const ChunkRows& from) {
  return {from.slots, block.index.num_entries};
}

// As filter_kept and filter_rounded, of the places of a chunk from `at` on; returns how many they have
// gone through. What is kept is whole sixteens, to which nothing is added.
size_t filter_new_kept(const Block& block, const Chunk& chunk, const ChunkRows& from, size_t at,
                       size_t size, const uint32_t* visits, size_t count) {
  const size_t end = size / kI8Group * kI8Group;
  if (at >= end) return 0;
  ByteParts* const kept = chunk.bytes.with_room(chunk.slots.size(), block.index.dim);
  if (kept == nullptr) return 0;
  const RoundedQueries& queries = rounded_visiting(block, visits, count);
  const float* const weights = block.scratch.kept->weights().data();
  return in_pieces(end - at, [&](size_t piece, size_t n) {
    const size_t first = at + piece;
    const bool made = kept->make(first, n, [&](size_t begin, size_t some, const I8Rows& out) {
      take_slots(block, from, begin, some, weights, out);
    });
    if (made)
      filter_part(block, names_of(block, from), kept->from_group(first / kI8Group), first, first, n,
                  queries, visits, count);
    return made;
  });
}

size_t filter_new_rounded(const Block& block, const ChunkRows& from, size_t at, size_t size,
                          const uint32_t* visits, size_t count) {
  Scratch& s = block.scratch;
  const RoundedQueries& queries = rounded_visiting(block, visits, count);
  s.rounded_rows.resize(kRoundedRows, block.index.dim);
  const I8Rows view = s.rounded_rows.view();
  return in_pieces(size - at, [&](size_t piece, size_t n) {
    take_slots(block, from, at + piece, n, s.rounded.weights.data(), view);
    filter_part(block, names_of(block, from), view, at + piece, at + piece, n, queries, visits, count);
    return true;
  });
}

size_t filter_new(const Block& block, const Chunk& chunk, const ChunkRows& from, size_t at,
                  size_t size, const uint32_t* visits, size_t count) {
  const Scratch& s = block.scratch;
  const bool rounds = s.rounds && count >= kManyQueries && size - at > kExactRows;
  if ((s.kept == nullptr && !rounds) || from.rows.i8 != nullptr) return 0;
  if (!have_thresholds(block, visits, count)) return 0;
  return rounds ? filter_new_rounded(block, from, at, size, visits, count)
                : filter_new_kept(block, chunk, from, at, size, visits, count);
}

// Scores the rows of the first `size` places of a chunk.
void scan_chunk(const Block& block, const ExactRows& rows, const Chunk& chunk, size_t size,
                const uint32_t* visits, size_t count) {
  Scratch& s = block.scratch;
  const uint32_t* const slots = chunk.slots.data();
  const ChunkRows from{rows, slots};
  const float* queries = nullptr;
  for (size_t at = 0, n; at < size; at += n) {
    n = filter_new(block, chunk, from, at, size, visits, count);
    if (n > 0) continue;
    n = std::min(kExactRows, size - at);
    if (queries == nullptr) queries = visiting(block, visits, count);
    score_new(block, rows, slots + at, n, queries, visits, count);
    for (size_t i = 0; i < count; ++i) {
      Candidates& best = s.candidates[visits[i] / block.limits.leaves];
      const size_t before =
          offer_scores(best, s.scores.data() + i * kExactRows, n, 0, s.rows.data());
      name_new(block, slots + at, best, before);
    }
  }
}

}  // namespace

void scan_new_rows(const Block& block, const NewLeaf& leaf, const uint32_t* visits, size_t count) {
  const ExactRows rows = block.changes->rows->exact(block.index.rows);
  make_room(block);
  for (size_t at = 0; at < leaf.count; at += Chunk::kMost)
    scan_chunk(block, rows, *leaf.chunks[at / Chunk::kMost],
               std::min(Chunk::kMost, leaf.count - at), visits, count);
}

}  // namespace swann
