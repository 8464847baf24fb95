// New datapoints are checked, assigned to leaves and encoded as a build would, code for code.
#include <algorithm>
#include <cmath>

#include "encoded.h"
#include "projection.h"
#include "search.h"
#include "train.h"
#include "updates.h"

namespace swann {
namespace {

constexpr size_t kFew = 4;  // datapoints that are encoded one by one, not as a part of a tile

float interpolated(const std::vector<double>& steps, double threshold, double largest,
                   double norm) {
  const double ratio = norm > 0 ? std::min(threshold / norm, largest) : largest;
  const double at = ratio / largest * double(steps.size() - 1);
  const size_t below = std::min(size_t(at), steps.size() - 2);
  return float(steps[below] + (at - double(below)) * (steps[below + 1] - steps[below]));
}

uint16_t packed_correction(const IndexView& index, double value) {
  if (index.correction_span == 0) return 0;
  const double steps = (value - index.correction_low) * (65535.0 / index.correction_span);
  return uint16_t(std::clamp(std::rint(steps), 0.0, 65535.0));  // beyond the range: its end
}

// Writes rows that stood for int8 ones, to be what they were. To round them again would move them:
// not every row's greatest value is 127.
void unscale(const float* rows, size_t count, size_t dim, const float* origins,
             const KeptRows& kept, RowStore& store, size_t first) {
  for (size_t i = 0; i < count; ++i) {
    const float scale = kept.scales[i];
    const float* origin = origins == nullptr ? nullptr : origins + kept.labels[i] * dim;
    int8_t* const row = store.i8.get() + (first + i) * dim;
    for (size_t j = 0; j < dim; ++j) {
      const double value = double(rows[i * dim + j]) - (origin == nullptr ? 0.0 : double(origin[j]));
      const double steps = scale > 0 ? std::rint(value / double(scale)) : 0.0;
      row[j] = int8_t(std::clamp(steps, -127.0, 127.0));
    }
    store.scales[first + i] = scale;
    store.squares[first + i] = i8_square(row, scale, origin, dim);
    if (origin != nullptr) store.labels[first + i] = kept.labels[i];
  }
}

}  // namespace

size_t Updates::check(const float* rows, size_t count, size_t threads, bool as_kept) {
  const size_t dim = index_.dim;
  Encoded& e = *encoded_;
  e.norms.resize(count);
  const size_t bad = check_rows(rows, count, dim, e.norms.data(), threads);
  if (bad < count) return bad;
  e.rows = rows;
  if (index_.distance != Distance::cosine) return count;
  e.norms.assign(count, 1.0f);
  if (as_kept) return count;
  e.unit.resize(count * dim);
  const size_t zero = normalize_rows(rows, count, dim, threads, e.unit.data());
  if (zero < count) return zero;
  e.rows = e.unit.data();
  return count;
}

void Updates::assign(size_t count, size_t threads) {
  Encoded& e = *encoded_;
  e.reduced = reduce(index_, e.rows, count, threads, e.projected);
  e.leaves.assign(count, 0);
  e.scores.resize(count);
  e.copies = 1;
  if (index_.centroids == nullptr) return;
  const float* rows = e.reduced;
  if (!settings_.tree_map.empty()) {
    e.mapped.resize(count * index_.reduced_dim);
    project_rows(rows, count, index_.reduced_dim, settings_.tree_map.data(), index_.reduced_dim,
                 threads, e.mapped.data());
    rows = e.mapped.data();
  }
  assign_leaves(rows, count, tiled_, threads, e.leaves.data(), e.scores.data(), settings_.avq);
  if (!settings_.spills) return;
  e.copies = kCopies;
  e.spilled = e.leaves;
  if (index_.num_leaves > 1)
    spill_leaves(rows, count, tiled_, e.leaves.data(), settings_.soar_lambda, threads,
                 e.spilled.data());
}

void Updates::encode_by_metric(size_t count, size_t threads) {
  Encoded& e = *encoded_;
  const size_t dim = index_.reduced_dim, tiles = tiles_of(count);
  const float* metric = settings_.code_metric.data();
  const bool anisotropic = !settings_.code_weights.empty();
  if (anisotropic) {
    e.directions.resize(count * dim);
    e.reduced_norms.resize(count);
    metric_directions(e.reduced, count, dim, metric, threads, e.directions.data(),
                      e.reduced_norms.data());
    e.weights.resize(count);
    for (size_t i = 0; i < count; ++i)
      e.weights[i] = interpolated(settings_.code_weights, settings_.code_threshold,
                                  settings_.largest_ratio, e.reduced_norms[i]);
  }
  const Shaped how{metric, index_.codebook, index_.codewords, dim, index_.dims_per_block,
                   settings_.sweeps};
  e.targets.resize(count * dim);
  for (size_t copy = 0; copy < e.copies; ++copy) {
    for (size_t i = 0; i < count; ++i) {
      const float* x = e.reduced + i * dim;
      float* target = e.targets.data() + i * dim;
      if (!index_.codes_of_residuals()) {
        std::copy_n(x, dim, target);
        continue;
      }
      const float* centroid = index_.centroids + size_t(e.leaf(copy, i)) * dim;
      for (size_t j = 0; j < dim; ++j) target[j] = x[j] - centroid[j];
    }
    e.codes[copy].resize(tiles * index_.blocks * kLanes);
    encode_shaped(how, e.targets.data(), anisotropic ? e.directions.data() : nullptr,
                  anisotropic ? e.weights.data() : nullptr, count, threads, e.codes[copy].data());
  }
}

void Updates::encode(size_t count, size_t threads) {
  if (!settings_.code_metric.empty()) return encode_by_metric(count, threads);
  Encoded& e = *encoded_;
  const size_t dim = index_.reduced_dim, blocks = index_.blocks;
  const size_t tiles = tiles_of(count);
  const float* centroids = index_.codes_of_residuals() ? index_.centroids : nullptr;
  const bool anisotropic = !settings_.code_weights.empty();
  if (count > kFew) e.targets.resize(tiles * dim * kLanes);
  e.losses.resize(tiles * kLanes);
  if (anisotropic) {
    if (count > kFew) e.directions.resize(tiles * dim * kLanes);
    e.weights.assign(tiles * kLanes, 0.0f);
    e.reduced_norms = e.norms;
    if (index_.projects())
      check_rows(e.reduced, count, dim, e.reduced_norms.data(), threads);
    for (size_t i = 0; i < count; ++i)
      e.weights[i] = interpolated(settings_.code_weights, settings_.code_threshold,
                                  settings_.largest_ratio, e.reduced_norms[i]);
  }
  for (size_t copy = 0; copy < e.copies; ++copy) {
    if (count <= kFew) {
      encode_few(copy, count);
      continue;
    }
    make_tiles(e.reduced, count, dim, centroids,
               centroids == nullptr ? nullptr : (copy == 0 ? e.leaves : e.spilled).data(), threads, e.targets.data(), anisotropic ? e.directions.data() : nullptr);
    std::vector<uint8_t>& codes = e.codes[copy];
    codes.resize(tiles * blocks * kLanes);
    const TileSet set{e.targets.data(), anisotropic ? e.directions.data() : nullptr,
                      anisotropic ? e.weights.data() : nullptr, tiles, dim,
                      index_.dims_per_block, blocks, index_.codewords};
    encode_tiles(set, index_.codebook, settings_.sweeps, false, threads, codes.data(),
                 e.losses.data());
  }
  if (index_.corrections == nullptr) return;
  for (size_t copy = 0; copy < e.copies; ++copy) {
    e.corrections[copy].resize(count);
    for (size_t i = 0; i < count; ++i) {
      const float correction = correction_of(
          centroids + size_t(e.leaf(copy, i)) * dim, index_.code_center, index_.codebook,
          index_.codewords, dim, index_.dims_per_block, e.code(copy, i, blocks));
      e.corrections[copy][i] = packed_correction(index_, correction);
    }
  }
}

// Datapoint by datapoint, into the lanes of a tile of codes.
void Updates::encode_few(size_t copy, size_t count) {
  Encoded& e = *encoded_;
  const size_t dim = index_.reduced_dim, blocks = index_.blocks;
  e.codes[copy].resize(blocks * kLanes);
  const size_t scratch_floats = (dim + 2 * blocks) * index_.codewords;
  e.targets.resize(scratch_floats + 2 * dim);
  e.one.resize(blocks);
  float* const scratch = e.targets.data();
  float* const target = scratch + scratch_floats;
  float* const direction = target + dim;
  for (size_t i = 0; i < count; ++i) {
    const float* x = e.reduced + i * dim;
    const float* centroid = index_.codes_of_residuals()
                                ? index_.centroids + size_t(e.leaf(copy, i)) * dim
                                : nullptr;
    double square = 0;
    for (size_t j = 0; j < dim; ++j) {
      target[j] = centroid == nullptr ? x[j] : x[j] - centroid[j];
      square += double(x[j]) * double(x[j]);
    }
    const double inverse = square > 0 ? 1.0 / std::sqrt(square) : 0.0;
    const bool anisotropic = !settings_.code_weights.empty();
    for (size_t j = 0; j < dim; ++j) direction[j] = float(x[j] * inverse);
    kernels().encode_one(target, anisotropic ? direction : nullptr,
                         anisotropic ? e.weights[i] : 0.0f, index_.codebook,
                         index_.codewords, dim, index_.dims_per_block, settings_.sweeps, scratch, e.one.data(),
                         e.losses.data());
    for (size_t b = 0; b < blocks; ++b) e.codes[copy][b * kLanes + i] = e.one[b];
  }
}

void Updates::write_rows(RowStore& store, size_t first, const uint32_t* ids, size_t count,
                         size_t threads, const KeptRows* kept) {
  Encoded& e = *encoded_;
  const size_t dim = index_.dim, at = first * dim;
  std::copy_n(ids, count, store.ids.get() + first);
  if (store.f32 != nullptr) std::copy_n(e.rows, count * dim, store.f32.get() + at);
  const float* weights = nullptr;
  if (!settings_.row_weights.empty() && store.f32 == nullptr && kept == nullptr) {
    e.row_weights.resize(count);
    for (size_t i = 0; i < count; ++i)
      e.row_weights[i] = interpolated(settings_.row_weights, settings_.row_threshold,
                                      settings_.largest_ratio, e.norms[i]);
    weights = e.row_weights.data();
  }
  if (store.bf16 != nullptr)
    round_to_bf16(e.rows, count, dim, weights, threads, store.bf16.get() + at);
  if (store.i8 == nullptr) return;
  const float* const origins = index_.rows.origins;
  if (kept != nullptr) return unscale(e.rows, count, dim, origins, *kept, store, first);
  uint8_t* const labels = store.labels == nullptr ? nullptr : store.labels.get() + first;
  if (labels != nullptr) {
    e.origins.resize(count), e.scores.resize(count);
    assign_leaves(e.rows, count, origins_, threads, e.origins.data(), e.scores.data(), 1.0f);
    std::copy_n(e.origins.data(), count, labels);
  }
  round_to_i8(e.rows, count, dim, weights, threads, origins, labels, store.i8.get() + at,
              store.scales.get() + first, store.squares.get() + first);
}

}  // namespace swann
