// The native code tests itself, without Python: for sanitizers, emulators and new machines.
// Kernels are tested at every level this machine can run, the pipeline at the one chosen
// (SWANN_SIMD forces it). Exits with 1 when a check fails. The argument no-fork leaves out what
// not every emulator can do: threads in a forked child.
#include "selftest.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <limits>
#include <stdexcept>
#include <thread>

#include "kernels.h"
#include "search.h"
#include "threads.h"
#include "train.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SWANN_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SWANN_SANITIZED 1
#endif
#endif

#if defined(__SANITIZE_THREAD__)
#define SWANN_CAN_FORK 0  // a child with threads of its own is more than ThreadSanitizer follows
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SWANN_CAN_FORK 0
#endif
#endif
#if !defined(SWANN_CAN_FORK) && (defined(__unix__) || defined(__APPLE__))
#define SWANN_CAN_FORK 1
#include <sys/wait.h>
#include <unistd.h>
#endif

using namespace swann;

namespace selftest {
namespace {

// ---- The pipeline

// A small index of rows of small integers, whose dot products are exact. Leaf 1 has the centroid
// of leaf 0, and so no rows.
struct SmallIndex {
  std::vector<float> rows, centroids, codebook;
  std::vector<uint32_t> starts, ids;
  std::vector<uint8_t> codes;
  std::vector<uint16_t> corrections;
  IndexView view;

  SmallIndex(Random& random, Distance distance, size_t count, size_t dim, size_t leaves,
             size_t per_block)
      : rows(random.integers(count * dim)), starts{0, uint32_t(count)} {
    view.distance = distance, view.dim = dim, view.num_rows = count;
    if (leaves > 0) make_tree(random, leaves);
    view.leaf_starts = starts.data();
    view.group_starts.assign(view.num_leaves + 1, 0);
    for (size_t l = 0; l < view.num_leaves; ++l)
      view.group_starts[l + 1] =
          view.group_starts[l] + (starts[l + 1] - starts[l] + kGroup - 1) / kGroup;
    if (per_block > 0) make_codes(random, per_block);
    view.rows = rows.data();
  }

  void make_tree(Random& random, size_t leaves) {
    const size_t dim = view.dim, count = view.num_rows;
    centroids = random.integers(leaves * dim);
    if (leaves > 1) std::copy_n(centroids.begin(), dim, centroids.begin() + ptrdiff_t(dim));
    std::vector<uint32_t> labels(count);
    std::vector<float> scores(count);
    ids.resize(count), starts.resize(leaves + 1);
    assign_leaves(rows.data(), count, dim, centroids.data(), leaves, 2, labels.data(),
                  scores.data());
    sort_by_leaf(labels.data(), count, leaves, ids.data(), starts.data());
    const auto given = rows;
    for (size_t i = 0; i < count; ++i) std::copy_n(&given[ids[i] * dim], dim, &rows[i * dim]);
    view.num_leaves = leaves, view.centroids = centroids.data(), view.ids = ids.data();
  }

  void make_codes(Random& random, size_t per_block) {
    view.dims_per_block = per_block, view.blocks = (view.dim + per_block - 1) / per_block;
    codebook = random.reals(view.dim * kLanes);
    codes.resize(view.group_starts.back() * view.blocks * 16);
    std::vector<float> cross(view.group_starts.back() * kGroup);
    const bool corrected = view.squared_l2() && view.centroids != nullptr;
    pack_codes({rows.data(), nullptr, view.centroids, starts.data(), view.group_starts.data(),
                view.num_leaves, 0, view.group_starts.back(), view.dim, per_block, view.blocks, 1,
                codebook.data(), codes.data(), corrected ? cross.data() : nullptr},
               2);
    view.codes = codes.data(), view.codebook = codebook.data();
    if (!corrected) return;
    const auto [low, high] = std::minmax_element(cross.begin(), cross.end());
    view.correction_low = *low, view.correction_span = *high - *low;
    for (const float c : cross)
      corrections.push_back(
          uint16_t(std::lround((c - *low) / std::max(view.correction_span, 1e-9f) * 65535)));
    view.corrections = corrections.data();
  }

