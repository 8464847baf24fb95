// The writer's side of updates: new datapoints are put beside the index, the dead are marked. How
// they are encoded is in updates_encode.cpp, what reads them back in updates_fold.cpp.
#include "updates.h"

#include <algorithm>

#include "encoded.h"
#include "packed_codes.h"
#include "projection.h"
#include "search.h"
#include "train.h"

namespace swann {
namespace {

constexpr size_t kKeptScratch = 1024;  // datapoints whose working memory is kept for the next call

template <typename T>
std::unique_ptr<T[]> enlarged(const T* old, size_t used, size_t capacity) {
  std::unique_ptr<T[]> made(new T[capacity]);
  if (used > 0) std::copy_n(old, used, made.get());
  return made;
}

}  // namespace

Updates::Updates(const IndexView& index) : index_(index), encoded_(new Encoded) {}
Updates::~Updates() = default;

Ref<const Changes> Updates::snapshot() const {
  if (!begun()) return {};
  const std::lock_guard<std::mutex> lock(swap_);
  return Ref<const Changes>(changes_.get());
}

void Updates::begin(EncoderSettings settings) {
  if (begun()) return;
  settings_ = std::move(settings);
  const size_t n = index_.num_rows;
  uint32_t most = 0;
  for (size_t r = 0; r < n; ++r) most = std::max(most, index_.id_of(r));
  where_.assign(n == 0 ? 0 : size_t(most) + 1, kNowhere);
  for (size_t r = 0; r < n; ++r) where_[index_.id_of(r)] = uint32_t(r);
  if (index_.centroids != nullptr) {
    const size_t dim = index_.reduced_dim;
    const float* centroids = index_.centroids;
    if (!settings_.tree_map.empty()) {
      mapped_centroids_.resize(index_.num_leaves * dim);
      project_rows(centroids, index_.num_leaves, dim, settings_.tree_map.data(), dim, 1,
                   mapped_centroids_.data());
      centroids = mapped_centroids_.data();
    }
    tiled_ = TiledCentroids(centroids, index_.num_leaves, dim, 1);
  }
  if (index_.rows.origins != nullptr)
    origins_ = TiledCentroids(index_.rows.origins, index_.rows.num_origins, index_.dim, 1);
  Ref<Changes> first(new Changes());
  first->base_rows = n;
  first->pages.resize(ceil_div(index_.num_leaves, LeafPage::kLeaves));
  first->dead_pages.resize(n / DeadPage::kRows + 1);
  changes_ = std::move(first);
  begun_.store(true, std::memory_order_release);
}

size_t Updates::num_rows() const {
  const std::lock_guard<std::mutex> lock(swap_);
  return changes_->base_rows + changes_->slots;
}

size_t Updates::live_rows() const {
  const Ref<const Changes> now = snapshot();
  return now ? now->base_rows + now->slots - now->dead : index_.num_rows;
}

bool Updates::changed() const {
  const Ref<const Changes> now = snapshot();
  return now && (now->slots > 0 || now->dead > 0);
}

size_t Updates::nbytes() const {
  const Ref<const Changes> now = snapshot();
  if (!now) return 0;
  size_t bytes = 0;
  if (now->rows) {
    const RowStore& rows = *now->rows;
    const size_t a_value = rows.f32 ? 4 : rows.bf16 ? 2 : rows.i8 ? 1 : 0;
    bytes += rows.capacity * (index_.dim * a_value + sizeof(uint32_t) + (rows.i8 ? 8 : 0) +
                              (rows.labels ? 1 : 0));
  }
  for (const Ref<LeafPage>& page : now->pages)
    for (size_t l = 0; page && l < LeafPage::kLeaves; ++l)
      for (const Ref<Chunk>& chunk : page->leaves[l].chunks)
        bytes += chunk->codes.size() + 2 * chunk->corrections.size() + 4 * chunk->slots.size();
  for (const Ref<DeadPage>& page : now->dead_pages) bytes += page ? sizeof(DeadPage) : 0;
  return bytes + tiled_.nbytes() + origins_.nbytes();
}

// ---- Storing

// Makes sure that the store has this many slots, in a larger copy where it must.
Ref<RowStore> Updates::store_for(size_t slots) const {
  const Ref<RowStore>& old = changes_->rows;
  if (old && old->capacity >= slots) return old;
  const size_t used = changes_->slots, dim = index_.dim;
  const size_t capacity = std::max({slots, old ? old->capacity * 2 : 0, size_t(64)});
  Ref<RowStore> made(new RowStore());
  made->ids = enlarged(old ? old->ids.get() : nullptr, used, capacity);
  const ExactRows& kept = index_.rows;
  const auto grow = [&](auto& to, const auto* from, size_t width) {
    to = enlarged(from, used * width, capacity * width);
  };
  if (kept.f32 != nullptr) grow(made->f32, old ? old->f32.get() : nullptr, dim);
  if (kept.bf16 != nullptr) grow(made->bf16, old ? old->bf16.get() : nullptr, dim);
  if (kept.i8 != nullptr) {
    grow(made->i8, old ? old->i8.get() : nullptr, dim);
    grow(made->scales, old ? old->scales.get() : nullptr, 1);
    grow(made->squares, old ? old->squares.get() : nullptr, 1);
  }
  if (kept.labels != nullptr) grow(made->labels, old ? old->labels.get() : nullptr, 1);
  made->capacity = capacity;
  return made;
}

namespace {

// The chunk that holds place `at` of a leaf, with room for it, not shared with any snapshot.
Chunk& chunk_for(NewLeaf& leaf, size_t at, size_t group_bytes, bool corrections) {
  const size_t number = at / Chunk::kMost;
  if (leaf.chunks.size() <= number) leaf.chunks.push_back(Ref<Chunk>(new Chunk()));
  Chunk& chunk = leaf.chunks[number].own();
  const size_t within = at % Chunk::kMost;
  if (chunk.slots.size() <= within) {
    const size_t groups =
        std::min(Chunk::kMost / kGroup, std::max<size_t>(1, 2 * chunk.slots.size() / kGroup));
    chunk.codes.resize(groups * group_bytes);
    if (corrections) chunk.corrections.resize(groups * kGroup);
    chunk.slots.resize(groups * kGroup);
  }
  return chunk;
}

NewLeaf& own_leaf(Changes& changes, size_t leaf) {
  return changes.pages[leaf / LeafPage::kLeaves].own().leaves[leaf % LeafPage::kLeaves];
}

}  // namespace

template <typename Prepare, typename Commit>
void Updates::change(const Prepare& prepare, const Commit& commit) {
  Ref<Changes> dropped;  // freed after the lock
  const std::lock_guard<std::mutex> lock(swap_);
  Ref<Changes> next;
  if (!changes_.unique()) next = Ref<Changes>(new Changes(*changes_));
  Changes& changes = next ? *next : *changes_;
  prepare(changes);  // may run out of memory, and changes nothing that a search sees
  commit(changes);
  if (next) {
    dropped = changes_;
    changes_ = next;
  }
}

size_t Updates::upsert(const float* rows, const uint32_t* ids, size_t count, size_t threads,
                       const KeptRows* kept) {
  const size_t bad = check(rows, count, threads, kept != nullptr);
  if (bad < count || count == 0) return bad;
  assign(count, threads);
  if (index_.codes != nullptr) encode(count, threads);
  const Encoded& e = *encoded_;
  const size_t first = changes_->slots, group_bytes = index_.group_bytes();
  const bool corrections = index_.corrections != nullptr;
  const Ref<RowStore> store = store_for(first + count);
  where_.resize(std::max<size_t>(where_.size(), size_t(*std::max_element(ids, ids + count)) + 1),
                kNowhere);
  places_.resize(2 * e.copies * (first + count));
  write_rows(*store, first, ids, count, threads, kept);
  std::unique_ptr<Encoded> large;  // takes the place of what grew too large to keep
  if (count > kKeptScratch) large = std::make_unique<Encoded>();
  change(
      [&](Changes& next) {
        const size_t last_row = next.base_rows + first + count - 1;
        if (next.dead_pages.size() <= last_row / DeadPage::kRows)
          next.dead_pages.resize(last_row / DeadPage::kRows + 1);
        for (size_t i = 0; i < count; ++i)
          if (where_[ids[i]] != kNowhere) next.dead_pages[where_[ids[i]] / DeadPage::kRows].own();
        for (size_t copy = 0; copy < e.copies; ++copy)
          for (size_t i = 0; i < count; ++i) {
            NewLeaf& leaf = own_leaf(next, e.leaf(copy, i));
            leaf.prepared = leaf.count;
          }
        for (size_t copy = 0; copy < e.copies; ++copy)
          for (size_t i = 0; i < count; ++i) {
            NewLeaf& leaf = own_leaf(next, e.leaf(copy, i));
            chunk_for(leaf, leaf.prepared, group_bytes, corrections);
            ++leaf.prepared;
          }
      },
      [&](Changes& next) noexcept {
        next.rows = store;
        for (size_t i = 0; i < count; ++i) {
          uint32_t& where = where_[ids[i]];
          if (where != kNowhere) next.bury(where);
          where = uint32_t(next.base_rows + first + i);
          for (size_t copy = 0; copy < e.copies; ++copy) {
            const uint32_t l = e.leaf(copy, i);
            NewLeaf& leaf = own_leaf(next, l);
            const size_t at = leaf.count % Chunk::kMost;
            Chunk& chunk = *leaf.chunks[leaf.count / Chunk::kMost];
            chunk.slots[at] = uint32_t(first + i);
            const uint8_t* code = e.code(copy, i, index_.blocks);
            for (size_t b = 0; b < index_.blocks; ++b)
              put_code(index_, chunk.codes.data(), at, b, code[b * kLanes]);
            if (corrections) chunk.corrections[at] = e.corrections[copy][i];
            uint32_t* const place = places_.data() + 2 * (e.copies * (first + i) + copy);
            place[0] = l;
            place[1] = uint32_t(leaf.count);
            ++leaf.count;
          }
        }
        next.slots += count;
        next.entries += count * e.copies;
      });
  if (large) encoded_ = std::move(large);
  return count;
}

void Updates::erase(const uint32_t* ids, size_t count) {
  change(
      [&](Changes& next) {
        for (size_t i = 0; i < count; ++i) next.dead_pages[where_[ids[i]] / DeadPage::kRows].own();
      },
      [&](Changes& next) noexcept {
        for (size_t i = 0; i < count; ++i) {
          next.bury(where_[ids[i]]);
          where_[ids[i]] = kNowhere;
        }
      });
}

void Updates::reserve(size_t slots) {
  const Ref<RowStore> store = store_for(changes_->slots + slots);
  places_.reserve(2 * copies() * (changes_->slots + slots));
  change([](Changes&) {}, [&](Changes& next) noexcept { next.rows = store; });
}

}  // namespace swann
