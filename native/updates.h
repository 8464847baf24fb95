// Changes to an index that is being searched: new datapoints beside the immutable arrays, and
// marks on the dead. Searches take a snapshot; the writer never waits for them, nor they for it.
//
// A snapshot is a small tree of counted nodes. The writer changes a node in place when nothing else
// refers to it, which it can tell under the lock that snapshots are taken under, and copies it
// otherwise: without searches in flight an upsert copies nothing, with them a few pages.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "byte_parts.h"
#include "counted.h"
#include "rows.h"
#include "train.h"

namespace swann {

struct IndexView;

// ---- What a snapshot is made of

// Up to 1,024 new datapoints of one leaf, packed as in the index.
struct Chunk : Shared {
  static constexpr size_t kMost = 1024;
  std::vector<uint8_t> codes;         // [groups][blocks][16 or 32]; empty where rows are scored
  std::vector<uint16_t> corrections;  // [groups * 32], or empty
  std::vector<uint32_t> slots;        // [groups * 32] of the rows
  GrowingByteRows bytes;              // of the rows, where they are scored
};

struct NewLeaf {
  std::vector<Ref<Chunk>> chunks;  // all but the last are full
  size_t count = 0;
  size_t prepared = 0;  // places that there is room for; the writer's
};

struct LeafPage : Shared {
  static constexpr size_t kLeaves = 32;
  NewLeaf leaves[kLeaves];
};

struct DeadPage : Shared {
  static constexpr size_t kRows = size_t(1) << 16;
  uint64_t words[kRows / 64] = {};
};

// The rows of new datapoints by slot, in the order they came. Slots are written once, before a
// snapshot counts them; a store that is full is copied to a larger one.
struct RowStore : Shared {
  size_t capacity = 0;
  std::unique_ptr<uint32_t[]> ids;
  std::unique_ptr<float[]> f32;
  std::unique_ptr<uint16_t[]> bf16;
  std::unique_ptr<int8_t[]> i8;
  std::unique_ptr<float[]> scales, squares;
  std::unique_ptr<uint8_t[]> labels;

  // As rows like those of the index.
  ExactRows exact(const ExactRows& kept) const noexcept {
    return {f32.get(),    bf16.get(),   i8.get(),     scales.get(),    squares.get(),
            kept.dim,     labels.get(), kept.origins, kept.num_origins};
  }
};

// How int8 rows are kept: their scales and, where there are origins, their labels [count].
struct KeptRows {
  const float* scales = nullptr;
  const uint8_t* labels = nullptr;
};

// One state of the changes. Row numbers go on from those of the index: row n + s is slot s.
struct Changes : Shared {
  size_t base_rows = 0;
  size_t slots = 0;    // used
  size_t entries = 0;  // in new leaves
  size_t dead = 0;     // rows, of the index and new
  Ref<RowStore> rows;
  std::vector<Ref<LeafPage>> pages;
  std::vector<Ref<DeadPage>> dead_pages;

  const NewLeaf* leaf(size_t l) const noexcept {
    const Ref<LeafPage>& page = pages[l / LeafPage::kLeaves];
    return page ? &page->leaves[l % LeafPage::kLeaves] : nullptr;
  }
  bool is_dead(size_t row) const noexcept {
    const Ref<DeadPage>& page = dead_pages[row / DeadPage::kRows];
    return page && (page->words[row % DeadPage::kRows / 64] >> (row % 64) & 1) != 0;
  }
  // Marks a row as dead; its page is the writer's own.
  void bury(size_t row) noexcept {
    dead_pages[row / DeadPage::kRows]->words[row % DeadPage::kRows / 64] |= uint64_t(1) << (row % 64);
    ++dead;
  }
};

// ---- The writer's side

// How new datapoints are encoded, as the index was built.
struct EncoderSettings {
  std::vector<double> code_weights, row_weights;  // eta - 1 at even steps of T / |x|; empty: l2
  double code_threshold = 0, row_threshold = 0;
  double largest_ratio = 1;  // of the last step
  bool spills = false;
  float soar_lambda = 0;
  float avq = 1;             // eta of the partition
  size_t sweeps = 0;
  std::vector<float> tree_map;     // [r][r] rows and centroids are mapped by it for assignment; empty:
  std::vector<float> code_metric;  // as they are. [r][r] of encode_shaped, or empty
};

struct Encoded;

constexpr size_t kCopies = 2;  // entries that a spilled datapoint has

// The changes of one index. One writer at a time (the callers see to it), any number of readers.
class Updates {
 public:
  explicit Updates(const IndexView& index);
  ~Updates();

  // The state to search; null as long as nothing was changed.
  // Keeps snapshots and changes waiting; for forks.
  void hold() { swap_.lock(); }
  void let_go() { swap_.unlock(); }

