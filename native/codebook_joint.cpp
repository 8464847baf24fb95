// The joint codebook update: all codewords of all blocks at once (Guo et al. 2020, section 7.5).
#include <cmath>
#include <vector>

#include "kernels.h"
#include "threads.h"
#include "train.h"

namespace swann {
namespace {

constexpr size_t kParts = 16;        // tiles are summed in so many parts, on any number of threads
constexpr double kEnough = 1e-7;     // of the loss: what more steps could still win
constexpr size_t kMostSteps = 1000;  // the loss falls at every step, so any number of them is sound

using Words = std::vector<double>;  // [dim][codewords], as a codebook

double inner(const Words& a, const Words& b) {
  double lane[4] = {};
  for (size_t i = 0; i < a.size(); ++i) lane[i % 4] += a[i] * b[i];
  return (lane[0] + lane[2]) + (lane[1] + lane[3]);
}

// With B_i c what codebook c makes of datapoint i, minimising sum of s |t - B c|^2 +
// s weight <u, t - B c>^2 means H c = sum of B^T s (I + weight u u^T) t, with
// H = sum of B^T s (I + weight u u^T) B, a matrix of (dim codewords)^2 numbers that is never made.
class JointSystem {
 public:
  JointSystem(const TileSet& set, const uint8_t* codes, size_t threads)
      : set_(set), codes_(codes), threads_(threads), mass_(set.dim * set.codewords) {
    for (size_t t = 0; t < set.tiles; ++t)
      for (size_t m = 0; m < set.blocks; ++m)
        for (size_t i = 0; i < kLanes; ++i)
          mass_[m * set.dims_per_block * set.codewords + code(t, m)[i]] += set.scale(t, i);
    for (size_t j = 0; j < set.dim; ++j)
      if (j % set.dims_per_block > 0)
        for (size_t k = 0; k < set.codewords; ++k)
          mass_[j * set.codewords + k] = mass_[(j - 1) * set.codewords + k];
  }

  // H v, or with targets the gradient at codebook v, sum of B^T s (I + weight u u^T) (t - B v), and
  // its loss.
  Words multiply(const Words& v, bool targets, double* loss) const {
    std::vector<Words> sums(kParts, Words(v.size()));
    std::vector<double> losses(kParts);
    const auto bound = [&](size_t part) { return part * set_.tiles / kParts; };
    parallel_for(kParts, threads_, [&](size_t part) {
      Words e(set_.dim * kLanes);
      for (size_t t = bound(part); t < bound(part + 1); ++t)
        losses[part] += add_tile(t, v, targets, e, sums[part]);
    });
    for (size_t part = 1; part < kParts; ++part) {
      for (size_t i = 0; i < v.size(); ++i) sums[0][i] += sums[part][i];
      losses[0] += losses[part];
    }
    if (loss != nullptr) *loss = losses[0];
    return std::move(sums[0]);
  }

  // What a step gains most by, if blocks knew nothing of each other; codewords of nobody stay.
  Words precondition(const Words& gradient) const {
    Words out(gradient.size());
    for (size_t i = 0; i < out.size(); ++i)
      if (mass_[i] > 0) out[i] = gradient[i] / mass_[i];
    return out;
  }

 private:
  const TileSet& set_;
  const uint8_t* codes_;
  size_t threads_;
  Words mass_;

  const uint8_t* code(size_t tile, size_t block) const {
    return codes_ + (tile * set_.blocks + block) * kLanes;
  }

  double add_tile(size_t t, const Words& v, bool targets, Words& e, Words& sum) const {
    const size_t at = t * set_.dim * kLanes, words = set_.codewords;
    double along[kLanes] = {}, loss = 0;
    for (size_t j = 0; j < set_.dim; ++j) {
      const uint8_t* k = code(t, j / set_.dims_per_block);
      for (size_t i = 0; i < kLanes; ++i) {
        const size_t x = j * kLanes + i;
        e[x] = v[j * words + k[i]];
        if (targets) e[x] = double(set_.targets[at + x]) - e[x];
        along[i] += double(set_.directions[at + x]) * e[x];
      }
    }
    double scale[kLanes], pull[kLanes];
    for (size_t i = 0; i < kLanes; ++i) {
      scale[i] = set_.scale(t, i);
      pull[i] = double(set_.weights[t * kLanes + i]) * along[i];
      loss += scale[i] * pull[i] * along[i];
    }
    for (size_t j = 0; j < set_.dim; ++j) {
      const uint8_t* k = code(t, j / set_.dims_per_block);
      for (size_t i = 0; i < kLanes; ++i) {
        const size_t x = j * kLanes + i;
        loss += scale[i] * e[x] * e[x];
        sum[j * words + k[i]] +=
            scale[i] * (e[x] + pull[i] * double(set_.directions[at + x]));
      }
    }
    return loss;
  }
};

}  // namespace

// Conjugate gradients from the codebook as it is. Preconditioned by how much each codeword is used,
// the eigenvalues lie between 1 and the greatest eta.
void update_codebook_jointly(const TileSet& set, const uint8_t* codes, size_t threads,
                             float* codebook) {
  if (set.directions == nullptr) return update_codebook(set, codes, threads, codebook);
  const JointSystem system(set, codes, threads);
  Words c(codebook, codebook + set.dim * set.codewords);
  double loss;
  Words rest = system.multiply(c, true, &loss), better = system.precondition(rest), step = better;
  double square = inner(rest, better);  // no less than what is left to win, where etas are 1 or more
  for (size_t i = 0; i < kMostSteps && square > kEnough * loss; ++i) {
    const Words image = system.multiply(step, false, nullptr);
    const double length = square / inner(step, image), before = square;
    for (size_t x = 0; x < c.size(); ++x) {
      c[x] += length * step[x];
      rest[x] -= length * image[x];
    }
    loss -= length * square;
    better = system.precondition(rest);
    square = inner(rest, better);
    for (size_t x = 0; x < c.size(); ++x) step[x] = better[x] + square / before * step[x];
  }
  for (size_t x = 0; x < c.size(); ++x) codebook[x] = float(c[x]);
}

}  // namespace swann
