// The levels above the centroids and their rounded rows, as they come from Python.
#pragma once
#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstring>
#include <tuple>
#include <vector>

#include "bind_arrays.h"
#include "search.h"

namespace swann {

// Rows in one of three precisions: float32, bfloat16, int8, the scales and squares of int8.
using RowArrays =
    std::tuple<std::optional<In<float, 2>>, std::optional<In<uint16_t, 2>>,
               std::optional<In<int8_t, 2>>, std::optional<In<float, 1>>,
               std::optional<In<float, 1>>>;
// centroids, spreads, starts, entries, rows, to_search, gather.
using LevelArrays = std::tuple<In<float, 2>, std::optional<In<float, 1>>, In<uint32_t, 1>,
                               In<uint32_t, 1>, RowArrays, size_t, float>;

inline ExactRows exact_rows(const RowArrays& arrays, size_t count, size_t dim, bool squared_l2) {
  const auto& [f32, bf16, i8, scales, squares] = arrays;
  const auto fits = [&](const auto& a) {
    return !a || (a->shape(0) == count && a->shape(1) == dim);
  };
  expect(int(f32.has_value()) + int(bf16.has_value()) + int(i8.has_value()) == 1,
         "rows of centroids have one precision");
  expect(fits(f32) && fits(bf16) && fits(i8), "rows of centroids must be [count][dim]");
  expect(!i8 || (scales && scales->shape(0) == count), "scales must be [count]");
  expect(!i8 || !squared_l2 || (squares && squares->shape(0) == count), "squares must be [count]");
  return {pointer(f32), pointer(bf16), pointer(i8), pointer(scales), pointer(squares), dim};
}

// Whether two rows are the same, bit for bit.
inline bool same_row(const ExactRows& rows, size_t a, size_t b) {
  const auto same = [&](const auto* values, size_t width) {
    return values == nullptr ||
           std::memcmp(values + a * width, values + b * width, width * sizeof *values) == 0;
  };
  return same(rows.f32, rows.dim) && same(rows.bf16, rows.dim) && same(rows.i8, rows.dim) &&
         same(rows.scales, 1) && same(rows.squares, 1);
}

// `below` centroids with `spreads` (or null) lie under this level.
inline UpperLevel upper_level(const LevelArrays& arrays, size_t below, const float* spreads,
                              size_t dim, bool squared_l2) {
  const auto& [centroids, own_spreads, starts, entries, rows, to_search, gather] = arrays;
  UpperLevel level;
  level.num_leaves = centroids.shape(0);
  level.num_entries = entries.shape(0);
  level.num_below = below;
  expect(level.num_leaves >= 1 && centroids.shape(1) == dim, "upper centroids: [leaves][dim]");
  expect(!own_spreads || own_spreads->shape(0) == level.num_leaves, "upper spreads: [leaves]");
  expect(level.num_entries == below || level.num_entries == 2 * below,
         "an upper level has one entry or two for each centroid below");
  expect(starts.shape(0) == level.num_leaves + 1 && starts.data()[0] == 0 &&
             starts.data()[level.num_leaves] == level.num_entries,
         "upper starts must be [leaves + 1], from 0 to the number of entries");
  for (size_t l = 0; l < level.num_leaves; ++l)
    expect(starts.data()[l] <= starts.data()[l + 1], "upper starts must not descend");
  level.rows = exact_rows(rows, level.num_entries, dim, squared_l2);
  std::vector<uint8_t> seen(below, 0);
  std::vector<uint32_t> first(below);
  for (size_t i = 0; i < level.num_entries; ++i) {
    const uint32_t entry = entries.data()[i];
    expect(entry < below, "upper entries must be below the number of centroids");
    expect(++seen[entry] <= level.num_entries / below, "an upper level repeats a centroid");
    // What comes twice is told by its score, which must be the same.
    if (seen[entry] == 1)
      first[entry] = uint32_t(i);
    else
      expect(same_row(level.rows, first[entry], i), "an upper level has two rows of a centroid");
  }
  expect(to_search >= 1 && gather >= float(level.num_entries / below),
         "an upper level searches one leaf at least, and gathers each repeat");
  level.centroids = centroids.data();
  level.spreads = pointer(own_spreads);
  level.starts = starts.data();
  level.entries = entries.data();
  if (spreads != nullptr) {
    level.reach.resize(level.num_entries);
    for (size_t i = 0; i < level.num_entries; ++i) level.reach[i] = spreads[level.entries[i]];
  }
  level.to_search = std::min(to_search, level.num_leaves);
  level.gather = gather;
  return level;
}

}  // namespace swann
