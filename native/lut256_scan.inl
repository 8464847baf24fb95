// The scan of 8-bit codes, but for what each level defines before it includes this file:
//   lut256_sums(leaf, group, count, lut, sums): the sums of table entries of up to kGroupsAtOnce
//     groups;
//   survivors(leaf, group, query, sums): adds corrections to the sums of one group; who survives;
//   append_found(query, row, mask, sums): appends their keys.
// A table is 16 times as large as one of LUT16, so many groups pass while a block's is at hand.
// Included inside each level file's unnamed namespace.

size_t lut256_scan(const PackedLeaf* leaf, size_t group, ScanQuery* queries,
                   size_t num_queries) noexcept {
  Found<kGroupsAtOnce> found[kMaxScanQueries];
  while (const size_t count = groups_from(*leaf, group, queries, num_queries, kGroupsAtOnce)) {
    for (size_t q = 0; q < num_queries; ++q) {
      lut256_sums(*leaf, group, count, queries[q].lut, found[q].sums[0]);
      for (size_t g = 0; g < count; ++g)
        found[q].masks[g] = survivors(*leaf, group + g, queries[q], found[q].sums[g]);
    }
    take_found(*leaf, group, count, found, queries, num_queries, append_found);
  }
  return group;
}
