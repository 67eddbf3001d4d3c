// onnxruntime, through its C API. The library is loaded when it is needed, so that no version of it is linked, and an
// application without it still starts. Its API is a table of functions that only ever grows at its end; what is used
// here has been in it since version 1.14, and stands at the places below (onnxruntime_c_api.h, struct OrtApi).
#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "engine.hpp"
#include "error.hpp"

namespace edgevit {
namespace {

constexpr uint32_t kApiVersion = 14;
constexpr int kEnableAll = 99, kFatal = 4, kFloat = 1, kArenaAllocator = 1, kDefaultMemory = 0;

enum Place : size_t {
  kGetErrorMessage = 2,
  kCreateEnv = 3,
  kDisableTelemetryEvents = 6,
  kCreateSessionFromArray = 8,
  kRun = 9,
  kCreateSessionOptions = 10,
  kSetSessionLogSeverityLevel = 22,
  kSetSessionGraphOptimizationLevel = 23,
  kSetIntraOpNumThreads = 24,
  kSetInterOpNumThreads = 25,
  kSessionGetInputCount = 30,
  kSessionGetOutputCount = 31,
  kSessionGetInputTypeInfo = 33,
  kSessionGetOutputTypeInfo = 34,
  kSessionGetInputName = 36,
  kSessionGetOutputName = 37,
  kCreateTensorWithDataAsOrtValue = 49,
  kGetTensorMutableData = 51,
  kCastTypeInfoToTensorInfo = 55,
  kGetTensorElementType = 60,
  kGetDimensionsCount = 61,
  kGetDimensions = 62,
  kGetTensorShapeElementCount = 64,
  kGetTensorTypeAndShape = 65,
  kCreateCpuMemoryInfo = 69,
  kAllocatorFree = 76,
  kGetAllocatorWithDefaultOptions = 78,
  kReleaseEnv = 92,
  kReleaseStatus = 93,
  kReleaseMemoryInfo = 94,
  kReleaseSession = 95,
  kReleaseValue = 96,
  kReleaseTypeInfo = 98,
  kReleaseTensorTypeAndShapeInfo = 99,
  kReleaseSessionOptions = 100,
  kAddSessionConfigEntry = 130,
};

struct ApiBase {
  const void *(*get_api)(uint32_t version);
  const char *(*version)();
};

// The library and its table of functions; it is never unloaded, since it keeps threads.
class Library {
 public:
  explicit Library(const std::string &given) {
    std::vector<std::string> names;
    const char *named = std::getenv("EDGEVIT_ONNXRUNTIME");
    if (!given.empty()) {
      names = {given};
    } else if (named && *named) {
      names = {named};
    } else {
      names = {"libonnxruntime.so.1", "libonnxruntime.so"};
    }
    void *library = nullptr;
    for (const std::string &name : names) {
      if ((library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL))) break;
      const char *why = dlerror();
      if (problem.empty()) problem = why ? why : name + " cannot be loaded";
    }
    if (!library) {
      problem = "onnxruntime's library is not here (" + problem +
                "): install it, or name its path in $EDGEVIT_ONNXRUNTIME or edgevit_options";
      return;
    }
    problem.clear();
    const auto base = reinterpret_cast<const ApiBase *(*)()>(dlsym(library, "OrtGetApiBase"));
    if (!base || !(table_ = static_cast<void *const *>(base()->get_api(kApiVersion)))) {
      problem = "what was found is no onnxruntime, or one before 1.14: install a newer one";
      return;
    }
    version = base()->version();
  }

  std::string problem, version;

  template <typename Result, typename... Arguments>
  Result call(Place place, Arguments... arguments) const {
    return reinterpret_cast<Result (*)(Arguments...)>(table_[place])(arguments...);
  }

