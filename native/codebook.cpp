// The codebook update: the least-squares problem of each block, solved exactly.
#include <algorithm>
#include <cmath>
#include <optional>
#include <type_traits>
#include <vector>

#include "aligned.h"
#include "kernels.h"
#include "prefetch.h"
#include "threads.h"
#include "train.h"

namespace swann {
namespace {

// Solves A x = b for symmetric positive definite A [n][n] (its lower half), in place of b.
void solve(std::vector<double>& a, double* b, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      double sum = a[i * n + j];
      for (size_t k = 0; k < j; ++k) sum -= a[i * n + k] * a[j * n + k];
      a[i * n + j] = i == j ? std::sqrt(sum) : sum / a[j * n + j];
    }
  }
  for (size_t i = 0; i < n; ++i) {
    for (size_t k = 0; k < i; ++k) b[i] -= a[i * n + k] * b[k];
    b[i] /= a[i * n + i];
  }
  for (size_t i = n; i-- > 0;) {
    for (size_t k = i + 1; k < n; ++k) b[i] -= a[k * n + i] * b[k];
    b[i] /= a[i * n + i];
  }
}

constexpr size_t kAhead = 3;  // tiles

struct BlockSpan {
  size_t first, width;  // dimensions
};

BlockSpan span(const TileSet& set, size_t block) {
  const size_t first = block * set.dims_per_block;
  return {first, std::min(set.dims_per_block, set.dim - first)};
}

// Asks for what a block has in a tile that comes soon.
inline void prefetch_tile(const TileSet& set, const uint8_t* code, const float* target,
                          size_t width) {
  prefetch_bytes(code + kAhead * set.blocks * kLanes, kLanes);
  prefetch_bytes(target + kAhead * set.dim * kLanes, width * kLanes * sizeof(float));
}

// Runs with the width as a constant, where it is small; as 0 where it is not: what is known to the
// compiler is faster.
template <typename Run>
void at_width(size_t width, Run run) {
  switch (width) {
    case 1: return run(std::integral_constant<size_t, 1>());
    case 2: return run(std::integral_constant<size_t, 2>());
    case 3: return run(std::integral_constant<size_t, 3>());
    case 4: return run(std::integral_constant<size_t, 4>());
    default: return run(std::integral_constant<size_t, 0>());
  }
}

// Plain l2: each codeword of some blocks becomes the mean of its datapoints. What a tile holds of
// neighboring blocks is read at once.
template <size_t known_width>
void move_to_means(const TileSet& set, const uint8_t* codes, size_t begin, size_t end,
                   float* codebook) {
  const size_t words = set.codewords, begin_dim = span(set, begin).first;
  const BlockSpan last = span(set, end - 1);
  std::vector<double> sums((last.first + last.width - begin_dim) * words, 0.0);
  std::vector<double> mass((end - begin) * words, 0.0);
  for (size_t t = 0; t < set.tiles; ++t) {
    for (size_t block = begin; block < end; ++block) {
      const BlockSpan at = span(set, block);
      const size_t first = at.first, width = known_width != 0 ? known_width : at.width;
      const uint8_t* code = codes + (t * set.blocks + block) * kLanes;
      const float* target = set.targets + (t * set.dim + first) * kLanes;
      double* sum = sums.data() + (first - begin_dim) * words;
      double* count = mass.data() + (block - begin) * words;
      if (t + kAhead < set.tiles) prefetch_tile(set, code, target, width);
      for (size_t i = 0; i < kLanes; ++i) {
        const double scale = set.scale(t, i);
        count[code[i]] += scale;
        for (size_t j = 0; j < width; ++j)
          sum[code[i] * width + j] += scale * double(target[j * kLanes + i]);
      }
    }
  }
  for (size_t block = begin; block < end; ++block) {
    const auto [first, width] = span(set, block);
    const double* sum = sums.data() + (first - begin_dim) * words;
    const double* count = mass.data() + (block - begin) * words;
    for (size_t k = 0; k < words; ++k)
      for (size_t j = 0; j < width && count[k] > 0; ++j)
        codebook[(first + j) * words + k] = float(sum[k * width + j] / count[k]);
  }
}

