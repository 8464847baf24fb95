// How many times `each` it takes to hold `count`.
#pragma once
#include <cstddef>

namespace swann {

constexpr size_t ceil_div(size_t count, size_t each) noexcept { return (count + each - 1) / each; }

}  // namespace swann
