// Codes under a loss that queries gave a shape: e^T G e + weight <e, u>^2, with one symmetric matrix
// G for all datapoints.
#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "kernels.h"
#include "threads.h"
#include "train.h"

namespace swann {
namespace {

constexpr size_t kRowsPerTask = 64;

// Four codewords at a time, what every machine has: spelled out, since loops of sixteen are unrolled
// before they are vectorised.
using F4 = float __attribute__((vector_size(16)));

inline F4 all(float value) noexcept { return F4{value, value, value, value}; }
inline F4 load(const float* at) noexcept {
  F4 value;
  __builtin_memcpy(&value, at, sizeof value);
  return value;
}

// One block of one datapoint: what each codeword would cost beside the codes of the other blocks.
template <size_t words>
class BlockCosts {
 public:
  explicit BlockCosts(const Shaped& how) : how_(how), errors_(how.dims_per_block * words) {}

  // `rest` [dim]: the gradient that the other blocks make. direction null: no anisotropic part.
  void find(const float* target, const float* rest, const float* direction, float weight,
            float parallel, size_t first, size_t last) {
    for (size_t j = first; j < last; ++j)
      for (size_t k = 0; k < words; ++k)
        errors_[(j - first) * words + k] = target[j] - how_.codebook[j * words + k];
    for (size_t k = 0; k < words; k += 4) {
      F4 cost = all(0.0f), along = all(parallel);
      for (size_t j = first; j < last; ++j) {
        F4 sum = all(2.0f * rest[j]);
        for (size_t i = first; i < last; ++i)
          sum += all(how_.metric[j * how_.dim + i]) * error(i - first, k);
        cost += sum * error(j - first, k);
        if (direction != nullptr) along += all(direction[j]) * error(j - first, k);
      }
      if (direction != nullptr) cost += all(weight) * along * along;
      __builtin_memcpy(costs_ + k, &cost, sizeof cost);
    }
  }

  // The lowest of those that cost least.
  size_t cheapest() const {
    size_t best = 0;
    for (size_t k = 1; k < words; ++k) best = costs_[k] < costs_[best] ? k : best;
    return best;
  }
  float cost(size_t word) const { return costs_[word]; }
  float error_of(size_t j, size_t word) const { return errors_[j * words + word]; }

 private:
  F4 error(size_t j, size_t k) const { return load(errors_.data() + j * words + k); }