// Tiles are summed in so many parts, whatever the number of threads, and the parts in order: 16, or
// fewer where the equations of wide blocks are large.
size_t num_parts(size_t words, size_t width) {
  constexpr size_t kMostParts = 16, kMostBytes = size_t(128) << 20;
  const size_t bytes = words * width * width * sizeof(double);
  return std::clamp<size_t>(kMostBytes / bytes, 1, kMostParts);
}

// The normal equations of one block, for each of its codewords.
struct Equations {
  std::vector<double> matrix, right;  // [words][width][width] (lower half), [words][width]
  std::vector<double> mass;           // the number of datapoints, or the sum of their scales

  Equations(size_t words, size_t width)
      : matrix(words * width * width), right(words * width), mass(words) {}

  void clear() {
    for (auto* all : {&matrix, &right, &mass}) std::fill(all->begin(), all->end(), 0.0);
  }

  void add(const Equations& other) {
    for (size_t i = 0; i < matrix.size(); ++i) matrix[i] += other.matrix[i];
    for (size_t i = 0; i < right.size(); ++i) right[i] += other.right[i];
    for (size_t k = 0; k < mass.size(); ++k) mass[k] += other.mass[k];
  }
};

// A block that has moved, and how far: [words][width].
struct Move {
  size_t block;
  std::vector<double> by;
};

// Brings the errors of a tile up to date.
inline void follow(const TileSet& set, const uint8_t* codes, const Move& move, size_t t,
                   double* parallel) {
  const auto [first, width] = span(set, move.block);
  const uint8_t* code = codes + (t * set.blocks + move.block) * kLanes;
  const float* direction = set.directions + (t * set.dim + first) * kLanes;
  for (size_t j = 0; j < width; ++j)
    for (size_t i = 0; i < kLanes; ++i)
      parallel[i] += direction[j * kLanes + i] * move.by[code[i] * width + j];
}

// With p the error along the direction u left by the other blocks, codeword w of the datapoints i
// that use it minimises sum_i |t_i - w|^2 + weight_i (p_i + <u_i, t_i - w>)^2, hence
// (n I + sum weight u u^T) w = sum t + weight (p + <u, t>) u; where datapoints have scales, all terms
// are times theirs. A width known to the compiler (else 0) is three times as fast.
template <size_t known_width>
void gather_equations(const TileSet& set, const uint8_t* codes, size_t block,
                      const float* codebook, const Move& before, size_t begin, size_t end,
                      std::vector<double>& parallel, Equations& equations) {
  const BlockSpan at = span(set, block);
  const size_t first = at.first, width = known_width != 0 ? known_width : at.width;
  std::vector<double> u(width);
  for (size_t t = begin; t < end; ++t) {
    const uint8_t* code = codes + (t * set.blocks + block) * kLanes;
    const float* target = set.targets + (t * set.dim + first) * kLanes;
    const float* direction = set.directions + (t * set.dim + first) * kLanes;
    if (t + kAhead < end) {
      prefetch_tile(set, code, target, width);
      prefetch_bytes(direction + kAhead * set.dim * kLanes, width * kLanes * sizeof(float));
    }
    if (block > 0) follow(set, codes, before, t, parallel.data() + t * kLanes);
    for (size_t i = 0; i < kLanes; ++i) {
      const size_t k = code[i];
      const double weight = set.weights[t * kLanes + i], scale = set.scale(t, i);
      double along = parallel[t * kLanes + i];  // p + <u, t> = error of all blocks + <u, w>
      for (size_t j = 0; j < width; ++j) {
        u[j] = direction[j * kLanes + i];
        along += u[j] * double(codebook[(first + j) * set.codewords + k]);
      }
      equations.mass[k] += scale;
      double* a = equations.matrix.data() + k * width * width;
      double* b = equations.right.data() + k * width;
      for (size_t j = 0; j < width; ++j) {
        b[j] += scale * (target[j * kLanes + i] + weight * along * u[j]);
        for (size_t l = 0; l <= j; ++l) a[j * width + l] += scale * weight * u[j] * u[l];
      }
    }
  }
}

