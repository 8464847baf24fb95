// Which lanes of four keys stay, as they are turned to the front: [mask][8].
struct Fronts {
  alignas(32) uint32_t halves[16][8];
  constexpr Fronts() : halves() {
    for (uint32_t mask = 0; mask < 16; ++mask) {
      size_t at = 0;
      for (uint32_t lane = 0; lane < 4; ++lane)
        if (mask >> lane & 1) {
          halves[mask][at++] = 2 * lane;
          halves[mask][at++] = 2 * lane + 1;
        }
    }
  }
};
constexpr Fronts kFronts;

inline size_t drop_below(Key* keys, size_t size, Key least) noexcept {
  if (least == 0) return size;
  const __m256i sign = _mm256_set1_epi64x(INT64_MIN);
  const __m256i below = _mm256_xor_si256(_mm256_set1_epi64x(int64_t(least - 1)), sign);
  size_t kept = 0, i = 0;
  for (; i + 4 <= size; i += 4) {
    const __m256i four = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(keys + i));
    const __m256i stay = _mm256_cmpgt_epi64(_mm256_xor_si256(four, sign), below);
    const auto mask = unsigned(_mm256_movemask_pd(_mm256_castsi256_pd(stay)));
    const __m256i front = _mm256_permutevar8x32_epi32(
        four, _mm256_load_si256(reinterpret_cast<const __m256i*>(kFronts.halves[mask])));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(keys + kept), front);
    kept += size_t(__builtin_popcount(mask));
  }
  for (; i < size; ++i) {
    const Key key = keys[i];
    keys[kept] = key;
    kept += key >= least;
  }
  return kept;
}
