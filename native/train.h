// The loops of building: assigning rows to leaves, means, training tiles, codebooks, codes.
// All results are the same on any number of threads.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "aligned.h"
#include "bounds.h"
#include "kernels.h"

namespace swann {

// First row that has a NaN or an infinity, or whose norm is beyond kMaxNorm; count when there is
// none. norms [count], where not null, gets the Euclidean norms.
constexpr double kMaxNorm = 1e18;  // keeps every dot product and squared distance finite
size_t check_rows(const float* rows, size_t count, size_t dim, float* norms, size_t threads);

// The squared lengths of rows, in double: squares [count].
void square_rows(const float* rows, size_t count, size_t dim, size_t threads, double* squares);

// Rows scaled to unit length in double, from norms in double: a row's bits depend on it alone. out
// may be rows. The first row of zeros, count when there is none; behind it nothing is certain.
size_t normalize_rows(const float* rows, size_t count, size_t dim, size_t threads, float* out);

// Centroids as assignment reads them; those given are to stay.
struct TiledCentroids {
  size_t num = 0, dim = 0;
  const float* rows = nullptr;  // [num][dim]
  AlignedFloats tiles;          // [ceil(num / 16)][dim][16], zeros behind the last
  std::vector<float> halves;    // [num]: -|c|^2 / 2
  float longest = 0;            // |c|, at most but for roundings
  RoundedCentroids rounded;     // the same again, where levels multiply bytes

  TiledCentroids() = default;
  TiledCentroids(const float* centroids, size_t num_leaves, size_t dimension, size_t threads);
  size_t nbytes() const noexcept;
};

// The nearest centroid by squared l2, or with eta > 1 the one that minimises
// |e|^2 + (eta - 1) <e, x / |x|>^2, e = x - c: labels [count], and its <x, c> - |c|^2 / 2. Each row
// by its own eta where etas [count] is not null; those may be below 1, down to 0.
void assign_leaves(const float* rows, size_t count, const TiledCentroids& centroids,
                   size_t threads, uint32_t* labels, float* scores, float eta = 1.0f,
                   const float* etas = nullptr);

// The same by squared l2 for rows that are in leaves: among the `width` centroids nearest to the
// origin of the row's leaf. origins [num_leaves][dim]; order [count] and starts [num_leaves + 1] are
// of sort_by_leaf.
void assign_near(const float* rows, const float* origins, const TiledCentroids& centroids,
                 size_t width, const uint32_t* order, const uint32_t* starts, size_t threads,
                 uint32_t* labels, float* scores);

// A second leaf for every row (SOAR: Sun et al. 2023, equation 6): the centroid c, other than the
// row's own, that minimises |x - c|^2 + lambda <x - c, u>^2, u being the direction of the residual
// to the row's own centroid. Needs two centroids at least. labels and spilled are [count].
void spill_leaves(const float* rows, size_t count, const TiledCentroids& centroids,
                  const uint32_t* labels, float lambda, size_t threads, uint32_t* spilled);

// Stable counting sort of rows by label: order [count], starts [num_leaves + 1].
void sort_by_leaf(const uint32_t* labels, size_t count, size_t num_leaves, uint32_t* order,
                  uint32_t* starts);

// Means of the rows of each leaf (zeros for an empty one), summed in double in the order given.
void leaf_means(const float* rows, size_t dim, const uint32_t* order, const uint32_t* starts,
                size_t num_leaves, size_t threads, float* means);

// Moves centroids [num_leaves][dim] to where they minimise the sum of
// |e|^2 + (eta - 1) <e, x / |x|>^2 over the rows of their leaves; those of empty leaves stay. From
// wherever they are, the loss does not rise. Rows may have etas and weights of their own (etas and
// scales [rows], or null); a leaf whose rows weigh nothing counts as empty.
void anisotropic_centroids(const float* rows, size_t dim, const uint32_t* order,
                           const uint32_t* starts, size_t num_leaves, float eta, size_t threads,
                           float* centroids, const float* etas = nullptr,
                           const float* scales = nullptr);

// Tiles of 16 rows, [ceil(count / 16)][dim][16]: residuals to the row's centroid (rows themselves
// when centroids is null) and, where wanted, unit directions. Missing rows of the last tile are 0.
void make_tiles(const float* rows, size_t count, size_t dim, const float* centroids,
                const uint32_t* labels, size_t threads, float* targets, float* directions);

struct TileSet {
  const float* targets;     // [tiles][dim][16]
  const float* directions;  // the same, or null for plain l2
  const float* weights;     // [tiles][16]: eta - 1
  size_t tiles, dim, dims_per_block, blocks;
  size_t codewords;         // of a block: 16 or 256
  const float* scales = nullptr;  // [tiles][16]: how much a datapoint counts in updates

