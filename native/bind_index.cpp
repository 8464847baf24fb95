// The class Index of the Python module: an index to search and to change.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "arrays.h"
#include "bind_shapes.h"
#include "bind_upper.h"
#include "kernels.h"
#include "search.h"
#include "threads.h"
#include "train.h"
#include "updates.h"

namespace swann {
namespace {

// One over the lengths of shorter queries may be more than a float holds.
constexpr float kShort = 0x1p-120f;

Distance distance_of(const std::string& name) {
  if (name == "dot_product") return Distance::dot_product;
  if (name == "squared_l2") return Distance::squared_l2;
  expect(name == "cosine", "unknown distance measure");
  return Distance::cosine;
}

// Keeps the arrays of an index alive and answers queries. Searching changes nothing in it.
class Index {
 public:
  Index(const std::string& distance, size_t dim, In<uint32_t, 1> leaf_starts, MaybeF32x2 centroids,
        MaybeF32 spreads, MaybeU32 ids, MaybeU32 entry_rows, MaybeF32x2 rows,
        std::optional<In<uint16_t, 2>> rows_bf16, std::optional<In<int8_t, 2>> rows_i8,
        MaybeF32 row_scales, MaybeF32 row_squares, std::optional<In<uint8_t, 3>> codes,
        MaybeF32x2 codebook, size_t dims_per_block, std::optional<In<uint16_t, 1>> corrections,
        float correction_low, float correction_span, bool residual, size_t reduced_dim,
        MaybeF32x2 projection, std::optional<RowArrays> rounded_centroids,
        std::vector<LevelArrays> upper)
      : leaf_starts_(leaf_starts), centroids_(centroids), spreads_(spreads), ids_(ids),
        entry_rows_(entry_rows), rows_(rows), rows_bf16_(rows_bf16), rows_i8_(rows_i8),
        row_scales_(row_scales), row_squares_(row_squares), codes_(codes),
        codebook_(codebook), corrections_(corrections), projection_(projection),
        rounded_centroids_(std::move(rounded_centroids)), upper_(std::move(upper)) {
    expect(leaf_starts.shape(0) >= 2, "leaf_starts needs two entries at least");
    expect(dim > 0, "dim must be positive");
    view_.distance = distance_of(distance);
    view_.dim = dim;
    view_.reduced_dim = reduced_dim;
    view_.projection = pointer(projection_);
    expect(reduced_dim >= 1 && reduced_dim <= dim, "reduced_dim must be in 1..dim");
    expect(!projection || (projection->shape(0) == reduced_dim && projection->shape(1) == dim),
           "projection must be [reduced_dim][dim]");
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
    for (size_t i = 0; entry_rows && i < view_.num_entries; ++i)
      expect(entry_rows->data()[i] < n, "entry_rows must be below the number of rows");
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
    view_.centroids = pointer(centroids_);
    view_.spreads = pointer(spreads_);
    set_levels();
    bound_centroids(view_);
    view_.ids = pointer(ids_);
    view_.entry_rows = pointer(entry_rows_);
    view_.rows = {pointer(rows_),       pointer(rows_bf16_),   pointer(rows_i8_),
                  pointer(row_scales_), pointer(row_squares_), dim};
    if (codes) {
      expect(dims_per_block >= 1 && dims_per_block <= reduced_dim,
             "dims_per_block must be in 1..reduced_dim");
      view_.dims_per_block = dims_per_block;
      view_.blocks = (reduced_dim + dims_per_block - 1) / dims_per_block;
      expect(view_.blocks < 65000, "too many blocks");
      expect(codebook && codebook->shape(0) == reduced_dim,
             "codebook must be [reduced_dim][codewords]");
      view_.codewords = codewords_of(codebook->shape(1));
      expect(codes->shape(0) == groups && codes->shape(1) == view_.blocks &&
                 codes->shape(2) == block_bytes(view_.codewords),
             "codes must be [groups][blocks][16], or [32] with 256 codewords");
      expect(!corrections || (residual && corrections->shape(0) == groups * kGroup),
             "corrections must be [groups * 32] and are of residuals");
      view_.codes = pointer(codes_);
      view_.codebook = codebook->data();
      view_.corrections = pointer(corrections_);
      if (corrections) {
        view_.correction_low = correction_low;
        view_.correction_span = correction_span;
      }
      prepare_tiles(view_);
    }
  }

