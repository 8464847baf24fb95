// Kernels of every level this machine can run, against plain loops in this file in the order of
// summation that kernels.h states, so bit for bit; and the plain loops against double. Scans of codes
// are in selftest_scans.cpp, kernels of rows in 8 bits in selftest_bytes.cpp.
#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <utility>

#include "kernels.h"
#include "selftest.h"

using namespace swann;

namespace selftest {
namespace {

// ---- The kernels in plain loops

struct Reference {
  bool fused;  // levels with fma; the scalar level rounds each product on its own

  float fma(float a, float b, float c) const {
    if (fused) return std::fma(a, b, c);
    const float product = a * b;
    return product + c;
  }

  float pair(const float* a, const float* b, size_t dim, bool l2) const {
    float lane[16] = {};
    for (size_t j = 0; j < dim; ++j) {
      const float d = a[j] - b[j];
      lane[j % 16] = l2 ? fma(d, d, lane[j % 16]) : fma(a[j], b[j], lane[j % 16]);
    }
    for (size_t half = 8; half > 0; half /= 2)
      for (size_t i = 0; i < half; ++i) lane[i] += lane[i + half];
    return lane[0];
  }

  // words are [width][codewords].
  float lut_entry(const float* q, const float* words, size_t codewords, size_t k, size_t width,
                  bool l2) const {
    float entry = 0;
    for (size_t j = 0; j < width; ++j) {
      const float w = words[codewords * j + k];
      entry = fma(l2 ? q[j] + q[j] - w : q[j], w, entry);
    }
    return entry;
  }

  // |t - w_code|^2 of one block of one datapoint; along += <t - w_code, direction>.
  float error(const float* t, const float* d, const float* words, size_t codewords, size_t width,
              size_t code, float& along) const {
    float square = 0;
    for (size_t j = 0; j < width; ++j) {
      const float e = t[16 * j] - words[codewords * j + code];
      square = fma(e, e, square);
      if (d != nullptr) along = fma(e, d[16 * j], along);
    }
    return square;
  }

