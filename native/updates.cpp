// The writer's side of updates: encode new datapoints as the index was built, put them beside it,
// mark the dead, and fold everything into new arrays.
#include "updates.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "projection.h"
#include "search.h"
#include "threads.h"
#include "train.h"

namespace swann {
namespace {

constexpr size_t kFew = 4;  // datapoints that are encoded one by one, not as a part of a tile
constexpr size_t kKeptScratch = 1024;  // datapoints whose working memory is kept for the next call

float interpolated(const std::vector<double>& steps, double threshold, double largest,
                   double norm) {
  const double ratio = norm > 0 ? std::min(threshold / norm, largest) : largest;
  const double at = ratio / largest * double(steps.size() - 1);
  const size_t below = std::min(size_t(at), steps.size() - 2);
  return float(steps[below] + (at - double(below)) * (steps[below + 1] - steps[below]));
}

uint16_t packed_correction(const IndexView& index, double value) {
  if (index.correction_span == 0) return 0;
  const double steps = (value - index.correction_low) * (65535.0 / index.correction_span);
  return uint16_t(std::clamp(std::rint(steps), 0.0, 65535.0));  // beyond the range: its end
}

// Packed codes: the code of datapoint `at` of a run of groups, block by block.
uint8_t code_at(const IndexView& index, const uint8_t* codes, size_t at, size_t block) {
  const size_t lane = at % kGroup, bytes = block_bytes(index.codewords);
  const uint8_t byte = codes[(at / kGroup * index.blocks + block) * bytes + lane % bytes];
  if (index.codewords == kWords256) return byte;
  return lane < 16 ? byte & 15 : byte >> 4;
}

void put_code(const IndexView& index, uint8_t* codes, size_t at, size_t block, uint8_t code) {
  const size_t lane = at % kGroup, bytes = block_bytes(index.codewords);
  uint8_t& byte = codes[(at / kGroup * index.blocks + block) * bytes + lane % bytes];
  if (index.codewords == kWords256)
    byte = code;
  else
    byte = lane < 16 ? uint8_t((byte & 0xF0) | code) : uint8_t((byte & 0x0F) | code << 4);
}

size_t groups_of(size_t count) { return (count + kGroup - 1) / kGroup; }

template <typename T>
std::unique_ptr<T[]> enlarged(const T* old, size_t used, size_t capacity) {
  std::unique_ptr<T[]> made(new T[capacity]);
  if (used > 0) std::copy_n(old, used, made.get());
  return made;
}

void expand(const ExactRows& rows, size_t row, float* out) {
  const size_t at = row * rows.dim;
  for (size_t j = 0; j < rows.dim; ++j) {
    if (rows.f32 != nullptr)
      out[j] = rows.f32[at + j];
    else if (rows.bf16 != nullptr)
      out[j] = std::bit_cast<float>(uint32_t(rows.bf16[at + j]) << 16);
    else
      out[j] = float(rows.i8[at + j]) * rows.scales[row];
  }
}

}  // namespace

// New datapoints on their way in; kept between calls for its memory.
struct Encoded {
  const float* rows = nullptr;       // [count][dim], of unit length under cosine
  const float* reduced = nullptr;    // [count][reduced_dim], for centroids and codes
  std::vector<float> unit, norms, projected, reduced_norms, scores;
  std::vector<uint32_t> leaves, spilled;
  std::vector<float> targets, directions, weights, losses, row_weights;
  std::vector<uint8_t> codes[kCopies];  // [tiles][blocks][16]
  std::vector<uint8_t> one;             // [blocks]
  std::vector<uint16_t> corrections[kCopies];
  size_t copies = 1;

  uint32_t leaf(size_t copy, size_t i) const { return copy == 0 ? leaves[i] : spilled[i]; }
  // Of datapoint i; the codes of its blocks lie kLanes apart.
  const uint8_t* code(size_t copy, size_t i, size_t blocks) const {
    return codes[copy].data() + i / kLanes * blocks * kLanes + i % kLanes;
  }
};

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
    halves_.resize(index_.num_leaves);
    centroid_halves(index_.centroids, index_.num_leaves, index_.reduced_dim, halves_.data());
  }
  Ref<Changes> first(new Changes());
  first->base_rows = n;
  first->pages.resize((index_.num_leaves + LeafPage::kLeaves - 1) / LeafPage::kLeaves);
  first->dead_pages.resize(n / DeadPage::kRows + 1);
  changes_ = std::move(first);
  begun_.store(true, std::memory_order_release);
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
    bytes += rows.capacity * (index_.dim * a_value + sizeof(uint32_t) + (rows.i8 ? 8 : 0));
  }
  for (const Ref<LeafPage>& page : now->pages)
    for (size_t l = 0; page && l < LeafPage::kLeaves; ++l)
      for (const Ref<Chunk>& chunk : page->leaves[l].chunks)
        bytes += chunk->codes.size() + 2 * chunk->corrections.size() + 4 * chunk->slots.size();
  for (const Ref<DeadPage>& page : now->dead_pages) bytes += page ? sizeof(DeadPage) : 0;
  return bytes;
}

