#include "train.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels.h"
#include "prefetch.h"
#include "threads.h"

namespace swann {
namespace {

double norm_of(const float* x, size_t dim) { return std::sqrt(kernels().square_f64(x, dim)); }

}  // namespace

void square_rows(const float* rows, size_t count, size_t dim, size_t threads, double* squares) {
  parallel_for(ceil_div(count, 1024), threads, [&](size_t task) {
    for (size_t i = task * 1024; i < std::min(count, (task + 1) * 1024); ++i)
      squares[i] = kernels().square_f64(rows + i * dim, dim);
  });
}

size_t normalize_rows(const float* rows, size_t count, size_t dim, size_t threads, float* out) {
  std::atomic<size_t> zero{count};
  parallel_for(ceil_div(count, 256), threads, [&](size_t task) {
    for (size_t i = task * 256; i < std::min(count, (task + 1) * 256); ++i) {
      const float* x = rows + i * dim;
      const double norm = norm_of(x, dim);
      if (norm == 0) return lower(zero, i);
      const double inverse = 1.0 / norm;
      for (size_t j = 0; j < dim; ++j) out[i * dim + j] = float(double(x[j]) * inverse);
    }
  });
  return zero;
}

size_t check_rows(const float* rows, size_t count, size_t dim, float* norms, size_t threads) {
  std::atomic<size_t> bad{count};
  parallel_for(ceil_div(count, 1024), threads, [&](size_t task) {
    const size_t end = std::min(count, (task + 1) * 1024);
    for (size_t i = task * 1024; i < end; ++i) {
      const double norm = norm_of(rows + i * dim, dim);
      if (norms != nullptr) norms[i] = float(norm);
      if (!(norm <= kMaxNorm)) return lower(bad, i);
    }
  });
  return bad;
}

void sort_by_leaf(const uint32_t* labels, size_t count, size_t num_leaves, uint32_t* order,
                  uint32_t* starts) {
  std::fill_n(starts, num_leaves + 1, 0u);
  for (size_t i = 0; i < count; ++i) ++starts[labels[i] + 1];
  for (size_t l = 0; l < num_leaves; ++l) starts[l + 1] += starts[l];
  std::vector<uint32_t> next(starts, starts + num_leaves);
  for (size_t i = 0; i < count; ++i) order[next[labels[i]]++] = uint32_t(i);
}

void leaf_means(const float* rows, size_t dim, const uint32_t* order, const uint32_t* starts,
                size_t num_leaves, size_t threads, float* means) {
  const size_t bytes = dim * sizeof(float), ahead = rows_ahead(bytes);
  parallel_for(num_leaves, threads, [&](size_t leaf) {
    std::vector<double> sum(dim, 0.0);
    const uint32_t end = starts[leaf + 1];
    for (uint32_t i = starts[leaf]; i < end; ++i) {
      if (i + ahead < end) prefetch_bytes(rows + size_t(order[i + ahead]) * dim, bytes);
      const float* x = rows + size_t(order[i]) * dim;
      kernels().add_row(x, dim, sum.data());
    }
    const double inverse = 1.0 / std::max<double>(1.0, starts[leaf + 1] - starts[leaf]);
    for (size_t j = 0; j < dim; ++j) means[leaf * dim + j] = float(sum[j] * inverse);
  });
}

namespace {

// One row of a tile: its residual, and its direction where wanted.
void put_row(const float* row, const float* centroid, size_t dim, size_t lane, float* targets,
             float* directions) {
  double square = 0;
  for (size_t j = 0; j < dim; ++j) {
    targets[j * kLanes + lane] = centroid == nullptr ? row[j] : row[j] - centroid[j];
    square += double(row[j]) * double(row[j]);
  }
  if (directions == nullptr) return;
  const double inverse = square > 0 ? 1.0 / std::sqrt(square) : 0.0;
  for (size_t j = 0; j < dim; ++j) directions[j * kLanes + lane] = float(row[j] * inverse);
}

}  // namespace

void make_tiles(const float* rows, size_t count, size_t dim, const float* centroids,
                const uint32_t* labels, size_t threads, float* targets, float* directions) {
  parallel_for(tiles_of(count), threads, [&](size_t tile) {
    const size_t n = std::min(kLanes, count - tile * kLanes);
    float* t = targets + tile * dim * kLanes;
    float* d = directions == nullptr ? nullptr : directions + tile * dim * kLanes;
    std::fill_n(t, dim * kLanes, 0.0f);
    if (d != nullptr) std::fill_n(d, dim * kLanes, 0.0f);
    for (size_t i = 0; i < n; ++i) {
      const size_t row = tile * kLanes + i;
      const float* c = centroids == nullptr ? nullptr : centroids + size_t(labels[row]) * dim;
      put_row(rows + row * dim, c, dim, i, t, d);
    }
  });
}

void encode_tiles(const TileSet& set, const float* codebook, size_t sweeps, bool warm,
                  size_t threads, uint8_t* codes, float* losses) {
  parallel_for(set.tiles, threads, [&](size_t t) {
    const size_t at = t * set.dim * kLanes;
    kernels().encode_tile(set.targets + at,
                          set.directions == nullptr ? nullptr : set.directions + at,
                          set.weights == nullptr ? nullptr : set.weights + t * kLanes, codebook,
                          set.codewords, set.dim, set.dims_per_block, sweeps, warm,
                          codes + t * set.blocks * kLanes, losses + t * kLanes);
  });
}

namespace {

constexpr size_t kTilesPerTask = 2;  // few: a chunk of long rows has some forty tiles

// Where one row's codes go.
struct Place {
  uint8_t* byte;  // of block 0
  int shift;

