// Rows by leaf: in which order, and what their mean is.
#include <algorithm>
#include <vector>

#include "kernels.h"
#include "prefetch.h"
#include "threads.h"
#include "train.h"

namespace swann {

void sort_by_leaf(const uint32_t* labels, size_t count, size_t num_leaves, uint32_t* order,
                  uint32_t* starts) {
  std::fill_n(starts, num_leaves + 1, 0u);
  for (size_t i = 0; i < count; ++i) ++starts[labels[i] + 1];
  for (size_t l = 0; l < num_leaves; ++l) starts[l + 1] += starts[l];
  std::vector<uint32_t> next(starts, starts + num_leaves);
  for (size_t i = 0; i < count; ++i) order[next[labels[i]]++] = uint32_t(i);
}

void leaf_means(const float* rows, size_t dim, const uint32_t* order, const uint32_t* starts,
                size_t num_leaves, size_t threads, float* means) {
  const size_t bytes = dim * sizeof(float), ahead = rows_ahead(bytes);
  parallel_for(num_leaves, threads, [&](size_t leaf) {
    std::vector<double> sum(dim, 0.0);
    const uint32_t end = starts[leaf + 1];
    for (uint32_t i = starts[leaf]; i < end; ++i) {
      if (i + ahead < end) prefetch_bytes(rows + size_t(order[i + ahead]) * dim, bytes);
      const float* x = rows + size_t(order[i]) * dim;
      kernels().add_row(x, dim, sum.data());
    }
    const double inverse = 1.0 / std::max<double>(1.0, starts[leaf + 1] - starts[leaf]);
    for (size_t j = 0; j < dim; ++j) means[leaf * dim + j] = float(sum[j] * inverse);
  });
}

}  // namespace swann