  double scale(size_t tile, size_t lane) const {
    return scales == nullptr ? 1.0 : double(scales[tile * kLanes + lane]);
  }
};

// Codebooks are [dim][codewords]. Codes [tiles][blocks][16] of every tile, by KernelTable::encode_tile; losses [tiles][16].
void encode_tiles(const TileSet& set, const float* codebook, size_t sweeps, bool warm,
                  size_t threads, uint8_t* codes, float* losses);

// Where training starts, by k-means++ among all datapoints of the set: the first codeword of a block is
// datapoint first[block]; each one after it is where the sum of squared distances to the nearest of
// those before, up to the datapoint, passes a share of the whole: draws [codewords - 1][blocks].
void start_codebook(const TileSet& set, const uint32_t* first, const double* draws, size_t threads,
                    float* codebook);

// Moves the codewords to where they minimise the loss for these codes: block after block, each
// the closed-form optimum given the others (for plain l2: means). Codewords without datapoints
// stay.
void update_codebook(const TileSet& set, const uint8_t* codes, size_t threads, float* codebook);
// The same until the codewords of all blocks are at their joint optimum.
void update_codebook_jointly(const TileSet& set, const uint8_t* codes, size_t threads,
                             float* codebook);

// How codes are chosen under e^T G e + weight <e, u>^2, e being the error and u what
// metric_directions made of the datapoint: from each block's best, coordinate descent over the blocks
// until nothing changes or `sweeps` passes.
struct Shaped {
  const float* metric;    // G [dim][dim], symmetric
  const float* codebook;  // [dim][codewords]
  size_t codewords, dim, dims_per_block, sweeps;
};

// u = G x / |x|_G of rows x, [count][dim], and |x|_G = sqrt(x^T G x), [count]; zeros for a zero.
void metric_directions(const float* rows, size_t count, size_t dim, const float* metric,
                       size_t threads, float* directions, float* norms);

// Codes [ceil(count / 16)][blocks][16] of targets [count][dim]; directions [count][dim] and weights
// [count] may be null. A datapoint's codes do not depend on the others.
void encode_shaped(const Shaped& how, const float* targets, const float* directions,
                   const float* weights, size_t count, size_t threads, uint8_t* codes);

// Rows, and how an index encodes them.
struct EncodeJob {
  const float* rows;
  const float* weights;    // [count] eta - 1, or null for plain l2
  const float* centroids;  // [num_leaves][dim], or null
  const uint32_t* leaves;  // [count], of the rows
  size_t count, dim, dims_per_block, blocks, sweeps;
  size_t codewords;        // of a block: 16 or 256
  const float* codebook;
  const float* metric = nullptr;      // [dim][dim]: codes are those of encode_shaped
  const float* directions = nullptr;  // [count][dim], with a metric and weights
  const float* center = nullptr;      // [dim] of the corrections, null: the origin
  bool dot_product = false;           // corrections are those of scores, not of squared distances
};
// Codes [ceil(count / 16)][blocks][16], and where not null, not with a metric, corrections [count]: what
// codes r of residuals leave out. Of the squared distance to what they stand for, y = c + r, where tables
// are of q - center: -2 <c - center, r>. Of the dot product, in lengths of the query, where tables are of
// q - |q| center: <center, r>, and (|x|^2 - |y|^2) / (2 |x|). For a query of the length of x the score is
// by |q - y|^2 then, which an error along x all but leaves alone if q is near. What a row gets does not
// depend on the others.
void encode_rows(const EncodeJob& job, size_t threads, uint8_t* codes, float* corrections);

// Places of rows, in any order, among packed codes.
struct Packed {
  const uint64_t* places;  // [count]: group * 32 + place in it; all different
  uint8_t* codes;          // [groups][blocks][block_bytes], the whole index's; zeros in these places
  float* corrections;      // [groups * 32], or null
};
void pack_codes(const EncodeJob& rows, const Packed& out, size_t threads);

}  // namespace swann
