// The arrays of an index as they come from Python, checked, and the view that searches have of them.
#pragma once
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <utility>
#include <vector>

#include "arrays.h"
#include "bind_shapes.h"
#include "bind_upper.h"
#include "search.h"

namespace swann {

inline Distance distance_of(const std::string& name) {
  if (name == "dot_product") return Distance::dot_product;
  if (name == "squared_l2") return Distance::squared_l2;
  expect(name == "cosine", "unknown distance measure");
  return Distance::cosine;
}

// Keeps the arrays of an index alive.
class IndexArrays {
 public:
  IndexArrays(const std::string& distance, size_t dim, In<uint32_t, 1> leaf_starts,
              MaybeF32x2 centroids, MaybeF32 spreads, MaybeU32 ids, MaybeU32 entry_rows,
              MaybeF32x2 rows, std::optional<In<uint16_t, 2>> rows_bf16,
              std::optional<In<int8_t, 2>> rows_i8, MaybeF32 row_scales, MaybeF32 row_squares,
              std::optional<In<uint8_t, 1>> row_labels, MaybeF32x2 row_origins,
              std::optional<In<uint8_t, 3>> codes, MaybeF32x2 codebook, size_t dims_per_block,
              std::optional<In<uint16_t, 1>> corrections, double correction_low,
              double correction_span, bool residual, size_t reduced_dim, MaybeF32x2 projection,
              std::optional<RowArrays> rounded_centroids, std::vector<LevelArrays> upper,
              bool spills, MaybeF32 code_center)
      : leaf_starts_(leaf_starts), centroids_(centroids), spreads_(spreads), ids_(ids),
        entry_rows_(entry_rows), rows_(rows), rows_bf16_(rows_bf16), rows_i8_(rows_i8),
        row_scales_(row_scales), row_squares_(row_squares), row_labels_(row_labels),
        row_origins_(row_origins), codes_(codes),
        codebook_(codebook), corrections_(corrections), projection_(projection),
        rounded_centroids_(std::move(rounded_centroids)), upper_(std::move(upper)),
        code_center_(code_center) {
    expect(leaf_starts.shape(0) >= 2, "leaf_starts needs two entries at least");
    expect(dim > 0, "dim must be positive");
    view_.distance = distance_of(distance);
    view_.dim = dim;
    view_.reduced_dim = reduced_dim;
    view_.projection = pointer(projection_);
    expect(reduced_dim >= 1 && reduced_dim <= dim, "reduced_dim must be in 1..dim");
    expect(!projection || (projection->shape(0) == reduced_dim && projection->shape(1) == dim),
           "projection must be [reduced_dim][dim]");
    if (projection) view_.rounded_projection = rounded_basis(projection->data(), reduced_dim, dim);
    view_.residual = residual;
    view_.num_leaves = leaf_starts.shape(0) - 1;
    view_.leaf_starts = leaf_starts.data();
    expect(view_.leaf_starts[0] == 0, "leaf_starts must begin with 0");
    view_.num_entries = view_.leaf_starts[view_.num_leaves];
    view_.num_rows = entry_rows ? (ids ? ids->shape(0) : 0) : view_.num_entries;
    view_.group_starts = first_groups(view_.leaf_starts, view_.num_leaves);
    const size_t n = view_.num_rows, groups = view_.group_starts.back();
    expect(centroids.has_value() || view_.num_leaves == 1, "many leaves need centroids");
    if (centroids)
      expect(centroids->shape(0) == view_.num_leaves && centroids->shape(1) == reduced_dim,
             "centroids must be [num_leaves][reduced_dim]");
    expect(!spreads || (centroids && spreads->shape(0) == view_.num_leaves),
           "spreads must be [num_leaves] and need centroids");
    expect(!entry_rows || entry_rows->shape(0) == view_.num_entries, "entry_rows: [entries]");
    view_.spills = entry_rows && spills;
    expect(!view_.spills || centroids, "rows in two leaves need centroids");
    expect(view_.spills || view_.num_entries == n, "a row has one entry where nothing spills");
    if (entry_rows)
      expect_below(entry_rows->data(), view_.num_entries, n,
                   "entry_rows must be below the number of rows");
    expect(!ids || ids->shape(0) == n, "ids must be [num_rows]");
    expect(int(rows.has_value()) + int(rows_bf16.has_value()) + int(rows_i8.has_value()) <= 1,
           "rows have one precision");
    expect(rows || rows_bf16 || rows_i8 || codes, "an index needs rows or codes");
    const auto are_rows = [&](const auto& a) { return a.shape(0) == n && a.shape(1) == dim; };
    expect((!rows || are_rows(*rows)) && (!rows_bf16 || are_rows(*rows_bf16)) &&
               (!rows_i8 || are_rows(*rows_i8)),
           "rows must be [num_rows][dim]");
    expect(!rows_i8 || (row_scales && row_scales->shape(0) == n), "row_scales: [num_rows]");
    expect(!rows_i8 || distance != "squared_l2" || (row_squares && row_squares->shape(0) == n),
           "row_squares: [num_rows]");
    expect(row_labels.has_value() == row_origins.has_value() && (!row_labels || rows_i8),
           "row_labels and row_origins go together, with rows_i8");
    if (row_labels) {
      expect(row_labels->shape(0) == n, "row_labels: [num_rows]");
      expect(row_origins->shape(0) >= 1 && row_origins->shape(0) <= 256 &&
                 row_origins->shape(1) == dim,
             "row_origins must be [1..256][dim]");
      expect_below(row_labels->data(), n, row_origins->shape(0),
                   "row_labels must be below the number of origins");
    }
    view_.centroids = pointer(centroids_);
    view_.spreads = pointer(spreads_);
    set_levels();
    bound_centroids(view_);
    view_.ids = pointer(ids_);
    view_.entry_rows = pointer(entry_rows_);
    view_.rows = {pointer(rows_),       pointer(rows_bf16_),   pointer(rows_i8_),
                  pointer(row_scales_), pointer(row_squares_), dim,
                  pointer(row_labels_), pointer(row_origins_),
                  row_origins ? row_origins->shape(0) : 0};
    if (codes) {
      expect(dims_per_block >= 1 && dims_per_block <= reduced_dim,
             "dims_per_block must be in 1..reduced_dim");
      view_.dims_per_block = dims_per_block;
      view_.blocks = blocks_of(reduced_dim, dims_per_block);
      expect(view_.blocks < 65000, "too many blocks");
      expect(codebook && codebook->shape(0) == reduced_dim,
             "codebook must be [reduced_dim][codewords]");
      view_.codewords = codewords_of(codebook->shape(1));
      expect(codes->shape(0) == groups && codes->shape(1) == view_.blocks &&
                 codes->shape(2) == block_bytes(view_.codewords),
             "codes must be [groups][blocks][16], or [32] with 256 codewords");
      expect(!corrections || (residual && centroids && corrections->shape(0) == groups * kGroup),
             "corrections must be [groups * 32] and are of residuals");
      view_.codes = pointer(codes_);
      view_.codebook = codebook->data();
      expect(!code_center || (corrections && code_center->shape(0) == reduced_dim),
             "code_center must be [reduced_dim] and needs corrections");
      view_.corrections = pointer(corrections_);
      view_.code_center = pointer(code_center_);
      if (corrections) {
        view_.correction_low = correction_low;
        view_.correction_span = correction_span;
      }
      prepare_tiles(view_);
      find_outliers(view_);
    }
    prepare_byte_rows(view_);
  }

