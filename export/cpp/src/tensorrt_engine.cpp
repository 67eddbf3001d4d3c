// TensorRT, through its C++ API; built where CMake finds its headers and CUDA's.
#include "engine.hpp"
#include "error.hpp"

#ifdef EDGEVIT_WITH_TENSORRT

#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <mutex>

namespace edgevit {
namespace {

class Log : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const char *message) noexcept override {
    if (severity > Severity::kERROR) return;
    const std::lock_guard<std::mutex> lock(guard_);
    last_ = message;
  }
  std::string last() {
    const std::lock_guard<std::mutex> lock(guard_);
    return last_.empty() ? "it does not say why" : last_;
  }

 private:
  std::mutex guard_;
  std::string last_;
};

void check(cudaError_t status, const char *what) {
  if (status != cudaSuccess) throw Error(EDGEVIT_FAILED, std::string("CUDA cannot ") + what + ": " + cudaGetErrorString(status));
}

struct Tensor {
  std::string name;
  std::vector<int64_t> shape;  // for one image, without the batch
  size_t values;
};

// What one image at a time is run with: a context, a stream, and memory on the GPU for each tensor.
class Lane {
 public:
  Lane(nvinfer1::ICudaEngine &engine, const std::vector<Tensor> &tensors, const nvinfer1::Dims &input, Log &log) : tensors_(tensors) {
    context_.reset(engine.createExecutionContext());
    if (!context_) throw Error(EDGEVIT_FAILED, "TensorRT makes no context of the engine: " + log.last());
    check(cudaStreamCreate(&stream_), "make a stream");
    try {
      for (const Tensor &tensor : tensors_) {
        void *memory = nullptr;
        check(cudaMalloc(&memory, tensor.values * sizeof(float)), "reserve memory");
        memory_.push_back(memory);
        if (!context_->setTensorAddress(tensor.name.c_str(), memory))
          throw Error(EDGEVIT_FAILED, "TensorRT does not take the memory of " + tensor.name + ": " + log.last());
      }
      if (!context_->setInputShape(tensors_[0].name.c_str(), input))
        throw Error(EDGEVIT_BAD_BUNDLE, "the engine does not take one image at a time: build it with a batch of 1 to N");
    } catch (...) {
      release();
      throw;
    }
  }
  ~Lane() { release(); }
  Lane(const Lane &) = delete;
  Lane &operator=(const Lane &) = delete;

  std::vector<float> run(const std::vector<float> &input, Log &log) {
    check(cudaMemcpyAsync(memory_[0], input.data(), input.size() * sizeof(float), cudaMemcpyHostToDevice, stream_), "copy the image");
    const bool queued = context_->enqueueV3(stream_);
    size_t total = 0;
    for (size_t at = 1; at < tensors_.size(); ++at) total += tensors_[at].values;
    std::vector<float> found(total);
    size_t place = 0;
    for (size_t at = 1; queued && at < tensors_.size(); ++at) {
      const size_t bytes = tensors_[at].values * sizeof(float);
      check(cudaMemcpyAsync(found.data() + place, memory_[at], bytes, cudaMemcpyDeviceToHost, stream_), "copy the answer");
      place += tensors_[at].values;
    }
    check(cudaStreamSynchronize(stream_), "finish");  // nothing is read or freed before that
    if (!queued) throw Error(EDGEVIT_FAILED, "TensorRT cannot run the engine: " + log.last());
    return found;
  }

 private:
  std::vector<Tensor> tensors_;  // the input, then the outputs
  std::unique_ptr<nvinfer1::IExecutionContext> context_;
  cudaStream_t stream_ = nullptr;
  std::vector<void *> memory_;

  void release() {
    context_.reset();
    for (void *each : memory_) cudaFree(each);
    if (stream_) cudaStreamDestroy(stream_);
  }
};

class TensorRT : public Engine {
 public:
  TensorRT(const Bundle &bundle, const Variant &variant, InputSize size) {
    const VariantFile &file = variant.files[0];
    if (file.path.size() < 7 || file.path.compare(file.path.size() - 7, 7, ".engine") != 0)
      throw Error(EDGEVIT_MISSING, "variant " + variant.name + " has no engine yet: build it on this device with 'edgevit build'");
    const Content content = bundle.verified(file);
    runtime_.reset(nvinfer1::createInferRuntime(log_));
    if (!runtime_) throw Error(EDGEVIT_MISSING, "TensorRT does not start: " + log_.last());
    engine_.reset(runtime_->deserializeCudaEngine(content.bytes, content.size));
    if (!engine_)
      throw Error(EDGEVIT_MISSING, "TensorRT " + version() + " cannot load variant " + variant.name + ": " + log_.last() + ": build it on this device with 'edgevit build'");
    describe(variant, size);
    idle_.push_back(lane());  // what cannot run is said now
  }

