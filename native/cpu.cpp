// What this machine can run, asked once: CPUID for the instructions, XGETBV for the registers the
// operating system saves, and Linux for those of tiles, whose products are then compared; on ARM the
// system is asked. SWANN_SIMD names a level to force it; avx512 is the best of those whose names
// begin so.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(_WIN32)
#include <windows.h>
#endif

namespace swann {
namespace {

#if defined(__x86_64__)

struct Cpu {
  bool avx2 = false, avx512 = false, vnni = false, amx = false;
};

uint64_t enabled_registers() noexcept {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t(high) << 32 | low;
}

bool has(uint32_t word, std::initializer_list<int> bits) noexcept {
  for (int bit : bits)
    if ((word >> bit & 1) == 0) return false;
  return true;
}

// Linux grants a process the registers of tiles when asked; all of its threads may use them then.
bool may_use_tiles() noexcept {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // asm/prctl.h
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

Cpu detect() noexcept {
  Cpu cpu;
  uint32_t a, b, c, d, ext_c = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0) return cpu;
  const bool first = has(c, {12, 23, 27, 28, 29});  // FMA POPCNT OSXSAVE AVX F16C
  if (!first) return cpu;
  if (__get_cpuid(0x80000001, &a, &b, &ext_c, &d) == 0) return cpu;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return cpu;
  const uint64_t saved = enabled_registers();
  cpu.avx2 = (saved & 0x6) == 0x6 && has(b, {3, 5, 8}) && has(ext_c, {5});  // BMI AVX2 BMI2 LZCNT
  cpu.avx512 = cpu.avx2 && (saved & 0xE6) == 0xE6 && has(b, {16, 17, 28, 30, 31});  // F DQ CD BW VL
  cpu.vnni = cpu.avx512 && has(c, {1, 6, 8, 11});  // VBMI VBMI2 GFNI VNNI
  // AMX-TILE AMX-INT8
  cpu.amx = cpu.vnni && (saved & 0x60000) == 0x60000 && has(d, {24, 25}) && may_use_tiles();
  return cpu;
}

#elif defined(__aarch64__)

bool has_dot_products() noexcept {
#if defined(__linux__)
  constexpr unsigned long kDotProducts = 1ul << 20;  // HWCAP_ASIMDDP
  return (getauxval(AT_HWCAP) & kDotProducts) != 0;
#elif defined(_WIN32)
  constexpr DWORD kDotProducts = 43;  // PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE
  return IsProcessorFeaturePresent(kDotProducts) != 0;
#elif defined(__APPLE__)
  return true;
#else
  return false;
#endif
}

#endif

#if defined(__x86_64__)
}  // namespace

bool filters_agree(const KernelTable& one, const KernelTable& other) noexcept {
  constexpr size_t kGroups = 3, kQuads = 19, kQueries = 37, kPadded = 48;  // every kind of remainder
  static uint8_t bytes[kGroups * kQuads * 64];
  static int8_t queries[kPadded * kQuads * 4];
  int32_t starts[kQueries];
  float inverses[kGroups], zeros[kPadded] = {}, ones[kQueries], thresholds[kQueries];
  uint32_t state = 1;
  const auto next = [&state] { return state = state * 1664525u + 1013904223u, state >> 24; };
  for (uint8_t& b : bytes) b = uint8_t(next());
  for (int8_t& b : queries) b = int8_t(next());
  for (size_t q = 0; q < kQueries; ++q)
    starts[q] = int32_t(next()), ones[q] = 1, thresholds[q] = float(next() * 1000) - 1e5f;
  for (float& inverse : inverses) inverse = 1;
  const I8Rows rows{bytes, inverses, zeros, zeros, zeros};
  const I8Queries side{queries, starts, ones, zeros, zeros, thresholds, kQueries};
  constexpr size_t kAll = kGroups * kI8Group * kQueries;
  static uint32_t found_rows[kAll + kI8Group], found_queries[kAll + kI8Group];
  static float products[kAll + kI8Group], in_order[2][kAll];
  const I8Found found{found_rows, found_queries, products};
  const KernelTable* const tables[2] = {&one, &other};
  for (int t = 0; t < 2; ++t) {
    const size_t count = tables[t]->i8_filter(&rows, kGroups, kQuads, &side, false, 0, &found);
    std::fill_n(in_order[t], kAll, 0.5f);  // no product
    for (size_t i = 0; i < count; ++i)
      in_order[t][found_rows[i] * kQueries + found_queries[i]] = products[i];
  }
  return std::memcmp(in_order[0], in_order[1], sizeof in_order[0]) == 0;
}

namespace {
#endif

bool is_meant(const char* level, const char* forced) noexcept {
  constexpr char kFamily[] = "avx512";
  if (std::strcmp(forced, kFamily) == 0)
    return std::strncmp(level, kFamily, sizeof kFamily - 1) == 0;
  return std::strcmp(level, forced) == 0;
}

struct Levels {
  static constexpr size_t kMost = 6;

  KernelTable tables[kMost] = {};  // the worst first
  Level items[kMost];
  size_t count = 0;
  const KernelTable* chosen = nullptr;
  char error[256] = {};

  // A level above those that are there.
  void add(void (*put)(KernelTable&) noexcept) noexcept {
    KernelTable& table = tables[count];
    if (count > 0) table = tables[count - 1];
    put(table);
    ++count;
  }

  Levels() noexcept {
    add(put_scalar);
#if defined(__x86_64__)
    const Cpu cpu = detect();
    if (cpu.avx2) add(put_avx2);
    if (cpu.avx512) add(put_avx512bw);
    if (cpu.vnni) add(put_avx512vnni);
    if (cpu.amx) add(put_amx);
    if (cpu.amx && !filters_agree(tables[count - 1], tables[count - 2])) --count;
#elif defined(__aarch64__)
    add(put_neon);
    if (has_dot_products()) add(put_neondot);
#endif
    for (size_t i = 0; i < count; ++i) items[i] = {tables[count - 1 - i].level, &tables[count - 1 - i]};
#if defined(SWANN_EMULATED)
    add(put_emulated);  // the last in preference, over the best
    items[count - 1] = {tables[count - 1].level, &tables[count - 1]};
#endif
    chosen = items[0].table;
    const char* forced = std::getenv("SWANN_SIMD");
    if (forced == nullptr || *forced == '\0') return;
    for (size_t i = 0; i < count; ++i)
      if (is_meant(items[i].name, forced)) {
        chosen = items[i].table;
        return;
      }
    int used = std::snprintf(error, sizeof error,
                             "SWANN_SIMD is \"%.40s\", but this machine can run", forced);
    for (size_t i = 0; i < count && used > 0 && size_t(used) < sizeof error; ++i)
      used += std::snprintf(error + used, sizeof error - size_t(used), " %s", items[i].name);
  }
};

const Levels& all() noexcept {
  static const Levels levels;
  return levels;
}

}  // namespace

const Level* levels(size_t* count) noexcept {
  *count = all().count;
  return all().items;
}

const KernelTable* find_level(const char* name) noexcept {
  for (size_t i = 0; i < all().count; ++i)
    if (std::strcmp(name, all().items[i].name) == 0) return all().items[i].table;
  return nullptr;
}

const KernelTable& kernels() noexcept { return *all().chosen; }

const char* level_error() noexcept { return all().error[0] == '\0' ? nullptr : all().error; }

}  // namespace swann
