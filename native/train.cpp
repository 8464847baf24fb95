#include "train.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels.h"
#include "threads.h"

namespace swann {
namespace {

size_t tasks(size_t count, size_t each) { return (count + each - 1) / each; }

}  // namespace

size_t check_rows(const float* rows, size_t count, size_t dim, float* norms, size_t threads) {
  std::atomic<size_t> bad{count};
  parallel_for(tasks(count, 1024), threads, [&](size_t task) {
    const size_t end = std::min(count, (task + 1) * 1024);
    for (size_t i = task * 1024; i < end; ++i) {
      double lane[4] = {};
      const float* x = rows + i * dim;
      size_t j = 0;
      for (; j + 4 <= dim; j += 4)
        for (int l = 0; l < 4; ++l) lane[l] += double(x[j + l]) * double(x[j + l]);
      for (; j < dim; ++j) lane[0] += double(x[j]) * double(x[j]);
      const double norm = std::sqrt((lane[0] + lane[2]) + (lane[1] + lane[3]));
      if (norms != nullptr) norms[i] = float(norm);
      if (!(norm <= kMaxNorm)) {
        size_t seen = bad.load();
        while (i < seen && !bad.compare_exchange_weak(seen, i)) {
        }
        return;
      }
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
  parallel_for(num_leaves, threads, [&](size_t leaf) {
    std::vector<double> sum(dim, 0.0);
    for (uint32_t i = starts[leaf]; i < starts[leaf + 1]; ++i) {
      const float* x = rows + size_t(order[i]) * dim;
      for (size_t j = 0; j < dim; ++j) sum[j] += double(x[j]);
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
  parallel_for(tasks(count, kLanes), threads, [&](size_t tile) {
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

// The codes of 32 datapoints, [2][blocks][16], as a group of packed codes.
void pack_group(const uint8_t* halves, size_t blocks, size_t codewords, uint8_t* packed) {
  const uint8_t* low = halves;
  const uint8_t* high = halves + blocks * kLanes;
  for (size_t m = 0; m < blocks; ++m, low += kLanes, high += kLanes) {
    if (codewords == kWords16) {
      for (size_t i = 0; i < kLanes; ++i) *packed++ = uint8_t(low[i] | high[i] << 4);
    } else {
      packed = std::copy_n(low, kLanes, packed);
      packed = std::copy_n(high, kLanes, packed);
    }
  }
}

}  // namespace

void pack_codes(const PackJob& job, size_t threads) {
  constexpr size_t kGroupsPerTask = 8;
  const auto leaf_of = [&](size_t group) {
    const size_t* end = job.group_starts + job.num_leaves + 1;
    return size_t(std::upper_bound(job.group_starts, end, group) - job.group_starts) - 1;
  };
  const auto first_row = [&](size_t leaf, size_t group) {
    return job.leaf_starts[leaf] + (group - job.group_starts[leaf]) * kGroup;
  };
  const size_t origin = first_row(leaf_of(job.first_group), job.first_group);
  const size_t groups = job.last_group - job.first_group;
  parallel_for(tasks(groups, kGroupsPerTask), threads, [&](size_t task) {
    const size_t tile_floats = job.dim * kLanes;
    thread_local std::vector<float> target, direction;
    thread_local std::vector<uint8_t> halves;
    target.resize(tile_floats);
    direction.resize(tile_floats);
    halves.resize(2 * job.blocks * kLanes);
    const size_t begin = job.first_group + task * kGroupsPerTask;
    const size_t end = std::min(job.last_group, begin + kGroupsPerTask);
    for (size_t group = begin; group < end; ++group) {
      const size_t leaf = leaf_of(group), start = first_row(leaf, group);
      const float* centroid =
          job.centroids == nullptr ? nullptr : job.centroids + leaf * job.dim;
      for (size_t half = 0; half < 2; ++half) {
        float weights[kLanes] = {}, losses[kLanes];
        std::fill(target.begin(), target.end(), 0.0f);
        std::fill(direction.begin(), direction.end(), 0.0f);
        for (size_t i = 0; i < kLanes; ++i) {
          const size_t row = start + half * kLanes + i;
          if (row >= job.leaf_starts[leaf + 1]) break;
          put_row(job.rows + (row - origin) * job.dim, centroid, job.dim, i, target.data(),
                  job.weights == nullptr ? nullptr : direction.data());
          if (job.weights != nullptr) weights[i] = job.weights[row - origin];
        }
        uint8_t* codes = halves.data() + half * job.blocks * kLanes;
        kernels().encode_tile(target.data(),
                              job.weights == nullptr ? nullptr : direction.data(), weights,
                              job.codebook, job.codewords, job.dim, job.dims_per_block, job.sweeps,
                              false, codes, losses);
        if (job.corrections == nullptr) continue;
        for (size_t i = 0; i < kLanes; ++i) {
          double cross = 0;
          for (size_t j = 0; j < job.dim; ++j) {
            const uint8_t code = codes[j / job.dims_per_block * kLanes + i];
            cross += double(centroid[j]) * double(job.codebook[j * job.codewords + code]);
          }
          job.corrections[group * kGroup + half * kLanes + i] = float(-2 * cross);
        }
      }
      pack_group(halves.data(), job.blocks, job.codewords,
                 job.codes + group * job.blocks * block_bytes(job.codewords));
    }
  });
}

}  // namespace swann
