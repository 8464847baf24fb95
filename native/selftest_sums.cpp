// The sums of a codebook's equations, on every level, against sums in double.
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "kernels.h"
#include "selftest.h"

using namespace swann;

namespace selftest {
namespace {

struct Problem {
  size_t width, tiles, moved_width;
  std::vector<float> target, direction, weights, words, parallel, moved_direction, moves;
  std::vector<uint8_t> codes, moved_codes;

  Problem(Random& random, size_t w, size_t t, size_t moved)
      : width(w), tiles(t), moved_width(moved), target(random.reals(t * w * 16)),
        direction(random.reals(t * w * 16)), weights(random.reals(t * 16)),
        words(random.reals(w * kWords16)), parallel(random.reals(t * 16)),
        moved_direction(random.reals(t * moved * 16)), moves(random.reals(moved * kWords16)),
        codes(random.bytes(t * 16, kWords16 - 1)),  // the last has none
        moved_codes(random.bytes(t * 16, kWords16)) {}

  size_t terms() const { return 1 + width + width * (width + 1) / 2; }

  std::vector<float> sums(const KernelTable& k, std::vector<float>& errors) const {
    errors = parallel;
    std::vector<float> out(kWords16 * terms(), -1.0f);
    BlockSums block{target.data(), direction.data(), codes.data(), weights.data(), words.data(),
                    width, tiles, errors.data(), nullptr, nullptr, nullptr, moved_width};
    if (moved_width > 0)
      block.moved_direction = moved_direction.data(), block.moved_codes = moved_codes.data(),
      block.moves = moves.data();
    k.block_sums(&block, out.data());
    return out;
  }

  // The same in double, and of the sizes of what is added.
  void sum(std::vector<double>& out, std::vector<double>& sizes, std::vector<double>& errors) const {
    out.assign(kWords16 * terms(), 0.0), sizes = out;
    errors.assign(parallel.begin(), parallel.end());
    for (size_t i = 0; i < tiles * 16; ++i) {
      const size_t t = i / 16, lane = i % 16;
      for (size_t j = 0; j < moved_width; ++j)
        errors[i] += double(moved_direction[(t * moved_width + j) * 16 + lane]) *
                     double(moves[j * kWords16 + moved_codes[i]]);
      const size_t k = codes[i];
      double along = errors[i];
      const auto u = [&](size_t j) { return double(direction[(t * width + j) * 16 + lane]); };
      for (size_t j = 0; j < width; ++j) along += u(j) * double(words[j * kWords16 + k]);
      size_t at = k * terms();
      const auto add = [&](double value, double size) { out[at] += value, sizes[at++] += size; };
      add(1, 0);
      const double weight = double(weights[i]);
      for (size_t j = 0; j < width; ++j) {
        const double x = double(target[(t * width + j) * 16 + lane]);
        add(x + weight * along * u(j), 8);
      }
      for (size_t j = 0; j < width; ++j)
        for (size_t l = 0; l <= j; ++l) add(weight * u(j) * u(l), 1);
    }
  }
};

}  // namespace

void test_sums() {
  size_t count;
  const Level* all = levels(&count);
  for (size_t i = 0; i < count; ++i) {
    const KernelTable& k = *all[i].table;
    Group group(std::string(k.level) + ": block_sums");
    Random random;
    for (const size_t width : {1, 2, 3, 4})
      for (const size_t tiles : {0, 1, 15, 16, 40})
        for (const size_t moved : {0, 1, 4}) {
          const Problem problem(random, width, tiles, moved);
          std::vector<float> errors, others;
          std::vector<double> want, sizes, want_errors;
          const std::vector<float> found = problem.sums(k, errors);
          problem.sum(want, sizes, want_errors);
          bool right = true, followed = true;
          for (size_t t = 0; t < found.size(); ++t)
            right &= std::fabs(double(found[t]) - want[t]) <= 1e-6 * sizes[t];
          for (size_t t = 0; t < errors.size(); ++t)
            followed &= std::fabs(double(errors[t]) - want_errors[t]) <= 1e-6;
          check(right, "the sums", width, tiles);
          check(followed, "the errors along the direction", moved, tiles);
          if (std::strcmp(k.level, "scalar") != 0)  // which has no fused multiply-add
            check(same_bits(found, problem.sums(*all[0].table, others)) &&
                      same_bits(errors, others),
                  "as on the best level", width, tiles);
        }
  }
}

}  // namespace selftest
