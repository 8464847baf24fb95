// Answers of the parts of an index, put together.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "search.h"
#include "threads.h"

namespace swann {
namespace {

struct Candidate {
  Key first, last;
  float distance;
};

// The numbers that were seen, by open addressing.
class Seen {
 public:
  void clear(size_t most) {
    bits_ = std::bit_width(2 * most);
    table_.assign(size_t(1) << bits_, kNone);
  }

  // Whether it is new.
  bool add(uint32_t number) {
    size_t at = number * 0x9E3779B1u >> (32 - bits_);
    while (table_[at] != kNone && table_[at] != number) at = (at + 1) & (table_.size() - 1);
    if (table_[at] == number) return false;
    table_[at] = number;
    return true;
  }

 private:
  static constexpr uint32_t kNone = ~0u;  // no datapoint
  std::vector<uint32_t> table_;
  int bits_ = 0;
};

// Where each part has the answer to each query: [query][part], or kNowhere.
constexpr uint32_t kNowhere = ~0u;

std::vector<uint32_t> places_of(const FoundPart* parts, size_t num_parts, size_t count) {
  std::vector<uint32_t> places(count * num_parts, kNowhere);
  for (size_t p = 0; p < num_parts; ++p)
    for (size_t i = 0; i < parts[p].count; ++i)
      places[parts[p].queries[i] * num_parts + p] = uint32_t(i);
  return places;
}

// Fills `all` with what the parts found for one query, the best `limit` by their first keys.
void collect(const FoundPart* parts, size_t num_parts, const uint32_t* places, size_t limit,
             std::vector<Candidate>& all) {
  all.clear();
  for (size_t p = 0; p < num_parts; ++p) {
    if (places[p] == kNowhere) continue;
    const size_t begin = places[p] * parts[p].width, end = begin + parts[p].width;
    for (size_t i = begin; i < end && parts[p].first[i] != 0; ++i)
      all.push_back({parts[p].first[i], parts[p].last[i], parts[p].distances[i]});
  }
  if (all.size() <= limit) return;
  std::nth_element(all.begin(), all.begin() + std::ptrdiff_t(limit), all.end(),
                   [](const Candidate& a, const Candidate& b) { return a.first > b.first; });
  all.resize(limit);
}

}  // namespace

void merge_found(const FoundPart* parts, size_t num_parts, const SearchLimits& limits, size_t count,
                 size_t threads, int64_t* ids, float* distances) {
  constexpr size_t kAtOnce = 64;
  const std::vector<uint32_t> places = places_of(parts, num_parts, count);
  const size_t k = limits.neighbors;
  parallel_for(ceil_div(count, kAtOnce), threads, [&](size_t task) {
    thread_local std::vector<Candidate> all;
    thread_local Seen seen;
    for (size_t q = task * kAtOnce; q < std::min(count, (task + 1) * kAtOnce); ++q) {
      collect(parts, num_parts, places.data() + q * num_parts, limits.candidates, all);
      std::sort(all.begin(), all.end(),
                [](const Candidate& a, const Candidate& b) { return a.last > b.last; });
      seen.clear(all.size());
      size_t found = 0;
      for (size_t i = 0; i < all.size() && found < k; ++i) {
        const uint32_t number = key_row(all[i].last);
        if (!seen.add(number)) continue;
        ids[q * k + found] = number;
        distances[q * k + found++] = all[i].distance;
      }
      std::fill(ids + q * k + found, ids + (q + 1) * k, int64_t(-1));
      std::fill(distances + q * k + found, distances + (q + 1) * k,
                std::numeric_limits<float>::quiet_NaN());
    }
  });
}

}  // namespace swann
