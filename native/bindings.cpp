// The Python module. Arrays arrive checked by swann.kernels; the binding files check sizes again,
// because behind them pointers are trusted.
#include "bind_arrays.h"
#include "bind_numpy.h"
#include "threads.h"

NB_MODULE(_native, m) {
  using namespace swann;
  import_numpy();
  nb::set_leak_warnings(false);  // what a program still holds when it ends is no leak
  m.def("hardware_threads", &hardware_threads);
  bind_index(m);
  bind_building(m);
  bind_kernels(m);
  bind_projection(m);
}