  // Searches queries [count][dim]; results are written to ids and distances [count][k]. Returns
  // the number of the first query that is not finite, too long, or zero under cosine; count when
  // all is well. Blocks of queries are spread over threads.
  size_t search(In<float, 2> queries, size_t candidates, size_t leaves, size_t threads,
                Out<int64_t, 2> ids, Out<float, 2> distances) const {
    const size_t count = queries.shape(0), k = ids.shape(1);
    expect(queries.shape(1) == view_.dim, "queries must be [count][dim]");
    expect(ids.shape(0) == count && distances.shape(0) == count && distances.shape(1) == k,
           "ids and distances must be [count][k]");
    expect(k >= 1 && candidates >= 1 && leaves >= 1, "limits must be positive");
    expect(threads >= 1, "threads must be positive");
    return run(queries.data(), count, {k, candidates, leaves}, threads, ids.data(),
               distances.data());
  }

  // The same for one query [dim]; ids and distances are [k]. Returns 0 for a bad query, else 1.
  size_t search_one(In<float, 1> query, size_t candidates, size_t leaves, Out<int64_t, 1> ids,
                    Out<float, 1> distances) const {
    expect(query.shape(0) == view_.dim, "query must be [dim]");
    expect(ids.shape(0) == distances.shape(0), "ids and distances must be [k]");
    const size_t k = ids.shape(0);
    expect(k >= 1 && candidates >= 1 && leaves >= 1, "limits must be positive");
    return run(query.data(), 1, {k, candidates, leaves}, 1, ids.data(), distances.data());
  }

  // ---- Parts of an index; see search.h.

  // Candidates that a search for k neighbors keeps.
  size_t kept(size_t k, size_t candidates) const {
    return limits_of({k, candidates, 1}, SIZE_MAX).candidates;
  }

  // The best leaves of queries [count][dim], at most as many as there are, into [count][leaves].
  // Returns what `search` returns.
  size_t choose(In<float, 2> queries, size_t threads, Out<uint32_t, 2> leaves,
                Out<float, 2> scores) const {
    const size_t count = queries.shape(0), wanted = leaves.shape(1);
    expect(queries.shape(1) == view_.dim, "queries must be [count][dim]");
    expect(leaves.shape(0) == count && scores.shape(0) == count && scores.shape(1) == wanted,
           "leaves and scores must be [count][leaves]");
    expect(wanted >= 1 && wanted <= view_.num_leaves && threads >= 1, "limits must be positive");
    const float* q = queries.data();
    const nb::gil_scoped_release released;
    std::vector<float> unit;
    const size_t bad = prepare(q, count, unit);
    if (bad < count) return bad;
    if (!unit.empty()) q = unit.data();
    for_blocks(count, threads, most_queries(view_, {1, 1, wanted}), [&](size_t first, size_t size) {
      thread_local std::vector<float> reduced;
      thread_local std::vector<LeafChoice> choices;
      choices.resize(size * wanted);
      choose_leaves(view_, reduce(view_, q + first * view_.dim, size, 1, reduced), size, wanted,
                    choices.data());
      for (size_t i = 0; i < choices.size(); ++i) {
        leaves.data()[first * wanted + i] = choices[i].leaf;
        scores.data()[first * wanted + i] = choices[i].score;
      }
    });
    return count;
  }

