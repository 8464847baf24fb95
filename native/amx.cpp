// Level amx: products of 8-bit tiles (Sapphire Rapids and newer). The filter of 8-bit rows is all
// that it adds to avx512vnni. A tile register holds 16 rows of 64 bytes: 16 queries, or sixteen
// quads of 16 datapoints, or 16 x 16 sums.
//
// The self-test compiles this file a second time, with tiles in plain C++ (amx_emulated.cpp).
#include <immintrin.h>

#include <cstdint>

#include "kernels.h"

#if !defined(SWANN_AMX_EMULATED)
// The barrier: GCC 12 knows of the first eight bytes only that the instruction reads the shapes.
#define SWANN_TILE_CONFIG(config) \
  __asm__ volatile("" ::: "memory"); \
  _tile_loadconfig(config)
#define SWANN_TILE_RELEASE() _tile_release()
#define SWANN_TILE_ZERO(tile) _tile_zero(tile)
#define SWANN_TILE_LOAD(tile, from, stride) _tile_loadd(tile, from, stride)
#define SWANN_TILE_STORE(tile, to, stride) _tile_stored(tile, to, stride)
#define SWANN_TILE_ADD_PRODUCTS(sums, queries, rows) _tile_dpbsud(sums, queries, rows)
#define SWANN_AMX_LEVEL "amx"
#define SWANN_PUT_AMX put_amx
#endif

namespace swann {
namespace {

#include "avx512_i8_masks.inl"

constexpr size_t kTile = 16, kTileQuads = 16;

// Shapes of the tile registers: 0 to 3 hold sums, 4 and 5 queries and rows of 16 quads, 6 and 7
// queries and rows of the quads left over.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes[16] = {};  // of a row
  uint8_t rows[16] = {};

  explicit TileConfig(size_t rest) noexcept {
    for (int t = 0; t < 6; ++t) bytes[t] = 64, rows[t] = 16;
    if (rest == 0) return;
    bytes[6] = uint16_t(4 * rest), rows[6] = 16;
    bytes[7] = 64, rows[7] = uint8_t(rest);
  }
};

// Sums of up to 32 queries and 32 rows.
struct alignas(64) TileSums {
  int32_t of[2][2][kTile][kI8Group];  // [tile of queries][group of rows]
};

// Adds the products of one run of quads: Q tiles of queries, `query_bytes` apart, and G groups.
#define SWANN_ADD_TILES(query_tile, row_tile)                          \
  SWANN_TILE_LOAD(query_tile, query, stride);                          \
  SWANN_TILE_LOAD(row_tile, row, 64);                                  \
  SWANN_TILE_ADD_PRODUCTS(0, query_tile, row_tile);                    \
  if (G == 2) {                                                        \
    SWANN_TILE_LOAD(row_tile, row + group_bytes, 64);                  \
    SWANN_TILE_ADD_PRODUCTS(1, query_tile, row_tile);                  \
  }                                                                    \
  if (Q == 2) {                                                        \
    SWANN_TILE_LOAD(query_tile, query + kTile * stride, stride);       \
    if (G == 2) SWANN_TILE_ADD_PRODUCTS(3, query_tile, row_tile);      \
    if (G == 2) SWANN_TILE_LOAD(row_tile, row, 64);                    \
    SWANN_TILE_ADD_PRODUCTS(2, query_tile, row_tile);                  \
  }

// Products of Q tiles of queries and G groups of rows.
template <size_t Q, size_t G>
inline void multiply(const uint8_t* row, const int8_t* query, size_t quads,
                     TileSums& sums) noexcept {
  const size_t stride = quads * 4, group_bytes = quads * 64;
  SWANN_TILE_ZERO(0);
  SWANN_TILE_ZERO(1);
  SWANN_TILE_ZERO(2);
  SWANN_TILE_ZERO(3);
  for (size_t at = 0; at + kTileQuads <= quads; at += kTileQuads) {
    SWANN_ADD_TILES(4, 5)
    query += 64;
    row += kTileQuads * 64;
  }
  if (quads % kTileQuads != 0) {
    SWANN_ADD_TILES(6, 7)
  }
  SWANN_TILE_STORE(0, sums.of[0][0], 64);
  if (G == 2) SWANN_TILE_STORE(1, sums.of[0][1], 64);
  if (Q == 2) SWANN_TILE_STORE(2, sums.of[1][0], 64);
  if (Q == 2 && G == 2) SWANN_TILE_STORE(3, sums.of[1][1], 64);
}

// G groups of rows against all queries.
template <size_t G, bool squared_l2>
inline void filter_groups(const I8Rows& rows, size_t group, size_t quads, const I8Queries& queries,
                          float slack, const I8Found& found, size_t& count) noexcept {
  const uint8_t* bytes = rows.bytes + group * quads * 64;
  TileSums sums;
  for (size_t q = 0; q < queries.count; q += 2 * kTile) {
    const int8_t* query = queries.bytes + q * quads * 4;
    const size_t left = queries.count - q;
    if (left > kTile)
      multiply<2, G>(bytes, query, quads, sums);
    else
      multiply<1, G>(bytes, query, quads, sums);
    for (size_t t = 0; t < 2 && t * kTile < left; ++t) {
      const size_t first = q + t * kTile, n = queries.count - first;
      for (size_t g = 0; g < G; ++g) {
        alignas(64) float least[kTile];
        _mm512_store_ps(least, least_products(rows, group + g, queries, first));
        for (size_t i = 0; i < (n < kTile ? n : kTile); ++i) {
          const __m512i products = _mm512_add_epi32(_mm512_load_si512(sums.of[t][g][i]),
                                                    _mm512_set1_epi32(queries.starts[first + i]));
          find_reaching<squared_l2>(rows, group + g, queries, first + i, products, least[i], slack,
                                    found, count);
        }
      }
    }
  }
}

template <bool squared_l2>
inline void filter_all(const I8Rows& rows, size_t groups, size_t quads, const I8Queries& queries,
                       float slack, const I8Found& found, size_t& count) noexcept {
  const TileConfig config(quads % kTileQuads);
  SWANN_TILE_CONFIG(&config);
  size_t g = 0;
  for (; g + 2 <= groups; g += 2)
    filter_groups<2, squared_l2>(rows, g, quads, queries, slack, found, count);
  if (g < groups)
    filter_groups<1, squared_l2>(rows, g, quads, queries, slack, found, count);
  SWANN_TILE_RELEASE();
}

size_t i8_filter(const I8Rows* rows, size_t groups, size_t quads, const I8Queries* queries,
                 bool squared_l2, float slack, const I8Found* found) noexcept {
  size_t count = 0;
  if (squared_l2)
    filter_all<true>(*rows, groups, quads, *queries, slack, *found, count);
  else
    filter_all<false>(*rows, groups, quads, *queries, slack, *found, count);
  return count;
}

}  // namespace

void SWANN_PUT_AMX(KernelTable& table) noexcept {
  table.level = SWANN_AMX_LEVEL;
  table.i8_filter = i8_filter;
}

}  // namespace swann
