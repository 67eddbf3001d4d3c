// The error that every part throws, and that the C API turns into a status and a text.
#pragma once

#include <stdexcept>
#include <string>

#include "edgevit/edgevit.h"

namespace edgevit {

class Error : public std::runtime_error {
 public:
  Error(edgevit_status status, const std::string &message) : std::runtime_error(message), status(status) {}
  edgevit_status status;
};

}  // namespace edgevit
