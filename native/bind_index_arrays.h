// The arrays of an index as they come from Python, checked, and the view that searches have of them.
#pragma once
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <utility>
#include <vector>

#include "bind_arrays.h"
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
    view_.residual = residual;
    set_projection();
    set_leaves();
    set_entries(spills);
    set_rows();
    set_levels();
    bound_centroids(view_);
    if (codes_) set_codes(dims_per_block, correction_low, correction_span);
    prepare_byte_rows(view_);
  }

 protected:
  IndexView view_;

 private:
  void set_projection() {
    const size_t dim = view_.dim, reduced_dim = view_.reduced_dim;
    expect(reduced_dim >= 1 && reduced_dim <= dim, "reduced_dim must be in 1..dim");
    expect(!projection_ || (projection_->shape(0) == reduced_dim && projection_->shape(1) == dim),
           "projection must be [reduced_dim][dim]");
    view_.projection = pointer(projection_);
    if (projection_) view_.rounded_projection = rounded_basis(projection_->data(), reduced_dim, dim);
  }

  void set_leaves() {
    view_.num_leaves = leaf_starts_.shape(0) - 1;
    view_.leaf_starts = leaf_starts_.data();
    expect(view_.leaf_starts[0] == 0, "leaf_starts must begin with 0");
    view_.num_entries = view_.leaf_starts[view_.num_leaves];
    view_.group_starts = first_groups(view_.leaf_starts, view_.num_leaves);
    expect(centroids_.has_value() || view_.num_leaves == 1, "many leaves need centroids");
    if (centroids_)
      expect(centroids_->shape(0) == view_.num_leaves && centroids_->shape(1) == view_.reduced_dim,
             "centroids must be [num_leaves][reduced_dim]");
    expect(!spreads_ || (centroids_ && spreads_->shape(0) == view_.num_leaves),
           "spreads must be [num_leaves] and need centroids");
    view_.centroids = pointer(centroids_);
    view_.spreads = pointer(spreads_);
  }

  // The row of each entry, and the number of each row.
  void set_entries(bool spills) {
    view_.num_rows = entry_rows_ ? (ids_ ? ids_->shape(0) : 0) : view_.num_entries;
    expect(!entry_rows_ || entry_rows_->shape(0) == view_.num_entries, "entry_rows: [entries]");
    view_.spills = entry_rows_ && spills;
    expect(!view_.spills || centroids_, "rows in two leaves need centroids");
    expect(view_.spills || view_.num_entries == view_.num_rows,
           "a row has one entry where nothing spills");
    if (entry_rows_)
      expect_below(entry_rows_->data(), view_.num_entries, view_.num_rows,
                   "entry_rows must be below the number of rows");
    expect(!ids_ || ids_->shape(0) == view_.num_rows, "ids must be [num_rows]");
    view_.ids = pointer(ids_);
    view_.entry_rows = pointer(entry_rows_);
  }

  // Rows that are scored one by one, where there are any.
  void set_rows() {
    const size_t n = view_.num_rows, dim = view_.dim;
    expect(int(rows_.has_value()) + int(rows_bf16_.has_value()) + int(rows_i8_.has_value()) <= 1,
           "rows have one precision");
    expect(rows_ || rows_bf16_ || rows_i8_ || codes_, "an index needs rows or codes");
    const auto fit = [&](const auto& a) {
      return !a || (a->shape(0) == n && a->shape(1) == dim);
    };
    expect(fit(rows_) && fit(rows_bf16_) && fit(rows_i8_), "rows must be [num_rows][dim]");
    expect(!rows_i8_ || (row_scales_ && row_scales_->shape(0) == n), "row_scales: [num_rows]");
    expect(!rows_i8_ || !view_.squared_l2() || (row_squares_ && row_squares_->shape(0) == n),
           "row_squares: [num_rows]");
    check_origins();
    view_.rows = {pointer(rows_),       pointer(rows_bf16_),   pointer(rows_i8_),
                  pointer(row_scales_), pointer(row_squares_), dim,
                  pointer(row_labels_), pointer(row_origins_),
                  row_origins_ ? row_origins_->shape(0) : 0};
  }

  void check_origins() const {
    expect(row_labels_.has_value() == row_origins_.has_value() && (!row_labels_ || rows_i8_),
           "row_labels and row_origins go together, with rows_i8");
    if (!row_labels_) return;
    expect(row_labels_->shape(0) == view_.num_rows, "row_labels: [num_rows]");
    expect(row_origins_->shape(0) >= 1 && row_origins_->shape(0) <= 256 &&
               row_origins_->shape(1) == view_.dim,
           "row_origins must be [1..256][dim]");
    expect_below(row_labels_->data(), view_.num_rows, row_origins_->shape(0),
                 "row_labels must be below the number of origins");
  }

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

  void set_codes(size_t dims_per_block, double correction_low, double correction_span) {
    const size_t reduced_dim = view_.reduced_dim, groups = view_.group_starts.back();
    expect(dims_per_block >= 1 && dims_per_block <= reduced_dim,
           "dims_per_block must be in 1..reduced_dim");
    view_.dims_per_block = dims_per_block;
    view_.blocks = blocks_of(reduced_dim, dims_per_block);
    expect(view_.blocks < 65000, "too many blocks");
    expect(codebook_ && codebook_->shape(0) == reduced_dim,
           "codebook must be [reduced_dim][codewords]");
    view_.codewords = codewords_of(codebook_->shape(1));
    expect(codes_->shape(0) == groups && codes_->shape(1) == view_.blocks &&
               codes_->shape(2) == block_bytes(view_.codewords),
           "codes must be [groups][blocks][16], or [32] with 256 codewords");
    view_.codes = pointer(codes_);
    view_.codebook = codebook_->data();
    set_corrections(correction_low, correction_span);
    prepare_byte_codebook(view_);
    find_outliers(view_);
  }

  void set_corrections(double low, double span) {
    expect(!corrections_ || (view_.residual && centroids_ &&
                             corrections_->shape(0) == view_.group_starts.back() * kGroup),
           "corrections must be [groups * 32] and are of residuals");
    expect(!code_center_ || (corrections_ && code_center_->shape(0) == view_.reduced_dim),
           "code_center must be [reduced_dim] and needs corrections");
    view_.corrections = pointer(corrections_);
    view_.code_center = pointer(code_center_);
    if (!corrections_) return;
    view_.correction_low = low;
    view_.correction_span = span;
  }

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