  // Candidates of queries from leaves that `choose` found in the whole index.
  size_t gather(In<float, 2> queries, In<uint32_t, 2> leaves, In<float, 2> scores, size_t threads,
                In<uint32_t, 1> whole_starts, Out<uint64_t, 2> first, Out<uint64_t, 2> last,
                Out<float, 2> distances) const {
    const size_t count = queries.shape(0), wanted = leaves.shape(1), width = first.shape(1);
    const auto fits = [&](const auto& a, size_t columns) {
      return a.shape(0) == count && a.shape(1) == columns;
    };
    expect(fits(queries, view_.dim), "queries must be [count][dim]");
    expect(fits(leaves, wanted) && fits(scores, wanted), "leaves, scores: [count][leaves]");
    expect(fits(first, width) && fits(last, width) && fits(distances, width),
           "first, last and distances must be [count][width]");
    expect(wanted >= 1 && width >= 1 && threads >= 1, "limits must be positive");
    expect(whole_starts.shape(0) == view_.num_leaves + 1, "whole_starts: [num_leaves + 1]");
    const float* q = queries.data();
    const nb::gil_scoped_release released;
    for (size_t i = 0; i < leaves.size(); ++i)
      expect(leaves.data()[i] < view_.num_leaves, "no such leaf");
    std::vector<float> unit;
    const size_t bad = prepare(q, count, unit);
    if (bad < count) return bad;
    if (!unit.empty()) q = unit.data();
    const Ref<const Changes> changes = updates_.snapshot();
    const SearchLimits limits{width, width, wanted};
    for_blocks(count, threads, most_queries(view_, limits), [&](size_t begin, size_t size) {
      gather_block(view_, changes.get(), limits, q + begin * view_.dim, size,
                   leaves.data() + begin * wanted, scores.data() + begin * wanted,
                   whole_starts.data(),
                   {first.data() + begin * width, last.data() + begin * width,
                    distances.data() + begin * width});
    });
    return count;
  }

  size_t num_groups() const { return view_.group_starts.back(); }

  // ---- Changes; see updates.h. Writers take turns.

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
    settings.spills = view_.entry_rows != nullptr;
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
    expect(settings.code_metric.empty() || view_.corrections == nullptr, "not for squared l2");
    const nb::gil_scoped_release released;
    const std::lock_guard<std::mutex> turn(writing_);
    updates_.begin(std::move(settings));
  }

  size_t upsert(In<float, 2> rows, In<uint32_t, 1> ids, size_t threads, bool as_kept) {
    expect(rows.shape(1) == view_.dim && rows.shape(0) == ids.shape(0), "rows: [ids][dim]");
    const nb::gil_scoped_release released;
    const std::lock_guard<std::mutex> turn(writing_);
    check_ids(ids, false);
    expect(has_room(ids.shape(0)), "too many datapoints");
    return updates_.upsert(rows.data(), ids.data(), ids.shape(0), threads, as_kept);
  }

  // The same for one row [dim]; whether it is a good one.
  bool upsert_one(In<float, 1> row, uint32_t id) {
    expect(row.shape(0) == view_.dim, "row: [dim]");
    const nb::gil_scoped_release released;
    const std::lock_guard<std::mutex> turn(writing_);
    check_id(id, false);
    expect(has_room(1), "too many datapoints");
    return updates_.upsert(row.data(), &id, 1, 1) == 1;
  }

  void erase(In<uint32_t, 1> ids) {
    const nb::gil_scoped_release released;
    const std::lock_guard<std::mutex> turn(writing_);
    check_ids(ids, true);
    updates_.erase(ids.data(), ids.shape(0));
  }

  void erase_one(uint32_t id) {
    const nb::gil_scoped_release released;
    const std::lock_guard<std::mutex> turn(writing_);
    check_id(id, true);
    updates_.erase(&id, 1);
  }

  void reserve(size_t slots) {
    const nb::gil_scoped_release released;
    const std::lock_guard<std::mutex> turn(writing_);
    expect(updates_.begun() && slots < UINT32_MAX, "reserve: not begun, or too much");
    updates_.reserve(slots);
  }

  // Rows of datapoints; 2^32 - 1 for those that are not there.
  void rows_of(In<uint32_t, 1> ids, Out<uint32_t, 1> rows) const {
    expect(updates_.begun() && ids.shape(0) == rows.shape(0), "rows: [ids]");
    for (size_t i = 0; i < ids.shape(0); ++i) rows.data()[i] = updates_.row_of(ids.data()[i]);
  }

  uint32_t row_of(uint32_t id) const {
    expect(updates_.begun(), "updates have not begun");
    return updates_.row_of(id);
  }

  void vectors(In<uint32_t, 1> rows, Out<float, 2> out) {
    expect(updates_.begun(), "updates have not begun");
    expect(out.shape(0) == rows.shape(0) && out.shape(1) == view_.dim, "out: [rows][dim]");
    const nb::gil_scoped_release released;
    const std::lock_guard<std::mutex> turn(writing_);
    for (size_t i = 0; i < rows.shape(0); ++i)
      expect(rows.data()[i] < updates_.num_rows(), "rows out of range");
    updates_.vectors(rows.data(), rows.shape(0), out.data());
  }