// ---- Encoding

size_t Updates::check(const float* rows, size_t count, size_t threads) {
  const size_t dim = index_.dim;
  Encoded& e = *encoded_;
  e.norms.resize(count);
  const size_t bad = check_rows(rows, count, dim, e.norms.data(), threads);
  if (bad < count) return bad;
  e.rows = rows;
  if (index_.distance != Distance::cosine) return count;
  e.unit.resize(count * dim);
  for (size_t i = 0; i < count; ++i) {
    double square = 0;
    for (size_t j = 0; j < dim; ++j) square += double(rows[i * dim + j]) * double(rows[i * dim + j]);
    if (square == 0) return i;
    const double norm = std::sqrt(square);
    for (size_t j = 0; j < dim; ++j)
      e.unit[i * dim + j] = float(double(rows[i * dim + j]) / norm);
    e.norms[i] = 1.0f;
  }
  e.rows = e.unit.data();
  return count;
}

void Updates::assign(size_t count, size_t threads) {
  const size_t dim = index_.reduced_dim;
  Encoded& e = *encoded_;
  e.reduced = reduce(index_, e.rows, count, threads, e.projected);
  e.leaves.assign(count, 0);
  e.scores.resize(count);
  e.copies = 1;
  if (index_.centroids == nullptr) return;
  assign_leaves(e.reduced, count, dim, index_.centroids, index_.num_leaves, threads,
                e.leaves.data(), e.scores.data(), settings_.avq, halves_.data());
  if (!settings_.spills) return;
  e.copies = kCopies;
  e.spilled = e.leaves;
  if (index_.num_leaves > 1)
    spill_leaves(e.reduced, count, dim, index_.centroids, index_.num_leaves, e.leaves.data(),
                 settings_.soar_lambda, threads, e.spilled.data());
}

void Updates::encode(size_t count, size_t threads) {
  Encoded& e = *encoded_;
  const size_t dim = index_.reduced_dim, blocks = index_.blocks;
  const size_t tiles = (count + kLanes - 1) / kLanes;
  const float* centroids = index_.codes_of_residuals() ? index_.centroids : nullptr;
  const bool anisotropic = !settings_.code_weights.empty();
  if (count > kFew) e.targets.resize(tiles * dim * kLanes);
  e.losses.resize(tiles * kLanes);
  if (anisotropic) {
    if (count > kFew) e.directions.resize(tiles * dim * kLanes);
    e.weights.assign(tiles * kLanes, 0.0f);
    e.reduced_norms = e.norms;
    if (index_.projects())
      check_rows(e.reduced, count, dim, e.reduced_norms.data(), threads);
    for (size_t i = 0; i < count; ++i)
      e.weights[i] = interpolated(settings_.code_weights, settings_.code_threshold,
                                  settings_.largest_ratio, e.reduced_norms[i]);
  }
  for (size_t copy = 0; copy < e.copies; ++copy) {
    if (count <= kFew) {
      encode_few(copy, count);
      continue;
    }
    make_tiles(e.reduced, count, dim, centroids,
               centroids == nullptr ? nullptr : (copy == 0 ? e.leaves : e.spilled).data(), threads, e.targets.data(), anisotropic ? e.directions.data() : nullptr);
    std::vector<uint8_t>& codes = e.codes[copy];
    codes.resize(tiles * blocks * kLanes);
    const TileSet set{e.targets.data(), anisotropic ? e.directions.data() : nullptr,
                      anisotropic ? e.weights.data() : nullptr, tiles, dim,
                      index_.dims_per_block, blocks, index_.codewords};
    encode_tiles(set, index_.codebook, settings_.sweeps, false, threads, codes.data(),
                 e.losses.data());
  }
  if (index_.corrections == nullptr) return;
  for (size_t copy = 0; copy < e.copies; ++copy) {
    e.corrections[copy].resize(count);
    for (size_t i = 0; i < count; ++i) {
      const float* centroid = centroids + size_t(e.leaf(copy, i)) * dim;
      const uint8_t* code = e.code(copy, i, blocks);
      double cross = 0;
      for (size_t j = 0; j < dim; ++j)
        cross += double(centroid[j]) *
                 double(index_.codebook[j * index_.codewords +
                                        code[j / index_.dims_per_block * kLanes]]);
      e.corrections[copy][i] = packed_correction(index_, -2 * cross);
    }
  }
}