  const Shaped& how_;
  std::vector<float> errors_;  // [dims_per_block][words]
  float costs_[words];
};

// One datapoint on its way to its codes.
struct Descent {
  const float* target;
  const float* direction;  // null: no anisotropic part
  float weight;
  float* errors;    // [dim]
  float* gradient;  // [dim] G errors
  uint8_t* codes;   // kLanes apart
  float parallel = 0;
  bool changed = true;  // in the sweep before
};

// The block's best codeword where only its own errors count.
template <size_t words>
void start(BlockCosts<words>& costs, const float* nothing, size_t block, size_t first, size_t last,
           Descent& d) {
  costs.find(d.target, nothing, nullptr, 0.0f, 0.0f, first, last);
  const size_t best = costs.cheapest();
  d.codes[block * kLanes] = uint8_t(best);
  for (size_t j = first; j < last; ++j) {
    d.errors[j] = costs.error_of(j - first, best);
    if (d.direction != nullptr) d.parallel += d.direction[j] * d.errors[j];
  }
}

// The block's best codeword beside the others' codes.
template <size_t words>
void descend(const Shaped& how, BlockCosts<words>& costs, float* rest, size_t block, size_t first,
             size_t last, Descent& d) {
  float others = d.parallel;
  for (size_t j = first; j < last; ++j) {
    rest[j] = d.gradient[j];
    for (size_t i = first; i < last; ++i) rest[j] -= how.metric[j * how.dim + i] * d.errors[i];
    if (d.direction != nullptr) others -= d.direction[j] * d.errors[j];
  }
  costs.find(d.target, rest, d.direction, d.weight, others, first, last);
  uint8_t& code = d.codes[block * kLanes];
  const size_t best = costs.cheapest();
  if (!(costs.cost(best) < costs.cost(code))) return;
  d.changed = true;
  code = uint8_t(best);
  d.parallel = others;
  for (size_t j = first; j < last; ++j) {
    const float now = costs.error_of(j - first, best), step = now - d.errors[j];
    const float* row = how.metric + j * how.dim;
    for (size_t i = 0; i < how.dim; ++i) d.gradient[i] += step * row[i];
    d.errors[j] = now;
    if (d.direction != nullptr) d.parallel += d.direction[j] * now;
  }
}

}  // namespace

void metric_directions(const float* rows, size_t count, size_t dim, const float* metric,
                       size_t threads, float* directions, float* norms) {
  parallel_for(ceil_div(count, kRowsPerTask), threads, [&](size_t task) {
    const size_t first = task * kRowsPerTask, n = std::min(kRowsPerTask, count - first);
    float* const out = directions + first * dim;
    kernels().dot_f32(rows + first * dim, n, metric, dim, dim, out, dim);
    for (size_t i = 0; i < n; ++i) {
      const float* x = rows + (first + i) * dim;
      float* u = out + i * dim;
      double square = 0;
      for (size_t j = 0; j < dim; ++j) square += double(x[j]) * double(u[j]);
      const double norm = std::sqrt(std::max(square, 0.0));
      const double inverse = norm > 0 ? 1.0 / norm : 0.0;
      for (size_t j = 0; j < dim; ++j) u[j] = float(u[j] * inverse);
      norms[first + i] = float(norm);
    }
  });
}

namespace {

// Up to a tile of datapoints, block by block: the rows of G that a block needs are read once for all.
template <size_t words>
void encode_some(const Shaped& how, const float* targets, const float* directions,
                 const float* weights, size_t count, uint8_t* codes) {
  const size_t dim = how.dim;
  std::vector<float> errors(count * dim), gradients(count * dim), rest(dim);
  BlockCosts<words> costs(how);
  Descent tile[kLanes];
  for (size_t i = 0; i < count; ++i)
    tile[i] = {targets + i * dim,       directions == nullptr ? nullptr : directions + i * dim,
               directions == nullptr ? 0.0f : weights[i],
               errors.data() + i * dim, gradients.data() + i * dim,
               codes + i};
  const auto for_blocks = [&](const auto& visit) {
    for (size_t first = 0, m = 0; first < dim; first += how.dims_per_block, ++m)
      for (size_t i = 0; i < count; ++i)
        visit(m, first, std::min(dim, first + how.dims_per_block), tile[i]);
  };
  for_blocks([&](size_t m, size_t first, size_t last, Descent& d) {
    start(costs, rest.data(), m, first, last, d);
  });
  kernels().dot_f32(errors.data(), count, how.metric, dim, dim, gradients.data(), dim);
  for (size_t sweep = 0; sweep < how.sweeps; ++sweep) {
    bool active[kLanes];
    for (size_t i = 0; i < count; ++i) active[i] = std::exchange(tile[i].changed, false);
    for_blocks([&](size_t m, size_t first, size_t last, Descent& d) {
      if (active[&d - tile]) descend(how, costs, rest.data(), m, first, last, d);
    });
  }
}

}  // namespace

void encode_shaped(const Shaped& how, const float* targets, const float* directions,
                   const float* weights, size_t count, size_t threads, uint8_t* codes) {
  const size_t blocks = blocks_of(how.dim, how.dims_per_block);
  const auto run = how.codewords == kWords16 ? encode_some<kWords16> : encode_some<kWords256>;
  parallel_for(tiles_of(count), threads, [&](size_t tile) {
    const size_t first = tile * kLanes;
    run(how, targets + first * how.dim,
        directions == nullptr ? nullptr : directions + first * how.dim,
        directions == nullptr ? nullptr : weights + first, std::min(kLanes, count - first),
        codes + tile * blocks * kLanes);
  });
}

}  // namespace swann
