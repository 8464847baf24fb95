// Where codebooks start: k-means++ (Arthur and Vassilvitskii, 2007) in every block.
#include <algorithm>
#include <limits>
#include <vector>

#include "threads.h"
#include "train.h"

namespace swann {
namespace {

// The datapoints of one block, [width][points], and their squared distances to the nearest codeword.
struct BlockPoints {
  size_t points, width;
  std::vector<float> values;
  std::vector<double> nearest, sums;

  BlockPoints(const TileSet& set, size_t block)
      : points(set.tiles * kLanes),
        width(std::min(set.dims_per_block, set.dim - block * set.dims_per_block)),
        values(width * points),
        nearest(points, std::numeric_limits<double>::infinity()),
        sums(points) {
    for (size_t t = 0; t < set.tiles; ++t)
      for (size_t j = 0; j < width; ++j)
        std::copy_n(set.targets + (t * set.dim + block * set.dims_per_block + j) * kLanes, kLanes,
                    values.data() + j * points + t * kLanes);
  }

  void measure(size_t word) {
    std::fill(sums.begin(), sums.end(), 0.0);
    for (size_t j = 0; j < width; ++j) {
      const float* x = values.data() + j * points;
      const float at = x[word];
      for (size_t i = 0; i < points; ++i) sums[i] += double((x[i] - at) * (x[i] - at));
    }
    for (size_t i = 0; i < points; ++i) nearest[i] = std::min(nearest[i], sums[i]);
  }

  // The datapoint where the sum of all distances up to it passes this share of the whole.
  size_t drawn(double share) {
    double sum = 0;
    for (size_t i = 0; i < points; ++i) sums[i] = sum += nearest[i];
    const auto at = std::upper_bound(sums.begin(), sums.end(), share * sum);
    return std::min(size_t(at - sums.begin()), points - 1);
  }
};

}  // namespace

void start_codebook(const TileSet& set, const uint32_t* first, const double* draws, size_t threads,
                    float* codebook) {
  parallel_for(set.blocks, threads, [&](size_t block) {
    BlockPoints part(set, block);
    for (size_t k = 0; k < set.codewords; ++k) {
      const size_t word = k == 0 ? first[block] : part.drawn(draws[(k - 1) * set.blocks + block]);
      for (size_t j = 0; j < part.width; ++j)
        codebook[(block * set.dims_per_block + j) * set.codewords + k] =
            part.values[j * part.points + word];
      part.measure(word);
    }
  });
}

}  // namespace swann
