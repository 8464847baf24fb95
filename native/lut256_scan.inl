// The scan of 8-bit codes, but for what each level defines before it includes this page:
//   lut256_sums(leaf, group, count, lut, sums): the sums of table entries of up to kGroupsAtOnce
//     groups, in the order of the datapoints;
//   offer(leaf, group, sums, query): adds corrections and appends survivors of one group.
// A table is 16 times as large as one of LUT16, so many groups pass while a block's is at hand.
// Included inside each level file's unnamed namespace.

size_t lut256_scan(const PackedLeaf* leaf, size_t first_group, ScanQuery* queries,
                   size_t num_queries) noexcept {
  const size_t groups = (leaf->count + kGroup - 1) / kGroup;
  alignas(64) uint16_t sums[kMaxScanQueries][kGroupsAtOnce * kGroup];
  for (size_t g = first_group; g < groups;) {
    if (!has_room(queries, num_queries, kGroup)) return g;
    const size_t count = groups - g < kGroupsAtOnce ? groups - g : kGroupsAtOnce;
    for (size_t q = 0; q < num_queries; ++q)
      lut256_sums(*leaf, g, count, queries[q].lut, sums[q]);
    for (size_t i = 0; i < count; ++i, ++g) {
      if (!has_room(queries, num_queries, kGroup)) return g;
      for (size_t q = 0; q < num_queries; ++q) offer(*leaf, g, sums[q] + i * kGroup, queries[q]);
    }
  }
  return groups;
}