  // Of one lane: codes [blocks][16], target and direction [dim][16].
  float encode(const float* target, const float* direction, float weight, const float* codebook,
               size_t codewords, size_t dim, size_t per_block, size_t sweeps, bool warm,
               uint8_t* codes) const {
    float parallel = 0, total = 0;
    const auto block = [&](size_t j, size_t code, float& along) {
      return error(target + 16 * j, direction == nullptr ? nullptr : direction + 16 * j,
                   codebook + codewords * j, codewords, std::min(per_block, dim - j), code, along);
    };
    // The first of the best codewords by a cost of (square, code).
    const auto best = [&](size_t j, float start, auto cost) {
      std::pair<float, uint8_t> least{std::numeric_limits<float>::infinity(), 0};
      for (size_t k = 0; k < codewords; ++k) {
        float along = start;
        const float square = block(j, k, along), of_word = cost(square, along);
        if (of_word < least.first) least = {of_word, uint8_t(k)};
      }
      return least;
    };
    const auto choose = [&](float price) {
      parallel = total = 0;
      for (size_t j = 0; j < dim; j += per_block) {
        uint8_t& code = codes[16 * (j / per_block)];
        if (!warm)
          code = best(j, 0, [&](float square, float along) {
                   return price == 0 ? square : fma(along, price, square);
                 }).second;
        float along = 0;
        total += block(j, code, along);
        parallel += along;
      }
      return parallel;
    };
    const float nearest = choose(0);
    if (direction == nullptr) return total;
    if (!warm && sweeps > 0) {
      const auto loss = [&] { return fma(parallel * parallel, weight, total); };
      float least = loss(), best = 0, price = 0;
      if (weight > 0) price = 2.0f * nearest * (weight / (1.0f + weight));
      for (int turn = 0; turn < 2; ++turn) {
        const float then = choose(price), tried = price, reached = loss();
        const float fall = 1.0f / (1.0f + weight) + (nearest == 0 ? 1.0f : 1.0f - then / nearest);
        price /= std::max(fall, 1.0f / 3.0f);
        if (reached < least) least = reached, best = tried;
      }
      choose(best);
    }
    for (size_t sweep = 0; sweep < sweeps; ++sweep)
      for (size_t j = 0; j < dim; j += per_block) {
        uint8_t& code = codes[16 * (j / per_block)];
        const auto loss = [&](float square, float along) {
          return fma(along * along, weight, square);
        };
        float along = 0, next_along = 0;
        const float square = block(j, code, along), rest = parallel - along;
        float now = rest;
        block(j, code, now);
        const auto [least, next] = best(j, rest, loss);
        if (!(least < loss(square, now))) continue;
        code = next;
        total += block(j, code, next_along) - square;
        parallel = rest + next_along;
      }
    return fma(parallel * parallel, weight, total);
  }
};

// ---- Kernels

void test_pairs(const KernelTable& k, const Reference& reference) {
  Group group(std::string(k.level) + ": dot_f32, squared_l2_f32, gathers");
  Random random;
  for (const size_t dim : {1, 2, 15, 16, 17, 31, 32, 48, 100, 129, 800})
    for (const size_t queries : {1, 2, 3, 4, 5, 9})
      for (const size_t rows : {1, 3, 4, 16, 17, 21, 40}) {
        // Exactly as long as needed, so that a sanitizer sees a read too far.
        const auto q = random.reals(queries * dim), x = random.reals(rows * dim);
        const size_t stride = rows + 3;
        for (const bool l2 : {false, true}) {
          std::vector<float> out(queries * stride, -7.0f), want = out, found(rows + 2);
          bool close = true;
          for (size_t i = 0; i < queries; ++i)
            for (size_t j = 0; j < rows; ++j) {
              const float* a = &q[i * dim];
              const float* b = &x[j * dim];
              want[i * stride + j] = reference.pair(a, b, dim, l2);
              double exact = 0, size = 0;
              for (size_t d = 0; d < dim; ++d) {
                const double term = l2 ? (double(a[d]) - b[d]) * (double(a[d]) - b[d])
                                       : double(a[d]) * b[d];
                exact += term, size += std::fabs(term);
              }
              // Each lane adds dim / 16 terms, then four folds; every step rounds by 2^-24.
              const double bound = (double(dim) / 16 + 8) * size * 0x1p-23;
              close &= std::fabs(want[i * stride + j] - exact) <= bound;
            }
          (l2 ? k.squared_l2_f32 : k.dot_f32)(q.data(), queries, x.data(), rows, dim, out.data(),
                                              stride);
          check(close, "the reference is near the exact sum", dim, rows);
          check(same_bits(out.data(), want.data(), out.size()), "pairs", dim, rows);
          std::vector<uint32_t> ids(rows + 2);
          for (uint32_t& id : ids) id = uint32_t(random.below(rows));
          (l2 ? k.squared_l2_gather_f32 : k.dot_gather_f32)(q.data(), x.data(), ids.data(),
                                                            ids.size(), dim, found.data());
          bool same = true;
          for (size_t i = 0; i < ids.size(); ++i) same &= found[i] == want[ids[i]];
          check(same, "gather", dim, rows);
        }
      }
}

// Rows in bfloat16 and int8 widen to floats exactly: then all is as for float rows.
template <typename Value, typename Pairs, typename Gather>
void test_narrow(const char* what, const Reference& reference, bool l2, Pairs pairs,
                 Gather gather, float (*widen)(Value)) {
  Random random;
  for (const size_t dim : {1, 7, 15, 16, 17, 25, 33, 100, 800})
    for (const size_t queries : {1, 2, 3, 4, 5, 9})
      for (const size_t count : {1, 3, 4, 17, 40}) {
        const auto q = random.reals(queries * dim);
        std::vector<Value> rows(count * dim);
        for (Value& v : rows) {
          if constexpr (sizeof(Value) == 2)  // the upper half of a float of either sign in 0.5..2
            v = Value(0x3F00 + random.below(0x100) + (random.below(2) << 15));
          else
            v = Value(int(random.below(256)) - 128);
        }
        std::vector<float> wide, out(queries * count), want(out), found(count);
        for (const Value v : rows) wide.push_back(widen(v));
        for (size_t i = 0; i < want.size(); ++i)
          want[i] = reference.pair(&q[i / count * dim], &wide[i % count * dim], dim, l2);
        pairs(q.data(), queries, rows.data(), count, dim, out.data(), count);
        check(same_bits(out, want), what, dim, count);
        std::vector<uint32_t> ids(count);
        for (uint32_t& id : ids) id = uint32_t(random.below(count));
        gather(q.data(), rows.data(), ids.data(), count, dim, found.data());
        bool same = true;
        for (size_t i = 0; i < count; ++i) same &= found[i] == want[ids[i]];
        check(same, what, dim, count);
      }
}

void test_narrow_rows(const KernelTable& k, const Reference& reference) {
  Group group(std::string(k.level) + ": rows in bfloat16 and int8");
  const auto bf16 = [](uint16_t v) { return std::bit_cast<float>(uint32_t(v) << 16); };
  const auto i8 = [](int8_t v) { return float(v); };
  test_narrow<uint16_t>("dot, bf16", reference, false, k.dot_bf16, k.dot_gather_bf16, bf16);
  test_narrow<uint16_t>("squared l2, bf16", reference, true, k.squared_l2_bf16,
                        k.squared_l2_gather_bf16, bf16);
  test_narrow<int8_t>("dot, int8", reference, false, k.dot_i8, k.dot_gather_i8, i8);
}

void test_tables(const KernelTable& k, const Reference& reference, size_t n) {
  Group group(std::string(k.level) + ": lut_f32, lut_quantize_u8, " + std::to_string(n));
  Random random;
  for (const size_t dim : {1, 2, 3, 7, 16, 25, 100})
    for (const size_t per_block : {1, 2, 3, 4, 7})
      for (const bool l2 : {false, true}) {
        const size_t blocks = blocks_of(dim, per_block);
        const auto q = random.reals(dim), words = random.reals(dim * n);
        std::vector<float> lut(blocks * n), want(lut), lows(blocks), highs(blocks);
        k.lut_f32(q.data(), words.data(), n, dim, per_block, l2, lut.data(), lows.data(),
                  highs.data());
        bool bounds = true;
        float widest = 1e-6f;
        for (size_t m = 0; m < blocks; ++m) {
          const size_t first = m * per_block, width = std::min(per_block, dim - first);
          float* entries = &want[n * m];
          for (size_t i = 0; i < n; ++i)
            entries[i] = reference.lut_entry(&q[first], &words[n * first], n, i, width, l2);
          bounds &= lows[m] == *std::min_element(entries, entries + n);
          bounds &= highs[m] == *std::max_element(entries, entries + n);
          widest = std::max(widest, highs[m] - lows[m]);
        }
        check(same_bits(lut.data(), want.data(), lut.size()), "lut_f32", dim, per_block);
        check(bounds, "lows and highs", dim, per_block);
        const float most = kMaxEntry, scale = (most + 2) / widest;
        std::vector<uint8_t> bytes(blocks * n), want_bytes(bytes);
        k.lut_quantize_u8(lut.data(), lows.data(), n, blocks, scale, bytes.data());
        for (size_t i = 0; i < lut.size(); ++i)
          want_bytes[i] =
              uint8_t(std::min(reference.fma(lut[i] - lows[i / n], scale, 0.5f), most));
        check(bytes == want_bytes, "lut_quantize_u8", dim, per_block);
      }
}

void test_tiled(const KernelTable& k, const Reference& reference) {
  Group group(std::string(k.level) + ": dot_tiles_f32");
  Random random;
  for (const size_t dim : {1, 2, 17, 100})
    for (const size_t count : {1, 5, 6, 13})
      for (const size_t tiles : {1, 3, 4, 9}) {
        const size_t stride = 16 * tiles + 3;
        const auto rows = random.reals(count * dim), vectors = random.reals(tiles * dim * 16);
        std::vector<float> out(count * stride, 7.0f), want = out;
        for (size_t i = 0; i < count; ++i)
          for (size_t v = 0; v < 16 * tiles; ++v) {
            float sum = 0;
            for (size_t j = 0; j < dim; ++j)
              sum = reference.fma(rows[i * dim + j], vectors[(v / 16 * dim + j) * 16 + v % 16], sum);
            want[i * stride + v] = sum;
          }
        k.dot_tiles_f32(rows.data(), count, vectors.data(), tiles, dim, out.data(), stride);
        check(same_bits(out, want), "dot_tiles_f32", dim, count);
      }
}

void test_choosing(const KernelTable& k) {
  Group group(std::string(k.level) + ": argmax_f32, at_least_f32, keep_best");
  Random random;
  for (const size_t count : {1, 2, 15, 16, 17, 32, 33, 100, 1000, 1024}) {
    // Few different values, so that there are ties.
    const auto scores = random.integers(count), bias = random.integers(count);
    std::vector<float> sums(count);
    for (size_t i = 0; i < count; ++i) sums[i] = scores[i] + bias[i];
    const auto top = std::max_element(sums.begin(), sums.end());
    float best = 0;
    const size_t at = k.argmax_f32(scores.data(), bias.data(), count, &best);
    check(at == size_t(top - sums.begin()) && best == *top, "argmax_f32", count, at);
    for (const float threshold : {-5.0f, 0.0f, 2.0f, 4.0f, 5.0f}) {
      std::vector<uint32_t> found(count), want;
      for (size_t i = 0; i < count; ++i)
        if (scores[i] >= threshold) want.push_back(uint32_t(i));
      found.resize(k.at_least_f32(scores.data(), count, threshold, found.data()));
      check(found == want, "at_least_f32", count);
    }
    for (const size_t limit : {size_t(1), count / 9 + 1, count, count + 1}) {
      const float least = k.least_of_best_f32(sums.data(), count, limit);
      const auto reach = [&](float score) {
        return size_t(std::count_if(sums.begin(), sums.end(), [&](float s) { return s >= score; }));
      };
      check(reach(least) >= std::min(limit, count), "least_of_best_f32", count, limit);
      // The next higher score that there is: too few reach it, or not many fewer.
      const float next = std::nextafter(least, std::numeric_limits<float>::infinity());
      check(std::isinf(least) || reach(next) <= 2 * limit + 20, "least_of_best_f32: tight", count,
            limit);
    }
    for (const uint32_t different : {1u, 3u, 50u, 0xFFFFFFFFu})
      for (const size_t limit : {size_t(1), count / 3 + 1, count, count + 1}) {
        std::vector<Key> keys(count);
        for (size_t i = 0; i < count; ++i)
          keys[i] = make_key(int32_t(random.next() % different - different / 2), uint32_t(i));
        std::vector<Key> sorted = keys, want;
        std::sort(sorted.begin(), sorted.end(), std::greater<>());
        const int32_t least = key_score(sorted[std::min(limit, count) - 1]);
        for (const Key key : keys)
          if (key_score(key) >= least) want.push_back(key);
        std::vector<Key> more = keys;
        Key bound;
        keys.resize(k.keep_best(keys.data(), count, limit, limit, &bound));
        check(keys == want, "keep_best", count, limit);
        more.resize(k.keep_best(more.data(), count, limit, limit + 7, &bound));
        check(more.size() >= std::min(count, limit) &&
                  more.size() <= std::max(limit + 7, want.size()) &&
                  std::all_of(more.begin(), more.end(), [&](Key key) { return key >= bound; }),
              "keep_best and a few more", count, limit);
      }
  }
}

void test_encode(const KernelTable& k, const Reference& reference, size_t n) {
  Group group(std::string(k.level) + ": encode_tile, " + std::to_string(n));
  Random random;
  for (const size_t dim : {1, 2, 3, 8, 17, 50})
    for (const size_t per_block : {1, 2, 3, 5})
      for (const bool anisotropic : {false, true})
        for (const bool warm : {false, true}) {
          if (per_block > dim) continue;
          const size_t blocks = blocks_of(dim, per_block);
          const auto target = random.reals(dim * 16), words = random.reals(dim * n);
          auto direction = random.reals(dim * 16), weight = random.reals(16);
          for (float& w : weight) w = std::fabs(w) * 5;
          for (float& d : direction) d /= std::sqrt(float(dim));
          const float* d = anisotropic ? direction.data() : nullptr;
          auto codes = random.bytes(blocks * 16, n), want_codes = codes;
          float loss[16], want[16];
          k.encode_tile(target.data(), d, weight.data(), words.data(), n, dim, per_block, 6, warm,
                        codes.data(), loss);
          for (size_t i = 0; i < 16; ++i)
            want[i] = reference.encode(target.data() + i, d == nullptr ? nullptr : d + i,
                                       weight[i], words.data(), n, dim, per_block, 6, warm,
                                       want_codes.data() + i);
          check(codes == want_codes, "codes of a tile", dim, per_block);
          check(same_bits(loss, want, 16), "loss of a tile", dim, per_block);
          double worst = 0;  // what was said to be reached, against the loss itself
          for (size_t i = 0; i < 16; ++i) {
            double square = 0, along = 0;
            for (size_t j = 0; j < dim; ++j) {
              const double e = double(target[16 * j + i]) -
                               words[n * j + codes[16 * (j / per_block) + i]];
              square += e * e, along += anisotropic ? e * direction[16 * j + i] : 0;
            }
            const double exact = square + (anisotropic ? weight[i] * along * along : 0);
            worst = std::max(worst, std::fabs(loss[i] - exact) / (exact + double(dim)));
          }
          check(worst < 1e-5, "loss against double", dim, per_block);
        }
}

}  // namespace

void test_kernels() {
  size_t count;
  const Level* all = levels(&count);
  for (size_t i = 0; i < count; ++i) {
    if (!is_new(all, i, &KernelTable::dot_f32)) continue;
    const KernelTable& k = *all[i].table;
    const Reference reference{std::strcmp(all[i].name, "scalar") != 0};
    test_pairs(k, reference);
    test_narrow_rows(k, reference);
    test_tiled(k, reference);
    test_choosing(k);
    for (const size_t codewords : {kWords16, kWords256}) {
      test_tables(k, reference, codewords);
      test_encode(k, reference, codewords);
    }
  }
}

}  // namespace selftest
