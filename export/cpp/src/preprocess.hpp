// From pixels to a model's input, as EdgeViT's Python does it with Pillow: the same filters, rounded at the same places.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "edgevit/edgevit.h"
#include "json.hpp"

namespace edgevit {

struct Pixels {
  int height = 0, width = 0, channels = 0;
  std::vector<uint8_t> values;  // (height, width, channels)
  uint8_t *row(int y) { return values.data() + static_cast<size_t>(y) * width * channels; }
  const uint8_t *row(int y) const { return values.data() + static_cast<size_t>(y) * width * channels; }
};

// Resizes as Pillow's Image.resize does, `filter` by its name there in lower case.
Pixels resize(const Pixels &from, int height, int width, const std::string &filter);

class Preprocess {
 public:
  Preprocess() = default;
  // Throws Error (EDGEVIT_BAD_BUNDLE) where the manifest contradicts itself.
  explicit Preprocess(const Json &from);

  int channels = 3, height = 0, width = 0;

  // The input (channels, height, width). Throws Error (EDGEVIT_BAD_ARGUMENT) where the image is none.
  std::vector<float> operator()(const edgevit_image &image) const;

 private:
  struct Size {
    int height, width;
  };
  std::string interpolation_, order_, fit_, rounding_, pad_;
  int resize_ = 0;   // 0 for none
  int longest_ = 0;  // 0 for none
  std::optional<Size> box_, crop_;
  std::vector<int> fill_;
  std::vector<double> mean_, std_;

  Pixels geometry(Pixels image) const;
  Pixels resized(const Pixels &image) const;
  Size edges(int height, int width) const;
  Pixels cut(const Pixels &image, Size size, bool filled) const;
  Pixels on_canvas(const Pixels &image, Size size, int left, int top, bool filled) const;
  int offset(int given, int wanted) const;
};

}  // namespace edgevit
