// The kernels that scan codes, at every level this machine can run, against plain sums of the entries
// of lookup tables: the same keys.
#include <algorithm>
#include <string>
#include <vector>

#include "kernels.h"
#include "search.h"
#include "selftest.h"

using namespace swann;

namespace selftest {
namespace {

uint32_t scan_sum(const PackedLeaf& leaf, size_t codewords, const ScanQuery& query, size_t row) {
  uint32_t sum = 0;
  for (size_t m = 0; m < leaf.blocks; ++m)
    sum += query.lut[codewords * m + packed_code(leaf.codes, codewords, leaf.blocks, row, m)];
  if (leaf.corrections != nullptr) sum += (leaf.corrections[row] * query.multiplier) >> 16;
  return sum;
}

using Scan = decltype(KernelTable::lut16_scan);
// The greatest entry of a block. Of three that are added in 8 bits one is wide where tables are uneven, and all
// three would be if levels added others.
using Entries = size_t (*)(size_t block);
size_t any_entries(size_t) { return kMaxEntry; }
size_t even_entries(size_t) { return kMaxEntry / 3; }
size_t uneven_entries(size_t block) { return block % 3 == 1 ? kMaxEntry - 2 * 20 : 20; }

// A leaf of `count` datapoints, for queries whose buffers may fill before the end:
// then every full group so far was offered, and the scan goes on where it stopped.
void test_scan_once(Scan scan, Entries most, size_t codewords, Random& random, size_t count,
                    size_t blocks, size_t num_queries, bool corrected, bool greatest) {
  const size_t groups = groups_of(count);
  const auto codes = random.bytes(groups * blocks * block_bytes(codewords), 256);
  std::vector<uint16_t> corrections(groups * kGroup);
  for (uint16_t& c : corrections) c = uint16_t(random.next());
  const PackedLeaf leaf{codes.data(), corrected ? corrections.data() : nullptr, blocks, count,
                        1000, nullptr};
  // The greatest entries and the greatest correction sum up to 65535, never beyond.
  std::vector<size_t> limits(blocks);
  size_t total = 0;
  for (size_t m = 0; m < blocks; ++m) {
    limits[m] = std::min<size_t>(most(m), 65535 / blocks);
    total += limits[m];
  }
  const auto left = uint32_t(65535 - total);
  std::vector<std::vector<uint8_t>> luts;
  std::vector<std::vector<Key>> out(num_queries, std::vector<Key>(96)), found(num_queries);
  ScanQuery queries[kMaxScanQueries];
  for (size_t q = 0; q < num_queries; ++q) {
    std::vector<uint8_t>& lut = luts.emplace_back();
    for (size_t m = 0; m < blocks; ++m)
      for (size_t k = 0; k < codewords; ++k)
        lut.push_back(uint8_t(greatest ? limits[m] : random.below(limits[m] + 1)));
    queries[q] = {luts[q].data(), 0, int32_t(random.below(2000)) - 1000, left, out[q].data(), 0,
                  96};
    if (q > 0) queries[q].threshold = int32_t(scan_sum(leaf, codewords, queries[q], random.below(count)));
  }
  size_t group = 0, calls = 0;
  bool stopped_well = true;
  while (group < groups && calls++ <= groups) {
    group = scan(&leaf, group, queries, num_queries);
    bool full = false;
    for (size_t q = 0; q < num_queries; ++q) {
      full |= queries[q].capacity - queries[q].size < kGroup;
      found[q].insert(found[q].end(), queries[q].out, queries[q].out + queries[q].size);
      queries[q].size = 0;
    }
    stopped_well &= group == groups || full;
  }
  check(group == groups && stopped_well, "stops only where a buffer is full", count, blocks);
  for (size_t q = 0; q < num_queries; ++q) {
    std::vector<Key> want;
    for (size_t row = 0; row < count; ++row) {
      const auto sum = int32_t(scan_sum(leaf, codewords, queries[q], row));
      if (sum >= queries[q].threshold)
        want.push_back(make_key(sum + queries[q].bias, uint32_t(1000 + row)));
    }
    check(found[q] == want, "the keys found", count, blocks);
  }
}

void test_scan(const KernelTable& k, const char* name, Scan scan, Entries most, size_t codewords) {
  std::vector<size_t> numbers;  // of queries: where many share one way, a few and the most
  const size_t most_queries = k.scan_queries, all = most_queries > 8 ? 4 : most_queries;
  for (size_t n = 1; n <= all; ++n) numbers.push_back(n);
  if (most_queries > all) numbers.push_back(most_queries);
  Group group(std::string(k.level) + ": " + name);
  Random random;
  for (const size_t count : {1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 96, 128, 250, 353})
    for (const size_t blocks : {1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13, 18, 50, 257, 800})
      for (const size_t queries : numbers)
        for (const bool corrected : {false, true})
          for (const bool greatest : {false, true})
            test_scan_once(scan, most, codewords, random, count, blocks, queries, corrected,
                           greatest);
  const ScanQuery no_room{nullptr, 0, 0, 0, nullptr, 0, kGroup - 1};
  const PackedLeaf leaf{nullptr, nullptr, 1, 40, 0, nullptr};
  ScanQuery query = no_room;
  check(scan(&leaf, 1, &query, 1) == 1 && query.size == 0, "no room: nothing is done");
}

// Entries of three blocks that scans add in 8 bits fit them together, and hardly less would do.
void test_tables_fit() {
  Group group("tables: three entries in 8 bits");
  Random random;
  constexpr size_t kWidth = 2;
  for (size_t blocks = 1; blocks <= 40; ++blocks)
    for (const Distance distance : {Distance::dot_product, Distance::squared_l2})
      for (const size_t wide : {0, 1, 3, 7, 100}) {  // every so many blocks one is
        const size_t dim = blocks * kWidth;
        std::vector<float> codebook = random.reals(dim * kWords16);
        for (size_t j = 0; j < dim && wide > 0; ++j)
          for (size_t k = 0; j / kWidth % wide == 0 && k < kWords16; ++k) codebook[j * kWords16 + k] *= 5;
        IndexView index;
        index.distance = distance, index.dim = index.reduced_dim = dim, index.codewords = kWords16;
        index.blocks = blocks, index.dims_per_block = kWidth, index.codebook = codebook.data();
        const auto query = random.reals(dim);
        std::vector<uint8_t> lut(blocks * kWords16);
        build_table(index, query.data(), 0, lut.data());
        std::vector<int> most(blocks + 2 * 4);
        for (size_t m = 0; m < blocks; ++m)
          most[m] = *std::max_element(&lut[m * kWords16], &lut[m * kWords16] + kWords16);
        int greatest = 0;
        for (const size_t s : {1, 2, 4})  // which levels add
          for (size_t m = 0; m < blocks; ++m)
            greatest = std::max(greatest, most[m] + most[m + s] + most[m + 2 * s]);
        check(greatest <= kMaxEntry, "no more than fits", blocks, wide);
        check(greatest >= kMaxEntry - 4, "no step is wider than it has to be", blocks, wide);
      }
}

}  // namespace

void test_scans() {
  size_t count;
  const Level* all = levels(&count);
  test_tables_fit();
  for (size_t i = 0; i < count; ++i) {
    if (!is_new(all, i, &KernelTable::lut16_scan)) continue;
    const KernelTable& k = *all[i].table;
    test_scan(k, "lut16_scan", k.lut16_scan, even_entries, kWords16);
    test_scan(k, "lut16_scan, uneven tables", k.lut16_scan, uneven_entries, kWords16);
    test_scan(k, "lut256_scan", k.lut256_scan, any_entries, kWords256);
  }
}

}  // namespace selftest
