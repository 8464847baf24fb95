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

// eta - 1 of each datapoint, and with a metric the directions that errors along count by.
void Updates::weigh(size_t count, size_t threads) {
  Encoded& e = *encoded_;
  const size_t dim = index_.reduced_dim;
  e.reduced_norms = e.norms;
  if (!settings_.code_metric.empty()) {
    e.directions.resize(count * dim);
    metric_directions(e.reduced, count, dim, settings_.code_metric.data(), threads,
                      e.directions.data(), e.reduced_norms.data());
  } else if (index_.projects()) {
    check_rows(e.reduced, count, dim, e.reduced_norms.data(), threads);
  }
  e.weights.resize(count);
  for (size_t i = 0; i < count; ++i)
    e.weights[i] = interpolated(settings_.code_weights, settings_.code_threshold,
                                settings_.largest_ratio, e.reduced_norms[i]);
}

void Updates::encode(size_t count, size_t threads) {
  Encoded& e = *encoded_;
  const bool anisotropic = !settings_.code_weights.empty(), metric = !settings_.code_metric.empty();
  if (anisotropic) weigh(count, threads);
  EncodeJob job{e.reduced, anisotropic ? e.weights.data() : nullptr,
                index_.codes_of_residuals() ? index_.centroids : nullptr, nullptr, count,
                index_.reduced_dim, index_.dims_per_block, index_.blocks, settings_.sweeps,
                index_.codewords, index_.codebook};
  if (metric) job.metric = settings_.code_metric.data();
  if (metric && anisotropic) job.directions = e.directions.data();
  job.center = index_.code_center;
  job.dot_product = !index_.squared_l2();
  if (index_.corrections != nullptr) e.found_corrections.resize(count);
  for (size_t copy = 0; copy < e.copies; ++copy) {
    job.leaves = (copy == 0 ? e.leaves : e.spilled).data();
    e.codes[copy].resize(tiles_of(count) * index_.blocks * kLanes);
    encode_rows(job, threads, e.codes[copy].data(),
                index_.corrections == nullptr ? nullptr : e.found_corrections.data());
    if (index_.corrections == nullptr) continue;
    e.corrections[copy].resize(count);
    for (size_t i = 0; i < count; ++i)
      e.corrections[copy][i] = packed_correction(index_, e.found_corrections[i]);
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
