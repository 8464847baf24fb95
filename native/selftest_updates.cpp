// Changing an index: beside a model of it, and while threads search it.
#include <algorithm>
#include <atomic>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "kernels.h"
#include "search.h"
#include "selftest.h"
#include "selftest_index.h"
#include "updates.h"

using namespace swann;

namespace selftest {
namespace {

constexpr size_t kDim = 8, kCount = 200, kLeaves = 6;

struct Kind {
  const char* name;
  size_t leaves, per_block, codewords;
  int bits;  // of the rows
  bool spills;
};

constexpr Kind kKinds[] = {
    {"brute force", 0, 0, kWords16, 32, false},
    {"brute force, bfloat16", 0, 0, kWords16, 16, false},
    {"codes, reordered", 0, 3, kWords16, 32, false},
    {"tree", kLeaves, 0, kWords16, 32, false},
    {"tree and codes, reordered", kLeaves, 2, kWords16, 32, false},
    {"tree and codes of 8 bits, reordered", kLeaves, 2, kWords256, 16, false},
    {"tree, spilled", kLeaves, 0, kWords16, 32, true},
};

// An index of small integers, whose scores are exact, with its changes.
struct Changing {
  Random random;
  SmallIndex index;
  Updates updates;

  explicit Changing(const Kind& kind)
      : index(random, Distance::dot_product, kCount, kDim, kind.leaves, kind.per_block,
              kind.codewords),
        updates(index.view) {
    index.give_rows(kind.bits);
    if (kind.spills) index.spill(2);
    prepare_byte_rows(index.view);
    updates.begin(small_settings(kind.spills));
  }

