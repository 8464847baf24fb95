// Changes of an index, as they come from Python.
#pragma once
#include <algorithm>
#include <mutex>
#include <utility>
#include <vector>

#include "bind_gil.h"
#include "bind_index_arrays.h"
#include "fork_guard.h"
#include "train.h"
#include "updates.h"

namespace swann {

// Changes beside the arrays; see updates.h. Writers take turns.
class ChangingIndex : public IndexArrays {
 public:
  using IndexArrays::IndexArrays;

  // Grids hold eta - 1 at even steps of T / |x| from 0 to largest_ratio; none: plain l2.
  void begin_updates(std::optional<In<double, 1>> code_grid, double code_threshold,
                     std::optional<In<double, 1>> row_grid, double row_threshold,
                     double largest_ratio, float soar_lambda, float avq, size_t sweeps,
                     MaybeF32x2 tree_map, MaybeF32x2 code_metric) {
    expect(soar_lambda >= 0.0f && avq >= 1.0f, "soar_lambda: at least 0, avq: at least 1");
    EncoderSettings settings;
    const auto fill = [](const std::optional<In<double, 1>>& grid, std::vector<double>& to) {
      if (!grid) return;
      expect(grid->shape(0) >= 2, "a grid needs two steps");
      to.assign(grid->data(), grid->data() + grid->shape(0));
    };
    fill(code_grid, settings.code_weights);
    fill(row_grid, settings.row_weights);
    settings.code_threshold = code_threshold;
    settings.row_threshold = row_threshold;
    settings.largest_ratio = largest_ratio;
    settings.spills = view_.spills;
    settings.soar_lambda = soar_lambda;
    settings.avq = avq;
    settings.sweeps = sweeps;
    const auto keep = [&](const MaybeF32x2& matrix, std::vector<float>& to) {
      if (!matrix) return;
      const size_t dim = view_.reduced_dim;
      expect(matrix->shape(0) == dim && matrix->shape(1) == dim, "matrices: [reduced_dim] twice");
      to.assign(matrix->data(), matrix->data() + dim * dim);
    };
    keep(tree_map, settings.tree_map);
    keep(code_metric, settings.code_metric);
    expect(settings.code_metric.empty() || view_.corrections == nullptr, "no metric with corrections");
    const GilReleased released;
    const std::lock_guard<std::mutex> turn(writing_);
    updates_.begin(std::move(settings));
  }

  size_t upsert(In<float, 2> rows, In<uint32_t, 1> ids, size_t threads,
                const std::optional<In<float, 1>>& scales,
                const std::optional<In<uint8_t, 1>>& labels) {
    expect(rows.shape(1) == view_.dim && rows.shape(0) == ids.shape(0), "rows: [ids][dim]");
    expect(!scales || scales->shape(0) == ids.shape(0), "scales: [ids]");
    expect(scales.has_value() == labels.has_value(), "labels go with scales");
    expect(!labels || labels->shape(0) == ids.shape(0), "labels: [ids]");
    if (labels && view_.rows.origins != nullptr)
      expect_below(labels->data(), labels->shape(0), view_.rows.num_origins, "labels: of origins");
    const KeptRows kept{scales ? scales->data() : nullptr, labels ? labels->data() : nullptr};
    const GilReleased released;
    const std::lock_guard<std::mutex> turn(writing_);
    check_ids(ids, false);
    expect(has_room(ids.shape(0)), "too many datapoints");
    return updates_.upsert(rows.data(), ids.data(), ids.shape(0), threads,
                           scales ? &kept : nullptr);
  }

  // The same for one row [dim]; whether it is a good one.
  bool upsert_one(In<float, 1> row, uint32_t id) {
    expect(row.shape(0) == view_.dim, "row: [dim]");
    const GilReleased released;
    const std::lock_guard<std::mutex> turn(writing_);
    check_id(id, false);
    expect(has_room(1), "too many datapoints");
    return updates_.upsert(row.data(), &id, 1, 1) == 1;
  }

  void erase(In<uint32_t, 1> ids) {
    const GilReleased released;
    const std::lock_guard<std::mutex> turn(writing_);
    check_ids(ids, true);
    updates_.erase(ids.data(), ids.shape(0));
  }

  void erase_one(uint32_t id) {
    const GilReleased released;
    const std::lock_guard<std::mutex> turn(writing_);
    check_id(id, true);
    updates_.erase(&id, 1);
  }

  void reserve(size_t slots) {
    const GilReleased released;
    const std::lock_guard<std::mutex> turn(writing_);
    expect(updates_.begun() && slots < UINT32_MAX, "reserve: not begun, or too much");
    updates_.reserve(slots);
  }

