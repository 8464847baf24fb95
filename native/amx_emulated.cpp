// amx.cpp with its tiles in plain C++, for the self-test: where no machine at hand has AMX, all but
// the instructions themselves is tested. What the instructions would refuse is counted.
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "selftest_amx.h"

namespace {

struct Tile {
  size_t rows, bytes;  // of a row; 0: not configured
  uint8_t at[16][64];
};

thread_local Tile tiles[8];
thread_local bool configured = false;
size_t refused = 0;

void refuse_unless(bool fine) { refused += !fine; }

void configure(const void* config) {
  const auto* c = static_cast<const uint8_t*>(config);
  refuse_unless(c[0] == 1 && c[1] == 0 && !configured && uintptr_t(config) % 64 == 0);
  for (size_t t = 0; t < 8; ++t) {
    uint16_t bytes;
    std::memcpy(&bytes, c + 16 + 2 * t, 2);
    const size_t rows = c[48 + t];
    refuse_unless(bytes <= 64 && rows <= 16 && (bytes == 0) == (rows == 0));
    tiles[t].rows = rows, tiles[t].bytes = bytes;
    std::memset(tiles[t].at, 0, sizeof tiles[t].at);
  }
  configured = true;
}

void release() {
  configured = false;
  for (Tile& tile : tiles) tile.rows = tile.bytes = 0;
}

void zero(Tile& tile) {
  refuse_unless(configured && tile.rows > 0);
  std::memset(tile.at, 0, sizeof tile.at);
}

void load(Tile& tile, const void* from, size_t stride) {
  zero(tile);
  for (size_t r = 0; r < tile.rows; ++r)
    std::memcpy(tile.at[r], static_cast<const uint8_t*>(from) + r * stride, tile.bytes);
}

void store(const Tile& tile, void* to, size_t stride) {
  refuse_unless(configured && tile.rows > 0);
  for (size_t r = 0; r < tile.rows; ++r)
    std::memcpy(static_cast<uint8_t*>(to) + r * stride, tile.at[r], tile.bytes);
}

// TDPBSUD: signed bytes of a, unsigned of b, four at a time.
void add_products(Tile& sums, const Tile& a, const Tile& b) {
  refuse_unless(configured && sums.rows == a.rows && sums.bytes == b.bytes && a.bytes == 4 * b.rows);
  for (size_t m = 0; m < sums.rows; ++m)
    for (size_t n = 0; n < sums.bytes / 4; ++n) {
      int32_t sum;
      std::memcpy(&sum, &sums.at[m][4 * n], 4);
      for (size_t k = 0; k < b.rows; ++k)
        for (size_t i = 0; i < 4; ++i)
          sum += int32_t(int8_t(a.at[m][4 * k + i])) * int32_t(b.at[k][4 * n + i]);
      std::memcpy(&sums.at[m][4 * n], &sum, 4);
    }
}

}  // namespace

#define SWANN_AMX_EMULATED
#define SWANN_TILE_CONFIG(config) configure(config)
#define SWANN_TILE_RELEASE() release()
#define SWANN_TILE_ZERO(tile) zero(tiles[tile])
#define SWANN_TILE_LOAD(tile, from, stride) load(tiles[tile], from, stride)
#define SWANN_TILE_STORE(tile, to, stride) store(tiles[tile], to, stride)
#define SWANN_TILE_ADD_PRODUCTS(sums, queries, rows) add_products(tiles[sums], tiles[queries], tiles[rows])
#define SWANN_AMX_LEVEL "amx, emulated"
#define SWANN_PUT_AMX put_amx_emulated
#include "amx.cpp"

size_t selftest::refused_tiles() { return refused; }
