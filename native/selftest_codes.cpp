// The loops that train codebooks and make codes, against plain loops; on one thread and on several.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "kernels.h"
#include "selftest.h"
#include "train.h"

using namespace swann;

namespace selftest {
namespace {

struct Tiles {
  std::vector<float> targets, directions, weights;
  TileSet set;

  Tiles(Random& random, const std::vector<float>& rows, size_t count, size_t dim,
        size_t per_block, size_t codewords, const float* centroids, const uint32_t* labels,
        bool anisotropic) {
    const size_t tiles = tiles_of(count);
    targets.resize(tiles * dim * kLanes, -1.0f);
    directions.resize(targets.size(), -1.0f);
    weights.resize(tiles * kLanes);
    for (size_t i = 0; i < count; ++i) weights[i] = float(random.below(5));
    make_tiles(rows.data(), count, dim, centroids, labels, 3, targets.data(), directions.data());
    set = {targets.data(), anisotropic ? directions.data() : nullptr, weights.data(), tiles, dim,
           per_block, blocks_of(dim, per_block), codewords};
  }

  double loss(const uint8_t* codes, const float* codebook, const float* scales = nullptr) const {
    double total = 0;
    for (size_t t = 0; t < set.tiles; ++t)
      for (size_t i = 0; i < kLanes; ++i) {
        double square = 0, along = 0;
        for (size_t j = 0; j < set.dim; ++j) {
          const size_t at = (t * set.dim + j) * kLanes + i;
          const size_t code = codes[(t * set.blocks + j / set.dims_per_block) * kLanes + i];
          const double e = double(targets[at]) - codebook[j * set.codewords + code];
          square += e * e, along += e * directions[at];
        }
        if (set.directions != nullptr) square += weights[t * kLanes + i] * along * along;
        total += square * (scales == nullptr ? 1.0 : double(scales[t * kLanes + i]));
      }
    return total;
  }
};

void test_tiles() {
  Group group("codes: make_tiles");
  Random random;
  const size_t count = 37, dim = 6, leaves = 4;
  auto rows = random.reals(count * dim);
  std::fill_n(rows.begin(), dim, 0.0f);  // a row of zeros has no direction
  const auto centroids = random.reals(leaves * dim);
  std::vector<uint32_t> labels(count);
  for (uint32_t& label : labels) label = uint32_t(random.below(leaves));
  for (const bool centred : {false, true}) {
    const Tiles tiles(random, rows, count, dim, 2, 16, centred ? centroids.data() : nullptr,
                      centred ? labels.data() : nullptr, true);
    bool right = true, unit = true;
    for (size_t i = 0; i < tiles.set.tiles * kLanes; ++i) {
      double norm = 0;
      for (size_t j = 0; j < dim; ++j) {
        const size_t at = (i / kLanes * dim + j) * kLanes + i % kLanes;
        float want = 0;
        if (i < count) want = rows[i * dim + j];
        if (i < count && centred) want -= centroids[labels[i] * dim + j];
        right &= tiles.targets[at] == want;
        norm += double(tiles.directions[at]) * tiles.directions[at];
      }
      unit &= std::fabs(norm - (i > 0 && i < count ? 1.0 : 0.0)) < 1e-6;
    }
    check(right, "residuals; lanes without a row are 0", centred);
    check(unit, "directions have length 1", centred);
  }
}

void test_codebook(size_t n) {
  Group group("codes: encode_tiles, update_codebook, " + std::to_string(n));
  Random random;
  for (const size_t dim : {1, 5, 24})
    for (const size_t per_block : {1, 2, 5})
      for (const bool anisotropic : {false, true}) {
        if (per_block > dim) continue;
        const auto rows = random.reals(500 * dim);
        const Tiles tiles(random, rows, 500, dim, per_block, n, nullptr, nullptr, anisotropic);
        const TileSet& set = tiles.set;
        std::vector<float> codebook(dim * n), other(codebook);
        const std::vector<uint32_t> first(set.blocks, 7);
        std::vector<double> draws((n - 1) * set.blocks);
        for (size_t i = 0; i < draws.size(); ++i) draws[i] = double(i % 97) / 97;
        start_codebook(set, first.data(), draws.data(), 1, codebook.data());
        start_codebook(set, first.data(), draws.data(), 3, other.data());
        check(same_bits(codebook, other), "a start on three threads is that on one", dim);
        for (size_t j = 0; j < dim; ++j) codebook[j * n + 3] = other[j * n + 3] = 99;
        std::vector<uint8_t> codes(set.tiles * set.blocks * kLanes), codes_other(codes);
        std::vector<float> losses(set.tiles * kLanes), losses_other(losses);
        double loss = std::numeric_limits<double>::infinity();
        bool falls = true, said = true, same = true;
        for (int round = 0; round < 5; ++round) {
          const bool warm = round > 0;
          encode_tiles(set, codebook.data(), 8, warm, 1, codes.data(), losses.data());
          encode_tiles(set, other.data(), 8, warm, 3, codes_other.data(), losses_other.data());
          const double encoded = tiles.loss(codes.data(), codebook.data());
          const double sum = std::accumulate(losses.begin(), losses.end(), 0.0);
          // Without directions a warm start leaves the codes alone, so the loss stays.
          falls &= encoded <= loss * (1 + 1e-6);
          said &= std::fabs(sum - encoded) <= 1e-5 * encoded + 1e-6;
          update_codebook(set, codes.data(), 1, codebook.data());
          update_codebook(set, codes.data(), 3, other.data());
          loss = tiles.loss(codes.data(), codebook.data());
          falls &= loss <= encoded * (1 + 1e-6);
          same &= codes == codes_other && same_bits(losses, losses_other) &&
                  same_bits(codebook, other);
        }
        // A third of the datapoints count thrice, a third not at all; the joint optimum is least.
        std::vector<float> scales(set.tiles * kLanes);
        for (size_t i = 0; i < scales.size(); ++i) scales[i] = float(i % 3) * 1.5f;
        TileSet scaled = set;
        scaled.scales = scales.data();
        auto joint = codebook, joint_other = codebook, blockwise = codebook;
        update_codebook_jointly(scaled, codes.data(), 1, joint.data());
        update_codebook_jointly(scaled, codes.data(), 3, joint_other.data());
        update_codebook(scaled, codes.data(), 2, blockwise.data());
        same &= same_bits(joint, joint_other);
        const double least_loss = tiles.loss(codes.data(), joint.data(), scales.data());
        falls &= least_loss <=
                 tiles.loss(codes.data(), blockwise.data(), scales.data()) * (1 + 1e-6) + 1e-6;
        falls &= tiles.loss(codes.data(), blockwise.data(), scales.data()) <=
                 tiles.loss(codes.data(), codebook.data(), scales.data()) * (1 + 1e-6) + 1e-6;
        check(falls, "the loss never rises", dim, per_block);
        check(said, "the losses are those of the codes", dim, per_block);
        check(same, "the same on three threads", dim, per_block);
        check(codebook[3] == 99.0f, "an unused codeword stays", dim, per_block);
        // At the closed-form optimum of its last block no small step lowers the loss.
        bool least = true;
        for (size_t j = (set.blocks - 1) * per_block; j < dim; ++j)
          for (const float step : {-1e-2f, 1e-2f}) {
            auto moved = codebook;
            moved[j * n + 5] += step;
            least &= tiles.loss(codes.data(), moved.data()) >= loss * (1 - 1e-6);
          }
        check(least, "the codewords are optimal", dim, per_block);
      }
}

// What the score by a code leaves out, as `encode_rows` says.
double correction_by_hand(const float* row, const float* centroid, const float* decoded,
                          const float* center, size_t dim, bool dot_product) {
  double sum = 0, square = 0, coded = 0;
  for (size_t j = 0; j < dim; ++j) {
    const double c = double(centroid[j]), r = double(decoded[j]), m = double(center[j]);
    sum += dot_product ? m * r : -2.0 * (c - m) * r;
    square += double(row[j]) * double(row[j]);
    coded += (c + r) * (c + r);
  }
  return dot_product ? sum + (square - coded) / (2 * std::sqrt(square)) : sum;
}

void test_packing(size_t codewords) {
  Group group("codes: pack_codes, " + std::to_string(codewords));
  Random random;
  const std::vector<uint32_t> starts = {0, 40, 40, 57, 121, 122};  // one leaf is empty
  const size_t leaves = 5, count = 122, dim = 7, per_block = 2, blocks = 4;
  std::vector<size_t> groups(leaves + 1, 0);
  for (size_t l = 0; l < leaves; ++l)
    groups[l + 1] = groups[l] + groups_of(starts[l + 1] - starts[l]);
  const auto rows = random.reals(count * dim), centroids = random.reals(leaves * dim);
  const auto codebook = random.reals(dim * codewords), center = random.reals(dim);
  auto weights = random.reals(count);
  for (float& w : weights) w = w * 3 + 3;
  std::vector<uint32_t> leaf(count);
  std::vector<uint64_t> places(count);
  for (size_t l = 0; l < leaves; ++l)
    for (size_t i = starts[l]; i < starts[l + 1]; ++i)
      leaf[i] = uint32_t(l), places[i] = groups[l] * kGroup + i - starts[l];
  for (const auto& [anisotropic, dot_product] :
       {std::pair{false, false}, {true, false}, {false, true}, {true, true}}) {
    std::vector<uint8_t> codes(groups.back() * blocks * block_bytes(codewords)), pieces(codes);
    std::vector<float> corrections(groups.back() * kGroup), corrections_pieces(corrections);
    const auto pack = [&](size_t first, size_t last, size_t threads, uint8_t* out, float* cross) {
      pack_codes({rows.data() + first * dim, anisotropic ? weights.data() + first : nullptr,
                  centroids.data(), leaf.data() + first, last - first, dim, per_block, blocks, 5,
                  codewords, codebook.data(), nullptr, nullptr, center.data(), dot_product},
                 {places.data() + first, out, cross}, threads);
    };
    pack(0, count, 1, codes.data(), corrections.data());
    for (const size_t cut : {90, 32, 3, 0})
      pack(cut, cut == 90 ? count : cut == 32 ? 90 : cut == 3 ? 32 : 3, 2, pieces.data(),
           corrections_pieces.data());
    check(codes == pieces && same_bits(corrections, corrections_pieces), "in pieces");
    for (size_t l = 0; l < leaves; ++l) {
      const size_t n = starts[l + 1] - starts[l];
      const std::vector<float> own(&rows[starts[l] * dim], &rows[starts[l] * dim] + n * dim);
      const std::vector<uint32_t> labels(n, uint32_t(l));
      Tiles tiles(random, own, n, dim, per_block, codewords, centroids.data(), labels.data(),
                  anisotropic);
      std::copy_n(weights.begin() + starts[l], n, tiles.weights.begin());
      std::vector<uint8_t> want(tiles.set.tiles * blocks * kLanes);
      std::vector<float> losses(tiles.set.tiles * kLanes);
      encode_tiles(tiles.set, codebook.data(), 5, false, 1, want.data(), losses.data());
      bool right = true, near = true;
      for (size_t i = 0; i < n; ++i) {
        const size_t g = groups[l] + i / kGroup;
        std::vector<float> decoded(dim);
        for (size_t j = 0; j < dim; ++j) {
          const size_t m = j / per_block;
          const size_t code = packed_code(codes.data(), codewords, blocks, groups[l] * kGroup + i, m);
          right &= code == want[(i / kLanes * blocks + m) * kLanes + i % kLanes];
          decoded[j] = codebook[j * codewords + code];
        }
        const double want_correction =
            correction_by_hand(&own[i * dim], &centroids[l * dim], decoded.data(), center.data(), dim,
                               dot_product);
        near &= std::fabs(corrections[g * kGroup + i % kGroup] - want_correction) < 1e-5;
      }
      check(right, "codes in the packed order", l, n);
      check(near, "corrections", l, n);
    }
  }
}

}  // namespace

void test_codes() {
  test_tiles();
  for (const size_t codewords : {kWords16, kWords256}) {
    test_codebook(codewords);
    test_packing(codewords);
  }
}

}  // namespace selftest