  // Calls what gives a status, and throws what it says.
  template <typename... Arguments>
  void must(Place place, Arguments... arguments) const {
    void *status = call<void *>(place, arguments...);
    if (!status) return;
    const char *text = call<const char *>(kGetErrorMessage, static_cast<const void *>(status));
    const std::string message = std::string("onnxruntime ") + version + " failed: " + text;
    call<void>(kReleaseStatus, status);
    throw Error(EDGEVIT_FAILED, message);
  }

 private:
  void *const *table_ = nullptr;
};

// Releases what onnxruntime made, when it goes.
class Owned {
 public:
  Owned(const Library &library, Place release) : library_(&library), release_(release) {}
  Owned(const Owned &) = delete;
  Owned &operator=(const Owned &) = delete;
  ~Owned() {
    if (made) library_->call<void>(release_, made);
  }
  void *made = nullptr;

 private:
  const Library *library_;
  Place release_;
};

class OnnxRuntime : public Engine {
 public:
  OnnxRuntime(const Library &library, const Content &model, InputSize size, int threads)
      : library_(library),
        memory_(library, kReleaseMemoryInfo),
        env_(library, kReleaseEnv),
        session_(library, kReleaseSession),
        input_shape_{1, size.channels, size.height, size.width} {
    Owned options(library, kReleaseSessionOptions);
    library_.must(kCreateEnv, kFatal, "edgevit", &env_.made);
    library_.must(kDisableTelemetryEvents, static_cast<const void *>(env_.made));
    library_.must(kCreateSessionOptions, &options.made);
    library_.must(kSetSessionGraphOptimizationLevel, options.made, kEnableAll);
    library_.must(kSetSessionLogSeverityLevel, options.made, kFatal);
    library_.must(kSetIntraOpNumThreads, options.made, threads);
    library_.must(kSetInterOpNumThreads, options.made, 1);
    // Threads spin while the model runs, and not on between runs, where the application needs the cores.
    library_.must(kAddSessionConfigEntry, options.made, "session.force_spinning_stop", "1");
    library_.must(kCreateSessionFromArray, static_cast<const void *>(env_.made), static_cast<const void *>(model.bytes),
                  model.size, static_cast<const void *>(options.made), &session_.made);
    library_.must(kCreateCpuMemoryInfo, kArenaAllocator, kDefaultMemory, &memory_.made);
    read_interface();
  }

  std::vector<float> infer(const std::vector<float> &input) override {
    Owned tensor(library_, kReleaseValue);
    library_.must(kCreateTensorWithDataAsOrtValue, static_cast<const void *>(memory_.made),
                  static_cast<void *>(const_cast<float *>(input.data())), input.size() * sizeof(float), input_shape_.data(),
                  input_shape_.size(), kFloat, &tensor.made);
    const char *input_name = input_.c_str();
    std::vector<const char *> names;
    for (const std::string &name : outputs_) names.push_back(name.c_str());
    std::vector<void *> values(names.size(), nullptr);
    struct Release {
      const Library &library;
      std::vector<void *> &values;
      ~Release() {
        for (void *value : values)
          if (value) library.call<void>(kReleaseValue, value);
      }
    } release{library_, values};
    const void *given = tensor.made;
    library_.must(kRun, session_.made, static_cast<const void *>(nullptr), &input_name, static_cast<const void *const *>(&given),
                  size_t(1), names.data(), names.size(), values.data());
    std::vector<float> found;
    for (void *value : values) {
      Owned shape(library_, kReleaseTensorTypeAndShapeInfo);
      library_.must(kGetTensorTypeAndShape, static_cast<const void *>(value), &shape.made);
      size_t count = 0;
      int type = 0;
      library_.must(kGetTensorShapeElementCount, static_cast<const void *>(shape.made), &count);
      library_.must(kGetTensorElementType, static_cast<const void *>(shape.made), &type);
      if (type != kFloat) throw Error(EDGEVIT_BAD_BUNDLE, "the model gives something else than float32");
      void *numbers = nullptr;
      library_.must(kGetTensorMutableData, value, &numbers);
      const float *first = static_cast<const float *>(numbers);
      found.insert(found.end(), first, first + count);
    }
    return found;
  }

