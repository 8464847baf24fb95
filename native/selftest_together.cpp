// Readers, writers, rebalances and saves at the same time: every answer is of a committed state.
//
// Each writer owns some datapoints that all lie at one place, and moves them on together, one
// version a call. A reader finds all of them at the place of one version, which is no older than
// the last one finished before its search, and no newer than the last one begun when it had ended.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "kernels.h"
#include "search.h"
#include "selftest.h"
#include "selftest_index.h"
#include "threads.h"
#include "updates.h"

using namespace swann;

namespace selftest {
namespace {

constexpr size_t kDim = 8, kCount = 200, kLeaves = 6, kReaders = 16, kWriters = 2, kSlots = 6;
constexpr size_t kVersions = 150, kTurns = 8;  // of each writer; rebalances and saves, at least
constexpr uint32_t kMoving = 1000, kExtra = 2000;
constexpr float kPlace = 1000;  // of version 0; a writer's rows lie on an axis of their own

struct Kind {
  const char* name;
  size_t leaves, per_block;
  bool spills;
};

// The arrays of a fold, as a new index of the same centroids and codebook.
struct FoldedIndex {
  std::vector<uint32_t> starts, ids, entry_rows;
  std::vector<uint8_t> codes;
  std::vector<float> rows;
  IndexView view;

  FoldedIndex(const Updates& updates, const IndexView& from, const uint8_t* skip) : view(from) {
    const size_t leaves = view.num_leaves;
    starts.resize(leaves + 1);
    const size_t n = updates.fold_starts(skip, starts.data());
    for (size_t l = 0; l < leaves; ++l)
      view.group_starts[l + 1] =
          view.group_starts[l] + groups_of(starts[l + 1] - starts[l]);
    ids.resize(n), rows.resize(n * view.dim);
    if (view.entry_rows != nullptr) entry_rows.resize(starts.back());
    codes.resize(view.group_starts.back() * view.group_bytes());
    updates.fold(skip, {starts.data(), ids.data(),
                        view.entry_rows == nullptr ? nullptr : entry_rows.data(),
                        view.codes == nullptr ? nullptr : codes.data(), nullptr, rows.data(),
                        nullptr, nullptr, nullptr, nullptr, nullptr});
    view.num_rows = n, view.num_entries = starts.back();
    view.leaf_starts = starts.data(), view.ids = ids.data();
    if (view.entry_rows != nullptr) view.entry_rows = entry_rows.data();
    if (view.codes != nullptr) view.codes = codes.data();
    view.rows.f32 = rows.data();
    prepare_byte_rows(view);
  }
};

// What searches use until a rebalance puts another one in its place.
struct State {
  std::unique_ptr<FoldedIndex> folded;  // null: the first
  std::unique_ptr<Updates> updates;
  const IndexView& view;

  State(const IndexView& first, const EncoderSettings& settings)
      : updates(std::make_unique<Updates>(first)), view(first) {
    updates->begin(settings);
  }
  State(std::unique_ptr<FoldedIndex> made, const EncoderSettings& settings)
      : folded(std::move(made)),
        updates(std::make_unique<Updates>(folded->view)),
        view(folded->view) {
    updates->begin(settings);
  }
};

struct Together {
  Random random;
  SmallIndex index;
  EncoderSettings settings;
  std::mutex writing, current;  // writers take turns; `current` guards `state`
  std::shared_ptr<State> state;
  std::atomic<size_t> begun[kWriters] = {}, finished[kWriters] = {};
  std::atomic<size_t> searches{0}, rebalances{0}, saves{0}, wrong{0}, wrong_saves{0};
  std::atomic<bool> stop{false};

  explicit Together(const Kind& kind)
      : index(random, Distance::dot_product, kCount, kDim, kind.leaves, kind.per_block),
        settings(small_settings(kind.spills)) {
    index.give_rows(32);
    if (kind.spills) index.spill(2);
    state = std::make_shared<State>(index.view, settings);
    for (size_t w = 0; w < kWriters; ++w) write(w, 0);
  }

  std::shared_ptr<State> now() {
    const std::lock_guard<std::mutex> lock(current);
    return state;
  }

  // Searches both axes; whether both answers are one version's, of those that may be seen.
  bool find(const IndexView& view, const Changes* changes, const size_t* lows, size_t threads) {
    std::vector<float> queries(kWriters * kDim);
    int64_t ids[kWriters * kSlots];
    float scores[kWriters * kSlots];
    for (size_t w = 0; w < kWriters; ++w) queries[w * kDim + w] = 1;
    const size_t all = view.num_entries + (changes == nullptr ? 0 : changes->entries);
    const SearchLimits limits{kSlots, all, view.num_leaves};
    const size_t at_once = threads == 1 ? kWriters : 1;
    parallel_for(kWriters / at_once, threads, [&](size_t i) {
      search_block(view, changes, limits, &queries[i * at_once * kDim], at_once,
                   ids + i * at_once * kSlots, scores + i * at_once * kSlots);
    });
    bool right = true;
    for (size_t w = 0; w < kWriters; ++w) {
      int64_t* const found = ids + w * kSlots;
      std::sort(found, found + kSlots);
      for (size_t s = 0; s < kSlots; ++s) {
        right &= found[s] == int64_t(kMoving + w * kSlots + s);
        right &= scores[w * kSlots + s] == scores[w * kSlots];
      }
      const float version = scores[w * kSlots] - kPlace;
      right &= version >= float(lows[w]) && version <= float(begun[w].load());
    }
    return right;
  }

