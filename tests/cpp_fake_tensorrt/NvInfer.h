// What export/cpp uses of TensorRT 10, written from its documentation, with an engine that gives its first pixels back.
// It shows that the library compiles and minds its memory; it proves nothing of TensorRT.
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <string>

#include "cuda_runtime_api.h"

extern "C" inline int32_t getInferLibVersion() noexcept { return 101601; }

namespace nvinfer1 {

enum class DataType : int32_t { kFLOAT = 0, kHALF = 1 };
enum class TensorIOMode : int32_t { kNONE = 0, kINPUT = 1, kOUTPUT = 2 };

struct Dims64 {
  static constexpr int32_t MAX_DIMS = 8;
  int32_t nbDims;
  int64_t d[MAX_DIMS];
};
using Dims = Dims64;

class ILogger {
 public:
  enum class Severity : int32_t { kINTERNAL_ERROR = 0, kERROR = 1, kWARNING = 2, kINFO = 3, kVERBOSE = 4 };
  virtual void log(Severity severity, const char *message) noexcept = 0;
  virtual ~ILogger() = default;
};

struct Fake {
  int64_t channels, height, width, classes;
  DataType type;
};

class IExecutionContext {
 public:
  explicit IExecutionContext(Fake fake, ILogger &log) : fake_(fake), log_(log) {}
  virtual ~IExecutionContext() = default;
  bool setInputShape(const char *, const Dims &dims) noexcept { return dims.d[0] == 1; }
  bool setTensorAddress(const char *name, void *memory) noexcept { return memory_[name] = memory, true; }
  bool enqueueV3(cudaStream_t) noexcept {
    const float *in = static_cast<float *>(memory_["images"]);
    if (in[0] > 1e3f) return log_.log(ILogger::Severity::kERROR, "the fake is out of range"), false;
    std::memcpy(memory_["logits"], in, static_cast<size_t>(fake_.classes) * sizeof(float));
    return true;
  }

 private:
  Fake fake_;
  ILogger &log_;
  std::map<std::string, void *> memory_;
};

class ICudaEngine {
 public:
  ICudaEngine(Fake fake, ILogger &log) : fake_(fake), log_(log) {}
  virtual ~ICudaEngine() = default;
  IExecutionContext *createExecutionContext() noexcept { return new IExecutionContext(fake_, log_); }
  int32_t getNbIOTensors() const noexcept { return 2; }
  const char *getIOTensorName(int32_t at) const noexcept { return at ? "images" : "logits"; }
  Dims getTensorShape(const char *name) const noexcept {
    if (std::string(name) == "images") return {4, {-1, fake_.channels, fake_.height, fake_.width}};
    return {2, {-1, fake_.classes}};
  }
  TensorIOMode getTensorIOMode(const char *name) const noexcept {
    return std::string(name) == "images" ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
  }
  DataType getTensorDataType(const char *) const noexcept { return fake_.type; }

 private:
  Fake fake_;
  ILogger &log_;
};

class IRuntime {
 public:
  explicit IRuntime(ILogger &log) : log_(log) {}
  virtual ~IRuntime() = default;
  ICudaEngine *deserializeCudaEngine(const void *content, size_t size) noexcept {
    Fake fake{};
    int type = 0;
    const std::string text(static_cast<const char *>(content), size);
    if (std::sscanf(text.c_str(), "FAKE %ld %ld %ld %ld %d", &fake.channels, &fake.height, &fake.width, &fake.classes, &type) != 5)
      return log_.log(ILogger::Severity::kERROR, "the fake knows no such engine"), nullptr;
    fake.type = static_cast<DataType>(type);
    return new ICudaEngine(fake, log_);
  }

 private:
  ILogger &log_;
};

inline IRuntime *createInferRuntime(ILogger &log) noexcept { return new IRuntime(log); }

}  // namespace nvinfer1