 protected:
  // What stands between a query and the centroids.
  void set_levels() {
    const bool squared_l2 = view_.squared_l2();
    expect((!rounded_centroids_ && upper_.empty()) || view_.centroids != nullptr,
           "levels above need centroids");
    if (rounded_centroids_)
      view_.rounded = exact_rows(*rounded_centroids_, view_.num_leaves, view_.reduced_dim,
                                 squared_l2);
    size_t below = view_.num_leaves;
    const float* spreads = view_.spreads;
    for (const LevelArrays& level : upper_) {
      view_.upper.push_back(upper_level(level, below, spreads, view_.reduced_dim, squared_l2));
      below = view_.upper.back().num_leaves;
      spreads = view_.upper.back().spreads;
    }
  }

  IndexView view_;

 private:
  In<uint32_t, 1> leaf_starts_;
  MaybeF32x2 centroids_;
  MaybeF32 spreads_;
  MaybeU32 ids_;
  MaybeU32 entry_rows_;
  MaybeF32x2 rows_;
  std::optional<In<uint16_t, 2>> rows_bf16_;
  std::optional<In<int8_t, 2>> rows_i8_;
  MaybeF32 row_scales_, row_squares_;
  std::optional<In<uint8_t, 1>> row_labels_;
  MaybeF32x2 row_origins_;
  std::optional<In<uint8_t, 3>> codes_;
  MaybeF32x2 codebook_;
  std::optional<In<uint16_t, 1>> corrections_;
  MaybeF32x2 projection_;
  std::optional<RowArrays> rounded_centroids_;
  std::vector<LevelArrays> upper_;
  MaybeF32 code_center_;
};

}  // namespace swann
