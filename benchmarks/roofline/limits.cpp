// What this machine's core can do, as JSON: operations a nanosecond, and runs of bytes read a nanosecond.
//
//   limits [RUN_BYTES:TOTAL_BYTES ...]
//
// For each pair, runs of so many bytes are read at random places of an array of so many bytes: by lines,
// with those of later runs asked for ahead, in the way that is fastest here. RUN_BYTES of 0 reads the
// array from one end to the other.
#include <immintrin.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

namespace {

double now() {
  using namespace std::chrono;
  return duration<double, std::nano>(steady_clock::now().time_since_epoch()).count();
}

// The least nanoseconds that `work` takes.
template <class Work>
double least(int turns, Work work) {
  double best = 1e300;
  for (int i = 0; i < turns; ++i) {
    const double start = now();
    work();
    best = std::min(best, now() - start);
  }
  return best;
}

// ---- Operations: chains that do not wait for each other, in registers

constexpr int kTurns = 200, kLoops = 20000, kChains = 12;

#define REPEAT_12(one) one(0) one(1) one(2) one(3) one(4) one(5) one(6) one(7) one(8) one(9) one(10) one(11)

double clock_ghz() {
  const double taken = least(kTurns, [] {
    uint64_t x = 1;
    for (int i = 0; i < kLoops; ++i)
      asm volatile("add $1, %0\n add $1, %0\n add $1, %0\n add $1, %0\n" : "+r"(x));
  });
  return 4.0 * kLoops / taken;
}

#define RATE(name, isa, type, operation)                                        \
  __attribute__((target(isa))) double name() {                                  \
    return kLoops * double(kChains) / least(kTurns, []() __attribute__((target(isa))) { \
             type v[kChains] = {};                                              \
             for (int i = 0; i < kLoops; ++i) {                                 \
               REPEAT_12(operation)                                             \
             }                                                                  \
           });                                                                  \
  }
#define SHUFFLE_512(i) asm volatile("vpermb %0, %0, %0" : "+v"(v[i]));
#define SUM_512(i) asm volatile("vpdpbusd %0, %0, %0" : "+v"(v[i]));
#define LOGIC_512(i) asm volatile("vpternlogd $0xEA, %0, %0, %0" : "+v"(v[i]));
#define SHUFFLE_256(i) asm volatile("vpshufb %0, %0, %0" : "+x"(v[i]));
#define SUM_256(i) asm volatile("vpaddb %0, %0, %0" : "+x"(v[i]));
#define LOGIC_256(i) asm volatile("vpand %0, %0, %0" : "+x"(v[i]));
RATE(shuffles_512, "avx512f", __m512i, SHUFFLE_512)
RATE(sums_512, "avx512f", __m512i, SUM_512)
RATE(logic_512, "avx512f", __m512i, LOGIC_512)
RATE(shuffles_256, "avx2", __m256i, SHUFFLE_256)
RATE(sums_256, "avx2", __m256i, SUM_256)
RATE(logic_256, "avx2", __m256i, LOGIC_256)

// ---- Bytes

constexpr size_t kLine = 64;

struct Array {
  explicit Array(size_t bytes) : size(bytes) {
    void* got = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (got == MAP_FAILED) std::exit(1);
    madvise(got, bytes, MADV_HUGEPAGE);
    data = static_cast<char*>(got);
    for (size_t i = 0; i < bytes; i += kLine) data[i] = char(i);
  }
  ~Array() { munmap(data, size); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  char* data;
  size_t size;
};

void ask(const char* from, size_t bytes) {
  for (size_t i = 0; i < bytes; i += kLine) __builtin_prefetch(from + i);
}

// Four sums by name: an array of them would lie in memory.
__attribute__((target("avx2"))) void read(const char* from, size_t bytes, size_t ahead) {
  const auto at = [&](size_t i) __attribute__((target("avx2"))) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i));
  };
  __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
  size_t i = 0;
  for (; i + 2 * kLine <= bytes; i += 2 * kLine) {
    if (ahead > 0) ask(from + i + ahead, 2 * kLine);
    a = _mm256_xor_si256(a, at(i)), b = _mm256_xor_si256(b, at(i + 32));
    c = _mm256_xor_si256(c, at(i + 64)), d = _mm256_xor_si256(d, at(i + 96));
  }
  for (; i + 32 <= bytes; i += 32) a = _mm256_xor_si256(a, at(i));
  asm volatile("" : "+x"(a), "+x"(b), "+x"(c), "+x"(d));
}

// Eight runs of as many bytes side by side.
__attribute__((target("avx2"))) void read_eight(const char* data, const size_t* places, size_t bytes) {
  __m256i sum = _mm256_setzero_si256();
  for (size_t i = 0; i + 32 <= bytes; i += 32)
    for (size_t r = 0; r < 8; ++r)
      sum = _mm256_xor_si256(
          sum, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(data + places[r] + i)));
  asm volatile("" : "+x"(sum));
}

// Bytes a nanosecond from one end to the other; a small array again and again.
double stream(size_t total) {
  const Array array(total + 65536);
  const int again = int(std::max<size_t>(1, (size_t(4) << 20) / total));
  double best = 0;
  for (size_t ahead : {0, 1024, 4096, 16384}) {
    const double taken = least(9, [&] {
      for (int i = 0; i < again; ++i) read(array.data, total, ahead);
    });
    best = std::max(best, double(total) * again / taken);
  }
  return best;
}

// Bytes a nanosecond in runs at random places, the first lines of later runs asked for.
double runs(size_t bytes, size_t total) {
  constexpr size_t kAsked = 4096;
  const Array array(total + bytes + 65536);
  std::mt19937_64 random(1);
  std::vector<size_t> places(std::clamp<size_t>((size_t(16) << 20) / bytes, 64, 100000) / 8 * 8);
  double best = 0;
  for (size_t ahead : {0, 1, 2, 4, 8, 16}) {  // 0: eight at a time
    for (int turn = 0; turn < 5; ++turn) {
      for (auto& place : places) place = random() % std::max<size_t>(1, total / bytes) * bytes;
      const double taken = least(1, [&] {
        if (ahead == 0) {
          for (size_t i = 0; i + 8 <= places.size(); i += 8)
            read_eight(array.data, places.data() + i, bytes);
          return;
        }
        for (size_t i = 0; i < places.size(); ++i) {
          if (i + ahead < places.size())
            ask(array.data + places[i + ahead], std::min(bytes, kAsked));
          read(array.data + places[i], bytes, bytes > kAsked ? kAsked : 0);
        }
      });
      best = std::max(best, double(bytes) * double(places.size()) / taken);
    }
  }
  return best;
}

}  // namespace

int main(int count, char** arguments) {
  std::printf("{\"clock\": %.3f, \"operations\": {", clock_ghz());
  if (__builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni"))
    std::printf("\"512\": {\"shuffles\": %.3f, \"sums\": %.3f, \"logic\": %.3f}, ", shuffles_512(),
                sums_512(), logic_512());
  std::printf("\"256\": {\"shuffles\": %.3f, \"sums\": %.3f, \"logic\": %.3f}}, \"bytes\": {",
              shuffles_256(), sums_256(), logic_256());
  for (int i = 1; i < count; ++i) {
    char* end;
    const size_t bytes = std::strtoull(arguments[i], &end, 10);
    const size_t total = std::strtoull(end + 1, nullptr, 10);
    std::printf("%s\"%s\": %.2f", i > 1 ? ", " : "", arguments[i],
                bytes == 0 ? stream(total) : runs(bytes, total));
  }
  std::printf("}}\n");
}
