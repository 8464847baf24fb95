// Puts the kernels that every level from avx2 or neon up has, and the scalar one, into a table (kernels.h).
// Included inside a level file's unnamed namespace, after all of them.

inline void put_kernels(KernelTable& table) noexcept {
  table.dot_f32 = dot_f32;
  table.squared_l2_f32 = squared_l2_f32;
  table.dot_bf16 = dot_bf16;
  table.squared_l2_bf16 = squared_l2_bf16;
  table.dot_i8 = dot_i8;
  table.dot_gather_f32 = dot_gather_f32;
  table.squared_l2_gather_f32 = squared_l2_gather_f32;
  table.dot_gather_bf16 = dot_gather_bf16;
  table.squared_l2_gather_bf16 = squared_l2_gather_bf16;
  table.dot_gather_i8 = dot_gather_i8;
  table.dot_tiles_f32 = dot_tiles_f32;
  table.lut_f32 = lut_f32;
  table.lut_quantize_u8 = lut_quantize_u8;
  table.lut16_scan = lut16_scan;
  table.lut256_scan = lut256_scan;
  table.argmax_f32 = argmax_f32;
  table.at_least_f32 = at_least_f32;
  table.keep_best = keep_best;
  table.keys_from_f32 = keys_from_f32;
  table.least_of_best_f32 = least_of_best_f32;
  table.encode_tile = encode_tile;
  table.encode_one = encode_one;
  table.block_sums = block_sums;
  table.square_f64 = square_f64;
  table.add_row = add_row;
  table.round_i8 = round_i8;
  table.bounds_f32 = bounds_f32;
  table.spill_gains_f32 = spill_gains_f32;
}
