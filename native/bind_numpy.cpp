#include "bind_numpy.h"

#define NPY_NO_DEPRECATED_API NPY_1_7_API_VERSION
#include <numpy/arrayobject.h>

namespace swann {
namespace {

NewArray new_array(size_t size, int type) {
  npy_intp shape = npy_intp(size);
  PyObject* array = PyArray_SimpleNew(1, &shape, type);
  if (array == nullptr) {
    if (PyErr_ExceptionMatches(PyExc_ValueError)) {  // more than addresses reach
      PyErr_Clear();
      PyErr_NoMemory();
    }
    throw nb::python_error();
  }
  return {nb::steal(array), PyArray_DATA(reinterpret_cast<PyArrayObject*>(array))};
}

}  // namespace

void import_numpy() {
  if (_import_array() < 0) throw nb::python_error();
}

const float* plain_floats(nb::handle array, size_t dim) noexcept {
  if (!PyArray_CheckExact(array.ptr())) return nullptr;
  auto* const values = reinterpret_cast<PyArrayObject*>(array.ptr());
  const bool plain = PyArray_TYPE(values) == NPY_FLOAT && PyArray_ISCARRAY_RO(values) &&
                     PyArray_NDIM(values) == 1 && size_t(PyArray_DIM(values, 0)) == dim;
  return plain ? static_cast<const float*>(PyArray_DATA(values)) : nullptr;
}

NewArray new_int64(size_t size) { return new_array(size, NPY_INT64); }

NewArray new_float32(size_t size) { return new_array(size, NPY_FLOAT32); }

}  // namespace swann