  // Rows of datapoints; 2^32 - 1 for those that are not there.
  void rows_of(In<uint32_t, 1> ids, Out<uint32_t, 1> rows) {
    expect(updates_.begun() && ids.shape(0) == rows.shape(0), "rows: [ids]");
    const GilReleased released;
    const std::lock_guard<std::mutex> turn(writing_);
    for (size_t i = 0; i < ids.shape(0); ++i) rows.data()[i] = updates_.row_of(ids.data()[i]);
  }

  uint32_t row_of(uint32_t id) {
    expect(updates_.begun(), "updates have not begun");
    const GilReleased released;
    const std::lock_guard<std::mutex> turn(writing_);
    return updates_.row_of(id);
  }

  void vectors(In<uint32_t, 1> rows, Out<float, 2> out) {
    expect(updates_.begun(), "updates have not begun");
    expect(out.shape(0) == rows.shape(0) && out.shape(1) == view_.dim, "out: [rows][dim]");
    const GilReleased released;
    const std::lock_guard<std::mutex> turn(writing_);
    expect_below(rows.data(), rows.shape(0), updates_.num_rows(), "rows out of range");
    updates_.vectors(rows.data(), rows.shape(0), out.data());
  }

  void kept_as(In<uint32_t, 1> rows, Out<float, 1> scales, Out<uint8_t, 1> labels) {
    expect(updates_.begun(), "updates have not begun");
    expect(scales.shape(0) == rows.shape(0) && labels.shape(0) == rows.shape(0),
           "scales, labels: [rows]");
    const GilReleased released;
    const std::lock_guard<std::mutex> turn(writing_);
    expect_below(rows.data(), rows.shape(0), updates_.num_rows(), "rows out of range");
    updates_.kept_as(rows.data(), rows.shape(0), scales.data(), labels.data());
  }

  // Whether the numbers of rows and entries, which have 32 bits, suffice for so many more.
  bool has_room(size_t count) const {
    const size_t rows = num_rows() + count, copies = view_.spills ? 2 : 1;
    const size_t entries = view_.num_entries + (rows - view_.num_rows);
    return count < UINT32_MAX && std::max(entries, copies * rows) < UINT32_MAX - 1;
  }

  // Squared distances to the centroids, of rows from `first` on: 0 for all, or a new one.
  void errors(size_t first, Out<double, 1> out) {
    expect(updates_.begun(), "updates have not begun");
    const GilReleased released;
    const std::lock_guard<std::mutex> turn(writing_);
    expect(first == 0 || (first >= view_.num_rows && first <= updates_.num_rows()), "first: a new");
    expect(out.shape(0) == updates_.num_rows() - first, "out: [rows from first on]");
    updates_.errors(first, out.data());
  }

  size_t num_rows() const { return updates_.begun() ? updates_.num_rows() : view_.num_rows; }
  size_t live_rows() const { return updates_.live_rows(); }
  size_t dead_rows() const { return num_rows() - updates_.live_rows(); }
  bool begun() const { return updates_.begun(); }
  bool changed() const { return updates_.changed(); }
  size_t changes_nbytes() const { return updates_.nbytes(); }

  // Sets skip [rows] to 1 for the rows that have entries in the leaves marked in `leaves`.
  void mark_rows(In<uint8_t, 1> leaves, Out<uint8_t, 1> skip) {
    expect(updates_.begun(), "updates have not begun");
    const GilReleased released;
    const std::lock_guard<std::mutex> turn(writing_);
    expect(leaves.shape(0) == view_.num_leaves, "leaves: [num_leaves]");
    expect(skip.shape(0) == updates_.num_rows(), "skip: [rows]");
    updates_.mark_rows(leaves.data(), skip.data());
  }

  // The number of each live row's datapoint, 2^32 - 1 for the dead.
  void numbers(Out<uint32_t, 1> out) {
    expect(updates_.begun(), "updates have not begun");
    const GilReleased released;
    const std::lock_guard<std::mutex> turn(writing_);
    expect(out.shape(0) == updates_.num_rows(), "out: [rows]");
    updates_.numbers(out.data());
  }

  size_t fold_starts(std::optional<In<uint8_t, 1>> skip, Out<uint32_t, 1> leaf_starts) {
    expect(updates_.begun(), "updates have not begun");
    expect(leaf_starts.shape(0) == view_.num_leaves + 1, "leaf_starts: [num_leaves + 1]");
    const GilReleased released;
    const std::lock_guard<std::mutex> turn(writing_);
    expect(!skip || skip->shape(0) == updates_.num_rows(), "skip: [rows]");
    return updates_.fold_starts(pointer(skip), leaf_starts.data());
  }

