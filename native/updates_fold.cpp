// What was changed is read back: vectors, figures, and new arrays of everything that is alive.
#include <algorithm>
#include <bit>

#include "packed_codes.h"
#include "projection.h"
#include "search.h"
#include "updates.h"

namespace swann {
namespace {

void expand(const ExactRows& rows, size_t row, float* out) {
  const size_t at = row * rows.dim;
  for (size_t j = 0; j < rows.dim; ++j) {
    if (rows.f32 != nullptr)
      out[j] = rows.f32[at + j];
    else if (rows.bf16 != nullptr)
      out[j] = std::bit_cast<float>(uint32_t(rows.bf16[at + j]) << 16);
    else
      out[j] = float(rows.i8[at + j]) * rows.scales[row] +
               (rows.origins == nullptr ? 0.0f : rows.origins[rows.labels[row] * rows.dim + j]);
  }
}

}  // namespace

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
    expand(changes_->rows->exact(index_.rows), row - n, out);
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

void Updates::kept_as(const uint32_t* rows, size_t count, float* scales, uint8_t* labels) const {
  const size_t n = index_.num_rows;
  for (size_t i = 0; i < count; ++i) {
    const bool old = rows[i] < n;
    const ExactRows all = old ? index_.rows : changes_->rows->exact(index_.rows);
    const size_t row = old ? rows[i] : rows[i] - n;
    scales[i] = all.scales == nullptr ? 0.0f : all.scales[row];
    labels[i] = all.labels == nullptr ? uint8_t(0) : all.labels[row];
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
  const size_t rows = num_rows();
  for (size_t row = first; row < rows; ++row)
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
  const size_t rows = num_rows();
  for (size_t row = 0; row < rows; ++row)
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
  const size_t rows = num_rows();
  for (size_t row = 0; row < rows; ++row)
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
    const ExactRows from = old ? index_.rows : changes_->rows->exact(index_.rows);
    const size_t r = old ? row : row - index_.num_rows;
    if (out.f32 != nullptr) std::copy_n(from.f32 + r * dim, dim, out.f32 + to * dim);
    if (out.bf16 != nullptr) std::copy_n(from.bf16 + r * dim, dim, out.bf16 + to * dim);
    if (out.i8 != nullptr) {
      std::copy_n(from.i8 + r * dim, dim, out.i8 + to * dim);
      out.scales[to] = from.scales[r];
      if (out.squares != nullptr) out.squares[to] = from.squares[r];
      if (out.labels != nullptr) out.labels[to] = from.labels[r];
    }
  }
}

}  // namespace swann
