// The best candidates of a query: keys, and what is kept of them.
#include <algorithm>
#include <functional>
#include <utility>

#include "search.h"

namespace swann {

size_t cut_to(Key* keys, size_t size, size_t limit) noexcept {
  Key least;
  const size_t kept = kernels().keep_best(keys, size, limit, limit, &least);
  if (kept <= limit) return kept;
  // Of those with the least score, which come last then, some have to go.
  size_t above = 0;
  for (size_t i = 0; i < kept; ++i)
    if (key_score(keys[i]) > key_score(least)) std::swap(keys[above++], keys[i]);
  std::nth_element(keys + above, keys + (limit - 1), keys + kept, std::greater<>());
  return limit;
}

void Candidates::trim() noexcept {
  if (size < limit) return;
  Key least;
  size = kernels().keep_best(keys, size, limit, most(limit), &least);
  if (size > most(limit)) size = cut_to(keys, size, limit), least = 0;
  worst = least != 0 ? least : *std::min_element(keys, keys + size);
}

void Candidates::cut() noexcept {
  if (size < limit) return;
  Key least;
  size = kernels().keep_best(keys, size, limit, limit, &least);
  worst = least != 0 ? least : *std::min_element(keys, keys + size);
}

}  // namespace swann
