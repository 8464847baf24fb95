// Which leaf a row goes to: the one of the nearest centroid.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "bounds.h"
#include "kernels.h"
#include "rounded.h"
#include "threads.h"
#include "train.h"

namespace swann {
namespace {

constexpr size_t kRowsPerTask = 96;      // a multiple of the rows that a kernel takes at once
constexpr size_t kCentroidsAtOnce = 512; // keeps a task's scores in the second-level cache
constexpr size_t kFew = 32;              // centroids that are scored in no time

size_t up_to_lanes(size_t count) { return tiles_of(count) * kLanes; }

// The scores of up to kRowsPerTask rows and some centroids.
struct Scores {
  AlignedFloats dots;
  size_t stride = 0;

  void fill(const float* rows, size_t count, const float* tiles, size_t num, size_t dim) {
    stride = up_to_lanes(num);
    dots.resize(kRowsPerTask * stride);
    kernels().dot_tiles_f32(rows, count, tiles, stride / kLanes, dim, dots.data(), stride);
  }
};

// Tells the nearest centroids of rows. Products of bytes or, where a level has none, tiles find the few that
// may be the nearest. Their scores are summed up in one way, and of equal ones the first counts: labels depend
// on nothing else.
class Nearest {
 public:
  static constexpr size_t kRows = CentroidBounds::kVectors;  // of by_bounds, at a time

  // Of `all` those that `rounded` holds: the ones in the list, or the ones in their order where it is
  // null. `ahead` [next] are rows that come later.
  void by_bounds(const TiledCentroids& all, const RoundedCentroids& rounded, const uint32_t* list,
                 const float* const* rows, size_t count, const float* const* ahead, size_t next,
                 uint32_t* labels, float* scores) {
    constexpr size_t kGroupsAtOnce = kCentroidsAtOnce / kI8Group;
    float least[kRows];
    start(count, labels, scores);
    std::fill_n(least, count, -std::numeric_limits<float>::infinity());
    bounds_.round(rounded, Ranking::nearest, rows, count, ahead, next);
    for (size_t g = 0; g < rounded.groups(); g += kGroupsAtOnce) {
      const size_t first = g * kI8Group, groups = std::min(kGroupsAtOnce, rounded.groups() - g);
      bounds_.find(rounded, g, groups, 0.0f);
      for (size_t i = 0; i < count; ++i) {
        least[i] = std::max(least[i], bounds_.greatest(i));
        settle(all, rows[i], bounds_.upper(i), std::min(groups * kI8Group, rounded.num - first),
               least[i], first, list, &labels[i], &scores[i]);
      }
    }
  }

  // The same of those whose tiles and halves are given.
  void by_floats(const TiledCentroids& all, const float* tiles, const float* halves, size_t num,
                 const uint32_t* list, const float* rows, size_t count, uint32_t* labels,
                 float* scores) {
    const size_t dim = all.dim;
    // How far apart two sums of the same products may be, one of them in a single chain.
    const float apart = float(dim) * 2.4e-7f + 4 * rounding(dim);
    float least[kRowsPerTask], lost[kRowsPerTask];
    start(count, labels, scores);
    std::fill_n(least, count, -std::numeric_limits<float>::infinity());
    for (size_t i = 0; i < count; ++i) {
      const float length = float(std::sqrt(kernels().square_f64(rows + i * dim, dim)));
      lost[i] = apart * all.longest * (length + all.longest);
    }
    for (size_t c = 0; c < num; c += kCentroidsAtOnce) {
      const size_t width = std::min(kCentroidsAtOnce, num - c);
      seen_.fill(rows, count, tiles + c * dim, width, dim);
      for (size_t i = 0; i < count; ++i) {
        float* reached = seen_.dots.data() + i * seen_.stride;
        float greatest;
        kernels().argmax_f32(reached, halves + c, width, &greatest);
        for (size_t j = 0; j < width; ++j) reached[j] += halves[c + j];
        least[i] = std::max(least[i], greatest - lost[i]);
        settle(all, rows + i * dim, reached, width, least[i], c, list, &labels[i], &scores[i]);
      }
    }
  }

 private:
  static void start(size_t count, uint32_t* labels, float* scores) {
    std::fill_n(labels, count, 0u);
    std::fill_n(scores, count, -std::numeric_limits<float>::infinity());
  }