  Place(const PackJob& job, uint64_t place) {
    const size_t bytes = block_bytes(job.codewords), at = place % kGroup;
    const bool narrow = job.codewords == kWords16;
    byte = job.codes + place / kGroup * job.blocks * bytes + (narrow ? at % kLanes : at);
    shift = narrow && at >= kLanes ? 4 : 0;
  }
};

// Two rows share a byte: so a task has all rows of its groups, every `parts`-th, a power of two.
void put_codes(const PackJob& job, const uint8_t* codes, size_t part, size_t parts) {
  const size_t bytes = block_bytes(job.codewords);
  for (size_t i = 0; i < job.count; ++i) {
    if ((job.places[i] / kGroup & (parts - 1)) != part) continue;
    const Place place(job, job.places[i]);
    const uint8_t* code = codes + i / kLanes * job.blocks * kLanes + i % kLanes;
    for (size_t m = 0; m < job.blocks; ++m)
      place.byte[m * bytes] = uint8_t(place.byte[m * bytes] | code[m * kLanes] << place.shift);
  }
}

}  // namespace

float correction_of(const float* centroid, const float* center, const float* codebook,
                    size_t codewords, size_t dim, size_t dims_per_block, const uint8_t* code) {
  double cross = 0;
  for (size_t j = 0; j < dim; ++j) {
    const double from = center == nullptr ? 0 : double(center[j]);
    cross += (double(centroid[j]) - from) *
             double(codebook[j * codewords + code[j / dims_per_block * kLanes]]);
  }
  return float(-2 * cross);
}

namespace {

std::vector<uint8_t> shaped_codes(const PackJob& job, size_t threads) {
  std::vector<float> targets(job.rows, job.rows + job.count * job.dim);
  for (size_t i = 0; job.centroids != nullptr && i < job.count; ++i) {
    const float* centroid = job.centroids + size_t(job.leaves[i]) * job.dim;
    for (size_t j = 0; j < job.dim; ++j) targets[i * job.dim + j] -= centroid[j];
  }
  std::vector<uint8_t> codes(tiles_of(job.count) * job.blocks * kLanes);
  const Shaped how{job.metric, job.codebook, job.codewords, job.dim, job.dims_per_block, job.sweeps};
  encode_shaped(how, targets.data(), job.directions, job.weights, job.count, threads, codes.data());
  return codes;
}

std::vector<uint8_t> codes_of(const PackJob& job, size_t threads) {
  if (job.metric != nullptr) return shaped_codes(job, threads);
  const size_t tiles = tiles_of(job.count), tile_floats = job.dim * kLanes;
  std::vector<uint8_t> codes(tiles * job.blocks * kLanes);
  parallel_for(ceil_div(tiles, kTilesPerTask), threads, [&](size_t task) {
    thread_local std::vector<float> target, direction;
    for (size_t tile = task * kTilesPerTask; tile < std::min(tiles, (task + 1) * kTilesPerTask);
         ++tile) {
      const size_t first = tile * kLanes, count = std::min(kLanes, job.count - first);
      float weights[kLanes] = {}, losses[kLanes];
      target.assign(tile_floats, 0.0f);
      direction.assign(tile_floats, 0.0f);
      const auto centroid = [&](size_t i) -> const float* {
        return job.centroids == nullptr ? nullptr
                                        : job.centroids + size_t(job.leaves[first + i]) * job.dim;
      };
      for (size_t i = 0; i < count; ++i) {
        put_row(job.rows + (first + i) * job.dim, centroid(i), job.dim, i, target.data(),
                job.weights == nullptr ? nullptr : direction.data());
        if (job.weights != nullptr) weights[i] = job.weights[first + i];
      }
      uint8_t* const code = codes.data() + tile * job.blocks * kLanes;
      kernels().encode_tile(target.data(), job.weights == nullptr ? nullptr : direction.data(),
                            weights, job.codebook, job.codewords, job.dim, job.dims_per_block,
                            job.sweeps, false, code, losses);
      for (size_t i = 0; i < count && job.corrections != nullptr; ++i)
        job.corrections[job.places[first + i]] =
            correction_of(centroid(i), job.center, job.codebook, job.codewords, job.dim,
                          job.dims_per_block, code + i);
    }
  });
  return codes;
}

}  // namespace

void pack_codes(const PackJob& job, size_t threads) {
  const std::vector<uint8_t> codes = codes_of(job, threads);
  constexpr size_t kMostThreads = 64;
  const size_t parts = threads <= 1 ? 1 : 4 * std::bit_ceil(std::min(threads, kMostThreads));
  parallel_for(parts, threads, [&](size_t part) { put_codes(job, codes.data(), part, parts); });
}

}  // namespace swann
