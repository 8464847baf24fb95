// The class Index of the Python module: an index to search and to change.
#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bind_arrays.h"
#include "bind_index_changes.h"
#include "bind_long_call.h"
#include "bind_numpy.h"
#include "kernels.h"
#include "search.h"
#include "threads.h"
#include "train.h"

namespace swann {
namespace {

// One over the lengths of shorter queries may be more than a float holds.
constexpr float kShort = 0x1p-120f;
constexpr size_t kHeard = 2048;  // queries, between whose blocks interrupts are heard

// Answers queries. Searching changes nothing in it.
class Index : public ChangingIndex {
 public:
  using ChangingIndex::ChangingIndex;

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

  // The same for one query: a tuple of new arrays, ids and distances [k]. False for a bad query, and
  // None for what is no float32 array [dim] that can be read as it lies.
  nb::object search_one(nb::handle query, size_t k, size_t candidates, size_t leaves) const {
    expect(k >= 1 && candidates >= 1 && leaves >= 1, "limits must be positive");
    const float* const values = plain_floats(query, view_.dim);
    if (values == nullptr) return nb::none();
    const NewArray ids = new_int64(k), distances = new_float32(k);
    const size_t good = run(values, 1, {k, candidates, leaves}, 1,
                            static_cast<int64_t*>(ids.values), static_cast<float*>(distances.values));
    if (good == 0) return nb::bool_(false);
    return nb::make_tuple(ids.array, distances.array);
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
    const GilReleased released;
    std::vector<float> unit;
    const size_t bad = prepare(q, count, threads, unit);
    if (bad < count) return bad;
    if (!unit.empty()) q = unit.data();
    for_blocks(count, threads, most_queries(view_, {1, 1, wanted}), [&](size_t first, size_t size) {
      thread_local std::vector<float> reduced;
      thread_local std::vector<LeafChoice> choices;
      choices.resize(size * wanted);
      const float* some = reduce_queries(view_, q + first * view_.dim, size, 1, reduced);
      choose_leaves(view_, some, size, wanted, choices.data());
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
    const GilReleased released;
    expect_choices(leaves, scores);
    std::vector<float> unit;
    const size_t bad = prepare(q, count, threads, unit);
    if (bad < count) return bad;
    if (!unit.empty()) q = unit.data();
    const Ref<const Changes> changes = snapshot();
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

 private:
  // They come from elsewhere: a query's leaves must be there and differ.
  void expect_choices(const In<uint32_t, 2>& leaves, const In<float, 2>& scores) const {
    expect_below(leaves.data(), leaves.size(), view_.num_leaves, "no such leaf");
    expect(std::all_of(scores.data(), scores.data() + scores.size(),
                       [](float score) { return std::isfinite(score); }),
           "scores must be finite");
    std::vector<size_t> last(view_.num_leaves, SIZE_MAX);  // query that named the leaf
    for (size_t i = 0; i < leaves.size(); ++i) {
      const size_t query = i / leaves.shape(1);
      expect(std::exchange(last[leaves.data()[i]], query) != query, "a query names a leaf twice");
    }
  }

  SearchLimits limits_of(const SearchLimits& asked, size_t num_entries) const {
    const size_t k = asked.neighbors;
    const bool reorders = view_.codes != nullptr && view_.rows.present();
    const size_t least = view_.spills ? 2 * k : k;  // a datapoint may come twice
    const size_t kept = reorders || view_.spills ? std::max(asked.candidates, least) : k;
    return {k, std::min(kept, std::max<size_t>(num_entries, 1)),
            std::min(asked.leaves, view_.num_leaves)};
  }

  size_t run(const float* q, size_t count, const SearchLimits& asked, size_t threads,
             int64_t* ids, float* distances) const {
    if (count < kHeard) {
      const GilReleased released;
      return answer(q, count, asked, threads, ids, distances);
    }
    const LongCall call;
    return answer(q, count, asked, threads, ids, distances);
  }

  size_t answer(const float* q, size_t count, const SearchLimits& asked, size_t threads,
                int64_t* ids, float* distances) const {
    std::vector<float> unit;
    const size_t bad = prepare(q, count, threads, unit);
    if (bad < count) return bad;
    if (!unit.empty()) q = unit.data();
    const Ref<const Changes> changes = snapshot();
    const SearchLimits limits =
        limits_of(asked, view_.num_entries + (changes ? changes->entries : 0));
    search_batch(view_, changes.get(), limits, q, count, threads, ids, distances);
    return count;
  }

  // Checks queries, and for cosine fills `unit` with them at unit length. The number of the first bad
  // one; count if all are good.
  size_t prepare(const float* q, size_t count, size_t threads, std::vector<float>& unit) const {
    constexpr size_t kTogether = 256;
    const size_t dim = view_.dim;
    const bool cosine = view_.distance == Distance::cosine;
    if (cosine) unit.resize(count * dim);
    std::atomic<size_t> bad{count};
    for_blocks(count, threads, kTogether, [&](size_t first, size_t size) {
      for (size_t i = first; i < first + size; ++i)
        if (!prepare_one(q + i * dim, cosine ? unit.data() + i * dim : nullptr))
          return lower(bad, i);
    });
    return bad;
  }

  // One query, and where it goes at unit length, or null. Whether it is good.
  bool prepare_one(const float* query, float* unit) const {
    const size_t dim = view_.dim;
    float norm;
    if (check_rows(query, 1, dim, &norm, 1) == 0) return false;
    if (unit == nullptr) return true;
    if (norm == 0.0f) return false;
    if (norm < kShort) {
      normalize_rows(query, 1, dim, 1, unit);
      return true;
    }
    const float inverse = 1.0f / norm;
    for (size_t j = 0; j < dim; ++j) unit[j] = query[j] * inverse;
    return true;
  }
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
    expect_below(queries.data(), rows, count, "no such query");
    found.push_back({queries.data(), first.data(), last.data(), values.data(), rows, width});
  }
  const GilReleased released;
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
                    std::optional<In<uint8_t, 1>>, MaybeF32x2, std::optional<In<uint8_t, 3>>,
                    MaybeF32x2, size_t,
                    std::optional<In<uint16_t, 1>>, double, double, bool, size_t, MaybeF32x2,
                    std::optional<RowArrays>, std::vector<LevelArrays>, bool, MaybeF32>(),
           "distance"_a, "dim"_a, "leaf_starts"_a, "centroids"_a.none(), "spreads"_a.none(),
           "ids"_a.none(), "entry_rows"_a.none(), "rows"_a.none(), "rows_bf16"_a.none(),
           "rows_i8"_a.none(), "row_scales"_a.none(), "row_squares"_a.none(),
           "row_labels"_a.none(), "row_origins"_a.none(), "codes"_a.none(),
           "codebook"_a.none(), "dims_per_block"_a, "corrections"_a.none(), "correction_low"_a, "correction_span"_a,
           "residual"_a = true, "reduced_dim"_a, "projection"_a.none() = nb::none(),
           "rounded_centroids"_a.none() = nb::none(), "upper"_a = std::vector<LevelArrays>(), "spills"_a = true,
           "code_center"_a.none() = nb::none())
      .def("search", &Index::search, nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg(),
           nb::arg().noconvert(), nb::arg().noconvert())
      .def("search_one", &Index::search_one, nb::arg().none(), nb::arg(), nb::arg(), nb::arg())
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
           nb::arg().none() = nb::none(), nb::arg().none() = nb::none())
      .def("upsert_one", &Index::upsert_one, nb::arg().noconvert(), nb::arg())
      .def("erase", &Index::erase, nb::arg().noconvert())
      .def("erase_one", &Index::erase_one)
      .def("reserve", &Index::reserve)
      .def("has_room", &Index::has_room)
      .def("errors", &Index::errors, nb::arg(), nb::arg().noconvert())
      .def("rows_of", &Index::rows_of, nb::arg().noconvert(), nb::arg().noconvert())
      .def("row_of", &Index::row_of)
      .def("vectors", &Index::vectors, nb::arg().noconvert(), nb::arg().noconvert())
      .def("kept_as", &Index::kept_as, nb::arg().noconvert(), nb::arg().noconvert(),
           nb::arg().noconvert())
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
           nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg().none());
}

}  // namespace swann
