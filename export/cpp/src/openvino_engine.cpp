// OpenVINO, through its C++ API; built where CMake finds it.
#include "engine.hpp"
#include "error.hpp"

#ifdef EDGEVIT_WITH_OPENVINO

#include <algorithm>
#include <mutex>
#include <openvino/openvino.hpp>

namespace edgevit {
namespace {

// EdgeViT's own settings, which are none of OpenVINO's.
const char *const kOwn[] = {"DEVICE", "INPUT", "CACHE"};

ov::Core &core() {
  static ov::Core *const shared = new ov::Core;  // never freed: its plugins keep threads
  return *shared;
}

bool has_bf16() {
  const auto found = core().get_property("CPU", ov::device::capabilities);
  return std::find(found.begin(), found.end(), ov::device::capability::BF16) != found.end();
}

ov::AnyMap properties_of(const Variant &variant, int threads) {
  // As the Python runtime opens a model: nothing is rounded that was not measured so.
  std::map<std::string, std::string> chosen = {{"PERFORMANCE_HINT", "LATENCY"},
                                               {"INFERENCE_PRECISION_HINT", "f32"},
                                               {"DYNAMIC_QUANTIZATION_GROUP_SIZE", "0"}};
  for (const auto &[name, value] : variant.settings) chosen[name] = value;
  if (threads) chosen["INFERENCE_NUM_THREADS"] = std::to_string(threads);
  if (chosen["INFERENCE_PRECISION_HINT"] == "bf16" && !has_bf16()) chosen["INFERENCE_PRECISION_HINT"] = "f32";
  for (const char *name : kOwn) chosen.erase(name);
  if (chosen.count("NUM_STREAMS") && chosen["NUM_STREAMS"] == "HINT") chosen.erase("NUM_STREAMS");
  if (chosen.count("INFERENCE_NUM_THREADS") && chosen["INFERENCE_NUM_THREADS"] == "0") chosen.erase("INFERENCE_NUM_THREADS");
  ov::AnyMap found;
  for (const auto &[name, value] : chosen) found[name] = value;  // a std::string: a char* is misread
  return found;
}

class OpenVINO : public Engine {
 public:
  OpenVINO(const Bundle &bundle, const Variant &variant, InputSize size, int threads) {
    const auto device = variant.settings.find("DEVICE");
    if (device != variant.settings.end() && device->second != "CPU")
      throw Error(EDGEVIT_BAD_BUNDLE, "variant " + variant.name + " is for OpenVINO's " + device->second + ": this library opens those for the CPU");
    for (const VariantFile &file : variant.files) contents_.push_back(bundle.verified(file));
    std::shared_ptr<ov::Model> model = read();
    if (model->inputs().size() != 1 || model->inputs()[0].get_element_type() != ov::element::f32)
      throw Error(EDGEVIT_BAD_BUNDLE, "the variant takes pixels, which this library does not: pack another");
    shape_ = {1, static_cast<size_t>(size.channels), static_cast<size_t>(size.height), static_cast<size_t>(size.width)};
    const ov::PartialShape given = model->inputs()[0].get_partial_shape();
    if (!given.compatible(ov::PartialShape(shape_)))
      throw Error(EDGEVIT_BAD_BUNDLE, "variant " + variant.name + " takes several images at once: pack one for batch 1");
    model->reshape(ov::PartialShape(shape_));
    compiled_ = core().compile_model(model, "CPU", properties_of(variant, threads));
    for (const auto &output : compiled_.outputs()) {
      const ov::Shape shape = output.get_shape();
      shapes_.emplace_back(shape.begin() + (shape.empty() ? 0 : 1), shape.end());
    }
  }

  std::vector<float> infer(const std::vector<float> &input) override {
    ov::InferRequest request = borrow();
    struct Return {
      OpenVINO &engine;
      ov::InferRequest &request;
      ~Return() {
        const std::lock_guard<std::mutex> lock(engine.guard_);
        engine.idle_.push_back(request);
      }
    } back{*this, request};
    request.set_input_tensor(ov::Tensor(ov::element::f32, shape_, const_cast<float *>(input.data())));
    request.infer();
    std::vector<float> found;
    for (size_t at = 0; at < shapes_.size(); ++at) {
      const ov::Tensor tensor = request.get_output_tensor(at);
      const float *first = tensor.data<float>();
      found.insert(found.end(), first, first + tensor.get_size());
    }
    return found;
  }

  std::vector<std::vector<int64_t>> shapes() const override { return shapes_; }
  std::string name() const override {
    const std::string whole = ov::get_openvino_version().buildNumber;
    return "openvino " + whole.substr(0, whole.find('-'));
  }

 private:
  std::vector<Content> contents_;  // weights are used where they are
  ov::Shape shape_;
  ov::CompiledModel compiled_;
  std::vector<std::vector<int64_t>> shapes_;
  std::mutex guard_;
  std::vector<ov::InferRequest> idle_;

  std::shared_ptr<ov::Model> read() const {
    const std::string text(reinterpret_cast<const char *>(contents_[0].bytes), contents_[0].size);
    if (contents_.size() == 1) return core().read_model(text, ov::Tensor());
    if (contents_.size() != 2) throw Error(EDGEVIT_BAD_BUNDLE, "the variant is no IR of two files");
    const Content &weights = contents_[1];
    return core().read_model(text, ov::Tensor(ov::element::u8, {weights.size}, const_cast<uint8_t *>(weights.bytes)));
  }

  ov::InferRequest borrow() {
    {
      const std::lock_guard<std::mutex> lock(guard_);
      if (!idle_.empty()) {
        ov::InferRequest found = idle_.back();
        idle_.pop_back();
        return found;
      }
    }
    return compiled_.create_infer_request();
  }
};

}  // namespace

std::string openvino_unavailable() { return ""; }

std::unique_ptr<Engine> open_openvino(const Bundle &bundle, const Variant &variant, InputSize size, const EngineOptions &options) {
  try {
    return std::make_unique<OpenVINO>(bundle, variant, size, options.threads);
  } catch (const ov::Exception &error) {
    throw Error(EDGEVIT_FAILED, std::string("OpenVINO cannot load variant ") + variant.name + ": " + error.what());
  }
}

}  // namespace edgevit

#else

namespace edgevit {

std::string openvino_unavailable() { return "this library was built without OpenVINO: build it with -DOpenVINO_DIR=..."; }

std::unique_ptr<Engine> open_openvino(const Bundle &, const Variant &, InputSize, const EngineOptions &) {
  throw Error(EDGEVIT_MISSING, openvino_unavailable());
}

}  // namespace edgevit

#endif
