// What a long native call holds, of building or of many queries: the GIL is released, interrupts are heard.
#pragma once
#include "bind_arrays.h"
#include "threads.h"

namespace swann {

class LongCall {
 public:
  LongCall() : interruptible_(&raise_signals) {}

 private:
  static void raise_signals() {
    const nb::gil_scoped_acquire acquired;
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
  }

  nb::gil_scoped_release released_;
  Interruptible interruptible_;
};

}  // namespace swann
