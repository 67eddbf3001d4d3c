// An inference engine that has a variant loaded; any number of threads may run it at once.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bundle.hpp"
#include "edgevit/edgevit.h"

namespace edgevit {

class Engine {
 public:
  virtual ~Engine() = default;
  // All outputs of one image (channels, height, width), one after the other.
  virtual std::vector<float> infer(const std::vector<float> &input) = 0;
  // The shapes of the outputs for one image.
  virtual std::vector<std::vector<int64_t>> shapes() const = 0;
  // Its name and version.
  virtual std::string name() const = 0;
};

struct InputSize {
  int channels, height, width;
};

struct EngineOptions {
  std::string onnxruntime;  // path of the library; empty to look for it
  int threads;
};

// Why the engine cannot be had here; empty where it can.
std::string onnxruntime_unavailable(const EngineOptions &options);
std::string openvino_unavailable();
std::string tensorrt_unavailable();

std::unique_ptr<Engine> open_onnxruntime(const Bundle &bundle, const Variant &variant, InputSize size, const EngineOptions &options);
std::unique_ptr<Engine> open_openvino(const Bundle &bundle, const Variant &variant, InputSize size, const EngineOptions &options);
std::unique_ptr<Engine> open_tensorrt(const Bundle &bundle, const Variant &variant, InputSize size);

}  // namespace edgevit
