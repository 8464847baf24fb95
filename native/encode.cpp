// From rows to their codes: in tiles, one by one, or by a metric, with the same result whatever is beside a row.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels.h"
#include "threads.h"
#include "train.h"

namespace swann {
namespace {

constexpr size_t kTilesPerTask = 2;  // few: a chunk of long rows has some forty tiles
constexpr size_t kFew = 4;           // rows that are encoded one by one, not as a part of a tile

// A row's residual, and its direction where wanted; the values of both are `stride` apart.
template <size_t stride>
void put_row(const float* row, const float* centroid, size_t dim, float* target, float* direction) {
  double square = 0;
  for (size_t j = 0; j < dim; ++j) {
    target[j * stride] = centroid == nullptr ? row[j] : row[j] - centroid[j];
    square += double(row[j]) * double(row[j]);
  }
  if (direction == nullptr) return;
  const double inverse = square > 0 ? 1.0 / std::sqrt(square) : 0.0;
  for (size_t j = 0; j < dim; ++j) direction[j * stride] = float(row[j] * inverse);
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
      put_row<kLanes>(rows + row * dim, c, dim, t + i, d == nullptr ? nullptr : d + i);
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

const float* centroid_of(const EncodeJob& job, size_t i) {
  return job.centroids == nullptr ? nullptr : job.centroids + size_t(job.leaves[i]) * job.dim;
}

// Of row i. A block's code is kLanes behind that of the block before.
float correction_of(const EncodeJob& job, size_t i, const uint8_t* code) {
  const float* const row = job.rows + i * job.dim;
  const float* const centroid = centroid_of(job, i);
  double by_center = 0, by_centroid = 0, square = 0, less = 0;
  for (size_t j = 0; j < job.dim; ++j) {
    const double residual =
        double(job.codebook[j * job.codewords + code[j / job.dims_per_block * kLanes]]);
    const double coded = double(centroid[j]) + residual, x = double(row[j]);
    if (job.center != nullptr) by_center += double(job.center[j]) * residual;
    by_centroid += double(centroid[j]) * residual;
    square += x * x;
    less += (x - coded) * (x + coded);
  }
  if (!job.dot_product) return float(2 * (by_center - by_centroid));
  return float(by_center + (square > 0 ? less / (2 * std::sqrt(square)) : 0.0));
}

// Of the rows of a tile, from `first` on.
void correct(const EncodeJob& job, size_t first, size_t count, const uint8_t* codes, float* corrections) {
  for (size_t i = 0; i < count; ++i)
    corrections[first + i] = correction_of(job, first + i, codes + i);
}

void encode_by_metric(const EncodeJob& job, size_t threads, uint8_t* codes) {
  std::vector<float> targets(job.rows, job.rows + job.count * job.dim);
  for (size_t i = 0; job.centroids != nullptr && i < job.count; ++i) {
    const float* centroid = centroid_of(job, i);
    for (size_t j = 0; j < job.dim; ++j) targets[i * job.dim + j] -= centroid[j];
  }
  const Shaped how{job.metric, job.codebook, job.codewords, job.dim, job.dims_per_block, job.sweeps};
  encode_shaped(how, targets.data(), job.directions, job.weights, job.count, threads, codes);
}

// One by one, with lanes for codewords.
void encode_few(const EncodeJob& job, uint8_t* codes) {
  thread_local std::vector<float> buffer;
  thread_local std::vector<uint8_t> code;
  const size_t scratch_floats = (job.dim + 2 * job.blocks) * job.codewords;
  buffer.resize(scratch_floats + 2 * job.dim);
  code.resize(job.blocks);
  float* const scratch = buffer.data();
  float* const target = scratch + scratch_floats;
  float* const direction = job.weights == nullptr ? nullptr : target + job.dim;
  for (size_t i = 0; i < job.count; ++i) {
    float loss;
    put_row<1>(job.rows + i * job.dim, centroid_of(job, i), job.dim, target, direction);
    kernels().encode_one(target, direction, job.weights == nullptr ? 0.0f : job.weights[i],
                         job.codebook, job.codewords, job.dim, job.dims_per_block, job.sweeps,
                         scratch, code.data(), &loss);
    for (size_t m = 0; m < job.blocks; ++m) codes[m * kLanes + i] = code[m];
  }
}

// Up to sixteen rows from `first` on.
void encode_one_tile(const EncodeJob& job, size_t first, size_t count, uint8_t* codes) {
  thread_local std::vector<float> target, direction;
  float weights[kLanes] = {}, losses[kLanes];
  target.assign(job.dim * kLanes, 0.0f);
  direction.assign(job.dim * kLanes, 0.0f);
  float* const along = job.weights == nullptr ? nullptr : direction.data();
  for (size_t i = 0; i < count; ++i) {
    put_row<kLanes>(job.rows + (first + i) * job.dim, centroid_of(job, first + i), job.dim,
                    target.data() + i, along == nullptr ? nullptr : along + i);
    if (job.weights != nullptr) weights[i] = job.weights[first + i];
  }
  kernels().encode_tile(target.data(), along, weights, job.codebook, job.codewords, job.dim,
                        job.dims_per_block, job.sweeps, false, codes, losses);
}

}  // namespace

void encode_rows(const EncodeJob& job, size_t threads, uint8_t* codes, float* corrections) {
  if (job.metric != nullptr) return encode_by_metric(job, threads, codes);
  if (job.count <= kFew) {
    encode_few(job, codes);
    if (corrections != nullptr) correct(job, 0, job.count, codes, corrections);
    return;
  }
  const size_t tiles = tiles_of(job.count);
  parallel_for(ceil_div(tiles, kTilesPerTask), threads, [&](size_t task) {
    for (size_t tile = task * kTilesPerTask; tile < std::min(tiles, (task + 1) * kTilesPerTask);
         ++tile) {
      const size_t first = tile * kLanes, count = std::min(kLanes, job.count - first);
      uint8_t* const code = codes + tile * job.blocks * kLanes;
      encode_one_tile(job, first, count, code);
      if (corrections != nullptr) correct(job, first, count, code, corrections);
    }
  });
}

}  // namespace swann