  // Whether the numbers of rows and entries, which have 32 bits, suffice for so many more.
  bool has_room(size_t count) const {
    const size_t rows = num_rows() + count, copies = view_.entry_rows != nullptr ? 2 : 1;
    const size_t entries = view_.num_entries + (rows - view_.num_rows);
    return count < UINT32_MAX && std::max(entries, copies * rows) < UINT32_MAX - 1;
  }

  // Squared distances to the centroids, of rows from `first` on: 0 for all, or a new one.
  void errors(size_t first, Out<double, 1> out) {
    expect(updates_.begun(), "updates have not begun");
    const nb::gil_scoped_release released;
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
    const nb::gil_scoped_release released;
    const std::lock_guard<std::mutex> turn(writing_);
    expect(leaves.shape(0) == view_.num_leaves, "leaves: [num_leaves]");
    expect(skip.shape(0) == updates_.num_rows(), "skip: [rows]");
    updates_.mark_rows(leaves.data(), skip.data());
  }

  // The number of each live row's datapoint, 2^32 - 1 for the dead.
  void numbers(Out<uint32_t, 1> out) {
    expect(updates_.begun() && out.shape(0) == updates_.num_rows(), "out: [rows]");
    updates_.numbers(out.data());
  }

  size_t fold_starts(std::optional<In<uint8_t, 1>> skip, Out<uint32_t, 1> leaf_starts) {
    expect(updates_.begun(), "updates have not begun");
    expect(leaf_starts.shape(0) == view_.num_leaves + 1, "leaf_starts: [num_leaves + 1]");
    const nb::gil_scoped_release released;
    const std::lock_guard<std::mutex> turn(writing_);
    expect(!skip || skip->shape(0) == updates_.num_rows(), "skip: [rows]");
    return updates_.fold_starts(pointer(skip), leaf_starts.data());
  }

  void fold(std::optional<In<uint8_t, 1>> skip, In<uint32_t, 1> leaf_starts, Out<uint32_t, 1> ids,
            std::optional<Out<uint32_t, 1>> entry_rows, std::optional<Out<uint8_t, 3>> codes,
            std::optional<Out<uint16_t, 1>> corrections, std::optional<Out<float, 2>> rows,
            std::optional<Out<uint16_t, 2>> rows_bf16, std::optional<Out<int8_t, 2>> rows_i8,
            std::optional<Out<float, 1>> scales, std::optional<Out<float, 1>> squares) {
    expect(updates_.begun(), "updates have not begun");
    const nb::gil_scoped_release released;
    const std::lock_guard<std::mutex> turn(writing_);
    expect(!skip || skip->shape(0) == updates_.num_rows(), "skip: [rows]");
    expect(leaf_starts.shape(0) == view_.num_leaves + 1, "leaf_starts: [num_leaves + 1]");
    std::vector<uint32_t> starts(view_.num_leaves + 1);
    const size_t n = updates_.fold_starts(pointer(skip), starts.data());
    expect(std::equal(starts.begin(), starts.end(), leaf_starts.data()), "leaf_starts: as told");
    const size_t groups = first_groups(leaf_starts.data(), view_.num_leaves).back();
    expect(ids.shape(0) == n, "ids: [rows]");
    expect(entry_rows.has_value() == (view_.entry_rows != nullptr) &&
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
               fits_rows(squares, view_.rows.squares != nullptr),
           "rows: [rows][dim], in the precision of the index");
    updates_.fold(pointer(skip),
                  {leaf_starts.data(), ids.data(), pointer(entry_rows), pointer(codes),
                   pointer(corrections), pointer(rows), pointer(rows_bf16), pointer(rows_i8),
                   pointer(scales), pointer(squares)});
  }

 private:
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

  SearchLimits limits_of(const SearchLimits& asked, size_t num_entries) const {
    const size_t k = asked.neighbors;
    const bool reorders = view_.codes != nullptr && view_.rows.present();
    const bool spilled = view_.entry_rows != nullptr;  // a datapoint may come twice
    const size_t least = spilled ? 2 * k : k;
    const size_t kept = reorders || spilled ? std::max(asked.candidates, least) : k;
    return {k, std::min(kept, std::max<size_t>(num_entries, 1)),
            std::min(asked.leaves, view_.num_leaves)};
  }

