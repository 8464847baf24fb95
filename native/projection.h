// The space of the centroids and codes where it has fewer dimensions than the datapoints: their
// first dimensions, or what they measure along orthonormal directions; and the finding of these.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace swann {

// Rows [count][dim] in the reduced space, out [count][reduced]: dot products with the rows of basis
// [reduced][dim], or the first dimensions where basis is null. A row's result does not depend on
// the others.
void project_rows(const float* rows, size_t count, size_t dim, const float* basis, size_t reduced,
                  size_t threads, float* out);

// A basis whose values are whole numbers of steps, 127 at most; queries are projected by these.
struct RoundedBasis {
  std::vector<uint8_t> bytes;  // [groups][quads][16][4], 128 more than the numbers
  size_t groups = 0;           // of sixteen rows
  float step = 0;

  bool empty() const noexcept { return bytes.empty(); }
};

// Empty where the values are none such.
RoundedBasis rounded_basis(const float* basis, size_t reduced, size_t dim);

// Queries in the reduced space of a basis. With a rounded one they are rounded, too, to 63 steps either
// way: integers are multiplied, and every level gives the same bits. A query whose greatest value is
// over eight times the root mean square would lose too much, and is projected as rows are.
void project_queries(const float* queries, size_t count, size_t dim, const float* basis,
                     const RoundedBasis& rounded, size_t reduced, size_t threads, float* out);

// The vector [dim] that a reduced one [reduced] stands for.
void unproject_row(const float* row, size_t dim, const float* basis, size_t reduced, float* out);

// With y = scale (x - shift) for each of the rows x: adds their sum to sums [dim], and the products
// y_i y_j to products [dim][dim], below the diagonal and on it. Products are added up in float32
// for 512 rows at most, then in double.
void add_moments(const float* rows, size_t count, size_t dim, const double* shift, double scale,
                 size_t threads, double* sums, double* products);

// The eigenvalues of a symmetric matrix [n][n], descending, and its eigenvectors, which replace it:
// row k belongs to values[k]. The same bits on any number of threads. About 8 n^3 operations.
void symmetric_eigen(double* matrix, size_t n, size_t threads, double* values);

}  // namespace swann
