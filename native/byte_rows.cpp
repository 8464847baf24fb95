#include "byte_rows.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "block.h"
#include "search.h"

namespace swann {
namespace {

constexpr size_t kEnough = 8;         // queries, to know what they are like
constexpr size_t kFewEntries = 256;   // below, there is little to win
constexpr size_t kFewALeaf = 64;      // nor is it worth the memory in small leaves

// Asks for large pages, as NumPy does for its arrays: small ones are read at half the speed.
void want_large_pages([[maybe_unused]] void* memory, [[maybe_unused]] size_t bytes) noexcept {
#if defined(__linux__)
  constexpr uintptr_t kPage = 1 << 16;  // or a part of it
  const auto begin = (reinterpret_cast<uintptr_t>(memory) + kPage - 1) / kPage * kPage;
  const auto end = (reinterpret_cast<uintptr_t>(memory) + bytes) / kPage * kPage;
  if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

}  // namespace

void prepare_byte_rows(IndexView& index) {
  const KernelTable& k = kernels();
  const bool is_i8 = index.rows.i8 != nullptr;
  const bool gains = index.codes == nullptr && index.rows.present() &&
                     index.num_entries >= kFewEntries && index.dim <= kMostI8Dimensions &&
                     (k.i8_filter != nullptr || (is_i8 && k.upper_i8 != nullptr));
  const bool keeps = !is_i8 && index.num_entries >= kFewALeaf * index.num_leaves;
  index.byte_rows =
      gains ? std::make_shared<ByteRows>(index.num_entries, index.dim, keeps) : nullptr;
}

void add_squares(const float* vector, std::vector<double>& squares) {
  for (size_t j = 0; j < squares.size(); ++j) squares[j] += double(vector[j]) * double(vector[j]);
}

namespace {

// Raises sums of squares that are far below most: a sample that is zero somewhere says little of others.
void raise_least(std::vector<double>& squares) {
  constexpr double kFarBelow = 1.0 / 64;
  double logs = 0, count = 0;
  for (const double square : squares)
    if (square > 0) logs += std::log(square), ++count;
  if (count == 0) return std::fill(squares.begin(), squares.end(), 1.0);
  const double least = kFarBelow * std::exp(logs / count);
  for (double& square : squares) square = std::max(square, least);
}

}  // namespace

std::vector<float> weights_of(const IndexView& index, std::vector<double> of_queries) {
  constexpr size_t kSample = 256;
  constexpr double kMost = 1 << 20;
  const size_t dim = index.dim;
  std::vector<double> of_rows(dim);
  std::vector<float> row(dim);
  for (size_t i = 0; i < kSample; ++i) {
    copy_row(index.rows, i * index.num_rows / kSample, row.data());
    add_squares(row.data(), of_rows);
  }
  raise_least(of_queries);
  raise_least(of_rows);
  std::vector<float> weights(dim);
  for (size_t j = 0; j < dim; ++j) {
    const double ratio = std::sqrt(std::sqrt(of_queries[j] / of_rows[j]));
    weights[j] = float(std::isfinite(ratio) ? std::clamp(ratio, 1 / kMost, kMost) : 1.0);
  }
  return weights;
}

namespace {

// Scores of int8 rows lose what sums in float32 lose of two products, with the numbers and with the
// origin, of which both may be far longer than what they stand for; and their squares are kept.
void allow_for_i8(const IndexView& index, size_t first, size_t count, const float* weights,
                  const I8Rows& out) {
  double square = 0;
  for (size_t j = 0; j < index.dim; ++j) square += double(weights[j]) * double(weights[j]);
  const float of_weights = 128 * 1.0001f * float(std::sqrt(square));
  for (size_t g = 0; g * kI8Group < count; ++g) {
    float greatest = 0;
    for (size_t i = g * kI8Group; i < std::min(count, (g + 1) * kI8Group); ++i) {
      const size_t row = row_of(index, uint32_t(first + i));
      greatest = std::max(greatest, index.rows.scales[row]);
      if (index.squared_l2())
        out.halves[i] = 0.5f * out.inverses[g] * index.rows.squares[row];
    }
    // |w n| + |w o| <= 2 |w n| + |w x|
    out.errors[g] += rounding(index.dim) * (2 * greatest * of_weights + out.lengths[g] + out.errors[g]);
  }
}

}  // namespace

void take_entries(const IndexView& index, size_t first, size_t count, const float* weights,
                  std::vector<float>& buffer, const I8Rows& out) {
  const size_t dim = index.dim;
  if (index.rows.f32 != nullptr && index.entry_rows == nullptr)
    return kernels().i8_pack(index.rows.f32 + first * dim, count, dim, weights, &out);
  buffer.resize(count * dim);
  for (size_t i = 0; i < count; ++i)
    copy_row(index.rows, row_of(index, uint32_t(first + i)), buffer.data() + i * dim);
  kernels().i8_pack(buffer.data(), count, dim, weights, &out);
  if (index.rows.i8 != nullptr) allow_for_i8(index, first, count, weights, out);
}

ByteRows::ByteRows(size_t entries, size_t dim, bool keeps)
    : entries_(entries), dim_(dim), keeps_(keeps), squares_(dim) {}

BoundsTrial& ByteRows::trial(size_t candidates, bool fresh) noexcept {
  const size_t size = size_t(std::bit_width(candidates)) / 2;
  return trials_[fresh][std::min(size, kSizes - 1)];
}

void ByteRows::look_at(const IndexView& index, const float* queries, size_t count) {
  const std::unique_lock<std::mutex> looking(looking_, std::try_to_lock);
  if (!keeps_ || !looking.owns_lock() || seen_ >= kEnough) return;
  for (size_t q = 0; q < count; ++q) add_squares(queries + q * dim_, squares_);
  seen_ += count;
  if (seen_ >= kEnough) turn_on(index);
}

void ByteRows::turn_on(const IndexView& index) {
  const size_t parts = (entries_ + kPart - 1) / kPart, groups = parts * kPart / kI8Group;
  try {
    weights_ = weights_of(index, squares_);
    bytes_.resize(groups * kI8Group * ((dim_ + 3) / 4 * 4));
    want_large_pages(bytes_.data(), bytes_.nbytes());
    for (auto* values : {&inverses_, &errors_, &lengths_}) values->resize(groups);
    halves_.resize(groups * kI8Group);
    states_ = std::make_unique<std::atomic<uint8_t>[]>(parts);
  } catch (const std::bad_alloc&) {
    return;  // searches go by floats
  }
  is_on_.store(true, std::memory_order_release);
}

bool ByteRows::make(const IndexView& index, size_t first, size_t count) {
  bool all = true;
  for (size_t part = first / kPart; part * kPart < first + count; ++part)
    all &= make_part(index, part);
  return all;
}

bool ByteRows::make_part(const IndexView& index, size_t part) {
  std::atomic<uint8_t>& state = states_[part];
  uint8_t now = state.load(std::memory_order_acquire);
  if (now == made) return true;
  if (now == being_made || !state.compare_exchange_strong(now, being_made)) return now == made;
  const size_t first = part * kPart;
  thread_local std::vector<float> buffer;
  try {
    take_entries(index, first, std::min(kPart, entries_ - first), weights_.data(), buffer,
                 from_group(first / kI8Group));
  } catch (const std::bad_alloc&) {
    state.store(nothing, std::memory_order_relaxed);
    return false;
  }
  state.store(made, std::memory_order_release);
  return true;
}

I8Rows ByteRows::from_group(size_t group) noexcept {
  return {bytes_.data() + group * kI8Group * ((dim_ + 3) / 4 * 4), inverses_.data() + group,
          errors_.data() + group, lengths_.data() + group, halves_.data() + group * kI8Group};
}

}  // namespace swann
