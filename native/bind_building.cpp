// The loops of building for Python: sizes are checked here, and trusted behind this file. All of them
// hear an interrupt (Ctrl-C): the exception of Python's signal handler ends the call.
#include <nanobind/stl/optional.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <algorithm>
#include <cmath>
#include <vector>

#include "bind_arrays.h"
#include "bind_long_call.h"
#include "bind_shapes.h"
#include "kernels.h"
#include "rows.h"
#include "threads.h"
#include "train.h"

namespace swann {
namespace {

size_t check(In<float, 2> rows, std::optional<Out<float, 1>> norms, size_t threads) {
  expect(!norms || norms->shape(0) == rows.shape(0), "norms must be [count]");
  const LongCall call;
  return check_rows(rows.data(), rows.shape(0), rows.shape(1), pointer(norms), threads);
}

void square(In<float, 2> rows, Out<double, 1> squares, size_t threads) {
  expect(squares.shape(0) == rows.shape(0), "squares must be [count]");
  const LongCall call;
  square_rows(rows.data(), rows.shape(0), rows.shape(1), threads, squares.data());
}

void check_order(const In<uint32_t, 1>& order, const In<uint32_t, 1>& starts, size_t count,
                 size_t leaves) {
  expect(order.shape(0) == count && starts.shape(0) == leaves + 1,
         "order must be [count], starts [num_leaves + 1]");
  expect(starts.data()[leaves] <= count, "starts must end with the number of rows");
  for (size_t l = 0; l < leaves; ++l)
    expect(starts.data()[l] <= starts.data()[l + 1], "starts must not descend");
  expect_below(order.data(), count, count, "order names a missing row");
}

// Centroids as assignment reads them, for any number of calls.
class Centroids {
 public:
  Centroids(In<float, 2> rows, size_t threads) : rows_(std::move(rows)) {
    expect(rows_.shape(0) >= 1 && rows_.shape(1) >= 1, "centroids must not be empty");
    const LongCall call;
    tiled_ = TiledCentroids(rows_.data(), rows_.shape(0), rows_.shape(1), threads);
  }
  const TiledCentroids& tiled() const noexcept { return tiled_; }