  size_t run(const float* q, size_t count, const SearchLimits& asked, size_t threads,
             int64_t* ids, float* distances) const {
    const nb::gil_scoped_release released;
    std::vector<float> unit;
    const size_t bad = prepare(q, count, unit);
    if (bad < count) return bad;
    if (!unit.empty()) q = unit.data();
    const Ref<const Changes> changes = updates_.snapshot();
    const SearchLimits limits =
        limits_of(asked, view_.num_entries + (changes ? changes->entries : 0));
    const size_t k = limits.neighbors;
    for_blocks(count, threads, most_queries(view_, limits), [&](size_t first, size_t size) {
      search_block(view_, changes.get(), limits, q + first * view_.dim, size, ids + first * k,
                   distances + first * k);
    });
    return count;
  }

  // Cuts `count` queries into blocks, spread over threads: calls do(first, size).
  template <typename Do>
  static void for_blocks(size_t count, size_t threads, size_t most, const Do& each) {
    const size_t block = std::clamp<size_t>((count + threads - 1) / threads, 1, most);
    parallel_for((count + block - 1) / block, threads, [&](size_t i) {
      each(i * block, std::min(block, count - i * block));
    });
  }

  // Checks queries, and for cosine fills `unit` with them at unit length.
  size_t prepare(const float* q, size_t count, std::vector<float>& unit) const {
    const size_t dim = view_.dim;
    const bool cosine = view_.distance == Distance::cosine;
    if (cosine) unit.resize(count * dim);
    for (size_t i = 0; i < count; ++i) {
      float norm;
      if (check_rows(q + i * dim, 1, dim, &norm, 1) == 0) return i;
      if (!cosine) continue;
      if (norm == 0.0f) return i;
      if (norm < kShort) {
        normalize_rows(q + i * dim, 1, dim, 1, unit.data() + i * dim);
        continue;
      }
      const float inverse = 1.0f / norm;
      for (size_t j = 0; j < dim; ++j) unit[i * dim + j] = q[i * dim + j] * inverse;
    }
    return count;
  }

  IndexView view_;
  Updates updates_{view_};
  std::mutex writing_;
  In<uint32_t, 1> leaf_starts_;
  MaybeF32x2 centroids_;
  MaybeF32 spreads_;
  MaybeU32 ids_;
  MaybeU32 entry_rows_;
  MaybeF32x2 rows_;
  std::optional<In<uint16_t, 2>> rows_bf16_;
  std::optional<In<int8_t, 2>> rows_i8_;
  MaybeF32 row_scales_, row_squares_;
  std::optional<In<uint8_t, 3>> codes_;
  MaybeF32x2 codebook_;
  std::optional<In<uint16_t, 1>> corrections_;
  MaybeF32x2 projection_;
  std::optional<RowArrays> rounded_centroids_;
  std::vector<LevelArrays> upper_;
};

// What one part found: numbers of queries, first and last keys, distances.
using Part = std::tuple<In<uint32_t, 1>, In<uint64_t, 2>, In<uint64_t, 2>, In<float, 2>>;

void merge(const std::vector<Part>& parts, size_t candidates, size_t threads, Out<int64_t, 2> ids,
           Out<float, 2> distances) {
  const size_t count = ids.shape(0), k = ids.shape(1);
  expect(distances.shape(0) == count && distances.shape(1) == k, "distances must be [count][k]");
  expect(candidates >= 1 && threads >= 1, "limits must be positive");
  std::vector<FoundPart> found;
  for (const auto& [queries, first, last, values] : parts) {
    const size_t rows = queries.shape(0), width = first.shape(1);
    const auto fits = [&](const auto& a) { return a.shape(0) == rows && a.shape(1) == width; };
    expect(fits(first) && fits(last) && fits(values), "parts must be [queries][width]");
    for (size_t i = 0; i < rows; ++i) expect(queries.data()[i] < count, "no such query");
    found.push_back({queries.data(), first.data(), last.data(), values.data(), rows, width});
  }
  const nb::gil_scoped_release released;
  merge_found(found.data(), found.size(), {k, candidates, 1}, count, threads, ids.data(),
              distances.data());
}

}  // namespace

