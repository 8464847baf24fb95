// Included inside each level file's unnamed namespace.

// Calls f(0), ..., f(N - 1) with constants: arrays indexed by them live in registers, where the
// compiler's own unrolling would come too late for that.
#define SWANN_INLINE __attribute__((always_inline))
template <size_t N, typename F>
SWANN_INLINE inline void unrolled(const F& f) noexcept {
  [&]<size_t... I>(std::index_sequence<I...>) SWANN_INLINE {
    (f(std::integral_constant<size_t, I>{}), ...);
  }(std::make_index_sequence<N>{});
}