// Solves the equations, puts the codewords in place and returns how far each moved [words][width].
std::vector<double> move_codewords(const TileSet& set, size_t block, Equations& equations,
                                   float* codebook) {
  const auto [first, width] = span(set, block);
  const size_t square = width * width, words = set.codewords;
  std::vector<double> moved(words * width, 0.0), a(square);
  for (size_t k = 0; k < words; ++k) {
    if (!(equations.mass[k] > 0)) continue;
    std::copy_n(equations.matrix.begin() + ptrdiff_t(k * square), square, a.begin());
    for (size_t j = 0; j < width; ++j) a[j * width + j] += equations.mass[k];
    double* solution = equations.right.data() + k * width;
    solve(a, solution, width);
    for (size_t j = 0; j < width; ++j) {
      float& word = codebook[(first + j) * words + k];
      moved[k * width + j] = double(word) - double(float(solution[j]));
      word = float(solution[j]);
    }
  }
  return moved;
}

// The same by sixteens, for few codewords of narrow blocks where datapoints count alike. Tiles lie far
// from each other: what some blocks have of them is copied side by side.
class BlockGatherer {
 public:
  static constexpr size_t kTogether = 8;  // blocks

  static bool can(const TileSet& set) {
    return set.codewords == kWords16 && set.dims_per_block <= kMostSumsWidth &&
           set.scales == nullptr;
  }

  BlockGatherer(const TileSet& set, const uint8_t* codes, const std::vector<double>& parallel,
                size_t parts)
      : set_(set), codes_(codes), parallel_(parallel.begin(), parallel.end()), parts_(parts) {}

  // The equations of a block, of a part whose tiles are [begin, end). Blocks come in their order.
  void gather(size_t block, const float* codebook, size_t part, size_t begin, size_t end,
              Equations& equations) {
    const auto [first, width] = span(set_, block);
    Near& near = parts_[part];
    if (block % kTogether == 0) fetch(near, block, begin, end);
    const size_t slot = 1 + block % kTogether;
    BlockSums sums{};
    sums.target = near.targets.data() + slot * near.values;
    sums.direction = near.directions.data() + slot * near.values;
    sums.codes = near.codes.data() + slot * near.places;
    sums.weights = set_.weights + begin * kLanes;
    sums.words = codebook + first * kWords16;
    sums.width = width, sums.tiles = end - begin;
    sums.parallel = parallel_.data() + begin * kLanes;
    if (block > 0) {
      sums.moved_direction = sums.direction - near.values;
      sums.moved_codes = sums.codes - near.places;
      sums.moves = moves_, sums.moved_width = set_.dims_per_block;
    }
    float out[kWords16 * kMostTerms];
    kernels().block_sums(&sums, out);
    const float* term = out;
    for (size_t k = 0; k < kWords16; ++k) {
      equations.mass[k] += double(*term++);
      for (size_t j = 0; j < width; ++j) equations.right[k * width + j] += double(*term++);
      for (size_t j = 0; j < width; ++j)
        for (size_t l = 0; l <= j; ++l)
          equations.matrix[(k * width + j) * width + l] += double(*term++);
    }
  }

  // What the next block is to follow.
  void follow(const Move& move) {
    const size_t width = span(set_, move.block).width;
    for (size_t k = 0; k < kWords16; ++k)
      for (size_t j = 0; j < width; ++j) moves_[j * kWords16 + k] = float(move.by[k * width + j]);
  }

 private:
  static constexpr size_t kMostTerms = 1 + kMostSumsWidth + kMostSumsWidth * (kMostSumsWidth + 1) / 2;

  // What blocks have of the tiles of a part, [1 + kTogether] of them: the one before comes first.
  struct Near {
    AlignedFloats targets, directions;  // [tiles][width][16] of each block
    Aligned<uint8_t> codes;             // [tiles][16]
    size_t values = 0, places = 0;      // of a block
  };