  // The k best of all rows, in one state of the index.
  void search(const Changes* changes, const float* query, size_t k, int64_t* ids,
              float* scores) const {
    const size_t all = index.view.num_entries + (changes == nullptr ? 0 : changes->entries);
    // Without codes the best are enough: others may be left out by their bounds.
    const bool exact = index.view.codes == nullptr && !index.view.spills;
    const size_t candidates = exact ? k : std::max(all, k);
    search_block(index.view, changes, {k, candidates, index.view.num_leaves}, query, 1, ids,
                 scores);
  }
};

using Model = std::map<uint32_t, std::vector<float>>;

float dot(const float* a, const float* b) {
  float sum = 0;
  for (size_t j = 0; j < kDim; ++j) sum += a[j] * b[j];
  return sum;
}

// Whether a search of everything finds what the model has, best first.
bool found_all(const Changing& changing, const Model& model, const std::vector<float>& query) {
  const size_t k = model.size() + 1;
  std::vector<int64_t> ids(k);
  std::vector<float> scores(k), want;
  changing.search(changing.updates.snapshot().get(), query.data(), k, ids.data(), scores.data());
  for (const auto& [id, row] : model) want.push_back(dot(query.data(), row.data()));
  std::sort(want.rbegin(), want.rend());
  bool right = ids.back() == -1 && std::equal(want.begin(), want.end(), scores.begin());
  for (size_t i = 0; i + 1 < k; ++i) {
    const auto at = model.find(uint32_t(ids[i]));
    right &= at != model.end() && dot(query.data(), at->second.data()) == scores[i];
  }
  ids.pop_back();
  std::sort(ids.begin(), ids.end());
  return right && std::adjacent_find(ids.begin(), ids.end()) == ids.end();
}

// Whether a search for a few finds the best scores.
bool found_best(const Changing& changing, const Model& model, const std::vector<float>& query) {
  constexpr size_t kFew = 5;
  int64_t ids[kFew];
  float scores[kFew];
  std::vector<float> want;
  changing.search(changing.updates.snapshot().get(), query.data(), kFew, ids, scores);
  for (const auto& [id, row] : model) want.push_back(dot(query.data(), row.data()));
  std::sort(want.rbegin(), want.rend());
  return std::equal(scores, scores + kFew, want.begin());
}

// Whether numbers, vectors and the rows of a fold are those of the model.
bool reads_back(const Changing& changing, const Model& model) {
  const Updates& updates = changing.updates;
  std::vector<uint32_t> ids(updates.num_rows()), starts(changing.index.view.num_leaves + 1);
  updates.numbers(ids.data());
  ids.erase(std::remove(ids.begin(), ids.end(), Updates::kNowhere), ids.end());
  bool right = ids.size() == model.size() && updates.live_rows() == model.size() &&
               updates.fold_starts(nullptr, starts.data()) == model.size();
  for (const uint32_t id : ids) {
    const uint32_t row = updates.row_of(id);
    std::vector<float> vector(kDim);
    updates.vectors(&row, 1, vector.data());
    const auto at = model.find(id);
    right &= at != model.end() && updates.id_of(row) == id && vector == at->second;
  }
  return right;
}

// Writes, overwrites and erases at random, in calls of all sizes.
void test_alone(const Kind& kind) {
  Group group(std::string("updates: ") + kind.name);
  Changing changing(kind);
  Random& random = changing.random;
  Model model;
  for (size_t row = 0; row < kCount; ++row) {
    const float* x = &changing.index.rows[row * kDim];
    model[changing.index.view.id_of(row)] = {x, x + kDim};
  }
  check(!changing.updates.changed() && found_all(changing, model, random.integers(kDim)),
        "nothing changed");
  for (size_t round = 0; round < 40; ++round) {
    const size_t count = round % 4 == 3 ? 1 + random.below(150) : 1 + random.below(3);
    std::map<uint32_t, std::vector<float>> put;
    while (put.size() < count) put[uint32_t(random.below(600))] = random.integers(kDim);
    std::vector<uint32_t> ids, gone;
    std::vector<float> rows;
    for (const auto& [id, row] : put) {
      ids.push_back(id);
      rows.insert(rows.end(), row.begin(), row.end());
      model[id] = row;
    }
    const size_t written = changing.updates.upsert(rows.data(), ids.data(), count, 1 + round % 3);
    check(written == count, "written", written, count);
    for (const auto& [id, row] : model)
      if (gone.size() < round % 7 && random.below(4) == 0) gone.push_back(id);
    changing.updates.erase(gone.data(), gone.size());
    for (const uint32_t id : gone) model.erase(id);
    const auto query = random.integers(kDim);
    check(found_best(changing, model, query), "searches find the best", round);
    check(found_all(changing, model, query), "searches find what is there", round);
  }
  check(reads_back(changing, model), "read back");
  const size_t rows_before = changing.updates.num_rows();
  std::vector<float> bad = random.integers(3 * kDim);
  bad[2 * kDim - 1] = 1e30f;  // too long
  const uint32_t ids[] = {1, 2, 3};
  check(changing.updates.upsert(bad.data(), ids, 3, 1) == 1, "the bad row is told");
  check(changing.updates.num_rows() == rows_before && reads_back(changing, model),
        "and nothing has changed");
}

// A pair of datapoints that moves, in one call, between two places far from all others.
constexpr float kFar = 100;
constexpr uint32_t kPair[] = {5, 1000}, kMore = 2000, kMoreCount = 70;

struct Watch {
  std::atomic<bool> stop{false};
  std::atomic<size_t> searches{0}, wrong{0}, near{0}, far{0};
};

// Every state that is seen has the whole pair at one place, and all or nothing of what comes and
// goes; a state that is kept stays as it is.
void watch(const Changing& changing, Watch& seen) {
  const std::vector<float> query(kDim, 1.0f);
  const float best = kFar * kDim;
  while (!seen.stop) {
    const Ref<const Changes> now = changing.updates.snapshot();
    int64_t ids[3], again[3];
    float scores[3], scores_again[3];
    changing.search(now.get(), query.data(), 3, ids, scores);
    const bool near = scores[0] == best;
    bool right = near == (scores[1] == best) && scores[2] < best;
    if (near) right &= std::minmax(ids[0], ids[1]) == std::minmax<int64_t>(kPair[0], kPair[1]);
    for (const int64_t id : ids) right &= near || (id != kPair[0] && id != kPair[1]);
    const size_t live = now->base_rows + now->slots - now->dead;
    right &= live == kCount + 1 || live == kCount + 1 + kMoreCount;
    changing.search(now.get(), query.data(), 3, again, scores_again);
    right &= std::equal(ids, ids + 3, again) && same_bits(scores, scores_again, 3);
    seen.wrong += !right;
    ++(near ? seen.near : seen.far);
    ++seen.searches;
  }
}

void test_together(const Kind& kind) {
  Group group(std::string("updates, searched meanwhile: ") + kind.name);
  Changing changing(kind);
  const auto move = [&](float to) {
    const std::vector<float> rows(2 * kDim, to);
    return changing.updates.upsert(rows.data(), kPair, 2, 1);
  };
  std::vector<uint32_t> more;
  for (uint32_t i = 0; i < kMoreCount; ++i) more.push_back(kMore + i);
  check(move(kFar) == 2, "the pair is there");
  Watch seen;
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 2; ++t) threads.emplace_back([&] { watch(changing, seen); });
  for (size_t round = 0; round < 240; ++round) {
    move(round % 2 == 0 ? -kFar : kFar);
    if (round % 5 == 0) {
      const auto rows = changing.random.integers(kMoreCount * kDim);
      changing.updates.upsert(rows.data(), more.data(), kMoreCount, 2);
      changing.updates.erase(more.data(), kMoreCount);
    }
    // Now and then, until one of them has begun and ended a search.
    const size_t ended = seen.searches + threads.size() + 1;
    while (round % 6 < 2 && seen.searches < ended) std::this_thread::yield();
  }
  seen.stop = true;
  for (std::thread& thread : threads) thread.join();
  check(seen.wrong == 0, "every search sees one state", seen.wrong, seen.searches);
  check(seen.near >= 40 && seen.far >= 40, "and all of them", seen.near, seen.far);
  check(changing.updates.live_rows() == kCount + 1, "as many as there are");
}

}  // namespace

void test_updates() {
  for (const Kind& kind : kKinds) test_alone(kind);
  for (const Kind& kind : {kKinds[0], kKinds[4], kKinds[6]}) test_together(kind);
}

}  // namespace selftest
