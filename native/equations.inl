// Sums for the update of a codebook (kernels.h, block_sums), over F16 and what a level says of lanes:
//   Lanes, lanes_of(codes, k)      those of sixteen codes that are k
//   f16_add_in(lanes, sum, x)      x added in these lanes
// Included after encode.inl.

namespace {

constexpr size_t kSumTiles = 16;  // whose terms are kept at a time

// What each datapoint of a tile adds: 1, its part of the right side, its part of the matrix.
template <size_t width>
inline void tile_terms(const BlockSums& block, size_t tile, float* terms) noexcept {
  const float* target = block.target + tile * (width * 16);
  const float* direction = block.direction + tile * (width * 16);
  float* const errors = block.parallel + 16 * tile;
  F16 along = f16_load(errors);
  if (block.moves != nullptr) {
    const float* moved = block.moved_direction + tile * (block.moved_width * 16);
    const uint8_t* codes = block.moved_codes + tile * 16;
    for (size_t j = 0; j < block.moved_width; ++j)
      along = f16_fma(f16_load(moved + 16 * j), f16_lookup(block.moves + 16 * j, codes), along);
    f16_store(errors, along);
  }
  const uint8_t* codes = block.codes + tile * 16;
  F16 u[width];
  for (size_t j = 0; j < width; ++j) {
    u[j] = f16_load(direction + 16 * j);
    along = f16_fma(u[j], f16_lookup(block.words + 16 * j, codes), along);
  }
  const F16 weight = f16_load(block.weights + 16 * tile), pull = f16_mul(weight, along);
  f16_store(terms, f16_set(1.0f));
  for (size_t j = 0; j < width; ++j)
    f16_store(terms += 16, f16_fma(pull, u[j], f16_load(target + 16 * j)));
  for (size_t j = 0; j < width; ++j) {
    const F16 weighted = f16_mul(weight, u[j]);
    for (size_t l = 0; l <= j; ++l) f16_store(terms += 16, f16_mul(weighted, u[l]));
  }
}

// Adds `count` terms, of `each` a tile, to the sums of codeword k: [..][16].
template <size_t count>
inline void add_terms(const BlockSums& block, size_t first, size_t tiles, uint8_t k,
                      const float* terms, size_t each, float* sums) noexcept {
  F16 sum[count];
  for (size_t i = 0; i < count; ++i) sum[i] = f16_load(sums + 16 * i);
  for (size_t t = 0; t < tiles; ++t) {
    const Lanes lanes = lanes_of(block.codes + (first + t) * 16, k);
    for (size_t i = 0; i < count; ++i)
      sum[i] = f16_add_in(lanes, sum[i], f16_load(terms + 16 * (t * each + i)));
  }
  for (size_t i = 0; i < count; ++i) f16_store(sums + 16 * i, sum[i]);
}

template <size_t width>
void sums_of(const BlockSums& block, float* out) noexcept {
  constexpr size_t kTerms = 1 + width + width * (width + 1) / 2, kAtOnce = 5;
  alignas(64) float sums[kWords16][kTerms][16] = {}, terms[kSumTiles][kTerms][16];
  for (size_t first = 0; first < block.tiles; first += kSumTiles) {
    const size_t tiles = block.tiles - first < kSumTiles ? block.tiles - first : kSumTiles;
    for (size_t t = 0; t < tiles; ++t) tile_terms<width>(block, first + t, terms[t][0]);
    for (size_t k = 0; k < kWords16; ++k) {
      size_t i = 0;
      for (; i + kAtOnce <= kTerms; i += kAtOnce)
        add_terms<kAtOnce>(block, first, tiles, uint8_t(k), terms[0][i], kTerms, sums[k][i]);
      if constexpr (kTerms % kAtOnce != 0)
        add_terms<kTerms % kAtOnce>(block, first, tiles, uint8_t(k), terms[0][i], kTerms,
                                    sums[k][i]);
    }
  }
  for (size_t k = 0; k < kWords16; ++k)
    for (size_t i = 0; i < kTerms; ++i) out[k * kTerms + i] = f16_fold(f16_load(sums[k][i]));
}

void block_sums(const BlockSums* block, float* out) noexcept {
  switch (block->width) {
    case 1: return sums_of<1>(*block, out);
    case 2: return sums_of<2>(*block, out);
    case 3: return sums_of<3>(*block, out);
    default: return sums_of<4>(*block, out);
  }
}

}  // namespace
