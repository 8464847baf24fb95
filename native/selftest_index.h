// Small indexes for the self-test.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels.h"
#include "search.h"
#include "selftest.h"
#include "train.h"
#include "updates.h"

namespace selftest {

using namespace swann;

// A small index of rows of small integers, whose dot products are exact. Leaf 1 has the centroid
// of leaf 0, and so no rows.
struct SmallIndex {
  std::vector<float> rows, centroids, codebook;
  std::vector<uint16_t> bf16;
  std::vector<int8_t> i8;
  std::vector<float> scales, squares, origins;
  std::vector<uint8_t> labels;
  std::vector<uint32_t> starts, ids, entries, entry_starts;
  std::vector<uint8_t> codes;
  std::vector<uint16_t> corrections;
  IndexView view;

  SmallIndex(Random& random, Distance distance, size_t count, size_t dim, size_t leaves,
             size_t per_block, size_t codewords = kWords16)
      : rows(random.integers(count * dim)), starts{0, uint32_t(count)} {
    view.distance = distance, view.dim = view.reduced_dim = dim, view.codewords = codewords;
    view.num_rows = view.num_entries = count;
    if (leaves > 0) make_tree(random, leaves);
    view.leaf_starts = starts.data();
    view.group_starts.assign(view.num_leaves + 1, 0);
    for (size_t l = 0; l < view.num_leaves; ++l)
      view.group_starts[l + 1] =
          view.group_starts[l] + groups_of(starts[l + 1] - starts[l]);
    if (per_block > 0) make_codes(random, per_block);
  }

  // The rows in a precision of 32, 16 or 8 bits, all of which hold small integers; 0: no rows.
  void give_rows(int bits) {
    view.rows = {};
    if (bits == 32) view.rows.f32 = rows.data();
    if (bits == 16) {
      bf16.resize(rows.size());
      round_to_bf16(rows.data(), view.num_rows, view.dim, nullptr, 2, bf16.data());
      view.rows.bf16 = bf16.data();
    }
    if (bits == 8) {
      i8.assign(rows.begin(), rows.end());
      scales.assign(view.num_rows, 1.0f), squares.assign(view.num_rows, 0.0f);
      for (size_t i = 0; i < rows.size(); ++i) squares[i / view.dim] += rows[i] * rows[i];
      view.rows.i8 = i8.data(), view.rows.scales = scales.data();
      view.rows.squares = squares.data();
    }
    view.rows.dim = view.dim;
    prepare_byte_rows(view);
  }

  // The rows rounded to int8, counted from one of three origins each.
  void round_rows(Random& random) {
    constexpr size_t kOrigins = 3;
    const size_t count = view.num_rows;
    origins = random.reals(kOrigins * view.dim), labels = random.bytes(count, kOrigins);
    i8.resize(rows.size()), scales.resize(count), squares.resize(count);
    round_to_i8(rows.data(), count, view.dim, nullptr, 2, origins.data(), labels.data(), i8.data(),
                scales.data(), squares.data());
    view.rows = {};
    view.rows.i8 = i8.data(), view.rows.scales = scales.data();
    view.rows.squares = squares.data(), view.rows.dim = view.dim;
    view.rows.labels = labels.data(), view.rows.origins = origins.data();
    view.rows.num_origins = kOrigins;
    prepare_byte_rows(view);
  }

  void make_tree(Random& random, size_t leaves) {
    const size_t dim = view.dim, count = view.num_rows;
    centroids = random.integers(leaves * dim);
    if (leaves > 1) std::copy_n(centroids.begin(), dim, centroids.begin() + ptrdiff_t(dim));
    std::vector<uint32_t> labels(count);
    std::vector<float> scores(count);
    ids.resize(count), starts.resize(leaves + 1);
    assign_leaves(rows.data(), count, TiledCentroids(centroids.data(), leaves, dim, 2), 2,
                  labels.data(), scores.data());
    sort_by_leaf(labels.data(), count, leaves, ids.data(), starts.data());
    const auto given = rows;
    for (size_t i = 0; i < count; ++i) std::copy_n(&given[ids[i] * dim], dim, &rows[i * dim]);
    view.num_leaves = leaves, view.centroids = centroids.data(), view.ids = ids.data();
  }

