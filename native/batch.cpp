// Many queries: cut into blocks for the threads, those of near leaves together.
#include <algorithm>
#include <utility>
#include <vector>

#include "search.h"
#include "threads.h"

namespace swann {
namespace {

// Blocks pay for being chosen by their leaves when there are several, and queries visit few leaves.
bool sorting_pays(const IndexView& index, const SearchLimits& limits, size_t count, size_t most) {
  return count > most && 4 * limits.leaves <= index.num_leaves;
}

// The queries in the order of their best leaves.
std::vector<uint32_t> order_by_leaf(const std::vector<LeafChoice>& choices, size_t leaves) {
  std::vector<std::pair<uint32_t, uint32_t>> keys(choices.size() / leaves);
  for (size_t q = 0; q < keys.size(); ++q) keys[q] = {choices[q * leaves].leaf, uint32_t(q)};
  std::sort(keys.begin(), keys.end());
  std::vector<uint32_t> order(keys.size());
  for (size_t i = 0; i < keys.size(); ++i) order[i] = keys[i].second;
  return order;
}

// Near leaves have near numbers in an index that was built here: the queries of a block then visit
// few leaves, each of them many times, and have candidates in common.
void search_sorted(const IndexView& index, const Changes* changes, const SearchLimits& limits,
                   size_t most, const float* queries, size_t count, size_t threads, int64_t* ids,
                   float* distances) {
  const size_t dim = index.reduced_dim, leaves = limits.leaves;
  std::vector<float> projected;
  const float* reduced = reduce_queries(index, queries, count, threads, projected);
  std::vector<LeafChoice> choices(count * leaves);
  for_blocks(count, threads, most, [&](size_t first, size_t size) {
    choose_leaves(index, reduced + first * dim, size, leaves, choices.data() + first * leaves);
  });
  const std::vector<uint32_t> order = order_by_leaf(choices, leaves);
  for_blocks(count, threads, most, [&](size_t first, size_t size) {
    search_chosen(index, changes, limits, {queries, reduced, choices.data()}, order.data() + first,
                  size, ids, distances);
  });
}

}  // namespace

void search_batch(const IndexView& index, const Changes* changes, const SearchLimits& limits,
                  const float* queries, size_t count, size_t threads, int64_t* ids,
                  float* distances) {
  constexpr size_t kMaxBytes = size_t(64) << 20;  // of the leaves chosen for queries at a time
  const size_t k = limits.neighbors, most = most_queries(index, limits);
  if (!sorting_pays(index, limits, count, most)) {
    for_blocks(count, threads, most, [&](size_t first, size_t size) {
      search_block(index, changes, limits, queries + first * index.dim, size, ids + first * k,
                   distances + first * k);
    });
    return;
  }
  const size_t bytes = limits.leaves * sizeof(LeafChoice) + index.reduced_dim * sizeof(float);
  const size_t part = std::max(kMaxBytes / bytes, most);
  for (size_t first = 0; first < count; first += part)
    search_sorted(index, changes, limits, most, queries + first * index.dim,
                  std::min(part, count - first), threads, ids + first * k, distances + first * k);
}

}  // namespace swann
