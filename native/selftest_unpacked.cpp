// Codes unpacked and multiplied: unpacking, bounds, the marked scan, the tiles of level amx in plain
// C++, and that batches find the same by either way.
#include "selftest_amx.h"

#include <algorithm>
#include <cmath>

#include "kernels.h"
#include "search.h"
#include "selftest.h"
#include "selftest_index.h"
#include "unpacked_codes.h"

using namespace swann;

namespace selftest {
namespace {

// A leaf of random codes and everything that belongs to it.
struct Leaf {
  size_t count, blocks, sixteens, fours;
  std::vector<uint8_t> packed, codes, rows, words;
  PackedLeaf leaf;

  Leaf(const KernelTable& k, Random& random, size_t n, size_t b, size_t width)
      : count(n), blocks(b), sixteens(2 * groups_of(n)), fours(ceil_div(b, 4)),
        packed(random.bytes(sixteens / 2 * b * 16, 256)),
        codes(sixteens * 16 * unpacked_bytes(b)), rows(sixteens * fours * width * 64),
        words(random.bytes(fours * width * 64, 256)),
        leaf{packed.data(), nullptr, b, n, 500, nullptr} {
    k.lut16_unpack(&leaf, words.data(), width, rows.data(), codes.data());
  }
  size_t code(size_t at, size_t block) const {
    return packed_code(packed.data(), kWords16, blocks, at, block);
  }
};

void test_unpack(const KernelTable& k) {
  Group group(std::string(k.level) + ": unpacking");
  Random random;
  for (const size_t count : {1, 16, 33, 100})
    for (const size_t blocks : {1, 3, 4, 5, 50, 63, 64, 65, 130})
      for (const size_t width : {1, 2, 3}) {
        const Leaf l(k, random, count, blocks, width);
        bool right = true;
        for (size_t at = 0; at < l.sixteens * 16; ++at)
          for (size_t m = 0; m < blocks; ++m) {
            const size_t code = l.code(at, m);
            right &= l.codes[at * unpacked_bytes(blocks) + m] == code + 16 * (m % 8);
            for (size_t i = 0; i < width; ++i) {
              const size_t quad = m / 4 * width + i;
              right &= l.rows[((at / 16 * l.fours * width + quad) * 16 + at % 16) * 4 + m % 4] ==
                       l.words[(quad * 4 + m % 4) * 16 + code];
            }
          }
        check(right, "codes and rows", count, blocks);
      }
}

void test_marked(const KernelTable& k) {
  Group group(std::string(k.level) + ": the marked scan");
  Random random;
  for (const size_t count : {1, 15, 16, 17, 33, 250, 1024})
    for (const size_t blocks : {1, 4, 7, 8, 50, 64, 65, 100})
      for (const size_t share : {1, 4, 40}) {  // one in so many is marked
        const Leaf l(k, random, count, blocks, 1);
        const auto lut = random.bytes(blocks * 16, 256);
        constexpr size_t kStride = 3;
        std::vector<uint16_t> masks(l.sixteens * kStride);
        for (size_t i = 0; i < masks.size() * 16; ++i)
          if (random.below(share) == 0) masks[i / 16] |= uint16_t(1u << i % 16);
        std::vector<Key> want, out(40), found;
        std::vector<int32_t> sums(count);
        for (size_t at = 0; at < count; ++at)
          for (size_t m = 0; m < blocks; ++m) sums[at] += lut[16 * m + l.code(at, m)];
        ScanQuery query{lut.data(), sums[random.below(count)], 7, 0, out.data(), 0, out.size()};
        for (size_t at = 0; at < count; ++at)
          if ((masks[at / 16 * kStride + 1] >> at % 16 & 1) != 0 && sums[at] >= query.threshold)
            want.push_back(make_key(sums[at] + 7, uint32_t(500 + at)));
        bool stopped_well = true;
        for (size_t at = 0, calls = 0; at != kAllScanned && calls <= count; ++calls) {
          at = k.lut16_scan_marked(&l.leaf, l.codes.data(), masks.data() + 1, kStride, at, &query);
          stopped_well &= at == kAllScanned || query.capacity - query.size < 16;
          found.insert(found.end(), out.begin(), out.begin() + ptrdiff_t(query.size));
          query.size = 0;
        }
        check(found == want && stopped_well, "the keys found", count, blocks);
      }
}

// Whatever a datapoint's codes are: a sum of entries that reaches a threshold has a product that
// reaches what the threshold becomes.
void test_bounds() {
  Group group("unpacked: bounds of products");
  Random random;
  for (const size_t dim : {1, 9, 50, 100})
    for (const size_t width : {1, 2, 3}) {
      if (width > dim) continue;
      SmallIndex index(random, Distance::dot_product, 300, dim, 4, width);
      prepare_byte_codebook(index.view);
      const auto query = random.reals(dim);
      std::vector<uint8_t> lut(index.view.blocks * kWords16);
      const Table table = build_table(index.view, query.data(), 1, lut.data());
      const ByteCodebook& book = index.view.byte_codebook;
      std::vector<int8_t> bytes(book.quads() * 4);
      const UnpackedQuery rounded =
          round_for_unpacked(index.view, query.data(), lut.data(), table.scale, bytes.data());
      size_t missed = 0, far = 0;
      for (size_t trial = 0; trial < 400; ++trial) {
        int32_t sum = 0, product = rounded.start;
        for (size_t m = 0; m < index.view.blocks; ++m) {
          const size_t code = random.below(16);
          sum += lut[m * kWords16 + code];
          for (size_t i = 0; i < width; ++i) {
            const size_t at = (m / 4 * width + i) * 4 + m % 4;
            product += bytes[at] * book.words[at * kWords16 + code];
          }
        }
        missed += float(product) < rounded.least(sum);
        // Each block may be off by half a step of the table and two of the bytes.
        const double slack = 4.0 * double(index.view.blocks) + 4;
        far += float(product) >= rounded.least(sum + int32_t(slack) + 1) + 2;
      }
      check(missed == 0, "no product is missed", dim, width);
      check(far == 0, "nor is one far below taken", dim, width);
    }
}

void test_trial() {
  Group group("unpacked: which way is faster");
  for (const bool unpacked_wins : {false, true}) {
    ScanTrial trial;
    size_t calls[2] = {};
    while (!trial.decided() && calls[0] + calls[1] < 1000) {
      const ScanWay way = trial.next();
      const bool slow = (way == ScanWay::unpacked) != unpacked_wins;
      // Now and then something disturbs the faster way, too.
      const double cost = slow ? 2.0 : calls[size_t(way)] % 3 == 0 ? 50.0 : 1.0;
      trial.report(way, 100, 100 * cost);
      ++calls[size_t(way)];
    }
    check(trial.decided() && calls[0] == calls[1], "ways in turns", calls[0], calls[1]);
    check((trial.next() == ScanWay::unpacked) == unpacked_wins, "the faster way", unpacked_wins);
    for (size_t i = 0; i < 100; ++i) trial.report(trial.next(), 1, 1e9);
    check((trial.next() == ScanWay::unpacked) == unpacked_wins, "and for good", unpacked_wins);
    force_scan(true, ScanWay::unpacked);
    check(trial.next() == ScanWay::unpacked, "forced");
    force_scan(false, ScanWay::tables);
  }
}

// Batches by unpacked codes, by tables, and queries alone.
void test_ways() {
  Group group("unpacked: batches find what tables find");
  Random random;
  for (const size_t dim : {9, 70})
    for (const size_t leaves : {0, 6}) {
      SmallIndex index(random, Distance::dot_product, 2500, dim, leaves, 2);
      prepare_byte_codebook(index.view);
      constexpr size_t kQueries = 40, kNeighbors = 8;
      const size_t searched = leaves == 0 ? 1 : 5;
      const auto queries = random.reals(kQueries * dim);
      const SearchLimits limits{kNeighbors, kNeighbors, searched};
      std::vector<std::vector<int64_t>> ids;
      for (const ScanWay way : {ScanWay::tables, ScanWay::unpacked}) {
        force_scan(true, way);
        ids.emplace_back(kQueries * kNeighbors);
        std::vector<float> distances(kQueries * kNeighbors);
        search_block(index.view, nullptr, limits, queries.data(), kQueries, ids.back().data(),
                     distances.data());
      }
      force_scan(false, ScanWay::tables);
      check(ids[0] == ids[1], "the same by either way", dim, leaves);
      for (size_t q = 0; q < kQueries; ++q) {
        std::vector<int64_t> alone(kNeighbors);
        std::vector<float> distances(kNeighbors);
        search_block(index.view, nullptr, limits, &queries[q * dim], 1, alone.data(),
                     distances.data());
        check(std::equal(alone.begin(), alone.end(), &ids[0][q * kNeighbors]), "as alone", dim, q);
      }
    }
}

#if defined(__x86_64__)

// Level amx in plain C++ says what avx512vnni says.
void test_emulated(const KernelTable& vnni) {
  Group group("amx, emulated: i8_filter");
  KernelTable amx = vnni;
  put_amx_emulated(amx);
  Random random;
  for (const size_t quads : {1, 4, 15, 16, 17, 25, 32, 33})
    for (const size_t groups : {1, 2, 3})
      for (const size_t count : {1, 15, 16, 17, 31, 32, 33, 50})
        for (const bool squared_l2 : {false, true}) {
          auto bytes = random.bytes(groups * quads * 64, 256);
          const size_t padded = ceil_div(count, kI8Queries) * kI8Queries;
          const auto noise = random.bytes(padded * quads * 4, 256);
          std::vector<int8_t> query(noise.begin(), noise.end());
          std::vector<int32_t> starts(count);
          for (int32_t& s : starts) s = int32_t(random.below(2001)) - 1000;
          std::vector<float> positive[5];
          for (auto& values : positive) {
            values = random.reals(std::max(count, groups * kI8Group));
            for (float& v : values) v = std::fabs(v) + 0.1f;
          }
          const float spread = 1e4f * std::sqrt(float(quads));
          auto thresholds = random.reals(count);
          for (float& t : thresholds) t *= spread;
          const I8Rows rows{bytes.data(), positive[0].data(), positive[1].data(),
                            positive[2].data(), positive[3].data()};
          const I8Queries side{query.data(),       starts.data(),      positive[4].data(),
                               positive[1].data(), positive[2].data(), thresholds.data(), count};
          const auto found = [&](const KernelTable& k) {
            const FoundOfFilter some(k, rows, groups, quads, side, squared_l2, 1e-3f);
            std::vector<float> in_order(groups * kI8Group * count, 0.5f);  // no product
            for (size_t i = 0; i < some.count; ++i)
              in_order[some.rows[i] * count + some.queries[i]] = some.products[i];
            return in_order;
          };
          const auto want = found(vnni), got = found(amx);
          check(got == want, "the same is found", quads, count);
        }
  check(refused_tiles() == 0, "nothing a machine would refuse", refused_tiles());
  check(filters_agree(amx, vnni), "trusted when the levels agree");
  KernelTable wrong = vnni;
  wrong.i8_filter = [](const I8Rows* rows, size_t groups, size_t quads, const I8Queries* queries,
                       bool l2, float slack, const I8Found* found) noexcept {
    const size_t count =
        find_level("avx512vnni")->i8_filter(rows, groups, quads, queries, l2, slack, found);
    found->products[count - 1] += 1;
    return count;
  };
  check(!filters_agree(wrong, vnni), "not when one bit differs");
}

#endif

}  // namespace

void test_unpacked_codes() {
  test_trial();
  size_t count;
  const Level* all = levels(&count);
  for (size_t i = 0; i < count; ++i)
    if (all[i].table->lut16_unpack != nullptr) {
      test_unpack(*all[i].table);
      test_marked(*all[i].table);
    }
#if defined(__x86_64__)
  if (const KernelTable* vnni = find_level("avx512vnni")) test_emulated(*vnni);
#endif
  if (kernels().lut16_unpack == nullptr) return;
  test_bounds();
  test_ways();
}

}  // namespace selftest