  void make_codes(Random& random, size_t per_block) {
    view.dims_per_block = per_block, view.blocks = blocks_of(view.dim, per_block);
    codebook = random.reals(view.dim * view.codewords);
    codes.resize(view.group_starts.back() * view.group_bytes());
    std::vector<float> cross(view.group_starts.back() * kGroup);
    const bool corrected = view.squared_l2() && view.centroids != nullptr;
    std::vector<uint32_t> leaf(view.num_rows);
    std::vector<uint64_t> places(view.num_rows);
    for (size_t l = 0; l < view.num_leaves; ++l)
      for (size_t i = starts[l]; i < starts[l + 1]; ++i)
        leaf[i] = uint32_t(l), places[i] = view.group_starts[l] * kGroup + i - starts[l];
    pack_codes({rows.data(), nullptr, view.centroids, leaf.data(), view.num_rows, view.dim, per_block,
                view.blocks, 1, view.codewords, codebook.data()},
               {places.data(), codes.data(), corrected ? cross.data() : nullptr}, 2);
    view.codes = codes.data(), view.codebook = codebook.data();
    if (!corrected) return;
    const auto [low, high] = std::minmax_element(cross.begin(), cross.end());
    view.correction_low = *low, view.correction_span = *high - *low;
    for (const float c : cross)
      corrections.push_back(
          uint16_t(std::lround((c - *low) / std::max(view.correction_span, 1e-9) * 65535)));
    view.corrections = corrections.data();
  }

  // Puts every row into a second leaf, so many after its first. Not for codes.
  void spill(size_t further) {
    const size_t leaves = view.num_leaves, count = view.num_rows;
    std::vector<std::vector<uint32_t>> of_leaf(leaves);
    for (size_t l = 0; l < leaves; ++l)
      for (uint32_t row = view.leaf_starts[l]; row < view.leaf_starts[l + 1]; ++row) {
        of_leaf[l].push_back(row);
        of_leaf[(l + further) % leaves].push_back(row);
      }
    entry_starts = {0};
    for (std::vector<uint32_t>& rows_there : of_leaf) {
      std::sort(rows_there.begin(), rows_there.end());
      entries.insert(entries.end(), rows_there.begin(), rows_there.end());
      entry_starts.push_back(uint32_t(entries.size()));
    }
    view.num_entries = 2 * count;
    view.spills = true;
    view.entry_rows = entries.data(), view.leaf_starts = entry_starts.data();
    prepare_byte_rows(view);
  }

  // The score of a row, greater is better: exact, or what its codes stand for.
  double score(const float* q, size_t leaf, size_t row, bool coded) const {
    double total = 0;
    for (size_t j = 0; j < view.dim; ++j) {
      double x = rows[row * view.dim + j];
      if (coded) x = value_of_code(leaf, row, j);
      const double c = coded && view.centroids != nullptr ? centroids[leaf * view.dim + j] : 0;
      total += view.squared_l2() ? -(q[j] - c - x) * (q[j] - c - x) : q[j] * (c + x);
    }
    return total;
  }

  // The code of the block that dimension j is in.
  size_t code(size_t leaf, size_t row, size_t j) const {
    const size_t at = view.group_starts[leaf] * kGroup + row - starts[leaf];
    return packed_code(codes.data(), view.codewords, view.blocks, at, j / view.dims_per_block);
  }
  double value_of_code(size_t leaf, size_t row, size_t j) const {
    return codebook[j * view.codewords + code(leaf, row, j)];
  }
  uint16_t correction(size_t leaf, size_t row) const {
    return corrections[view.group_starts[leaf] * kGroup + row - starts[leaf]];
  }
};

// Of changes to a small index.
inline EncoderSettings small_settings(bool spills) {
  EncoderSettings settings;
  settings.code_weights = {0.5, 1.0, 3.0}, settings.code_threshold = 0.2;
  settings.spills = spills;
  settings.soar_lambda = 1.0f;
  settings.sweeps = 10;
  return settings;
}

}  // namespace selftest