  // Takes the best of those centroids that may reach `least`, where it is better than *score.
  void settle(const TiledCentroids& all, const float* row, const float* upper, size_t count,
              float least, size_t first, const uint32_t* list, uint32_t* label, float* score) {
    near_.resize(std::max(near_.size(), count)), exact_.resize(std::max(exact_.size(), count));
    const size_t found = kernels().at_least_f32(upper, count, least, near_.data());
    for (size_t i = 0; i < found; ++i)
      near_[i] = list == nullptr ? uint32_t(first + near_[i]) : list[first + near_[i]];
    kernels().dot_gather_f32(row, all.rows, near_.data(), found, all.dim, exact_.data());
    for (size_t i = 0; i < found; ++i) {
      const float value = exact_[i] + all.halves[near_[i]];
      if (value > *score) *score = value, *label = near_[i];
    }
  }

  CentroidBounds bounds_;
  Scores seen_;
  std::vector<uint32_t> near_;
  std::vector<float> exact_;
};

// (<x, c> - |c|^2 / 2) / eta - (1 - 1 / eta) / 2 <e, x / |x|>^2 is greatest where the loss is
// least. Divided by eta, no part can overflow.
struct AnisotropicCost {
  float share, across;
  std::vector<float> bias;

  AnisotropicCost(float eta, const std::vector<float>& halves)
      : share(1.0f / eta), across(0.5f - 0.5f * share), bias(halves) {
    for (float& half : bias) half *= share;
  }

