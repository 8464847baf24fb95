// The GIL, released and taken again.
//
// Up to Python 3.13, a thread that wants it back when the interpreter has ended is ended in its turn, by
// unwinding its stack, which must not pass a destructor. Here it waits for the end of the process, as
// it does in later versions.
#pragma once
#include <Python.h>

#include <chrono>
#include <thread>

namespace swann {

[[noreturn]] inline void await_the_end() noexcept {
  while (true) std::this_thread::sleep_for(std::chrono::hours(1));
}

class GilReleased {
 public:
  GilReleased() noexcept : state_(PyEval_SaveThread()) {}
  ~GilReleased() {
    try {
      PyEval_RestoreThread(state_);
    } catch (...) {
      await_the_end();
    }
  }
  GilReleased(const GilReleased&) = delete;
  GilReleased& operator=(const GilReleased&) = delete;

 private:
  PyThreadState* state_;
};

class GilAcquired {
 public:
  GilAcquired() noexcept {
    try {
      state_ = PyGILState_Ensure();
    } catch (...) {
      await_the_end();
    }
  }
  ~GilAcquired() { PyGILState_Release(state_); }
  GilAcquired(const GilAcquired&) = delete;
  GilAcquired& operator=(const GilAcquired&) = delete;

 private:
  PyGILState_STATE state_;
};

}  // namespace swann