 private:
  In<float, 2> rows_;
  TiledCentroids tiled_;
};

void assign(In<float, 2> rows, const Centroids& centroids, Out<uint32_t, 1> labels,
            Out<float, 1> scores, float eta, MaybeF32 etas, size_t threads) {
  const TiledCentroids& tiled = centroids.tiled();
  expect(rows.shape(1) == tiled.dim, "rows and centroids differ in dimension");
  expect(eta >= 1.0f, "eta must be at least 1");
  expect(labels.shape(0) == rows.shape(0) && scores.shape(0) == rows.shape(0),
         "labels and scores must be [count]");
  expect(!etas || etas->shape(0) == rows.shape(0), "etas must be [count]");
  const LongCall call;
  assign_leaves(rows.data(), rows.shape(0), tiled, threads, labels.data(), scores.data(), eta,
                pointer(etas));
}

// Rows come in and keep an order by leaf, checked as for move_centroids.
void reassign(In<float, 2> rows, In<float, 2> origins, In<float, 2> centroids, size_t width,
              In<uint32_t, 1> order, In<uint32_t, 1> starts, Out<uint32_t, 1> labels,
              Out<float, 1> scores, size_t threads) {
  const size_t count = rows.shape(0), leaves = centroids.shape(0);
  expect(rows.shape(1) == centroids.shape(1), "rows and centroids differ in dimension");
  expect(origins.shape(0) == leaves && origins.shape(1) == rows.shape(1),
         "origins must be [num_leaves][dim]");
  expect(width >= 1 && width <= leaves, "width must be in 1..num_leaves");
  expect(labels.shape(0) == count && scores.shape(0) == count, "labels and scores: [count]");
  check_order(order, starts, count, leaves);
  expect(starts.data()[0] == 0 && starts.data()[leaves] == count, "starts must cover the rows");
  const LongCall call;
  const TiledCentroids tiled(centroids.data(), leaves, rows.shape(1), threads);
  assign_near(rows.data(), origins.data(), tiled, width, order.data(), starts.data(), threads,
              labels.data(), scores.data());
}

void move_centroids(In<float, 2> rows, In<uint32_t, 1> order, In<uint32_t, 1> starts, float eta,
                    MaybeF32 etas, MaybeF32 scales, Out<float, 2> centroids, size_t threads) {
  const size_t count = rows.shape(0), leaves = centroids.shape(0);
  expect(centroids.shape(1) == rows.shape(1), "rows and centroids differ in dimension");
  expect(eta >= 1.0f, "eta must be at least 1");
  expect((!etas || etas->shape(0) == count) && (!scales || scales->shape(0) == count),
         "etas and scales must be [count]");
  check_order(order, starts, count, leaves);
  const LongCall call;
  anisotropic_centroids(rows.data(), rows.shape(1), order.data(), starts.data(), leaves, eta,
                        threads, centroids.data(), pointer(etas), pointer(scales));
}

void to_bf16(In<float, 2> rows, MaybeF32 weights, Out<uint16_t, 2> out, size_t threads) {
  expect(out.shape(0) == rows.shape(0) && out.shape(1) == rows.shape(1), "out: [count][dim]");
  expect(!weights || weights->shape(0) == rows.shape(0), "weights must be [count]");
  const LongCall call;
  round_to_bf16(rows.data(), rows.shape(0), rows.shape(1), pointer(weights), threads, out.data());
}

void to_i8(In<float, 2> rows, MaybeF32 weights, MaybeF32x2 origins,
           std::optional<Out<uint8_t, 1>> labels, Out<int8_t, 2> out, Out<float, 1> scales,
           Out<float, 1> squares, size_t threads) {
  expect(out.shape(0) == rows.shape(0) && out.shape(1) == rows.shape(1), "out: [count][dim]");
  expect(!weights || weights->shape(0) == rows.shape(0), "weights must be [count]");
  expect(scales.shape(0) == rows.shape(0) && squares.shape(0) == rows.shape(0),
         "scales and squares must be [count]");
  expect(origins.has_value() == labels.has_value(), "labels and origins go together");
  if (origins) {
    expect(origins->shape(1) == rows.shape(1), "origins must be [origins][dim]");
    expect(labels->shape(0) == rows.shape(0), "labels must be [count]");
    expect_below(labels->data(), labels->shape(0), origins->shape(0), "labels must be there");
  }
  const LongCall call;
  round_to_i8(rows.data(), rows.shape(0), rows.shape(1), pointer(weights), threads,
              pointer(origins), pointer(labels), out.data(), scales.data(), squares.data());
}

void take(In<float, 2> rows, In<int64_t, 1> ids, Out<float, 2> out, size_t threads) {
  expect(out.shape(0) == ids.shape(0) && out.shape(1) == rows.shape(1), "out must be [ids][dim]");
  const int64_t* first = ids.data();
  expect(std::all_of(first, first + ids.shape(0),
                     [&](int64_t id) { return id >= 0 && uint64_t(id) < rows.shape(0); }),
         "ids must be there");
  const LongCall call;
  take_rows(rows.data(), first, ids.shape(0), rows.shape(1), threads, out.data());
}

void put(In<uint8_t, 2> rows, In<uint32_t, 1> places, Out<uint8_t, 2> out, size_t threads) {
  expect(places.shape(0) == rows.shape(0) && out.shape(1) == rows.shape(1),
         "places must be [count], out [rows][bytes]");
  expect_below(places.data(), places.shape(0), out.shape(0), "places must be there");
  const LongCall call;
  put_rows(rows.data(), rows.shape(0), rows.shape(1), places.data(), threads, out.data());
}

void spill(In<float, 2> rows, const Centroids& centroids, In<uint32_t, 1> labels, float lambda,
           Out<uint32_t, 1> spilled, size_t threads) {
  const TiledCentroids& tiled = centroids.tiled();
  expect(rows.shape(1) == tiled.dim, "rows and centroids differ in dimension");
  expect(tiled.num >= 2, "spilling needs two centroids");
  expect(std::isfinite(lambda) && lambda >= 0, "lambda must be finite and not negative");
  expect(labels.shape(0) == rows.shape(0) && spilled.shape(0) == rows.shape(0),
         "labels and spilled must be [count]");
  expect_below(labels.data(), labels.shape(0), tiled.num, "labels must be below num_leaves");
  const LongCall call;
  spill_leaves(rows.data(), rows.shape(0), tiled, labels.data(), lambda, threads, spilled.data());
}

void sort_rows(In<uint32_t, 1> labels, Out<uint32_t, 1> order, Out<uint32_t, 1> starts) {
  expect(order.shape(0) == labels.shape(0), "order must be [count]");
  expect(starts.shape(0) >= 2, "starts must be [num_leaves + 1]");
  const size_t leaves = starts.shape(0) - 1;
  expect_below(labels.data(), labels.shape(0), leaves, "labels must be below num_leaves");
  const LongCall call;
  sort_by_leaf(labels.data(), labels.shape(0), leaves, order.data(), starts.data());
}

void means(In<float, 2> rows, In<uint32_t, 1> order, In<uint32_t, 1> starts, Out<float, 2> out,
           size_t threads) {
  expect(order.shape(0) == rows.shape(0), "order must be [count]");
  expect(starts.shape(0) == out.shape(0) + 1 && out.shape(1) == rows.shape(1),
         "means must be [num_leaves][dim]");
  check_order(order, starts, rows.shape(0), out.shape(0));
  const LongCall call;
  leaf_means(rows.data(), rows.shape(1), order.data(), starts.data(), out.shape(0), threads,
             out.data());
}

void tiles(In<float, 2> rows, MaybeF32x2 centroids, MaybeU32 labels, Out<float, 3> targets,
           std::optional<Out<float, 3>> directions, size_t threads) {
  const size_t count = rows.shape(0), dim = rows.shape(1), n = tiles_of(count);
  const auto fits = [&](const Out<float, 3>& a) {
    return a.shape(0) == n && a.shape(1) == dim && a.shape(2) == kLanes;
  };
  expect(fits(targets) && (!directions || fits(*directions)), "tiles must be [tiles][dim][16]");
  expect(centroids.has_value() == labels.has_value(), "centroids and labels go together");
  expect(!labels || labels->shape(0) == count, "labels must be [count]");
  if (labels)
    expect_below(labels->data(), count, centroids->shape(0), "labels must be below num_leaves");
  const LongCall call;
  make_tiles(rows.data(), count, dim, pointer(centroids), pointer(labels), threads,
             targets.data(), pointer(directions));
}

template <typename Codebook>
TileSet tile_set(const In<float, 3>& targets, const std::optional<In<float, 3>>& directions,
                 const MaybeF32x2& weights, const Codebook& codebook, size_t dims_per_block) {
  const size_t n = targets.shape(0), dim = targets.shape(1);
  expect(targets.shape(2) == kLanes, "targets must be [tiles][dim][16]");
  expect(dims_per_block >= 1 && dims_per_block <= dim, "dims_per_block must be in 1..dim");
  expect(codebook.shape(0) == dim, "codebook must be [dim][codewords]");
  expect(directions.has_value() == weights.has_value(), "directions and weights go together");
  if (directions)
    expect(directions->shape(0) == n && directions->shape(1) == dim &&
               directions->shape(2) == kLanes && weights->shape(0) == n &&
               weights->shape(1) == kLanes,
           "directions must be [tiles][dim][16], weights [tiles][16]");
  return {targets.data(), pointer(directions), pointer(weights), n, dim, dims_per_block,
          blocks_of(dim, dims_per_block), codewords_of(codebook.shape(1))};
}

void encode(In<float, 3> targets, std::optional<In<float, 3>> directions, MaybeF32x2 weights,
            In<float, 2> codebook, size_t dims_per_block, size_t sweeps, bool warm,
            Out<uint8_t, 3> codes, Out<float, 2> losses, size_t threads) {
  const TileSet set = tile_set(targets, directions, weights, codebook, dims_per_block);
  expect(codes.shape(0) == set.tiles && codes.shape(1) == set.blocks && codes.shape(2) == kLanes,
         "codes must be [tiles][blocks][16]");
  expect(losses.shape(0) == set.tiles && losses.shape(1) == kLanes, "losses: [tiles][16]");
  const LongCall call;
  if (warm)
    expect_below(codes.data(), codes.size(), set.codewords,
                 "codes must be below the number of codewords");
  encode_tiles(set, codebook.data(), sweeps, warm, threads, codes.data(), losses.data());
}

void start(In<float, 3> targets, size_t dims_per_block, In<uint32_t, 1> first,
           In<double, 2> draws, Out<float, 2> codebook, size_t threads) {
  const TileSet set = tile_set(targets, {}, {}, codebook, dims_per_block);
  expect(first.shape(0) == set.blocks && draws.shape(0) == set.codewords - 1 &&
             draws.shape(1) == set.blocks,
         "first must be [blocks], draws [codewords - 1][blocks]");
  expect_below(first.data(), set.blocks, set.tiles * kLanes, "first must be there");
  const LongCall call;
  start_codebook(set, first.data(), draws.data(), threads, codebook.data());
}

void update(In<float, 3> targets, std::optional<In<float, 3>> directions, MaybeF32x2 weights,
            MaybeF32x2 scales, In<uint8_t, 3> codes, size_t dims_per_block,
            Out<float, 2> codebook, bool joint, size_t threads) {
  TileSet set = tile_set(targets, directions, weights, codebook, dims_per_block);
  expect(!scales || (scales->shape(0) == set.tiles && scales->shape(1) == kLanes),
         "scales must be [tiles][16]");
  set.scales = pointer(scales);
  expect(codes.shape(0) == set.tiles && codes.shape(1) == set.blocks && codes.shape(2) == kLanes,
         "codes must be [tiles][blocks][16]");
  const LongCall call;
  expect_below(codes.data(), codes.size(), set.codewords,
               "codes must be below the number of codewords");
  (joint ? update_codebook_jointly : update_codebook)(set, codes.data(), threads,
                                                      codebook.data());
}

void pack(In<float, 2> rows, std::optional<In<float, 1>> weights, MaybeF32x2 centroids,
          In<uint32_t, 1> leaves, In<uint64_t, 1> places, In<float, 2> codebook,
          size_t dims_per_block, size_t sweeps, Out<uint8_t, 3> codes,
          std::optional<Out<float, 1>> corrections, MaybeF32x2 metric, MaybeF32x2 directions,
          std::optional<In<float, 1>> center, bool dot_product, size_t threads) {
  const size_t count = rows.shape(0), dim = rows.shape(1), slots = codes.shape(0) * kGroup;
  expect(dims_per_block >= 1 && dims_per_block <= dim, "dims_per_block must be in 1..dim");
  const size_t blocks = blocks_of(dim, dims_per_block);
  expect(codebook.shape(0) == dim, "codebook must be [dim][codewords]");
  const size_t codewords = codewords_of(codebook.shape(1));
  expect(codes.shape(1) == blocks && codes.shape(2) == block_bytes(codewords),
         "codes must be [groups][blocks][16], or [32] with 256 codewords");
  expect(!weights || weights->shape(0) == count, "weights must be [count]");
  expect(leaves.shape(0) == count && places.shape(0) == count, "leaves and places: [count]");
  expect(!centroids || centroids->shape(1) == dim, "centroids must be [num_leaves][dim]");
  expect(!corrections || (centroids && corrections->shape(0) == slots),
         "corrections must be [groups * 32] and need centroids");
  expect(!center || (corrections && center->shape(0) == dim),
         "center must be [dim] and needs corrections");
  expect_below(places.data(), count, slots, "places must be there");
  if (centroids) expect_below(leaves.data(), count, centroids->shape(0), "leaves must be there");
  expect(!metric || (metric->shape(0) == dim && metric->shape(1) == dim && !corrections),
         "metric must be [dim][dim], and goes without corrections");
  expect(directions.has_value() == (metric && weights) &&
             (!directions || (directions->shape(0) == count && directions->shape(1) == dim)),
         "directions must be [count][dim], with a metric and weights");
  const EncodeJob job{rows.data(), pointer(weights), pointer(centroids), leaves.data(), count, dim,
                      dims_per_block, blocks, sweeps, codewords, codebook.data(), pointer(metric),
                      pointer(directions), pointer(center), dot_product};
  const LongCall call;
  pack_codes(job, {places.data(), codes.data(), pointer(corrections)}, threads);
}

void directions_under(In<float, 2> rows, In<float, 2> metric, Out<float, 2> directions,
                      Out<float, 1> norms, size_t threads) {
  const size_t count = rows.shape(0), dim = rows.shape(1);
  expect(metric.shape(0) == dim && metric.shape(1) == dim, "metric must be [dim][dim]");
  expect(directions.shape(0) == count && directions.shape(1) == dim && norms.shape(0) == count,
         "directions must be [count][dim], norms [count]");
  const LongCall call;
  metric_directions(rows.data(), count, dim, metric.data(), threads, directions.data(),
                    norms.data());
}

// The C library keeps up to 64 MB of what was freed to itself.
void release_memory() {
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
}

size_t normalize(In<float, 2> rows, Out<float, 2> out, size_t threads) {
  expect(out.shape(0) == rows.shape(0) && out.shape(1) == rows.shape(1), "out: [count][dim]");
  const LongCall call;
  return normalize_rows(rows.data(), rows.shape(0), rows.shape(1), threads, out.data());
}

}  // namespace

void bind_building(nb::module_& m) {
  m.def("check_rows", &check, nb::arg().noconvert(), nb::arg().none().noconvert(), nb::arg());
  m.def("square_rows", &square);
  nb::class_<Centroids>(m, "Centroids").def(nb::init<In<float, 2>, size_t>());
  m.def("assign_leaves", &assign, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
        nb::arg().none(), nb::arg());
  m.def("assign_near", &reassign);
  m.def("anisotropic_centroids", &move_centroids, nb::arg(), nb::arg(), nb::arg(), nb::arg(),
        nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg());
  m.def("spill_leaves", &spill);
  m.def("round_to_bf16", &to_bf16, nb::arg(), nb::arg().none(), nb::arg(), nb::arg());
  m.def("round_to_i8", &to_i8, nb::arg(), nb::arg().none(), nb::arg().none(), nb::arg().none(),
        nb::arg(), nb::arg(), nb::arg(), nb::arg());
  m.def("take_rows", &take);
  m.def("put_rows", &put);
  m.def("sort_by_leaf", &sort_rows);
  m.def("leaf_means", &means);
  m.def("make_tiles", &tiles, nb::arg(), nb::arg().none(), nb::arg().none(), nb::arg(),
        nb::arg().none(), nb::arg());
  m.def("encode_tiles", &encode, nb::arg(), nb::arg().none(), nb::arg().none(), nb::arg(),
        nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg());
  m.def("start_codebook", &start);
  m.def("update_codebook", &update, nb::arg(), nb::arg().none(), nb::arg().none(),
        nb::arg().none(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg());
  m.def("normalize_rows", &normalize);
  m.def("release_memory", &release_memory);
  m.def("pack_codes", &pack, nb::arg(), nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg(),
        nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg().none(),
        nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg());
  m.def("metric_directions", &directions_under, nb::arg().noconvert(), nb::arg().noconvert(),
        nb::arg().noconvert(), nb::arg().noconvert(), nb::arg());
}

}  // namespace swann