  // Of one row of this length: from dots to values, without the bias.
  void values(const float* dots, size_t count, float length, float* out) const {
    const float inverse = length > 0 ? 1.0f / length : 0.0f;
    for (size_t j = 0; j < count; ++j) {
      const float along = length - dots[j] * inverse;
      out[j] = share * dots[j] - across * along * along;
    }
  }
};

// The same of one row that has an eta of its own, which may be below 1; the bias is part of it.
void values_of_row(float eta, const float* dots, const float* halves, size_t count, float length,
                   float* out) {
  const float share = 1.0f / std::max(eta, 1.0f), across = (eta - 1.0f) * share * 0.5f;
  const float inverse = length > 0 ? 1.0f / length : 0.0f;
  for (size_t j = 0; j < count; ++j) {
    const float along = length - dots[j] * inverse;
    out[j] = share * (dots[j] + halves[j]) - across * along * along;
  }
}

// By the scores of tiles as they are: by a loss, or where there are few centroids.
void assign_by_tiles(const float* rows, size_t count, const TiledCentroids& centroids,
                     size_t threads, uint32_t* labels, float* scores, float eta,
                     const float* etas) {
  const KernelTable& k = kernels();
  const size_t dim = centroids.dim;
  const AnisotropicCost cost(eta, centroids.halves);
  const std::vector<float> no_bias(etas == nullptr ? 0 : kCentroidsAtOnce);
  const bool need_lengths = eta > 1.0f || etas != nullptr;
  parallel_for(ceil_div(count, kRowsPerTask), threads, [&](size_t task) {
    thread_local Scores seen;
    thread_local std::vector<float> costs;
    costs.resize(kCentroidsAtOnce);
    const size_t first = task * kRowsPerTask, n = std::min(kRowsPerTask, count - first);
    const float* x = rows + first * dim;
    float reached[kRowsPerTask], length[kRowsPerTask];
    std::fill_n(reached, n, -std::numeric_limits<float>::infinity());
    std::fill_n(scores + first, n, 0.0f);
    std::fill_n(labels + first, n, 0u);
    for (size_t i = 0; i < n && need_lengths; ++i) {
      k.dot_f32(x + i * dim, 1, x + i * dim, 1, dim, &length[i], 1);
      length[i] = std::sqrt(length[i]);
    }
    for (size_t c = 0; c < centroids.num; c += kCentroidsAtOnce) {
      const size_t width = std::min(kCentroidsAtOnce, centroids.num - c);
      seen.fill(x, n, centroids.tiles.data() + c * dim, width, dim);
      for (size_t i = 0; i < n; ++i) {
        const float* dot = seen.dots.data() + i * seen.stride;
        const float *value = dot, *bias = cost.bias.data() + c;
        if (etas != nullptr) {
          values_of_row(etas[first + i], dot, centroids.halves.data() + c, width, length[i],
                        costs.data());
          value = costs.data(), bias = no_bias.data();
        } else if (eta > 1.0f) {
          cost.values(dot, width, length[i], costs.data()), value = costs.data();
        }
        float best;
        const size_t at = k.argmax_f32(value, bias, width, &best);
        if (best > reached[i]) {
          reached[i] = best;
          labels[first + i] = uint32_t(c + at);
          scores[first + i] = dot[at] + centroids.halves[c + at];
        }
      }
    }
  });
}

}  // namespace

TiledCentroids::TiledCentroids(const float* centroids, size_t num_leaves, size_t dimension,
                               size_t threads)
    : num(num_leaves), dim(dimension), rows(centroids), tiles(up_to_lanes(num_leaves) * dimension),
      halves(num_leaves) {
  make_tiles(centroids, num, dim, nullptr, nullptr, threads, tiles.data(), nullptr);
  for (size_t c = 0; c < num; ++c) {
    const float* centroid = centroids + c * dim;
    kernels().dot_f32(centroid, 1, centroid, 1, dim, &halves[c], 1);
    longest = std::max(longest, halves[c]);
    halves[c] *= -0.5f;
  }
  longest = std::sqrt(longest);
  if (num > kFew && RoundedCentroids::are_faster(dim))
    rounded = RoundedCentroids(centroids, num, dim, threads);
}

size_t TiledCentroids::nbytes() const noexcept {
  return tiles.nbytes() + halves.size() * sizeof(float) + rounded.nbytes();
}

void assign_leaves(const float* rows, size_t count, const TiledCentroids& centroids,
                   size_t threads, uint32_t* labels, float* scores, float eta,
                   const float* etas) {
  if (eta > 1.0f || etas != nullptr || centroids.num <= kFew)
    return assign_by_tiles(rows, count, centroids, threads, labels, scores, eta, etas);
  const size_t dim = centroids.dim;
  parallel_for(ceil_div(count, kRowsPerTask), threads, [&](size_t task) {
    thread_local Nearest nearest;
    const size_t end = std::min(count, (task + 1) * kRowsPerTask);
    size_t first = task * kRowsPerTask;
    if (centroids.rounded.empty())
      return nearest.by_floats(centroids, centroids.tiles.data(), centroids.halves.data(),
                               centroids.num, nullptr, rows + first * dim, end - first,
                               labels + first, scores + first);
    for (; first < end; first += Nearest::kRows) {
      const size_t n = std::min(Nearest::kRows, end - first);
      const float* some[Nearest::kRows];
      for (size_t i = 0; i < n; ++i) some[i] = rows + (first + i) * dim;
      nearest.by_bounds(centroids, centroids.rounded, nullptr, some, n, nullptr, 0,
                        labels + first, scores + first);
    }
  });
}

namespace {

// The positions of the `width` greatest of scores, of equal ones the first, in ascending order; `found`
// has room for all.
void best_positions(const float* scores, size_t count, size_t width, std::vector<uint32_t>& found,
                    uint32_t* list) {
  const KernelTable& k = kernels();
  const float least = k.least_of_best_f32(scores, count, width);
  const size_t few = k.at_least_f32(scores, count, least, found.data());
  std::nth_element(found.begin(), found.begin() + ptrdiff_t(width - 1), found.begin() + ptrdiff_t(few),
                   [&](uint32_t a, uint32_t b) {
                     return scores[a] != scores[b] ? scores[a] > scores[b] : a < b;
                   });
  std::sort(found.begin(), found.begin() + ptrdiff_t(width));
  std::copy_n(found.begin(), width, list);
}

// The `width` centroids nearest to each origin, in ascending order: [num][width].
std::vector<uint32_t> near_centroids(const float* origins, const TiledCentroids& centroids,
                                     size_t width, size_t threads) {
  const size_t num = centroids.num, dim = centroids.dim;
  std::vector<uint32_t> near(num * width);
  parallel_for(ceil_div(num, kRowsPerTask), threads, [&](size_t task) {
    thread_local Scores seen;
    thread_local std::vector<uint32_t> found;
    found.resize(num);
    const size_t first = task * kRowsPerTask, n = std::min(kRowsPerTask, num - first);
    seen.fill(origins + first * dim, n, centroids.tiles.data(), num, dim);
    for (size_t i = 0; i < n; ++i) {
      float* nearness = seen.dots.data() + i * seen.stride;
      for (size_t c = 0; c < num; ++c) nearness[c] += centroids.halves[c];
      best_positions(nearness, num, width, found, near.data() + (first + i) * width);
    }
  });
  return near;
}

// Rows of one leaf, a few at a time.
class NearLeaf {
 public:
  NearLeaf(const float* rows, const uint32_t* order, size_t begin, size_t end, size_t together,
           size_t dim)
      : rows_(rows), order_(order), first_(begin), end_(end), together_(together), dim_(dim) {
    look_ahead(first_);
  }

