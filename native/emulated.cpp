// Level emulated, of the self-test and of builds that count coverage: what only machines with AVX-512
// have, in plain C++, over the best level there is. So the code that uses it runs everywhere.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels.h"

namespace swann {
namespace {

void i8_pack(const float* rows, size_t count, size_t dim, const float* weights,
             const I8Rows* out) noexcept {
  const size_t quads = quads_of(dim);
  constexpr double kUp = 1.0001;  // the results are rounded to floats
  for (size_t g = 0; g * kI8Group < count; ++g) {
    const size_t first = g * kI8Group, here = std::min(kI8Group, count - first);
    float greatest = 1e-18f;
    for (size_t i = 0; i < here * dim; ++i)
      greatest = std::max(greatest, std::fabs(rows[first * dim + i] * weights[i % dim]));
    const float inverse = 127.0f / greatest;
    uint8_t* const bytes = out->bytes + g * quads * kI8Group * 4;
    std::memset(bytes, 128, quads * kI8Group * 4);
    std::fill_n(out->halves + first, kI8Group, 0.0f);
    double error = 0, length = 0;
    for (size_t r = 0; r < here; ++r) {
      const float* const x = rows + (first + r) * dim;
      double errors = 0, lengths = 0, squares = 0;
      for (size_t j = 0; j < dim; ++j) {
        const double value = x[j] * weights[j], whole = std::rint(value * double(inverse));
        const double off = value - whole / double(inverse);
        errors += off * off;
        lengths += (value - off) * (value - off);
        squares += double(x[j]) * double(x[j]);
        bytes[(j / 4 * kI8Group + r) * 4 + j % 4] = uint8_t(int(whole) + 128);
      }
      error = std::max(error, errors), length = std::max(length, lengths);
      out->halves[first + r] = float(0.5 * squares) * inverse;
    }
    out->inverses[g] = inverse;
    out->errors[g] = float(kUp * std::sqrt(error));
    out->lengths[g] = float(kUp * std::sqrt(length));
  }
}

// A sum of products of bytes, the score that it stands for, and |x|^2 / 2.
struct Product {
  int32_t sum;
  double score, half;

  Product(const I8Rows& rows, size_t row, size_t quads, const I8Queries& queries, size_t q,
          bool squared_l2) {
    const uint8_t* x = rows.bytes + (row / kI8Group * quads * kI8Group + row % kI8Group) * 4;
    const int8_t* y = queries.bytes + q * quads * 4;
    sum = queries.starts[q];
    for (size_t j = 0; j < quads; ++j, x += kI8Group * 4, y += 4)
      for (size_t i = 0; i < 4; ++i) sum += int32_t(x[i]) * y[i];
    const double inverse = double(rows.inverses[row / kI8Group]);
    half = squared_l2 ? double(rows.halves[row]) / inverse : 0.0;
    score = double(sum) / (inverse * double(queries.inverses[q])) - half;
  }
};

double off_by(const I8Rows& rows, size_t group, const I8Queries& queries, size_t q) {
  return double(queries.lengths[q]) * double(rows.errors[group]) +
         double(queries.errors[q]) * double(rows.lengths[group]);
}

size_t i8_filter(const I8Rows* rows, size_t groups, size_t quads, const I8Queries* queries,
                 bool squared_l2, float slack, const I8Found* found) noexcept {
  size_t count = 0;
  for (size_t g = 0; g < groups; ++g)
    for (size_t q = 0; q < queries->count; ++q) {
      for (size_t r = 0; r < kI8Group; ++r) {
        const Product product(*rows, g * kI8Group + r, quads, *queries, q, squared_l2);
        const double off = off_by(*rows, g, *queries, q) + double(slack) * product.half;
        if (product.score + off < double(queries->thresholds[q])) continue;
        found->rows[count] = uint32_t(g * kI8Group + r);
        found->queries[count] = uint32_t(q);
        found->products[count++] = float(product.sum);
      }
    }
  return count;
}

void lut16_unpack(const PackedLeaf* leaf, const uint8_t* words, size_t dims_per_block,
                  uint8_t* rows, uint8_t* codes) noexcept {
  const size_t blocks = leaf->blocks, width = dims_per_block, bytes = unpacked_bytes(blocks);
  const size_t quads = ceil_div(blocks, 4) * width, count = groups_of(leaf->count) * kGroup;
  std::memset(codes, 0, count * bytes);
  for (size_t at = 0; at < count; ++at)
    for (size_t m = 0; m < ceil_div(blocks, 4) * 4; ++m) {
      const uint8_t* const packed = leaf->codes + (at / kGroup * blocks + m) * 16;
      const bool present = m < blocks, low = at % kGroup < 16;
      const size_t code = !present ? 0 : low ? packed[at % 16] & 15 : packed[at % 16] >> 4;
      if (present) codes[at * bytes + m] = uint8_t(code + 16 * (m % 8));
      for (size_t i = 0; i < width; ++i) {
        const size_t quad = m / 4 * width + i;
        rows[((at / 16 * quads + quad) * 16 + at % 16) * 4 + m % 4] =
            words[(quad * 4 + m % 4) * 16 + code];
      }
    }
}

size_t lut16_scan_marked(const PackedLeaf* leaf, const uint8_t* codes, const uint16_t* masks,
                         size_t stride, size_t first, ScanQuery* query) noexcept {
  for (size_t at = first; at < leaf->count; ++at) {
    if ((masks[at / 16 * stride] >> at % 16 & 1) == 0) continue;
    if (query->capacity - query->size < 16) return at;
    int32_t sum = 0;
    for (size_t m = 0; m < leaf->blocks; ++m)
      sum += query->lut[16 * m + codes[at * unpacked_bytes(leaf->blocks) + m] % 16];
    if (sum >= query->threshold)
      query->out[query->size++] = make_key(sum + query->bias, leaf->first_row + uint32_t(at));
  }
  return kAllScanned;
}

}  // namespace

void put_emulated(KernelTable& table) noexcept {
  table.level = "emulated";
  table.i8_pack = i8_pack;
  table.i8_filter = i8_filter;
  table.lut16_unpack = lut16_unpack;
  table.lut16_scan_marked = lut16_scan_marked;
}

}  // namespace swann
