// What a long native call holds, of building or of many queries: the GIL is released, interrupts are heard.
#pragma once
#include "bind_arrays.h"
#include "bind_gil.h"
#include "threads.h"

namespace swann {

class LongCall {
 public:
  LongCall() : interruptible_(&raise_signals) {}

 private:
  static void raise_signals() {
    const GilAcquired acquired;
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
  }

  GilReleased released_;
  Interruptible interruptible_;
};

}  // namespace swann