  std::vector<float> infer(const std::vector<float> &input) override {
    std::unique_ptr<Lane> lane = borrow();
    std::vector<float> found = lane->run(input, log_);
    const std::lock_guard<std::mutex> lock(guard_);
    idle_.push_back(std::move(lane));  // one that has failed is not used again
    return found;
  }

  std::vector<std::vector<int64_t>> shapes() const override {
    std::vector<std::vector<int64_t>> found;
    for (size_t at = 1; at < tensors_.size(); ++at) found.push_back(tensors_[at].shape);
    return found;
  }
  std::string name() const override { return "tensorrt " + version(); }

 private:
  Log log_;  // outlives what writes to it
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  std::vector<Tensor> tensors_;
  nvinfer1::Dims input_{};
  std::mutex guard_;
  std::vector<std::unique_ptr<Lane>> idle_;

  static std::string version() {
    const int whole = getInferLibVersion();  // 8601 is 8.6.1, 101601 is 10.16.1
    const int wide = whole < 10000 ? 1000 : 10000, rest = whole % wide;
    return std::to_string(whole / wide) + "." + std::to_string(rest / 100) + "." + std::to_string(rest % 100);
  }

  void describe(const Variant &variant, InputSize size) {
    std::vector<Tensor> outputs;
    for (int at = 0; at < engine_->getNbIOTensors(); ++at) {
      const char *name = engine_->getIOTensorName(at);
      const nvinfer1::Dims dims = engine_->getTensorShape(name);
      const bool taken = engine_->getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT;
      if (engine_->getTensorDataType(name) != nvinfer1::DataType::kFLOAT || dims.nbDims < 1)
        throw Error(EDGEVIT_BAD_BUNDLE, "variant " + variant.name + " takes or gives no float32, which this library does not: pack another");
      Tensor tensor{name, {}, 1};
      for (int axis = 1; axis < dims.nbDims; ++axis) {
        if (dims.d[axis] < 1) throw Error(EDGEVIT_BAD_BUNDLE, "variant " + variant.name + " has a tensor of no fixed size: " + name);
        tensor.shape.push_back(dims.d[axis]);
        tensor.values *= static_cast<size_t>(dims.d[axis]);
      }
      if (!taken) {
        outputs.push_back(tensor);
        continue;
      }
      const std::vector<int64_t> wanted = {size.channels, size.height, size.width};
      if (!tensors_.empty() || tensor.shape != wanted)
        throw Error(EDGEVIT_BAD_BUNDLE, "variant " + variant.name + " does not take the images that its manifest names");
      input_ = dims;
      input_.d[0] = 1;
      tensors_.push_back(tensor);
    }
    if (tensors_.empty() || outputs.empty()) throw Error(EDGEVIT_BAD_BUNDLE, "variant " + variant.name + " has no input, or no output");
    tensors_.insert(tensors_.end(), outputs.begin(), outputs.end());
  }

  std::unique_ptr<Lane> lane() { return std::make_unique<Lane>(*engine_, tensors_, input_, log_); }

  std::unique_ptr<Lane> borrow() {
    const std::lock_guard<std::mutex> lock(guard_);
    if (idle_.empty()) return lane();  // TensorRT makes contexts one by one
    std::unique_ptr<Lane> found = std::move(idle_.back());
    idle_.pop_back();
    return found;
  }
};

}  // namespace

std::string tensorrt_unavailable() { return ""; }

std::unique_ptr<Engine> open_tensorrt(const Bundle &bundle, const Variant &variant, InputSize size) {
  return std::make_unique<TensorRT>(bundle, variant, size);
}

}  // namespace edgevit

#else

namespace edgevit {

std::string tensorrt_unavailable() {
  return "this library was built without TensorRT: build it where TensorRT's headers are, with -DEDGEVIT_TENSORRT=ON";
}

std::unique_ptr<Engine> open_tensorrt(const Bundle &, const Variant &, InputSize) {
  throw Error(EDGEVIT_MISSING, tensorrt_unavailable());
}

}  // namespace edgevit

#endif
