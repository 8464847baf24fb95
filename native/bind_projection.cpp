// The Python side of projections: arrays are checked here, and trusted behind this file.
#include <nanobind/stl/optional.h>

#include "bind_arrays.h"
#include "bind_long_call.h"
#include "projection.h"

namespace swann {
namespace {

void project(In<float, 2> rows, std::optional<In<float, 2>> basis, Out<float, 2> out,
             size_t threads) {
  const size_t count = rows.shape(0), dim = rows.shape(1), reduced = out.shape(1);
  expect(out.shape(0) == count && reduced >= 1, "out must be [count][reduced]");
  expect(basis ? basis->shape(0) == reduced && basis->shape(1) == dim : reduced <= dim,
         "basis must be [reduced][dim]; without one, reduced must be at most dim");
  const LongCall call;
  project_rows(rows.data(), count, dim, pointer(basis), reduced, threads, out.data());
}

void moments(In<float, 2> rows, In<double, 1> shift, double scale, Out<double, 1> sums,
             Out<double, 2> products, size_t threads) {
  const size_t dim = rows.shape(1);
  expect(shift.shape(0) == dim && sums.shape(0) == dim, "shift and sums must be [dim]");
  expect(products.shape(0) == dim && products.shape(1) == dim, "products must be [dim][dim]");
  const LongCall call;
  add_moments(rows.data(), rows.shape(0), dim, shift.data(), scale, threads, sums.data(),
              products.data());
}

void eigen(Out<double, 2> matrix, Out<double, 1> values, size_t threads) {
  const size_t n = matrix.shape(0);
  expect(n >= 1 && matrix.shape(1) == n && values.shape(0) == n, "matrix: [n][n], values: [n]");
  const LongCall call;
  symmetric_eigen(matrix.data(), n, threads, values.data());
}

}  // namespace

void bind_projection(nb::module_& module) {
  module.def("project_rows", &project, nb::arg().noconvert(), nb::arg().none().noconvert(),
             nb::arg().noconvert(), nb::arg());
  module.def("add_moments", &moments, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg(),
             nb::arg().noconvert(), nb::arg().noconvert(), nb::arg());
  module.def("symmetric_eigen", &eigen, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg());
}

}  // namespace swann
