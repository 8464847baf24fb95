// Datapoints and queries go to the space of the centroids and codes.
#include "projection.h"
#include "search.h"

namespace swann {

const float* reduce(const IndexView& index, const float* vectors, size_t count, size_t threads,
                    std::vector<float>& buffer) {
  if (!index.projects()) return vectors;
  buffer.resize(count * index.reduced_dim);
  project_rows(vectors, count, index.dim, index.projection, index.reduced_dim, threads,
               buffer.data());
  return buffer.data();
}

const float* reduce_queries(const IndexView& index, const float* queries, size_t count,
                            size_t threads, std::vector<float>& buffer) {
  if (!index.projects()) return queries;
  buffer.resize(count * index.reduced_dim);
  project_queries(queries, count, index.dim, index.projection, index.rounded_projection,
                  index.reduced_dim, threads, buffer.data());
  return buffer.data();
}

}  // namespace swann
