// Scoring the codes of leaves: by tables, or unpacked (unpacked_codes.h), whichever is faster.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "block.h"

namespace swann {
namespace {

PackedLeaf packed_leaf(const IndexView& index, size_t leaf, const uint8_t* next) {
  return {codes_of(index, leaf),
          index.corrections == nullptr ? nullptr
                                       : index.corrections + index.group_starts[leaf] * kGroup,
          index.blocks, leaf_size(index, leaf), index.leaf_starts[leaf], next};
}

// So many datapoints of a leaf, from one on that begins a group.
PackedLeaf part_of(const IndexView& index, const PackedLeaf& leaf, size_t at, size_t most) {
  PackedLeaf part = leaf;
  part.codes += at / kGroup * index.group_bytes();
  if (part.corrections != nullptr) part.corrections += at;
  part.first_row += uint32_t(at);
  part.count = std::min(most, leaf.count - at);
  return part;
}

PackedLeaf packed_chunk(const IndexView& index, const Chunk& chunk, size_t count) {
  return {chunk.codes.data(), chunk.corrections.empty() ? nullptr : chunk.corrections.data(),
          index.blocks, count, 0, nullptr};
}

void set_threshold(ScanQuery& scan, const Candidates& candidates) {
  if (candidates.worst == 0) {
    scan.threshold = 0;
    return;
  }
  const int64_t threshold = int64_t(key_score(candidates.worst)) - scan.bias;
  scan.threshold = int32_t(std::clamp<int64_t>(threshold, 0, 65535));
}

// A visit's side of a scan; false where no sum of entries can reach its threshold.
bool begin_scan(const Block& block, uint32_t visit, ScanQuery& scan) {
  const size_t q = visit / block.limits.leaves;
  const Table& table = block.scratch.tables[q];
  Candidates& best = block.scratch.candidates[q];
  const double offset = double(block.scratch.choices[visit].score) + table.base;
  const auto bias = int32_t(std::lround(std::max(offset * table.scale, kLeastBias)));
  if (best.worst != 0 && int64_t(key_score(best.worst)) - bias > 65535) return false;
  scan = {block.lut(q), 0, bias, table.multiplier, best.keys, best.size, best.capacity};
  set_threshold(scan, best);
  return true;
}

// Takes over what a scan found (of new datapoints where `slots` names them), and makes room.
void take_found(const Block& block, const uint32_t* slots, Candidates& best, ScanQuery& scan,
                bool done) {
  const size_t before = std::exchange(best.size, scan.size);
  if (slots != nullptr)
    name_new(block, slots, best, before);
  else
    drop_dead(block, best, before);
  const bool full = best.capacity - best.size < 2 * kGroup;
  const bool many = best.worst == 0 || best.size >= Candidates::most(best.limit) + best.limit;
  if (full || (done && many)) best.trim();
  scan.size = best.size;
  set_threshold(scan, best);
}

// ---- By tables

// Scores datapoints of one leaf for up to scan_queries choices (positions in scratch.choices):
// those of the index, or new ones where `slots` names them.
void scan_codes(const Block& block, const PackedLeaf& packed, const uint32_t* slots,
                const uint32_t* visits, size_t count) {
  const IndexView& index = block.index;
  const size_t groups = groups_of(packed.count);
  ScanQuery scans[kMaxScanQueries];
  Candidates* candidates[kMaxScanQueries];
  size_t used = 0;
  for (size_t i = 0; i < count; ++i) {
    if (!begin_scan(block, visits[i], scans[used])) continue;
    const size_t q = visits[i] / block.limits.leaves;
    candidates[used++] = &block.scratch.candidates[q];
  }
  if (used == 0) return;
  const KernelTable& k = kernels();
  const auto scan = index.codewords == kWords256 ? k.lut256_scan : k.lut16_scan;
  for (size_t group = 0; group < groups;) {
    group = scan(&packed, group, scans, used);
    for (size_t i = 0; i < used; ++i)
      take_found(block, slots, *candidates[i], scans[i], group == groups);
  }
}

// In as few passes as there can be, of the same size: a pass of one query costs most.
void scan_in_passes(const Block& block, const PackedLeaf& leaf, const uint32_t* slots,
                    const uint32_t* visits, size_t count) {
  const size_t together = kernels().scan_queries, passes = ceil_div(count, together);
  for (size_t i = 0; i < passes; ++i) {
    const size_t begin = count * i / passes, end = count * (i + 1) / passes;
    scan_codes(block, leaf, slots, visits + begin, end - begin);
  }
}

void scan_by_tables(const Block& block, const PackedLeaf& leaf, const uint32_t* visits,
                    size_t count) {
  scan_in_passes(block, leaf, nullptr, visits, count);
}

// ---- Unpacked

constexpr size_t kManyVisits = 12;  // from here on it may pay to unpack a leaf

// The queries of a block are rounded when the first leaf asks.
void round_queries(const Block& block) {
  const IndexView& index = block.index;
  Scratch& s = block.scratch;
  if (s.is_rounded) return;
  const size_t bytes = index.byte_codebook.quads() * 4;
  s.query_bytes.resize(block.count * bytes);
  s.unpacked_queries.resize(block.count);
  for (size_t q = 0; q < block.count; ++q)
    s.unpacked_queries[q] =
        round_for_unpacked(index, block.reduced_query(q), block.lut(q), s.tables[q].scale,
                           s.query_bytes.data() + q * bytes);
  s.is_rounded = true;
}

// One part of a leaf, of kMostUnpacked at most, for visits that have begun.
void scan_part(const Block& block, const PackedLeaf& part, const uint32_t* visits,
               ScanQuery* scans, size_t count) {
  const IndexView& index = block.index;
  Scratch& s = block.scratch;
  const KernelTable& k = kernels();
  const size_t quads = index.byte_codebook.quads(), bytes = quads * 4;
  const size_t sixteens = 2 * groups_of(part.count);
  RoundedRows& rows = s.rounded_rows;
  rows.resize(sixteens * kI8Group, bytes);
  std::fill_n(rows.inverses.begin(), sixteens, 1.0f);
  std::fill_n(rows.errors.begin(), sixteens, 0.0f);
  std::fill_n(rows.lengths.begin(), sixteens, 0.0f);
  s.leaf_codes.resize(sixteens * kI8Group * unpacked_bytes(index.blocks));
  k.lut16_unpack(&part, index.byte_codebook.words.data(), index.dims_per_block, rows.bytes.data(),
                 s.leaf_codes.data());
  RoundedQueries& queries = s.visiting;
  queries.resize(count, bytes);
  s.thresholds.resize(count);
  for (size_t i = 0; i < count; ++i) {
    const size_t q = visits[i] / block.limits.leaves;
    std::copy_n(s.query_bytes.data() + q * bytes, bytes, queries.bytes.data() + i * bytes);
    queries.starts[i] = s.unpacked_queries[q].start;
    queries.inverses[i] = 1, queries.lengths[i] = 0, queries.errors[i] = 0;
    s.thresholds[i] = s.unpacked_queries[q].least(scans[i].threshold);
  }
  const I8Found room = s.found.of(sixteens, count);
  const I8Rows view = rows.view();
  I8Queries side = queries.view();
  side.thresholds = s.thresholds.data();
  side.count = count;
  const size_t found = k.i8_filter(&view, sixteens, quads, &side, false, 0.0f, &room);
  s.masks.assign(sixteens * count, 0);
  for (size_t i = 0; i < found; ++i) {
    const uint32_t row = room.rows[i];
    s.masks[row / kI8Group * count + room.queries[i]] |= uint16_t(1u << row % kI8Group);
  }
  for (size_t i = 0; i < count; ++i)
    for (size_t at = 0; at != kAllScanned;) {
      at = k.lut16_scan_marked(&part, s.leaf_codes.data(), s.masks.data() + i, count, at, &scans[i]);
      take_found(block, nullptr, s.candidates[visits[i] / block.limits.leaves], scans[i],
                 at == kAllScanned);
    }
}

void scan_unpacked(const Block& block, const PackedLeaf& leaf, const uint32_t* visits,
                   size_t count) {
  Scratch& s = block.scratch;
  round_queries(block);
  s.unpacked_scans.resize(count);
  s.unpacked_visits.resize(count);
  size_t used = 0;
  for (size_t i = 0; i < count; ++i)
    if (begin_scan(block, visits[i], s.unpacked_scans[used])) s.unpacked_visits[used++] = visits[i];
  for (size_t at = 0; at < leaf.count && used > 0; at += kMostUnpacked)
    scan_part(block, part_of(block.index, leaf, at, kMostUnpacked), s.unpacked_visits.data(),
              s.unpacked_scans.data(), used);
}

// ---- By what is faster

void scan_by(ScanWay way, const Block& block, const PackedLeaf& leaf, const uint32_t* visits,
             size_t count) {
  (way == ScanWay::unpacked ? scan_unpacked : scan_by_tables)(block, leaf, visits, count);
}

// In short parts, by both ways in turns: a leaf may be the whole index, and one way far slower.
void scan_in_turns(const Block& block, const PackedLeaf& leaf, const uint32_t* visits,
                   size_t count) {
  constexpr size_t kPairs = 1 << 17, kLeast = 4 * kGroup;  // of a datapoint and a query
  const size_t most = std::clamp(kPairs / count / kGroup * kGroup, kLeast, kMostUnpacked);
  ScanTrial& trial = *block.index.byte_codebook.trial;
  round_queries(block);  // done for many leaves, not for this one
  for (size_t at = 0; at < leaf.count; at += most) {
    const PackedLeaf part = part_of(block.index, leaf, at, most);
    const ScanWay way = trial.next();
    const auto begin = std::chrono::steady_clock::now();
    scan_by(way, block, part, visits, count);
    const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - begin;
    trial.report(way, double(part.count) * double(count), took.count());
  }
}

void scan_datapoints(const Block& block, const PackedLeaf& leaf, const uint32_t* visits,
                     size_t count) {
  const ByteCodebook& book = block.index.byte_codebook;
  if (book.empty() || count < kManyVisits) return scan_by_tables(block, leaf, visits, count);
  const ScanTrial& trial = *book.trial;
  if (trial.decided()) return scan_by(trial.next(), block, leaf, visits, count);
  scan_in_turns(block, leaf, visits, count);
}

}  // namespace

const uint8_t* codes_of(const IndexView& index, size_t leaf) {
  return index.codes + index.group_starts[leaf] * index.group_bytes();
}

void scan_leaf(const Block& block, size_t leaf, const uint32_t* visits, size_t count,
               const uint8_t* next) {
  const NewLeaf* added = block.changes == nullptr ? nullptr : block.changes->leaf(leaf);
  if (count == 0) return;
  if (block.index.codes == nullptr) {
    // What was overwritten sets no threshold, and its rows would be scored one by one: new ones first.
    const bool new_first = added != nullptr && block.changes->dead > 0;
    if (new_first) scan_new_rows(block, *added, visits, count);
    scan_rows(block, leaf, visits, count);
    if (added != nullptr && !new_first) scan_new_rows(block, *added, visits, count);
    return;
  }
  if (leaf_size(block.index, leaf) > 0)
    scan_datapoints(block, packed_leaf(block.index, leaf, next), visits, count);
  for (size_t c = 0; added != nullptr && c * Chunk::kMost < added->count; ++c) {
    const Chunk& chunk = *added->chunks[c];
    const size_t filled = std::min(Chunk::kMost, added->count - c * Chunk::kMost);
    scan_in_passes(block, packed_chunk(block.index, chunk, filled), chunk.slots.data(), visits,
                   count);
  }
}

}  // namespace swann