  void fold(std::optional<In<uint8_t, 1>> skip, In<uint32_t, 1> leaf_starts, Out<uint32_t, 1> ids,
            std::optional<Out<uint32_t, 1>> entry_rows, std::optional<Out<uint8_t, 3>> codes,
            std::optional<Out<uint16_t, 1>> corrections, std::optional<Out<float, 2>> rows,
            std::optional<Out<uint16_t, 2>> rows_bf16, std::optional<Out<int8_t, 2>> rows_i8,
            std::optional<Out<float, 1>> scales, std::optional<Out<float, 1>> squares,
            std::optional<Out<uint8_t, 1>> labels) {
    expect(updates_.begun(), "updates have not begun");
    const GilReleased released;
    const std::lock_guard<std::mutex> turn(writing_);
    expect(!skip || skip->shape(0) == updates_.num_rows(), "skip: [rows]");
    expect(leaf_starts.shape(0) == view_.num_leaves + 1, "leaf_starts: [num_leaves + 1]");
    std::vector<uint32_t> starts(view_.num_leaves + 1);
    const size_t n = updates_.fold_starts(pointer(skip), starts.data());
    expect(std::equal(starts.begin(), starts.end(), leaf_starts.data()), "leaf_starts: as told");
    const size_t groups = first_groups(leaf_starts.data(), view_.num_leaves).back();
    expect(ids.shape(0) == n, "ids: [rows]");
    expect(entry_rows.has_value() == view_.spills &&
               (!entry_rows || entry_rows->shape(0) == starts.back()),
           "entry_rows: [entries]");
    expect(codes.has_value() == (view_.codes != nullptr) &&
               (!codes || (codes->shape(0) == groups && codes->shape(1) == view_.blocks &&
                           codes->shape(2) == block_bytes(view_.codewords))),
           "codes: [groups][blocks][16 or 32]");
    expect(corrections.has_value() == (view_.corrections != nullptr) &&
               (!corrections || corrections->shape(0) == groups * kGroup),
           "corrections: [groups * 32]");
    const auto fits = [&](const auto& a, bool present) {
      return a.has_value() == present && (!a || (a->shape(0) == n && a->shape(1) == view_.dim));
    };
    const auto fits_rows = [&](const auto& a, bool present) {
      return a.has_value() == present && (!a || a->shape(0) == n);
    };
    expect(fits(rows, view_.rows.f32 != nullptr) && fits(rows_bf16, view_.rows.bf16 != nullptr) &&
               fits(rows_i8, view_.rows.i8 != nullptr) &&
               fits_rows(scales, view_.rows.scales != nullptr) &&
               fits_rows(squares, view_.rows.squares != nullptr) &&
               fits_rows(labels, view_.rows.labels != nullptr),
           "rows: [rows][dim], in the precision of the index");
    updates_.fold(pointer(skip),
                  {leaf_starts.data(), ids.data(), pointer(entry_rows), pointer(codes),
                   pointer(corrections), pointer(rows), pointer(rows_bf16), pointer(rows_i8),
                   pointer(scales), pointer(squares), pointer(labels)});
  }

 protected:
  // What searches see: the changes up to now.
  Ref<const Changes> snapshot() const { return updates_.snapshot(); }

 private:
  // An id is there where it must be.
  void check_id(uint32_t id, bool present) const {
    expect(updates_.begun(), "updates have not begun");
    expect(id < UINT32_MAX - 1, "ids must be below 2^32 - 2");
    expect(!present || updates_.row_of(id) != Updates::kNowhere, "no such id");
  }

  // Ids differ, too.
  void check_ids(const In<uint32_t, 1>& ids, bool present) const {
    expect(updates_.begun(), "updates have not begun");
    std::vector<uint32_t> sorted(ids.data(), ids.data() + ids.shape(0));
    std::sort(sorted.begin(), sorted.end());
    expect(std::adjacent_find(sorted.begin(), sorted.end()) == sorted.end(), "ids must differ");
    for (const uint32_t id : sorted) check_id(id, present);
  }

  Updates updates_{view_};
  std::mutex writing_;
  // A change ends before a fork, so that a child sees all of it or nothing.
  const ForkGuard fork_guard_{[this] { writing_.lock(), updates_.hold(); },
                              [this] { updates_.let_go(), writing_.unlock(); }};
};

}  // namespace swann