void bind_index(nb::module_& m) {
  using namespace nb::literals;
  m.def("merge", &merge, nb::arg(), nb::arg(), nb::arg(), nb::arg().noconvert(),
        nb::arg().noconvert());
  nb::class_<Index>(m, "Index")
      .def(nb::init<const std::string&, size_t, In<uint32_t, 1>, MaybeF32x2,
                    std::optional<In<float, 1>>, MaybeU32, MaybeU32, MaybeF32x2,
                    std::optional<In<uint16_t, 2>>, std::optional<In<int8_t, 2>>, MaybeF32, MaybeF32,
                    std::optional<In<uint8_t, 3>>, MaybeF32x2, size_t,
                    std::optional<In<uint16_t, 1>>, float, float, bool, size_t, MaybeF32x2,
                    std::optional<RowArrays>, std::vector<LevelArrays>>(),
           "distance"_a, "dim"_a, "leaf_starts"_a, "centroids"_a.none(), "spreads"_a.none(),
           "ids"_a.none(), "entry_rows"_a.none(), "rows"_a.none(), "rows_bf16"_a.none(),
           "rows_i8"_a.none(), "row_scales"_a.none(), "row_squares"_a.none(), "codes"_a.none(),
           "codebook"_a.none(), "dims_per_block"_a, "corrections"_a.none(), "correction_low"_a, "correction_span"_a,
           "residual"_a = true, "reduced_dim"_a, "projection"_a.none() = nb::none(),
           "rounded_centroids"_a.none() = nb::none(), "upper"_a = std::vector<LevelArrays>())
      .def("search", &Index::search, nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg(),
           nb::arg().noconvert(), nb::arg().noconvert())
      .def("search_one", &Index::search_one, nb::arg().noconvert(), nb::arg(), nb::arg(),
           nb::arg().noconvert(), nb::arg().noconvert())
      .def("kept", &Index::kept)
      .def("choose", &Index::choose, nb::arg().noconvert(), nb::arg(), nb::arg().noconvert(),
           nb::arg().noconvert())
      .def("gather", &Index::gather, nb::arg().noconvert(), nb::arg().noconvert(),
           nb::arg().noconvert(), nb::arg(), nb::arg().noconvert(), nb::arg().noconvert(),
           nb::arg().noconvert(), nb::arg().noconvert())
      .def_prop_ro("num_groups", &Index::num_groups)
      .def("begun", &Index::begun)
      .def("begin_updates", &Index::begin_updates, nb::arg().none(), nb::arg(), nb::arg().none(),
           nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(),
           nb::arg().none())
      .def("upsert", &Index::upsert, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg(),
           nb::arg() = false)
      .def("upsert_one", &Index::upsert_one, nb::arg().noconvert(), nb::arg())
      .def("erase", &Index::erase, nb::arg().noconvert())
      .def("erase_one", &Index::erase_one)
      .def("reserve", &Index::reserve)
      .def("has_room", &Index::has_room)
      .def("errors", &Index::errors, nb::arg(), nb::arg().noconvert())
      .def("rows_of", &Index::rows_of, nb::arg().noconvert(), nb::arg().noconvert())
      .def("row_of", &Index::row_of)
      .def("vectors", &Index::vectors, nb::arg().noconvert(), nb::arg().noconvert())
      .def("num_rows", &Index::num_rows)
      .def("live_rows", &Index::live_rows)
      .def("dead_rows", &Index::dead_rows)
      .def("changed", &Index::changed)
      .def("changes_nbytes", &Index::changes_nbytes)
      .def("mark_rows", &Index::mark_rows, nb::arg().noconvert(), nb::arg().noconvert())
      .def("numbers", &Index::numbers, nb::arg().noconvert())
      .def("fold_starts", &Index::fold_starts, nb::arg().none(), nb::arg().noconvert())
      .def("fold", &Index::fold, nb::arg().none(), nb::arg(), nb::arg(), nb::arg().none(),
           nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg().none(),
           nb::arg().none(), nb::arg().none(), nb::arg().none());
}

}  // namespace swann
