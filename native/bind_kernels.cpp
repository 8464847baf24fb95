// Each kernel of each level by itself, for the tests: checks sizes, then calls.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <vector>

#include "bind_arrays.h"
#include "kernels.h"
#include "search.h"
#include "unpacked_codes.h"

namespace swann {
namespace {

const KernelTable& at_level(const std::string& level) {
  const KernelTable* table = find_level(level.c_str());
  expect(table != nullptr, "this machine cannot run that level");
  return *table;
}

template <typename Value>
using PairKernel = void (*)(const float*, size_t, const Value*, size_t, size_t, float*,
                            size_t) noexcept;
template <typename Value>
using GatherKernel = void (*)(const float*, const Value*, const uint32_t*, size_t, size_t,
                              float*) noexcept;

template <typename Value>
void pairs(PairKernel<Value> kernel, In<float, 2> queries, In<Value, 2> rows,
           Out<float, 2> out) {
  expect(queries.shape(1) == rows.shape(1), "queries and rows differ in dimension");
  expect(out.shape(0) == queries.shape(0) && out.shape(1) == rows.shape(0), "out: [q][rows]");
  kernel(queries.data(), queries.shape(0), rows.data(), rows.shape(0), rows.shape(1), out.data(),
         rows.shape(0));
}

template <typename Value>
void gather(GatherKernel<Value> kernel, In<float, 1> query, In<Value, 2> rows,
            In<uint32_t, 1> ids, Out<float, 1> out) {
  expect(query.shape(0) == rows.shape(1), "query and rows differ in dimension");
  expect(out.shape(0) == ids.shape(0), "out must be [ids]");
  expect_below(ids.data(), ids.shape(0), rows.shape(0), "ids must be below the number of rows");
  kernel(query.data(), rows.data(), ids.data(), ids.shape(0), rows.shape(1), out.data());
}

void pairs_f32(const std::string& level, bool squared_l2, In<float, 2> queries,
               In<float, 2> rows, Out<float, 2> out) {
  const KernelTable& k = at_level(level);
  pairs<float>(squared_l2 ? k.squared_l2_f32 : k.dot_f32, queries, rows, out);
}

void pairs_bf16(const std::string& level, bool squared_l2, In<float, 2> queries,
                In<uint16_t, 2> rows, Out<float, 2> out) {
  const KernelTable& k = at_level(level);
  pairs<uint16_t>(squared_l2 ? k.squared_l2_bf16 : k.dot_bf16, queries, rows, out);
}

void pairs_i8(const std::string& level, In<float, 2> queries, In<int8_t, 2> rows,
              Out<float, 2> out) {
  pairs<int8_t>(at_level(level).dot_i8, queries, rows, out);
}

void tiled_f32(const std::string& level, In<float, 2> rows, In<float, 3> tiles,
               Out<float, 2> out) {
  expect(tiles.shape(1) == rows.shape(1) && tiles.shape(2) == 16, "tiles: [tiles][dim][16]");
  expect(out.shape(0) == rows.shape(0) && out.shape(1) == 16 * tiles.shape(0), "out: [rows][16 t]");
  at_level(level).dot_tiles_f32(rows.data(), rows.shape(0), tiles.data(), tiles.shape(0),
                                rows.shape(1), out.data(), out.shape(1));
}

void gather_f32(const std::string& level, bool squared_l2, In<float, 1> query, In<float, 2> rows,
                In<uint32_t, 1> ids, Out<float, 1> out) {
  const KernelTable& k = at_level(level);
  gather<float>(squared_l2 ? k.squared_l2_gather_f32 : k.dot_gather_f32, query, rows, ids, out);
}

void gather_bf16(const std::string& level, bool squared_l2, In<float, 1> query,
                 In<uint16_t, 2> rows, In<uint32_t, 1> ids, Out<float, 1> out) {
  const KernelTable& k = at_level(level);
  gather<uint16_t>(squared_l2 ? k.squared_l2_gather_bf16 : k.dot_gather_bf16, query, rows, ids,
                   out);
}

void gather_i8(const std::string& level, In<float, 1> query, In<int8_t, 2> rows,
               In<uint32_t, 1> ids, Out<float, 1> out) {
  gather<int8_t>(at_level(level).dot_gather_i8, query, rows, ids, out);
}

bool are_codewords(size_t count) { return count == kWords16 || count == kWords256; }

void lut(const std::string& level, In<float, 1> query, In<float, 2> codebook,
         size_t dims_per_block, bool squared_l2, Out<float, 2> out, Out<float, 1> lows,
         Out<float, 1> highs) {
  expect(dims_per_block >= 1, "dims_per_block must be positive");
  const size_t dim = query.shape(0);
  const size_t blocks = blocks_of(dim, dims_per_block);
  const size_t words = codebook.shape(1);
  expect(codebook.shape(0) == dim && are_codewords(words), "codebook: [dim][16 or 256]");
  expect(out.shape(0) == blocks && out.shape(1) == words, "lut: [blocks][codewords]");
  expect(lows.shape(0) == blocks && highs.shape(0) == blocks, "lows and highs: [blocks]");
  at_level(level).lut_f32(query.data(), codebook.data(), words, dim, dims_per_block, squared_l2,
                          out.data(), lows.data(), highs.data());
}

void quantize(const std::string& level, In<float, 2> entries, In<float, 1> lows, float scale,
              Out<uint8_t, 2> out) {
  const size_t words = entries.shape(1);
  expect(are_codewords(words) && out.shape(1) == words, "entries and out: [blocks][codewords]");
  expect(lows.shape(0) == entries.shape(0) && out.shape(0) == entries.shape(0), "lows: [blocks]");
  at_level(level).lut_quantize_u8(entries.data(), lows.data(), words, entries.shape(0), scale,
                                  out.data());
}

// Scans one leaf for a few queries, by lut16_scan or lut256_scan as the tables have 16 or 256
// entries; keys [queries][capacity], sizes [queries] (in and out).
size_t scan(const std::string& level, In<uint8_t, 3> codes,
            std::optional<In<uint16_t, 1>> corrections, size_t count, uint32_t first_row,
            size_t first_group, In<uint8_t, 3> luts, std::vector<int32_t> thresholds,
            std::vector<int32_t> biases, std::vector<uint32_t> multipliers, Out<uint64_t, 2> keys,
            Out<uint64_t, 1> sizes) {
  const size_t groups = codes.shape(0), blocks = codes.shape(1), queries = luts.shape(0);
  const size_t words = luts.shape(2);
  expect(are_codewords(words) && luts.shape(1) == blocks && codes.shape(2) == block_bytes(words),
         "codes and luts");
  expect(groups_of(count) == groups && first_group <= groups, "count and groups");
  expect(!corrections || corrections->shape(0) == groups * kGroup, "corrections: [groups * 32]");
  expect(queries >= 1 && queries <= at_level(level).scan_queries, "queries in one pass");
  expect(thresholds.size() == queries && biases.size() == queries &&
             multipliers.size() == queries && keys.shape(0) == queries &&
             sizes.shape(0) == queries,
         "one entry a query");
  const PackedLeaf leaf{codes.data(), pointer(corrections), blocks, count, first_row, nullptr};
  ScanQuery scans[kMaxScanQueries];
  for (size_t q = 0; q < queries; ++q) {
    expect(sizes.data()[q] <= keys.shape(1), "sizes within capacity");
    expect(thresholds[q] >= 0 && thresholds[q] <= 65535, "thresholds in 0..65535");
    scans[q] = {luts.data() + q * blocks * words, thresholds[q], biases[q], multipliers[q],
                keys.data() + q * keys.shape(1), size_t(sizes.data()[q]), keys.shape(1)};
  }
  const KernelTable& k = at_level(level);
  const auto kernel = words == kWords256 ? k.lut256_scan : k.lut16_scan;
  const size_t stopped = kernel(&leaf, first_group, scans, queries);
  for (size_t q = 0; q < queries; ++q) sizes.data()[q] = scans[q].size;
  return stopped;
}

nb::tuple argmax(const std::string& level, In<float, 1> scores, In<float, 1> bias) {
  expect(scores.shape(0) == bias.shape(0) && scores.shape(0) > 0, "scores and bias: [count]");
  float best;
  const size_t at =
      at_level(level).argmax_f32(scores.data(), bias.data(), scores.shape(0), &best);
  return nb::make_tuple(at, best);
}

size_t at_least(const std::string& level, In<float, 1> scores, float threshold,
                Out<uint32_t, 1> out) {
  expect(out.shape(0) == scores.shape(0), "out must be [count]");
  return at_level(level).at_least_f32(scores.data(), scores.shape(0), threshold, out.data());
}

void keys_from(const std::string& level, In<float, 1> scores, std::optional<In<float, 1>> reach,
               float length, Out<uint64_t, 1> keys) {
  expect(keys.shape(0) == scores.shape(0), "keys must be [count]");
  expect(!reach || reach->shape(0) == scores.shape(0), "reach must be [count]");
  at_level(level).keys_from_f32(scores.data(), pointer(reach), length, scores.shape(0),
                                keys.data());
}

float least_of_best(const std::string& level, In<float, 1> scores, size_t limit) {
  expect(limit >= 1, "limit must be positive");
  return at_level(level).least_of_best_f32(scores.data(), scores.shape(0), limit);
}

void encode(const std::string& level, In<float, 2> target,
            std::optional<In<float, 2>> direction, In<float, 1> weight, In<float, 2> codebook,
            size_t dims_per_block, size_t sweeps, bool warm, Out<uint8_t, 2> codes,
            Out<float, 1> loss) {
  expect(dims_per_block >= 1, "dims_per_block must be positive");
  const size_t dim = target.shape(0);
  expect(target.shape(1) == kLanes, "target: [dim][16]");
  expect(codebook.shape(0) == dim && are_codewords(codebook.shape(1)),
         "codebook: [dim][16 or 256]");
  expect(!direction || (direction->shape(0) == dim && direction->shape(1) == kLanes),
         "direction: [dim][16]");
  expect(weight.shape(0) == kLanes && loss.shape(0) == kLanes && codes.shape(1) == kLanes &&
             codes.shape(0) == blocks_of(dim, dims_per_block),
         "weight, loss: [16]; codes: [blocks][16]");
  at_level(level).encode_tile(target.data(), pointer(direction), weight.data(), codebook.data(),
                              codebook.shape(1), dim, dims_per_block, sweeps, warm, codes.data(),
                              loss.data());
}

float encode_one(const std::string& level, In<float, 1> target,
                 std::optional<In<float, 1>> direction, float weight, In<float, 2> codebook,
                 size_t dims_per_block, size_t sweeps, Out<uint8_t, 1> codes) {
  const size_t dim = target.shape(0);
  expect(dims_per_block >= 1 && dims_per_block <= dim, "dims_per_block must be in 1..dim");
  const size_t blocks = blocks_of(dim, dims_per_block);
  const size_t words = codebook.shape(1);
  expect(codebook.shape(0) == dim && are_codewords(words), "codebook: [dim][16 or 256]");
  expect(!direction || direction->shape(0) == dim, "direction: [dim]");
  expect(codes.shape(0) == blocks, "codes: [blocks]");
  std::vector<float> scratch((dim + 2 * blocks) * words);
  float loss;
  at_level(level).encode_one(target.data(), pointer(direction), weight, codebook.data(), words,
                             dim, dims_per_block, sweeps, scratch.data(), codes.data(), &loss);
  return loss;
}

nb::tuple keep(const std::string& level, Out<uint64_t, 1> keys, size_t limit, size_t most) {
  expect(limit >= 1 && most >= limit, "limit must be positive, most no less");
  Key least;
  const size_t kept =
      at_level(level).keep_best(keys.data(), keys.shape(0), limit, most, &least);
  return nb::make_tuple(kept, least);
}

}  // namespace

void bind_kernels(nb::module_& m) {
  m.def("kernel_levels", [] {
    size_t count;
    const Level* all = levels(&count);
    std::vector<std::string> names;
    for (size_t i = 0; i < count; ++i) names.emplace_back(all[i].name);
    return names;
  });
  m.def("active_level", [] { return std::string(kernels().level); });
  // Batches of 4-bit codes by "tables" or "unpacked", where they can be; "faster" as usual.
  m.def("force_scan", [](const std::string& way) {
    expect(way == "tables" || way == "unpacked" || way == "faster", "tables, unpacked or faster");
    force_scan(way != "faster", way == "unpacked" ? ScanWay::unpacked : ScanWay::tables);
  });
  m.def("level_error", [] {
    const char* error = level_error();
    return error == nullptr ? std::string() : std::string(error);
  });
  m.def("kernel_pairs_f32", &pairs_f32);
  m.def("kernel_pairs_bf16", &pairs_bf16);
  m.def("kernel_pairs_i8", &pairs_i8);
  m.def("kernel_gather_f32", &gather_f32);
  m.def("kernel_gather_bf16", &gather_bf16);
  m.def("kernel_gather_i8", &gather_i8);
  m.def("kernel_lut_f32", &lut);
  m.def("kernel_lut_quantize_u8", &quantize);
  m.def("kernel_scan", &scan, nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(),
        nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg());
  m.def("kernel_argmax_f32", &argmax);
  m.def("kernel_dot_tiles_f32", &tiled_f32);
  m.def("kernel_at_least_f32", &at_least);
  m.def("kernel_encode_one", &encode_one, nb::arg(), nb::arg(), nb::arg().none(), nb::arg(),
        nb::arg(), nb::arg(), nb::arg(), nb::arg());
  m.def("kernel_encode_tile", &encode, nb::arg(), nb::arg(), nb::arg().none(), nb::arg(),
        nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg());
  m.def("kernel_keys_from_f32", &keys_from, nb::arg(), nb::arg(), nb::arg().none(), nb::arg(),
        nb::arg());
  m.def("kernel_keep_best", &keep);
  m.def("kernel_least_of_best_f32", &least_of_best);
}

}  // namespace swann