  void fetch(Near& near, size_t block, size_t begin, size_t end) {
    const size_t tiles = end - begin;
    if (block == 0) {
      near.values = tiles * set_.dims_per_block * kLanes, near.places = tiles * kLanes;
      for (auto* floats : {&near.targets, &near.directions})
        floats->resize((1 + kTogether) * near.values);
      near.codes.resize((1 + kTogether) * near.places);
    } else {
      std::copy_n(near.directions.data() + kTogether * near.values, near.values,
                  near.directions.data());
      std::copy_n(near.codes.data() + kTogether * near.places, near.places, near.codes.data());
    }
    const size_t last = std::min(block + kTogether, set_.blocks);
    for (size_t t = 0; t < tiles; ++t)
      for (size_t b = block; b < last; ++b) {
        const auto [first, width] = span(set_, b);
        const size_t from = ((begin + t) * set_.dim + first) * kLanes, slot = 1 + b - block;
        const size_t to = slot * near.values + t * width * kLanes;
        std::copy_n(set_.targets + from, width * kLanes, near.targets.data() + to);
        std::copy_n(set_.directions + from, width * kLanes, near.directions.data() + to);
        std::copy_n(codes_ + ((begin + t) * set_.blocks + b) * kLanes, kLanes,
                    near.codes.data() + slot * near.places + t * kLanes);
      }
  }

  const TileSet& set_;
  const uint8_t* codes_;
  std::vector<float> parallel_;
  std::vector<Near> parts_;
  float moves_[kMostSumsWidth * kWords16];
};

// Anisotropic: the exact optimum of one block after the other. parallel [tiles][16] holds the error
// of all blocks along the direction. Threads meet once a block.
void move_to_optima(const TileSet& set, const uint8_t* codes, size_t threads, float* codebook,
                    std::vector<double>& parallel) {
  Move before{0, {}};
  std::optional<BlockGatherer> gatherer;
  const size_t num = num_parts(set.codewords, set.dims_per_block);
  if (BlockGatherer::can(set)) gatherer.emplace(set, codes, parallel, num);
  // A thread keeps to its parts: their errors, written in every block, stay in the cache of its core.
  const size_t shares = std::clamp<size_t>(threads, 1, num);
  std::vector<Equations> parts(num, Equations(set.codewords, set.dims_per_block));
  for (size_t block = 0; block < set.blocks; ++block) {
    const size_t width = span(set, block).width;
    parallel_for(shares, threads, [&](size_t share) {
      for (size_t part = share * num / shares; part < (share + 1) * num / shares; ++part) {
        const size_t begin = part * set.tiles / num, end = (part + 1) * set.tiles / num;
        parts[part].clear();
        if (gatherer) {
          gatherer->gather(block, codebook, part, begin, end, parts[part]);
          continue;
        }
        at_width(width, [&](auto known) {
          gather_equations<known>(set, codes, block, codebook, before, begin, end, parallel,
                                  parts[part]);
        });
      }
    });
    for (size_t part = 1; part < num; ++part) parts[0].add(parts[part]);
    before = {block, move_codewords(set, block, parts[0], codebook)};
    if (gatherer) gatherer->follow(before);
  }
}

}  // namespace

void update_codebook(const TileSet& set, const uint8_t* codes, size_t threads, float* codebook) {
  if (set.directions == nullptr) {
    constexpr size_t kMostBlocks = 16;
    for_blocks(set.blocks, threads, kMostBlocks, [&](size_t first, size_t size) {
      const size_t width = set.dim % set.dims_per_block == 0 ? set.dims_per_block : 0;
      at_width(width, [&](auto known) {
        move_to_means<known>(set, codes, first, first + size, codebook);
      });
    });
    return;
  }
  std::vector<double> parallel(set.tiles * kLanes);
  parallel_for(set.tiles, threads, [&](size_t t) {
    constexpr size_t kTogether = 8;  // sums that stay in registers
    for (size_t first = 0; first < kLanes; first += kTogether) {
      double errors[kTogether] = {};
      for (size_t j = 0; j < set.dim; ++j) {
        const uint8_t* code = codes + (t * set.blocks + j / set.dims_per_block) * kLanes + first;
        const float* words = codebook + j * set.codewords;
        const size_t at = (t * set.dim + j) * kLanes + first;
#pragma GCC unroll 8
        for (size_t i = 0; i < kTogether; ++i)
          errors[i] += double(set.directions[at + i]) *
                       (double(set.targets[at + i]) - double(words[code[i]]));
      }
      std::copy_n(errors, kTogether, parallel.data() + t * kLanes + first);
    }
  });
  move_to_optima(set, codes, threads, codebook, parallel);
}

}  // namespace swann
