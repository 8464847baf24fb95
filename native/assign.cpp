// Which leaf a row goes to: the nearest centroid, and SOAR's second one.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels.h"
#include "prefetch.h"
#include "threads.h"
#include "train.h"

namespace swann {
namespace {

constexpr size_t kRowsPerTask = 96;      // a multiple of the rows that a kernel takes at once
constexpr size_t kCentroidsAtOnce = 512; // keeps a task's scores in the second-level cache

size_t tasks(size_t count, size_t each) { return (count + each - 1) / each; }
size_t up_to_lanes(size_t count) { return tasks(count, kLanes) * kLanes; }

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

}  // namespace

TiledCentroids::TiledCentroids(const float* centroids, size_t num_leaves, size_t dimension,
                               size_t threads)
    : num(num_leaves), dim(dimension), tiles(up_to_lanes(num_leaves) * dimension),
      halves(num_leaves) {
  make_tiles(centroids, num, dim, nullptr, nullptr, threads, tiles.data(), nullptr);
  for (size_t c = 0; c < num; ++c) {
    const float* centroid = centroids + c * dim;
    kernels().dot_f32(centroid, 1, centroid, 1, dim, &halves[c], 1);
    halves[c] *= -0.5f;
  }
}

void assign_leaves(const float* rows, size_t count, const TiledCentroids& centroids,
                   size_t threads, uint32_t* labels, float* scores, float eta,
                   const float* etas) {
  const KernelTable& k = kernels();
  const size_t dim = centroids.dim;
  const AnisotropicCost cost(eta, centroids.halves);
  const std::vector<float> no_bias(etas == nullptr ? 0 : kCentroidsAtOnce);
  const bool need_lengths = eta > 1.0f || etas != nullptr;
  parallel_for(tasks(count, kRowsPerTask), threads, [&](size_t task) {
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

namespace {

// The `width` centroids nearest to each origin, in ascending order: [num][width].
std::vector<uint32_t> near_centroids(const float* origins, const TiledCentroids& centroids,
                                     size_t width, size_t threads) {
  const size_t num = centroids.num, dim = centroids.dim;
  std::vector<uint32_t> near(num * width);
  parallel_for(tasks(num, kRowsPerTask), threads, [&](size_t task) {
    thread_local Scores seen;
    thread_local std::vector<Key> keys;
    keys.resize(num);
    const size_t first = task * kRowsPerTask, n = std::min(kRowsPerTask, num - first);
    seen.fill(origins + first * dim, n, centroids.tiles.data(), num, dim);
    for (size_t i = 0; i < n; ++i) {
      float* nearness = seen.dots.data() + i * seen.stride;
      for (size_t c = 0; c < num; ++c) nearness[c] += centroids.halves[c];
      kernels().keys_from_f32(nearness, nullptr, 0.0f, num, keys.data());
      std::nth_element(keys.begin(), keys.begin() + ptrdiff_t(width - 1), keys.end(),
                       std::greater<>());
      uint32_t* list = near.data() + (first + i) * width;
      std::transform(keys.begin(), keys.begin() + ptrdiff_t(width), list, key_row);
      std::sort(list, list + width);
    }
  });
  return near;
}

// Some of the centroids, tiled.
struct Some {
  AlignedFloats tiles;
  std::vector<float> halves;

  void gather(const TiledCentroids& from, const uint32_t* list, size_t count) {
    const size_t dim = from.dim;
    tiles.resize(up_to_lanes(count) * dim);
    std::fill_n(tiles.data(), up_to_lanes(count) * dim, 0.0f);
    halves.resize(count);
    for (size_t c = 0; c < count; ++c) {
      const float* source = from.tiles.data() + list[c] / kLanes * kLanes * dim + list[c] % kLanes;
      float* target = tiles.data() + c / kLanes * kLanes * dim + c % kLanes;
      for (size_t j = 0; j < dim; ++j) target[j * kLanes] = source[j * kLanes];
      halves[c] = from.halves[list[c]];
    }
  }
};

}  // namespace

void assign_near(const float* rows, const float* origins, const TiledCentroids& centroids,
                 size_t width, const uint32_t* order, const uint32_t* starts, size_t threads,
                 uint32_t* labels, float* scores) {
  const size_t dim = centroids.dim, bytes = dim * sizeof(float), ahead = rows_ahead(bytes);
  const std::vector<uint32_t> near = near_centroids(origins, centroids, width, threads);
  parallel_for(centroids.num, threads, [&](size_t leaf) {
    thread_local Scores seen;
    thread_local Some some;
    thread_local std::vector<float> gathered;
    if (starts[leaf] == starts[leaf + 1]) return;
    const uint32_t* list = near.data() + leaf * width;
    some.gather(centroids, list, width);
    gathered.resize(kRowsPerTask * dim);
    for (size_t first = starts[leaf]; first < starts[leaf + 1]; first += kRowsPerTask) {
      const size_t n = std::min(kRowsPerTask, starts[leaf + 1] - first);
      for (size_t i = 0; i < n; ++i) {
        const size_t next = first + i + ahead;
        if (next < starts[leaf + 1]) prefetch_bytes(rows + size_t(order[next]) * dim, bytes);
        std::copy_n(rows + size_t(order[first + i]) * dim, dim, gathered.data() + i * dim);
      }
      seen.fill(gathered.data(), n, some.tiles.data(), width, dim);
      for (size_t i = 0; i < n; ++i) {
        float best;
        const size_t at = kernels().argmax_f32(seen.dots.data() + i * seen.stride,
                                               some.halves.data(), width, &best);
        labels[order[first + i]] = list[at];
        scores[order[first + i]] = best;
      }
    }
  });
}

void spill_leaves(const float* rows, size_t count, const float* centroids,
                  const TiledCentroids& tiled, const uint32_t* labels, float lambda,
                  size_t threads, uint32_t* spilled) {
  const size_t dim = tiled.dim;
  parallel_for(tasks(count, kRowsPerTask), threads, [&](size_t task) {
    thread_local Scores dots, alongs;
    thread_local std::vector<float> directions;
    const size_t first = task * kRowsPerTask, n = std::min(kRowsPerTask, count - first);
    directions.assign(kRowsPerTask * dim, 0.0f);
    float own[kRowsPerTask];  // <x, u>
    for (size_t i = 0; i < n; ++i) {
      const float* x = rows + (first + i) * dim;
      const float* c = centroids + size_t(labels[first + i]) * dim;
      float* u = directions.data() + i * dim;
      double square = 0, along = 0;
      for (size_t j = 0; j < dim; ++j) square += double(x[j] - c[j]) * double(x[j] - c[j]);
      const double inverse = square > 0 ? 1.0 / std::sqrt(square) : 0.0;
      for (size_t j = 0; j < dim; ++j) {
        u[j] = float((x[j] - c[j]) * inverse);
        along += double(x[j]) * u[j];
      }
      own[i] = float(along);
    }
    float least[kRowsPerTask];
    std::fill_n(least, n, std::numeric_limits<float>::infinity());
    for (size_t c = 0; c < tiled.num; c += kCentroidsAtOnce) {
      const size_t width = std::min(kCentroidsAtOnce, tiled.num - c);
      const float* tiles = tiled.tiles.data() + c * dim;
      const float* halves = tiled.halves.data() + c;
      dots.fill(rows + first * dim, n, tiles, width, dim);
      alongs.fill(directions.data(), n, tiles, width, dim);
      for (size_t i = 0; i < n; ++i) {
        float* cost = dots.dots.data() + i * dots.stride;
        const float* along = alongs.dots.data() + i * alongs.stride;
        for (size_t j = 0; j < width; ++j) {
          const float parallel = own[i] - along[j];
          cost[j] = -2.0f * (cost[j] + halves[j]) + lambda * parallel * parallel;
        }
        const uint32_t label = labels[first + i];
        if (label - c < width) cost[label - c] = std::numeric_limits<float>::infinity();
        const float* best = std::min_element(cost, cost + width);
        if (*best < least[i] || c == 0) {
          least[i] = *best;
          spilled[first + i] = uint32_t(c + size_t(best - cost));
        }
      }
    }
  });
}

}  // namespace swann
