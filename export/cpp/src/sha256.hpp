// SHA-256, FIPS 180-4.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace edgevit {

// The digest of `size` bytes as 64 hexadecimal digits in lower case.
std::string sha256(const uint8_t *content, size_t size);

}  // namespace edgevit