  // Steps to the next rows; false where there are none.
  bool step() {
    if (next == 0) return false;
    count = next;
    numbers = order_ + first_;
    std::copy_n(ahead, count, which);
    first_ += count;
    look_ahead(first_);
    return true;
  }

  const float *which[kRowsPerTask], *ahead[kRowsPerTask];
  size_t count = 0, next = 0;
  const uint32_t* numbers = nullptr;

 private:
  void look_ahead(size_t from) {
    next = std::min(together_, end_ - from);
    for (size_t i = 0; i < next; ++i) ahead[i] = rows_ + size_t(order_[from + i]) * dim_;
  }

  const float* rows_;
  const uint32_t* order_;
  size_t first_, end_, together_, dim_;
};

// What a leaf's rows are compared with, in float32.
struct Gathered {
  AlignedFloats tiles;
  std::vector<float> halves, rows;

  void take(const TiledCentroids& from, const uint32_t* list, size_t count) {
    const size_t dim = from.dim;
    tiles.resize(up_to_lanes(count) * dim), halves.resize(count), rows.resize(kRowsPerTask * dim);
    std::fill_n(tiles.data(), up_to_lanes(count) * dim, 0.0f);
    for (size_t i = 0; i < count; ++i) {
      const float* centroid = from.rows + size_t(list[i]) * dim;
      float* tile = tiles.data() + i / kLanes * kLanes * dim + i % kLanes;
      for (size_t j = 0; j < dim; ++j) tile[j * kLanes] = centroid[j];
      halves[i] = from.halves[list[i]];
    }
  }
};

}  // namespace

void assign_near(const float* rows, const float* origins, const TiledCentroids& centroids,
                 size_t width, const uint32_t* order, const uint32_t* starts, size_t threads,
                 uint32_t* labels, float* scores) {
  const size_t dim = centroids.dim;
  const bool rounds = !centroids.rounded.empty();
  const std::vector<uint32_t> near = near_centroids(origins, centroids, width, threads);
  parallel_for(centroids.num, threads, [&](size_t number) {
    thread_local Nearest nearest;
    thread_local RoundedCentroids rounded;
    thread_local Gathered gathered;
    const uint32_t* list = near.data() + number * width;
    NearLeaf leaf(rows, order, starts[number], starts[number + 1],
                  rounds ? Nearest::kRows : kRowsPerTask, dim);
    if (leaf.next == 0) return;
    if (rounds)
      rounded.take(centroids.rounded, list, width);
    else
      gathered.take(centroids, list, width);
    uint32_t found[kRowsPerTask];
    float reached[kRowsPerTask];
    while (leaf.step()) {
      if (rounds) {
        nearest.by_bounds(centroids, rounded, list, leaf.which, leaf.count, leaf.ahead, leaf.next,
                          found, reached);
      } else {
        for (size_t i = 0; i < leaf.count; ++i)
          std::copy_n(leaf.which[i], dim, gathered.rows.data() + i * dim);
        nearest.by_floats(centroids, gathered.tiles.data(), gathered.halves.data(), width, list,
                          gathered.rows.data(), leaf.count, found, reached);
      }
      for (size_t i = 0; i < leaf.count; ++i)
        labels[leaf.numbers[i]] = found[i], scores[leaf.numbers[i]] = reached[i];
    }
  });
}

}  // namespace swann