  void read(size_t reader) {
    while (!stop) {
      const size_t lows[kWriters] = {finished[0], finished[1]};
      const std::shared_ptr<State> here = now();
      const Ref<const Changes> changes = here->updates->snapshot();
      wrong += !find(here->view, changes.get(), lows, 1 + (reader % 4 == 1));
      ++searches;
    }
  }

  void write(size_t writer, size_t version) {
    std::vector<float> rows(kSlots * kDim);
    std::vector<uint32_t> ids, extra;
    for (size_t s = 0; s < kSlots; ++s) {
      ids.push_back(uint32_t(kMoving + writer * kSlots + s));
      rows[s * kDim + writer] = kPlace + float(version);
    }
    if (version % 2 == 1) std::reverse(ids.begin(), ids.end());
    begun[writer] = version;
    const std::lock_guard<std::mutex> turn(writing);
    Updates& updates = *now()->updates;
    updates.upsert(rows.data(), ids.data(), kSlots, 1 + version % 2);
    finished[writer] = version;
    if (version % 5 != 0) return;  // others come and go, too
    for (size_t i = 0; i < 40; ++i) extra.push_back(uint32_t(kExtra + 40 * writer + i));
    updates.upsert(random.integers(40 * kDim).data(), extra.data(), 40, 2);
    updates.erase(extra.data(), 40);
  }

  // Folds all but one leaf, if there are others; its datapoints are put in anew.
  void rebalance() {
    const std::lock_guard<std::mutex> turn(writing);
    const std::shared_ptr<State> old = now();
    const Updates& from = *old->updates;
    std::vector<uint8_t> leaves(old->view.num_leaves), skip(from.num_rows());
    if (leaves.size() > 1) leaves[rebalances % leaves.size()] = 1;
    from.mark_rows(leaves.data(), skip.data());
    std::vector<uint32_t> numbers(skip.size()), rows, ids;
    from.numbers(numbers.data());
    for (uint32_t row = 0; row < skip.size(); ++row)
      if (skip[row] != 0) rows.push_back(row), ids.push_back(numbers[row]);
    std::vector<float> vectors(rows.size() * kDim);
    from.vectors(rows.data(), rows.size(), vectors.data());
    auto made = std::make_shared<State>(
        std::make_unique<FoldedIndex>(from, old->view, skip.data()), settings);
    if (!ids.empty()) made->updates->upsert(vectors.data(), ids.data(), ids.size(), 2);
    const std::lock_guard<std::mutex> lock(current);
    state = std::move(made);
    ++rebalances;
  }

  void save() {
    const size_t lows[kWriters] = {finished[0], finished[1]};
    std::unique_ptr<FoldedIndex> saved;
    {
      const std::lock_guard<std::mutex> turn(writing);
      const std::shared_ptr<State> here = now();
      saved = std::make_unique<FoldedIndex>(*here->updates, here->view, nullptr);
    }
    wrong_saves += saved->ids.size() != kCount + kWriters * kSlots;
    wrong_saves += !find(saved->view, nullptr, lows, 1);
    ++saves;
  }
};

void test_together(const Kind& kind) {
  Group group(std::string("readers, writers, rebalances, saves: ") + kind.name);
  Together all(kind);
  std::vector<std::thread> writers, others;
  for (size_t r = 0; r < kReaders; ++r) others.emplace_back([&, r] { all.read(r); });
  const auto pause = [] { std::this_thread::sleep_for(std::chrono::milliseconds(1)); };
  for (const auto task : {&Together::rebalance, &Together::save})
    others.emplace_back([&, task] {
      while (!all.stop) (all.*task)(), pause();
    });
  for (size_t w = 0; w < kWriters; ++w)
    writers.emplace_back([&, w] {
      size_t version = 1;
      const auto more = [&] {
        return version <= kVersions || all.rebalances < kTurns || all.saves < kTurns ||
               all.searches < kReaders * kTurns;
      };
      for (; more(); ++version) {
        all.write(w, version);
        if (version % 8 == 0) pause();  // mutexes are not fair: let the others have a turn
      }
    });
  for (std::thread& thread : writers) thread.join();
  all.stop = true;
  for (std::thread& thread : others) thread.join();
  check(all.wrong == 0, "every search sees one state", all.wrong, all.searches);
  check(all.wrong_saves == 0, "and so does every save", all.wrong_saves, all.saves);
  check(all.find(all.now()->view, all.now()->updates->snapshot().get(),
                 std::vector<size_t>{all.finished[0], all.finished[1]}.data(), 1),
        "the last versions are there", all.finished[0], all.finished[1]);
  check(all.now()->updates->live_rows() == kCount + kWriters * kSlots, "as many as there are");
}

}  // namespace

void test_together() {
  constexpr Kind kinds[] = {{"brute force", 0, 0, false},
                            {"tree and codes", kLeaves, 2, false},
                            {"tree, spilled", kLeaves, 0, true}};
  for (const Kind& kind : kinds) test_together(kind);
}

}  // namespace selftest
