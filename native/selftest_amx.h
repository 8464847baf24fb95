// Level amx with its tiles in plain C++ (amx_emulated.cpp), where the compiler is for x86-64.
#pragma once
#include <cstddef>

#include "kernels.h"

namespace swann {
void put_amx_emulated(KernelTable& table) noexcept;
}

namespace selftest {
size_t refused_tiles();  // instructions so far that a machine would have refused
}
