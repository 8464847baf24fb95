// What this machine can run, asked once: CPUID for the instructions, XGETBV for the registers the
// operating system saves, and Linux for those of tiles, whose products are then compared; on ARM the
// system is asked. SWANN_SIMD names a level to force it; avx512 is the best of those whose names
// begin so.
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

// Lets a level multiply bytes as another does.
[[maybe_unused]] void take_i8(KernelTable& table, const KernelTable& from) noexcept {
  table.i8_pack = from.i8_pack;
  table.i8_filter = from.i8_filter;
  table.i8_products = from.i8_products;
  table.i8_most = from.i8_most;
}

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
  cpu.vnni = cpu.avx512 && has(c, {1, 6, 11});  // VBMI VBMI2 VNNI
  // AMX-TILE AMX-INT8
  cpu.amx = cpu.vnni && (saved & 0x60000) == 0x60000 && has(d, {24, 25}) && may_use_tiles();
  return cpu;
}

// Bytes are multiplied as avx2 does; all else is of this level.
const KernelTable& complete_bw_table() noexcept {
  static const KernelTable table = [] {
    KernelTable t = avx512bw_table;
    take_i8(t, avx2_table);
    return t;
  }();
  return table;
}

// What VBMI and VNNI make faster; all else is that of avx512bw.
const KernelTable& complete_vnni_table() noexcept {
  static const KernelTable table = [] {
    KernelTable t = avx512bw_table;
    t.level = avx512vnni_table.level;
    t.scan_queries = avx512vnni_table.scan_queries;
    t.lut16_scan = avx512vnni_table.lut16_scan;
    t.lut16_wide_scan = avx512vnni_table.lut16_wide_scan;
    t.lut256_scan = avx512vnni_table.lut256_scan;
    take_i8(t, avx512vnni_table);
    t.lut16_unpack = avx512vnni_table.lut16_unpack;
    t.lut16_scan_marked = avx512vnni_table.lut16_scan_marked;
    return t;
  }();
  return table;
}

const KernelTable& complete_amx_table() noexcept {
  static const KernelTable table = [] {
    KernelTable t = complete_vnni_table();
    t.level = amx_table.level;
    t.i8_filter = amx_table.i8_filter;
    return t;
  }();
  return table;
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

const KernelTable& complete_dot_table() noexcept {
  static const KernelTable table = [] {
    KernelTable t = neon_table;
    t.level = neondot_table.level;
    take_i8(t, neondot_table);
    return t;
  }();
  return table;
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
  uint16_t masks[kGroups * kQueries], others[kGroups * kQueries];
  one.i8_filter(&rows, kGroups, kQuads, &side, false, 0, masks);
  other.i8_filter(&rows, kGroups, kQuads, &side, false, 0, others);
  return std::memcmp(masks, others, sizeof masks) == 0;
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
  Level items[6];
  size_t count = 0;
  const KernelTable* chosen = nullptr;
  char error[256] = {};

  void add(const KernelTable& table) noexcept { items[count++] = {table.level, &table}; }

  Levels() noexcept {
#if defined(__x86_64__)
    const Cpu cpu = detect();
    if (cpu.amx && filters_agree(amx_table, avx512vnni_table)) add(complete_amx_table());
    if (cpu.vnni) add(complete_vnni_table());
    if (cpu.avx512) add(complete_bw_table());
    if (cpu.avx2) add(avx2_table);
#elif defined(__aarch64__)
    if (has_dot_products()) add(complete_dot_table());
    add(neon_table);
#endif
    add(scalar_table);
#if defined(SWANN_EMULATED)
    static const KernelTable emulated = emulated_over(*items[0].table);
    add(emulated);
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
