// What the files of the self-test share: counting checks, and inputs that are always the same.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "kernels.h"

namespace selftest {

// ---- Counting

inline size_t passed = 0, failed = 0;

// One group of checks: prints a line when it ends.
struct Group {
  std::string name;
  size_t passed_before = passed, failed_before = failed;

  explicit Group(std::string n) : name(std::move(n)) {}
  ~Group() {
    const size_t bad = failed - failed_before;
    std::printf("%-4s %-44s %6zu checks\n", bad == 0 ? "ok" : "FAIL", name.c_str(),
                passed - passed_before + bad);
  }
};

inline void check(bool holds, const char* what, size_t a = 0, size_t b = 0) {
  ++(holds ? passed : failed);
  if (!holds && failed <= 20) std::printf("     failed: %s (%zu, %zu)\n", what, a, b);
}

// ---- Levels

// Whether no level before has the same kernel there: what levels share is tested once.
template <typename Kernel>
bool is_new(const swann::Level* all, size_t level, Kernel swann::KernelTable::* kernel) {
  return std::none_of(all, all + level, [&](const swann::Level& other) {
    return other.table->*kernel == all[level].table->*kernel;
  });
}

// ---- Codes

// The code of a datapoint in one block of packed codes, of 4 or of 8 bits.
inline size_t packed_code(const uint8_t* codes, size_t codewords, size_t blocks, size_t at,
                          size_t block) {
  const size_t bytes = swann::block_bytes(codewords), i = at % swann::kGroup;
  const uint8_t* packed = codes + (at / swann::kGroup * blocks + block) * bytes;
  if (codewords == swann::kWords256) return packed[i];
  return i < 16 ? packed[i] & 15 : packed[i - 16] >> 4;
}

// ---- Inputs

struct Random {
  uint64_t state = 0x9E3779B97F4A7C15u;

  uint32_t next() {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return uint32_t(state >> 32);
  }
  size_t below(size_t n) { return next() % n; }
  float real() { return float(next()) * 0x1p-31f - 1.0f; }  // in -1..1
  std::vector<float> reals(size_t n) {
    std::vector<float> x(n);
    for (float& v : x) v = real();
    return x;
  }
  // Small integers: sums and products of them are exact in a float.
  std::vector<float> integers(size_t n) {
    std::vector<float> x(n);
    for (float& v : x) v = float(int(below(9)) - 4);
    return x;
  }
  std::vector<uint8_t> bytes(size_t n, size_t limit) {
    std::vector<uint8_t> x(n);
    for (uint8_t& v : x) v = uint8_t(below(limit));
    return x;
  }
};

inline bool same_bits(const float* a, const float* b, size_t n) {
  return n == 0 || std::memcmp(a, b, n * sizeof(float)) == 0;  // of nothing there may be no pointers
}
inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && same_bits(a.data(), b.data(), a.size());
}

// What a level's i8_filter finds.
struct FoundOfFilter {
  std::vector<uint32_t> rows, queries;
  std::vector<float> products;
  size_t count;

  FoundOfFilter(const swann::KernelTable& k, const swann::I8Rows& from, size_t groups, size_t quads,
                const swann::I8Queries& side, bool squared_l2, float slack)
      : rows((groups * side.count + 1) * swann::kI8Group),
        queries(rows.size()),
        products(rows.size()) {
    const swann::I8Found found{rows.data(), queries.data(), products.data()};
    count = k.i8_filter(&from, groups, quads, &side, squared_l2, slack, &found);
  }
};

void test_kernels();   // selftest_kernels.cpp
void test_scans();     // selftest_scans.cpp
void test_bytes();     // selftest_bytes.cpp
void test_rounding_of_vectors();  // selftest_bounds.cpp
void test_sums();      // selftest_sums.cpp
void test_training();  // selftest_training.cpp
void test_codes();     // selftest_codes.cpp
void test_rows();      // selftest_rows.cpp
void test_pipeline();  // selftest_pipeline.cpp
void test_centroids();  // selftest_centroids.cpp
void test_projection();  // selftest_projection.cpp
void test_updates();  // selftest_updates.cpp
void test_together();  // selftest_together.cpp
void test_unpacked_codes();  // selftest_unpacked.cpp

}  // namespace selftest
