#include "edgevit/edgevit.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "bundle.hpp"
#include "engine.hpp"
#include "error.hpp"
#include "json.hpp"
#include "preprocess.hpp"

using namespace edgevit;

struct edgevit_model {
  std::unique_ptr<Bundle> bundle;
  Preprocess preprocess;
  std::string variant, engine_name;
  std::unique_ptr<Engine> engine;
  std::vector<Output> outputs;
  size_t values = 0, labelled_at = 0;
};

namespace {

thread_local std::string last_error;

// A message that can be shown: names in it may come from anywhere.
std::string printable(std::string_view text) {
  std::string found;
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    const bool shown = length > 1 || (length == 1 && text[0] >= 0x20 && text[0] != 0x7F) || text[0] == '\n';
    found += shown ? text.substr(0, length) : "?";
    text.remove_prefix(std::max<size_t>(1, length));
  }
  return found;
}

// Runs a call of the C API: nothing is thrown into C.
template <typename Call>
edgevit_status guarded(Call call) {
  try {
    call();
    return EDGEVIT_OK;
  } catch (const Error &error) {
    last_error = printable(error.what());
    return error.status;
  } catch (const std::bad_alloc &) {
    last_error = "there is not enough memory";
    return EDGEVIT_FAILED;
  } catch (const std::exception &error) {
    last_error = printable(std::string("the engine failed: ") + error.what());
    return EDGEVIT_FAILED;
  }
}

[[noreturn]] void bad(const std::string &message) { throw Error(EDGEVIT_BAD_ARGUMENT, message); }

std::string unavailable(const Variant &variant, const EngineOptions &options) {
  if (variant.backend == "onnxruntime") return onnxruntime_unavailable(options);
  if (variant.backend == "openvino") return openvino_unavailable();
  if (variant.backend == "tensorrt") return tensorrt_unavailable();
  return variant.backend + " is no engine that this library knows";
}

// What sorts the best variant first, as in Python: the fastest that was measured and passed, then INT8 that passed, then
// float32, then the rest; behind these what a race did not show to keep a limit on what it costs.
std::pair<int, double> rank(const Variant &variant) {
  if (!variant.passed) return {9, 0};
  if (!variant.measured) return {8, 0};
  const int behind = variant.dear ? 4 : 0;
  if (variant.milliseconds >= 0) return {behind, variant.milliseconds};
  return {behind + (variant.precision == "int8" ? 1 : variant.precision == "float32" ? 2 : 3), 0};
}

const Variant &chosen(const Bundle &bundle, const char *named, const EngineOptions &options) {
  std::string names, reasons;
  const Variant *best = nullptr;
  for (const Variant &variant : bundle.variants) {
    names += (names.empty() ? "" : ", ") + variant.name;
    const bool wanted = named && variant.name == named;
    if (named && !wanted) continue;
    const std::string problem = unavailable(variant, options);
    if (!problem.empty()) {
      if (wanted) throw Error(EDGEVIT_MISSING, problem);
      reasons = problem;
      continue;
    }
    if (!best || rank(variant) < rank(*best)) best = &variant;
  }
  if (!best && named) bad(std::string("there is no variant '") + named + "': there are " + names);
  if (!best) throw Error(EDGEVIT_MISSING, "none of " + names + " can run here: " + reasons);
  return *best;
}

void describe_outputs(edgevit_model &model) {
  const std::vector<std::vector<int64_t>> shapes = model.engine->shapes();
  model.outputs = model.bundle->outputs;
  if (shapes.size() != model.outputs.size()) throw Error(EDGEVIT_BAD_BUNDLE, "the model has not the outputs that its manifest names");
  for (size_t at = 0; at < shapes.size(); ++at) {
    Output &output = model.outputs[at];
    if (output.shape == std::vector<int64_t>{0}) output.shape = shapes[at];
    bool same = output.shape.size() == shapes[at].size();
    for (size_t axis = 0; same && axis < shapes[at].size(); ++axis)
      same = shapes[at][axis] < 1 || shapes[at][axis] == output.shape[axis];
    if (!same) throw Error(EDGEVIT_BAD_BUNDLE, "output " + output.name + " has not the shape that its manifest names");
    if (at == model.bundle->labelled) model.labelled_at = model.values;
    model.values += output.values();
  }
}

std::vector<float> answer(edgevit_model &model, const edgevit_image *image) {
  if (!image) bad("the image is NULL");
  std::vector<float> values = model.engine->infer(model.preprocess(*image));
  if (values.size() != model.values) throw Error(EDGEVIT_FAILED, "the model gave another number of values than it should");
  for (const float value : values)
    if (!std::isfinite(value)) throw Error(EDGEVIT_FAILED, "the model answered with values that are not finite numbers: open the variant float32");
  return values;
}

// The logits as what labels are sorted by: of a single one those of no and yes.
std::vector<double> scores_of(const edgevit_model &model, const std::vector<float> &values) {
  const size_t count = model.outputs[model.bundle->labelled].values();
  std::vector<double> found(values.begin() + static_cast<std::ptrdiff_t>(model.labelled_at),
                            values.begin() + static_cast<std::ptrdiff_t>(model.labelled_at + count));
  if (count == 1) found.insert(found.begin(), -found[0]);
  return found;
}

}  // namespace