  // The score of a row, greater is better: exact, or what its codes stand for.
  double score(const float* q, size_t leaf, size_t row, bool coded) const {
    double total = 0;
    for (size_t j = 0; j < view.dim; ++j) {
      double x = rows[row * view.dim + j];
      if (coded) x = value_of_code(leaf, row, j);
      const double c = coded && view.centroids != nullptr ? centroids[leaf * view.dim + j] : 0;
      total += view.squared_l2() ? -(q[j] - c - x) * (q[j] - c - x) : q[j] * (c + x);
    }
    return total;
  }

  double value_of_code(size_t leaf, size_t row, size_t j) const {
    const size_t i = row - starts[leaf], group = view.group_starts[leaf] + i / kGroup;
    const uint8_t byte = codes[(group * view.blocks + j / view.dims_per_block) * 16 + i % 16];
    return codebook[j * kLanes + (i % kGroup < 16 ? byte & 15 : byte >> 4)];
  }
};

struct Answer {
  std::vector<int64_t> ids;
  std::vector<float> distances;

  bool operator==(const Answer& other) const {
    return ids == other.ids && same_bits(distances, other.distances);
  }
};

Answer search(const IndexView& view, size_t k, size_t candidates, size_t leaves,
              const float* queries, size_t count) {
  Answer answer{std::vector<int64_t>(count * k), std::vector<float>(count * k)};
  const bool reorders = view.codes != nullptr && view.rows != nullptr;
  const SearchLimits limits{k, std::min(reorders ? std::max(candidates, k) : k, view.num_rows),
                            std::min(leaves, view.num_leaves)};
  search_block(view, limits, queries, count, answer.ids.data(), answer.distances.data());
  return answer;
}

// The leaves that a query searches: the best centroids, ties to the lowest.
std::vector<size_t> best_leaves(const SmallIndex& index, const float* q, size_t leaves) {
  const IndexView& view = index.view;
  std::vector<std::pair<float, size_t>> ranked;
  for (size_t l = 0; l < view.num_leaves; ++l) {
    float score = 0;
    for (size_t j = 0; j < view.dim && view.centroids != nullptr; ++j) {
      const float c = index.centroids[l * view.dim + j];
      score += view.squared_l2() ? -(q[j] - c) * (q[j] - c) : q[j] * c;
    }
    ranked.emplace_back(-score, l);
  }
  std::sort(ranked.begin(), ranked.end());
  std::vector<size_t> best;
  for (size_t i = 0; i < std::min(leaves, ranked.size()); ++i) best.push_back(ranked[i].second);
  return best;
}

// An exact answer: rows are cut by score, then by their place; and shown by score, then by id.
bool exact(const SmallIndex& index, const float* q, size_t k, size_t leaves,
           const int64_t* ids, const float* distances, bool cut_by_row) {
  const IndexView& view = index.view;
  std::vector<Key> keys;
  const auto id = [&](uint32_t row) { return view.ids == nullptr ? row : view.ids[row]; };
  for (const size_t l : best_leaves(index, q, leaves))
    for (uint32_t row = index.starts[l]; row < index.starts[l + 1]; ++row)
      keys.push_back(make_key(int32_t(index.score(q, l, row, false)),
                              cut_by_row ? row : id(row)));
  std::sort(keys.begin(), keys.end(), std::greater<>());
  keys.resize(std::min(k, keys.size()));
  if (cut_by_row)
    for (Key& key : keys) key = make_key(key_score(key), id(key_row(key)));
  std::sort(keys.begin(), keys.end(), std::greater<>());
  bool right = true;
  for (size_t i = 0; i < k; ++i) {
    if (i >= keys.size()) {
      right &= ids[i] == -1 && std::isnan(distances[i]);
      continue;
    }
    const auto score = float(key_score(keys[i]));
    right &= ids[i] == key_row(keys[i]) && distances[i] == (view.squared_l2() ? -score : score);
  }
  return right;
}

// An answer by codes alone: no further from the decoded scores than the tables are rounded.
bool near(const SmallIndex& index, const float* q, size_t k, size_t leaves, const int64_t* ids,
          const float* distances) {
  const IndexView& view = index.view;
  std::vector<double> by_id(view.num_rows, std::nan("")), sorted;
  for (const size_t l : best_leaves(index, q, leaves))
    for (size_t row = index.starts[l]; row < index.starts[l + 1]; ++row) {
      double score = index.score(q, l, row, true);
      if (view.corrections != nullptr) {  // the product with the centroid, at 16 bits
        for (size_t j = 0; j < view.dim; ++j)
          score += 2 * index.centroids[l * view.dim + j] * index.value_of_code(l, row, j);
        const size_t place = view.group_starts[l] * kGroup + row - index.starts[l];
        score += view.correction_low +
                 double(view.correction_span) * index.corrections[place] / 65535;
      }
      by_id[view.ids == nullptr ? row : view.ids[row]] = score;
      sorted.push_back(score);
    }
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  std::vector<uint8_t> lut(view.blocks * 16);
  const double scale = build_table(view, q, 0, lut.data()).scale;
  // Each entry rounds by 1/2, so does the bias; a correction loses less than 2.
  const double bound = (0.5 * double(view.blocks) + 2.5) / scale + 1e-3;
  bool right = true;
  for (size_t i = 0; i < k; ++i) {
    if (i >= sorted.size()) {
      right &= ids[i] == -1 && std::isnan(distances[i]);
      continue;
    }
    double& score = by_id[size_t(ids[i])];
    const double shown = view.squared_l2() ? std::min(score, 0.0) : score;
    const double found = view.squared_l2() ? -distances[i] : distances[i];
    right &= std::fabs(found - shown) <= bound && score >= sorted[i] - 2 * bound;
    right &= i == 0 || (view.squared_l2() ? distances[i] >= distances[i - 1]
                                          : distances[i] <= distances[i - 1]);
    score = std::nan("");  // no datapoint twice
  }
  return right;
}

void test_pipeline(const char* name, Distance distance, size_t leaves, size_t per_block) {
  Group group(std::string("pipeline: ") + name);
  Random random;
  constexpr size_t kQueries = 7, kDim = 9;
  for (const size_t count : {1, 31, 33, 1500}) {
    SmallIndex index(random, distance, count, kDim, leaves, per_block);
    IndexView view = index.view;
    const auto queries = random.integers(kQueries * kDim);
    for (const size_t k : {size_t(1), size_t(10), count + 3})
      for (const size_t searched : {size_t(1), size_t(3), view.num_leaves}) {
        const auto each = [&](const Answer& answer, const auto& holds) {
          bool right = true;
          for (size_t q = 0; q < kQueries; ++q)
            right &= holds(&queries[q * kDim], k, searched, &answer.ids[q * k],
                           &answer.distances[q * k]);
          return right;
        };
        for (const bool reorder : {true, false}) {
          if (!reorder && per_block == 0) continue;
          view.rows = reorder ? index.rows.data() : nullptr;
          // With all rows as candidates a reordered answer is exact.
          const Answer all = search(view, k, count, searched, queries.data(), kQueries);
          if (reorder)
            check(each(all,
                       [&](auto... a) { return exact(index, a..., per_block == 0); }),
                  "exact", count, k);
          else
            check(each(all, [&](auto... a) { return near(index, a...); }), "by codes", count, k);
          const Answer few = search(view, k, k + 3, searched, queries.data(), kQueries);
          Answer single;
          for (size_t q = 0; q < kQueries; ++q) {
            const Answer one = search(view, k, k + 3, searched, &queries[q * kDim], 1);
            single.ids.insert(single.ids.end(), one.ids.begin(), one.ids.end());
            single.distances.insert(single.distances.end(), one.distances.begin(),
                                    one.distances.end());
          }
          check(few == single, "a block finds what single queries find", count, k);
        }
      }
  }
}

// ---- Threads

void add_all(size_t count, size_t threads, std::atomic<size_t>& wrong) {
  std::vector<size_t> calls(count, 0);
  parallel_for(count, threads, [&](size_t i) { ++calls[i]; });
  for (const size_t n : calls) wrong += n != 1;
}

void test_threads() {
  Group group("threads: parallel_for");
  std::atomic<size_t> wrong{0};
  for (const size_t count : {0, 1, 2, 3, 100, 5000})
    for (const size_t threads : {0, 1, 2, 4, 9}) add_all(count, threads, wrong);
  check(wrong == 0, "each index once");
  std::vector<std::thread> callers;
  for (size_t c = 0; c < 6; ++c)
    callers.emplace_back([&, c] {
      for (size_t i = 0; i < 60; ++i) add_all(i * 7, 1 + c, wrong);
    });
  for (std::thread& caller : callers) caller.join();
  check(wrong == 0, "many callers");
  parallel_for(8, 3, [&](size_t i) { add_all(i * 10, 3, wrong); });
  check(wrong == 0, "a task that calls parallel_for");
  for (const size_t threads : {1, 2, 5}) {
    std::string caught;
    try {
      parallel_for(100, threads, [](size_t i) {
        if (i % 40 == 7) throw std::runtime_error("thrown by a task");
      });
    } catch (const std::runtime_error& error) {
      caught = error.what();
    }
    check(caught == "thrown by a task", "an exception comes back", threads);
    add_all(100, threads, wrong);
    check(wrong == 0, "usable after an exception", threads);
  }
}

#if SWANN_CAN_FORK
void test_fork() {
  Group group("threads: fork after use, then use");
  std::atomic<size_t> wrong{0};
  std::atomic<bool> stop{false};
#if defined(SWANN_SANITIZED)
  std::thread busy([] {});  // AddressSanitizer's own locks do not survive a fork at the wrong time
#else
  std::thread busy([&] {
    while (!stop) add_all(50, 3, wrong);
  });
#endif
  for (size_t round = 0; round < 20; ++round) {
    add_all(100, 4, wrong);
    const pid_t child = fork();
    if (child == 0) {
      alarm(60);  // a child that hangs ends
      std::atomic<size_t> wrong_here{0};
      add_all(100, 4, wrong_here);
      _exit(wrong_here == 0 ? 0 : 1);
    }
    int status = -1;
    check(child > 0 && waitpid(child, &status, 0) == child && status == 0, "child", round);
  }
  stop = true;
  busy.join();
  add_all(100, 4, wrong);
  check(wrong == 0, "the parent goes on");
}
#else
void test_fork() {}
#endif

}  // namespace
}  // namespace selftest

int main(int count, char** arguments) {
  using namespace selftest;
  if (level_error() != nullptr) {
    std::fprintf(stderr, "%s\n", level_error());
    return 2;
  }
  std::printf("level: %s\n", kernels().level);
  test_kernels();
  test_training();
  test_pipeline("brute force, dot product", Distance::dot_product, 0, 0);
  test_pipeline("brute force, squared l2", Distance::squared_l2, 0, 0);
  test_pipeline("tree, dot product", Distance::dot_product, 12, 0);
  test_pipeline("codes, dot product", Distance::dot_product, 0, 2);
  test_pipeline("codes, squared l2", Distance::squared_l2, 0, 2);
  test_pipeline("tree and codes, dot product", Distance::dot_product, 12, 4);
  test_pipeline("tree and codes, squared l2", Distance::squared_l2, 12, 2);
  test_threads();
  if (count < 2 || std::strcmp(arguments[1], "no-fork") != 0) test_fork();
  std::printf("%zu passed, %zu failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}