// Datapoint by datapoint, into the lanes of a tile of codes.
void Updates::encode_few(size_t copy, size_t count) {
  Encoded& e = *encoded_;
  const size_t dim = index_.reduced_dim, blocks = index_.blocks;
  e.codes[copy].resize(blocks * kLanes);
  const size_t scratch_floats = (dim + 2 * blocks) * index_.codewords;
  e.targets.resize(scratch_floats + 2 * dim);
  e.one.resize(blocks);
  float* const scratch = e.targets.data();
  float* const target = scratch + scratch_floats;
  float* const direction = target + dim;
  for (size_t i = 0; i < count; ++i) {
    const float* x = e.reduced + i * dim;
    const float* centroid = index_.codes_of_residuals()
                                ? index_.centroids + size_t(e.leaf(copy, i)) * dim
                                : nullptr;
    double square = 0;
    for (size_t j = 0; j < dim; ++j) {
      target[j] = centroid == nullptr ? x[j] : x[j] - centroid[j];
      square += double(x[j]) * double(x[j]);
    }
    const double inverse = square > 0 ? 1.0 / std::sqrt(square) : 0.0;
    const bool anisotropic = !settings_.code_weights.empty();
    for (size_t j = 0; j < dim; ++j) direction[j] = float(x[j] * inverse);
    kernels().encode_one(target, anisotropic ? direction : nullptr,
                         anisotropic ? e.weights[i] : 0.0f, index_.codebook,
                         index_.codewords, dim, index_.dims_per_block, settings_.sweeps, scratch, e.one.data(),
                         e.losses.data());
    for (size_t b = 0; b < blocks; ++b) e.codes[copy][b * kLanes + i] = e.one[b];
  }
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
  made->capacity = capacity;
  return made;
}