extern "C" {

int edgevit_api_version(void) { return EDGEVIT_API_VERSION; }

edgevit_status edgevit_open(const char *path, const edgevit_options *options, edgevit_model **model) {
  return guarded([&] {
    if (!path || !model) bad("the path, or where the model goes, is NULL");
    *model = nullptr;
    edgevit_options given{};
    if (options) {
      if (options->size < sizeof(size_t) || options->size > 4096) bad("size of the options is no sizeof(edgevit_options)");
      std::memcpy(&given, options, std::min(options->size, sizeof given));
    }
    if (given.threads < 0 || given.threads > 4096) bad("threads is " + std::to_string(given.threads) + ": give 0 to 4096");
    const EngineOptions engine{given.onnxruntime ? given.onnxruntime : "", given.threads};
    auto made = std::make_unique<edgevit_model>();
    made->bundle = std::make_unique<Bundle>(path);
    made->preprocess = Preprocess(made->bundle->preprocess);
    const Variant &variant = chosen(*made->bundle, given.variant, engine);
    const InputSize size{made->preprocess.channels, made->preprocess.height, made->preprocess.width};
    made->variant = variant.name;
    made->engine = variant.backend == "openvino"   ? open_openvino(*made->bundle, variant, size, engine)
                   : variant.backend == "tensorrt" ? open_tensorrt(*made->bundle, variant, size)
                                                   : open_onnxruntime(*made->bundle, variant, size, engine);
    made->engine_name = made->engine->name();
    describe_outputs(*made);
    *model = made.release();
  });
}

void edgevit_close(edgevit_model *model) { delete model; }

edgevit_status edgevit_predict(edgevit_model *model, const edgevit_image *image, edgevit_prediction *predictions,
                               size_t capacity, size_t *count) {
  return guarded([&] {
    if (!model || !predictions || !count || !capacity) bad("the model, the predictions or their count is NULL or 0");
    *count = 0;
    if (model->bundle->labelled == SIZE_MAX) bad("the model says no classes of an image: call edgevit_infer()");
    const std::vector<double> scores = scores_of(*model, answer(*model, image));
    std::vector<size_t> order(scores.size());
    std::iota(order.begin(), order.end(), size_t(0));
    std::stable_sort(order.begin(), order.end(), [&](size_t one, size_t other) { return scores[one] > scores[other]; });
    const double largest = scores[order[0]];
    double sum = 0;
    for (const double score : scores) sum += std::exp(score - largest);
    for (size_t at = 0; at < std::min(capacity, order.size()); ++at, ++*count) {
      const double score = scores[order[at]];
      const double share = model->bundle->independent ? 1 / (1 + std::exp(-score)) : std::exp(score - largest) / sum;
      predictions[at] = {static_cast<int32_t>(order[at]), static_cast<float>(share)};
    }
  });
}

edgevit_status edgevit_infer(edgevit_model *model, const edgevit_image *image, float *values, size_t capacity) {
  return guarded([&] {
    if (!model || !values) bad("the model, or where its values go, is NULL");
    if (capacity < model->values)
      bad("there is room for " + std::to_string(capacity) + " values, and the model gives " + std::to_string(model->values));
    const std::vector<float> found = answer(*model, image);
    std::copy(found.begin(), found.end(), values);
  });
}

edgevit_status edgevit_prepare(edgevit_model *model, const edgevit_image *image, float *input, size_t capacity) {
  return guarded([&] {
    if (!model || !image || !input) bad("the model, the image, or where its input goes, is NULL");
    if (capacity < edgevit_input_values(model))
      bad("there is room for " + std::to_string(capacity) + " values, and the input has " + std::to_string(edgevit_input_values(model)));
    const std::vector<float> found = model->preprocess(*image);
    std::copy(found.begin(), found.end(), input);
  });
}

size_t edgevit_values(const edgevit_model *model) { return model ? model->values : 0; }

size_t edgevit_input_values(const edgevit_model *model) {
  if (!model) return 0;
  const Preprocess &size = model->preprocess;
  return static_cast<size_t>(size.channels) * size.height * size.width;
}

size_t edgevit_labels(const edgevit_model *model) { return model ? model->bundle->labels.size() : 0; }

const char *edgevit_label(const edgevit_model *model, size_t index) {
  return index < edgevit_labels(model) ? model->bundle->labels[index].c_str() : nullptr;
}

size_t edgevit_outputs(const edgevit_model *model) { return model ? model->outputs.size() : 0; }

edgevit_status edgevit_output_at(const edgevit_model *model, size_t index, edgevit_output *output) {
  return guarded([&] {
    if (!model || !output || index >= model->outputs.size()) bad("there is no such output");
    const Output &found = model->outputs[index];
    *output = {found.name.c_str(), found.shape.data(), found.shape.size(), found.values()};
  });
}

const char *edgevit_variant(const edgevit_model *model) { return model ? model->variant.c_str() : ""; }

const char *edgevit_engine(const edgevit_model *model) { return model ? model->engine_name.c_str() : ""; }

const char *edgevit_last_error(void) { return last_error.c_str(); }

}  // extern "C"