  Ref<const Changes> snapshot() const;

  // Must come before the first change; further calls do nothing.
  void begin(EncoderSettings settings);
  bool begun() const noexcept { return begun_.load(std::memory_order_acquire); }

  // Gives the datapoints `ids` [count], which differ, these rows [count][dim], in place of those
  // they had. Returns the number of the first bad row (then nothing has changed), or count.
  // With `kept` the rows are those that an index keeps, if in int8 with these scales and labels (else
  // they are not looked at), and are kept as they are. Cosine does not scale them once more, which
  // would move them a little each time.
  size_t upsert(const float* rows, const uint32_t* ids, size_t count, size_t threads,
                const KeptRows* kept = nullptr);
  // Forgets datapoints, which differ and are all there.
  void erase(const uint32_t* ids, size_t count);
  // Makes room for this many new datapoints.
  void reserve(size_t slots);

  // Row of a datapoint, or kNowhere.
  static constexpr uint32_t kNowhere = 0xFFFFFFFFu;
  uint32_t row_of(uint32_t id) const noexcept { return id < where_.size() ? where_[id] : kNowhere; }
  uint32_t id_of(size_t row) const noexcept;
  size_t num_rows() const;
  size_t live_rows() const;
  bool changed() const;
  size_t nbytes() const;  // beside the index

  // Squared distances of rows from `first` on to the centroids of their leaves, summed over their
  // entries: [num_rows - first]. first is 0 (the dead get 0) or that of a new row.
  void errors(size_t first, double* out) const;

  // Sets marks [num_rows] to 1 for the rows with entries in the leaves that `leaves` marks.
  void mark_rows(const uint8_t* leaves, uint8_t* marks) const;
  // The datapoint of each row [num_rows], kNowhere for the dead.
  void numbers(uint32_t* out) const;

  // The vectors of rows, as exact as they are kept: [count][dim].
  void vectors(const uint32_t* rows, size_t count, float* out) const;
  // Their scales and labels [count], 0 where rows have none.
  void kept_as(const uint32_t* rows, size_t count, float* scales, uint8_t* labels) const;

  // All live entries but those of the rows marked in `skip` [num_rows] (or null), as the arrays of
  // a new index. fold_starts fills leaf_starts [num_leaves + 1] and returns the number of rows.
  size_t fold_starts(const uint8_t* skip, uint32_t* leaf_starts) const;
  struct Folded {
    const uint32_t* leaf_starts;
    uint32_t* ids;
    uint32_t* entry_rows;   // null: entries are rows
    uint8_t* codes;         // null: none; zeros
    uint16_t* corrections;  // null: none
    float* f32;             // one of these three, or none
    uint16_t* bf16;
    int8_t* i8;
    float* scales;
    float* squares;
    uint8_t* labels;
  };
  void fold(const uint8_t* skip, const Folded& out) const;

 private:
  // Of an upsert: encoded_ gets what is to be stored.
  size_t check(const float* rows, size_t count, size_t threads, bool as_kept);
  void assign(size_t count, size_t threads);
  void encode(size_t count, size_t threads);
  void weigh(size_t count, size_t threads);
  Ref<RowStore> store_for(size_t slots) const;
  void write_rows(RowStore& store, size_t first, const uint32_t* ids, size_t count,
                  size_t threads, const KeptRows* kept);
  // Runs both on a state that no search holds, and makes it the one to search.
  template <typename Prepare, typename Commit>
  void change(const Prepare& prepare, const Commit& commit);

  size_t copies() const noexcept { return settings_.spills ? kCopies : 1; }
  void decode(size_t leaf, const uint8_t* codes, size_t at, float* out) const;  // [reduced_dim]
  void expand_row(size_t row, float* out) const;
  struct Vectors {
    std::vector<float> whole, reduced;
  };
  double error(size_t row, size_t leaf, const uint8_t* codes, size_t at, Vectors& vectors) const;
  template <typename Visit>
  void for_entries(size_t leaf, const uint8_t* skip, const Visit& visit) const;

  const IndexView& index_;
  EncoderSettings settings_;
  mutable std::mutex swap_;  // guards changes_; held while a reference is copied or a change made
  Ref<Changes> changes_;
  std::atomic<bool> begun_{false};
  std::unique_ptr<Encoded> encoded_;
  std::vector<float> mapped_centroids_;  // by tree_map
  TiledCentroids tiled_;          // for assignment
  TiledCentroids origins_;        // the same of the rows' origins
  std::vector<uint32_t> where_;   // row of each id; the writer's
  std::vector<uint32_t> places_;  // per slot and copy: its leaf, and its place among the new there
};

}  // namespace swann