  std::vector<std::vector<int64_t>> shapes() const override { return shapes_; }
  std::string name() const override { return "onnxruntime " + library_.version; }

 private:
  const Library &library_;
  Owned memory_, env_, session_;
  std::vector<int64_t> input_shape_;
  std::string input_;
  std::vector<std::string> outputs_;
  std::vector<std::vector<int64_t>> shapes_;

  std::string name_at(Place place, size_t index) const {
    void *allocator = nullptr;
    library_.must(kGetAllocatorWithDefaultOptions, &allocator);
    char *text = nullptr;
    library_.must(place, static_cast<const void *>(session_.made), index, allocator, &text);
    const std::string found = text;
    library_.must(kAllocatorFree, allocator, static_cast<void *>(text));
    return found;
  }

  std::vector<int64_t> shape_at(Place place, size_t index, int *type) const {
    Owned info(library_, kReleaseTypeInfo);
    library_.must(place, static_cast<const void *>(session_.made), index, &info.made);
    const void *tensor = nullptr;
    library_.must(kCastTypeInfoToTensorInfo, static_cast<const void *>(info.made), &tensor);
    if (!tensor) throw Error(EDGEVIT_BAD_BUNDLE, "the model takes or gives something else than tensors");
    size_t rank = 0;
    library_.must(kGetTensorElementType, tensor, type);
    library_.must(kGetDimensionsCount, tensor, &rank);
    std::vector<int64_t> found(rank);
    library_.must(kGetDimensions, tensor, found.data(), rank);
    return found;
  }

  void read_interface() {
    size_t inputs = 0, outputs = 0;
    library_.must(kSessionGetInputCount, static_cast<const void *>(session_.made), &inputs);
    library_.must(kSessionGetOutputCount, static_cast<const void *>(session_.made), &outputs);
    if (inputs != 1 || outputs < 1) throw Error(EDGEVIT_BAD_BUNDLE, "the model has not one input");
    int type = 0;
    const std::vector<int64_t> shape = shape_at(kSessionGetInputTypeInfo, 0, &type);
    if (type != kFloat) throw Error(EDGEVIT_BAD_BUNDLE, "the variant takes pixels, which this library does not: pack another");
    if (shape.size() != 4) throw Error(EDGEVIT_BAD_BUNDLE, "the model does not take images");
    input_ = name_at(kSessionGetInputName, 0);
    for (size_t at = 0; at < outputs; ++at) {
      outputs_.push_back(name_at(kSessionGetOutputName, at));
      std::vector<int64_t> each = shape_at(kSessionGetOutputTypeInfo, at, &type);
      if (!each.empty()) each.erase(each.begin());
      shapes_.push_back(each);
    }
  }
};

const Library &library_of(const EngineOptions &options) {
  // One for each path: two of them in a process would be two engines.
  static std::map<std::string, std::unique_ptr<Library>> known;
  static std::mutex guard;
  const std::lock_guard<std::mutex> lock(guard);
  std::unique_ptr<Library> &found = known[options.onnxruntime];
  if (!found || !found->problem.empty()) found = std::make_unique<Library>(options.onnxruntime);
  return *found;
}

}  // namespace

std::string onnxruntime_unavailable(const EngineOptions &options) { return library_of(options).problem; }

std::unique_ptr<Engine> open_onnxruntime(const Bundle &bundle, const Variant &variant, InputSize size, const EngineOptions &options) {
  const Library &library = library_of(options);
  if (!library.problem.empty()) throw Error(EDGEVIT_MISSING, library.problem);
  if (variant.files.size() != 1)
    throw Error(EDGEVIT_BAD_BUNDLE, "variant " + variant.name + " keeps weights in files of their own, which this library does not read");
  return std::make_unique<OnnxRuntime>(library, bundle.verified(variant.files[0]), size, options.threads);
}

}  // namespace edgevit