void Updates::write_rows(RowStore& store, size_t first, const uint32_t* ids, size_t count,
                         size_t threads) {
  Encoded& e = *encoded_;
  const size_t dim = index_.dim, at = first * dim;
  std::copy_n(ids, count, store.ids.get() + first);
  if (store.f32 != nullptr) std::copy_n(e.rows, count * dim, store.f32.get() + at);
  const float* weights = nullptr;
  if (!settings_.row_weights.empty() && store.f32 == nullptr) {
    e.row_weights.resize(count);
    for (size_t i = 0; i < count; ++i)
      e.row_weights[i] = interpolated(settings_.row_weights, settings_.row_threshold,
                                      settings_.largest_ratio, e.norms[i]);
    weights = e.row_weights.data();
  }
  if (store.bf16 != nullptr)
    round_to_bf16(e.rows, count, dim, weights, threads, store.bf16.get() + at);
  if (store.i8 != nullptr)
    round_to_i8(e.rows, count, dim, weights, threads, store.i8.get() + at,
                store.scales.get() + first, store.squares.get() + first);
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

size_t Updates::upsert(const float* rows, const uint32_t* ids, size_t count, size_t threads) {
  const size_t bad = check(rows, count, threads);
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
  write_rows(*store, first, ids, count, threads);
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

// ---- Reading back

uint32_t Updates::id_of(size_t row) const noexcept {
  return row < index_.num_rows ? index_.id_of(row) : changes_->rows->ids[row - index_.num_rows];
}

void Updates::decode(size_t leaf, const uint8_t* codes, size_t at, float* out) const {
  const size_t dim = index_.reduced_dim;
  const float* centroid = index_.codes_of_residuals() ? index_.centroids + leaf * dim : nullptr;
  for (size_t j = 0; j < dim; ++j) {
    const uint8_t code = code_at(index_, codes, at, j / index_.dims_per_block);
    const float word = index_.codebook[j * index_.codewords + code];
    out[j] = word + (centroid == nullptr ? 0.0f : centroid[j]);
  }
}

void Updates::expand_row(size_t row, float* out) const {
  const size_t n = index_.num_rows;
  if (row < n)
    expand(index_.rows, row, out);
  else
    expand(changes_->rows->exact(index_.dim), row - n, out);
}

void Updates::vectors(const uint32_t* rows, size_t count, float* out) const {
  const size_t dim = index_.dim, n = index_.num_rows;
  std::vector<float> reduced(index_.reduced_dim);
  std::vector<uint32_t> first_entries;  // of rows, where they are not the same
  if (!index_.rows.present() && index_.entry_rows != nullptr) {
    first_entries.resize(n);
    for (size_t entry = index_.num_entries; entry-- > 0;)
      first_entries[index_.entry_rows[entry]] = uint32_t(entry);
  }
  for (size_t i = 0; i < count; ++i) {
    const size_t row = rows[i];
    float* x = out + i * dim;
    if (index_.rows.present()) {
      expand_row(row, x);
    } else if (row < n) {
      const size_t entry = first_entries.empty() ? row : first_entries[row];
      const uint32_t* end = index_.leaf_starts + index_.num_leaves + 1;
      const size_t leaf = size_t(std::upper_bound(index_.leaf_starts, end, entry) -
                                 index_.leaf_starts) - 1;
      decode(leaf, index_.codes + index_.group_starts[leaf] * index_.group_bytes(),
             entry - index_.leaf_starts[leaf], reduced.data());
      unproject_row(reduced.data(), dim, index_.projection, reduced.size(), x);
    } else {
      const uint32_t* const place = places_.data() + 2 * copies() * (row - n);
      const size_t leaf = place[0], at = place[1];
      const Chunk& chunk = *changes_->leaf(leaf)->chunks[at / Chunk::kMost];
      decode(leaf, chunk.codes.data(), at % Chunk::kMost, reduced.data());
      unproject_row(reduced.data(), dim, index_.projection, reduced.size(), x);
    }
  }
}

// ---- Folding

// Calls visit(row, codes, at, correction) for the live entries of a leaf in order: those of the
// index, then the new ones.
template <typename Visit>
void Updates::for_entries(size_t leaf, const uint8_t* skip, const Visit& visit) const {
  const auto live = [&](size_t row) {
    return !changes_->is_dead(row) && (skip == nullptr || skip[row] == 0);
  };
  const size_t begin = index_.leaf_starts[leaf], end = index_.leaf_starts[leaf + 1];
  const size_t group = index_.group_starts[leaf];
  for (size_t entry = begin; entry < end; ++entry) {
    const size_t row = index_.entry_rows == nullptr ? entry : index_.entry_rows[entry];
    if (!live(row)) continue;
    const size_t at = entry - begin;
    visit(row, index_.codes == nullptr ? nullptr : index_.codes + group * index_.group_bytes(), at,
          index_.corrections == nullptr ? uint16_t(0) : index_.corrections[group * kGroup + at]);
  }
  const NewLeaf* added = changes_->leaf(leaf);
  for (size_t i = 0; added != nullptr && i < added->count; ++i) {
    const Chunk& chunk = *added->chunks[i / Chunk::kMost];
    const size_t at = i % Chunk::kMost, row = index_.num_rows + chunk.slots[at];
    if (!live(row)) continue;
    visit(row, chunk.codes.data(), at,
          chunk.corrections.empty() ? uint16_t(0) : chunk.corrections[at]);
  }
}

double Updates::error(size_t row, size_t leaf, const uint8_t* codes, size_t at,
                      Vectors& vectors) const {
  vectors.whole.resize(index_.dim);
  vectors.reduced.resize(index_.reduced_dim);
  const float* x = vectors.reduced.data();
  if (index_.rows.present()) {
    expand_row(row, vectors.whole.data());
    x = reduce(index_, vectors.whole.data(), 1, 1, vectors.reduced);
  } else {
    decode(leaf, codes, at, vectors.reduced.data());
  }
  const float* centroid = index_.centroids + leaf * index_.reduced_dim;
  double square = 0;
  for (size_t j = 0; j < index_.reduced_dim; ++j) {
    const double difference = double(x[j]) - double(centroid[j]);
    square += difference * difference;
  }
  return square;
}

void Updates::errors(size_t first, double* out) const {
  std::fill_n(out, num_rows() - first, 0.0);
  if (index_.centroids == nullptr) return;
  Vectors vectors;
  if (first == 0) {
    for (size_t leaf = 0; leaf < index_.num_leaves; ++leaf)
      for_entries(leaf, nullptr, [&](size_t row, const uint8_t* codes, size_t at, uint16_t) {
        out[row] += error(row, leaf, codes, at, vectors);
      });
    return;
  }
  for (size_t row = first; row < num_rows(); ++row)
    for (size_t copy = 0; copy < copies(); ++copy) {
      const uint32_t* place =
          places_.data() + 2 * (copies() * (row - index_.num_rows) + copy);
      const Chunk& chunk = *changes_->leaf(place[0])->chunks[place[1] / Chunk::kMost];
      out[row - first] +=
          error(row, place[0], chunk.codes.data(), place[1] % Chunk::kMost, vectors);
    }
}

void Updates::mark_rows(const uint8_t* leaves, uint8_t* marks) const {
  for (size_t leaf = 0; leaf < index_.num_leaves; ++leaf) {
    if (leaves[leaf] == 0) continue;
    for_entries(leaf, nullptr,
                [&](size_t row, const uint8_t*, size_t, uint16_t) { marks[row] = 1; });
  }
}

void Updates::numbers(uint32_t* out) const {
  for (size_t row = 0; row < num_rows(); ++row)
    out[row] = changes_->is_dead(row) ? kNowhere : id_of(row);
}

size_t Updates::fold_starts(const uint8_t* skip, uint32_t* leaf_starts) const {
  uint32_t entries = 0;
  for (size_t leaf = 0; leaf < index_.num_leaves; ++leaf) {
    leaf_starts[leaf] = entries;
    for_entries(leaf, skip, [&](size_t, const uint8_t*, size_t, uint16_t) { ++entries; });
  }
  leaf_starts[index_.num_leaves] = entries;
  if (!settings_.spills) return entries;
  size_t live = 0;  // a row has one entry or two
  for (size_t row = 0; row < num_rows(); ++row)
    live += !changes_->is_dead(row) && (skip == nullptr || skip[row] == 0);
  return live;
}

void Updates::fold(const uint8_t* skip, const Folded& out) const {
  const size_t rows = index_.num_rows + changes_->slots, dim = index_.dim;
  std::vector<uint32_t> places(rows, kNowhere);  // the new row of each live row
  if (settings_.spills) {
    uint32_t next = 0;
    for (size_t row = 0; row < rows; ++row)
      if (!changes_->is_dead(row) && (skip == nullptr || skip[row] == 0)) places[row] = next++;
  }
  size_t group = 0;
  for (size_t leaf = 0; leaf < index_.num_leaves; ++leaf) {
    size_t at = 0;
    for_entries(leaf, skip, [&](size_t row, const uint8_t* codes, size_t from, uint16_t correction) {
      const size_t entry = out.leaf_starts[leaf] + at;
      if (out.entry_rows != nullptr)
        out.entry_rows[entry] = places[row];
      else
        places[row] = uint32_t(entry);
      for (size_t b = 0; out.codes != nullptr && b < index_.blocks; ++b)
        put_code(index_, out.codes + group * index_.group_bytes(), at, b,
                 code_at(index_, codes, from, b));
      if (out.corrections != nullptr) out.corrections[group * kGroup + at] = correction;
      ++at;
    });
    group += groups_of(at);
  }
  for (size_t row = 0; row < rows; ++row) {
    const size_t to = places[row];
    if (to == kNowhere) continue;
    out.ids[to] = id_of(row);
    const bool old = row < index_.num_rows;
    const ExactRows from = old ? index_.rows : changes_->rows->exact(dim);
    const size_t r = old ? row : row - index_.num_rows;
    if (out.f32 != nullptr) std::copy_n(from.f32 + r * dim, dim, out.f32 + to * dim);
    if (out.bf16 != nullptr) std::copy_n(from.bf16 + r * dim, dim, out.bf16 + to * dim);
    if (out.i8 != nullptr) {
      std::copy_n(from.i8 + r * dim, dim, out.i8 + to * dim);
      out.scales[to] = from.scales[r];
      if (out.squares != nullptr) out.squares[to] = from.squares[r];
    }
  }
}

}  // namespace swann
