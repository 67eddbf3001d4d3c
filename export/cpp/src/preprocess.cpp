#include "preprocess.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#include "error.hpp"

namespace edgevit {
namespace {

constexpr int kMostEdge = 8192;           // of the input; manifests may come from anywhere
constexpr int64_t kMostPixels = 80000000;  // of an image, given or resized
constexpr double kPi = 3.14159265358979323846;
constexpr int kBits = 22;  // of the fraction of a filter's weights

double sinc(double x) { return x == 0 ? 1 : std::sin(x * kPi) / (x * kPi); }

struct Filter {
  double support;
  std::function<double(double)> weight;
};

Filter filter_of(const std::string &name) {
  if (name == "box") return {0.5, [](double x) { return x > -0.5 && x <= 0.5 ? 1.0 : 0.0; }};
  if (name == "bilinear") return {1, [](double x) { return std::abs(x) < 1 ? 1 - std::abs(x) : 0.0; }};
  if (name == "hamming")
    return {1, [](double x) { return std::abs(x) >= 1 ? 0.0 : sinc(x) * (0.54 + 0.46 * std::cos(x * kPi)); }};
  if (name == "bicubic")
    return {2, [](double x) {
              constexpr double a = -0.5;  // Keys' cubic convolution
              x = std::abs(x);
              if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
              return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0.0;
            }};
  if (name == "lanczos") return {3, [](double x) { return std::abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0.0; }};
  throw Error(EDGEVIT_BAD_BUNDLE, "the manifest names an interpolation that is not known: " + name);
}

// For each place along an axis, which pixels it is made of, and with which weights, as fractions of 2^22.
struct Weights {
  std::vector<int> first, count;
  std::vector<int32_t> values;
  int most = 0;
};

Weights weights_of(int from, int to, const Filter &filter) {
  const double scale = static_cast<double>(from) / to, wide = std::max(scale, 1.0);
  const double support = filter.support * wide, narrow = 1 / wide;
  Weights found;
  found.most = static_cast<int>(std::ceil(support)) * 2 + 1;
  found.first.resize(to);
  found.count.resize(to);
  found.values.resize(static_cast<size_t>(to) * found.most);
  std::vector<double> exact(found.most);
  for (int place = 0; place < to; ++place) {
    const double centre = (place + 0.5) * scale;
    const int first = std::max(0, static_cast<int>(centre - support + 0.5));
    const int count = std::min(from, static_cast<int>(centre + support + 0.5)) - first;
    double sum = 0;
    for (int each = 0; each < count; ++each) sum += exact[each] = filter.weight((each + first - centre + 0.5) * narrow);
    for (int each = 0; each < count; ++each) {
      const double share = (sum != 0 ? exact[each] / sum : exact[each]) * (1 << kBits);
      found.values[static_cast<size_t>(place) * found.most + each] = static_cast<int32_t>(share < 0 ? share - 0.5 : share + 0.5);
    }
    found.first[place] = first;
    found.count[place] = count;
  }
  return found;
}

uint8_t level(int32_t sum) { return static_cast<uint8_t>(std::clamp(sum >> kBits, 0, 255)); }

Pixels resize_rows(const Pixels &from, int width, const Filter &filter) {
  const Weights weights = weights_of(from.width, width, filter);
  Pixels to{from.height, width, from.channels, std::vector<uint8_t>(static_cast<size_t>(from.height) * width * from.channels)};
  for (int y = 0; y < from.height; ++y)
    for (int x = 0; x < width; ++x) {
      const int32_t *weight = weights.values.data() + static_cast<size_t>(x) * weights.most;
      for (int channel = 0; channel < from.channels; ++channel) {
        int32_t sum = 1 << (kBits - 1);
        const uint8_t *at = from.row(y) + static_cast<size_t>(weights.first[x]) * from.channels + channel;
        for (int each = 0; each < weights.count[x]; ++each) sum += at[static_cast<size_t>(each) * from.channels] * weight[each];
        to.row(y)[static_cast<size_t>(x) * from.channels + channel] = level(sum);
      }
    }
  return to;
}

Pixels resize_columns(const Pixels &from, int height, const Filter &filter) {
  const Weights weights = weights_of(from.height, height, filter);
  const size_t row = static_cast<size_t>(from.width) * from.channels;
  Pixels to{height, from.width, from.channels, std::vector<uint8_t>(height * row)};
  std::vector<int32_t> sums(row);
  for (int y = 0; y < height; ++y) {
    std::fill(sums.begin(), sums.end(), 1 << (kBits - 1));
    for (int each = 0; each < weights.count[y]; ++each) {
      const int32_t weight = weights.values[static_cast<size_t>(y) * weights.most + each];
      const uint8_t *at = from.row(weights.first[y] + each);
      for (size_t x = 0; x < row; ++x) sums[x] += at[x] * weight;
    }
    for (size_t x = 0; x < row; ++x) to.row(y)[x] = level(sums[x]);
  }
  return to;
}

// The places of the nearest pixels, added up one by one: where two are as near, the sum's last digit decides.
std::vector<int> nearest_places(int from, int to) {
  const double scale = static_cast<double>(from) / to;
  std::vector<int> found(to);
  double place = scale * 0.5;
  for (int &each : found) {
    each = std::min(from - 1, static_cast<int>(place));
    place += scale;
  }
  return found;
}

Pixels nearest(const Pixels &from, int height, int width) {
  Pixels to{height, width, from.channels, std::vector<uint8_t>(static_cast<size_t>(height) * width * from.channels)};
  const std::vector<int> rows = nearest_places(from.height, height), columns = nearest_places(from.width, width);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      std::memcpy(to.row(y) + static_cast<size_t>(x) * from.channels,
                  from.row(rows[y]) + static_cast<size_t>(columns[x]) * from.channels, static_cast<size_t>(from.channels));
  return to;
}

int whole(double value) { return static_cast<int>(std::nearbyint(value)); }  // half to even, as Python's round

[[noreturn]] void bad(const std::string &message) { throw Error(EDGEVIT_BAD_ARGUMENT, message); }

// The channels of a format, and where red is among them.
int channels_of(int format) {
  switch (format) {
    case EDGEVIT_RGB:
    case EDGEVIT_BGR:
      return 3;
    case EDGEVIT_GREY:
      return 1;
    case EDGEVIT_RGBA:
    case EDGEVIT_BGRA:
      return 4;
  }
  bad("there is no format " + std::to_string(format) + ": give one of edgevit_format");
}

// The image as grey, or as R, G, B. Grey of colours is Pillow's: (19595 R + 38470 G + 7471 B + 2^15) / 2^16.
Pixels taken(const edgevit_image &image, int wanted) {
  if (!image.pixels) bad("the image has no pixels: its pointer is NULL");
  int format = 0;  // read as a number: what an application set may be none of them
  static_assert(sizeof format == sizeof image.format, "an enumeration is an int");
  std::memcpy(&format, &image.format, sizeof format);
  const int channels = channels_of(format);
  if (image.width < 1 || image.height < 1 || int64_t(image.width) * image.height > kMostPixels)
    bad("an image has " + std::to_string(image.width) + "x" + std::to_string(image.height) + " pixels: give 1 to " +
        std::to_string(kMostPixels));
  const size_t packed = static_cast<size_t>(image.width) * channels, stride = image.stride ? image.stride : packed;
  if (stride < packed)
    bad("a row of " + std::to_string(image.width) + " pixels with " + std::to_string(channels) + " channels takes " +
        std::to_string(packed) + " bytes, and the stride is " + std::to_string(image.stride));
  if (stride > static_cast<size_t>(PTRDIFF_MAX) / static_cast<size_t>(image.height))  // as of a negative one
    bad("the stride is " + std::to_string(image.stride) + ", more than memory has: rows go from the top");
  const bool reversed = format == EDGEVIT_BGR || format == EDGEVIT_BGRA;
  Pixels found{image.height, image.width, wanted, std::vector<uint8_t>(static_cast<size_t>(image.height) * image.width * wanted)};
  for (int y = 0; y < image.height; ++y) {
    const uint8_t *from = image.pixels + static_cast<size_t>(y) * stride;
    uint8_t *to = found.row(y);
    for (int x = 0; x < image.width; ++x, from += channels, to += wanted) {
      const uint8_t red = from[channels == 1 ? 0 : reversed ? 2 : 0], green = from[channels == 1 ? 0 : 1];
      const uint8_t blue = from[channels == 1 ? 0 : reversed ? 0 : 2];
      if (wanted == 3) {
        to[0] = red, to[1] = green, to[2] = blue;
      } else {
        to[0] = channels == 1 ? red : static_cast<uint8_t>((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16);
      }
    }
  }
  return found;
}

}  // namespace

Pixels resize(const Pixels &from, int height, int width, const std::string &filter) {
  if (height == from.height && width == from.width) return from;
  if (filter == "nearest") return nearest(from, height, width);
  const Filter chosen = filter_of(filter);
  if (width == from.width) return resize_columns(from, height, chosen);
  if (height == from.height) return resize_rows(from, width, chosen);
  // Rows first, but where the height is reduced by more than twice as many pixels as the width: as Pillow does since
  // version 13. What is rounded first decides the last level or two.
  const bool columns_first = height < from.height && from.height - height > 2 * (from.width - width);
  return columns_first ? resize_rows(resize_columns(from, height, chosen), width, chosen)
                       : resize_columns(resize_rows(from, width, chosen), height, chosen);
}

Preprocess::Preprocess(const Json &from) {
  const auto edge = [](const Json &value, const char *what) {
    return value.is_null() ? 0 : static_cast<int>(value.as_integer(what, 1, kMostEdge));
  };
  const auto pair = [&](const Json &value, const char *what) -> std::optional<Size> {
    if (value.is_null()) return std::nullopt;
    const std::vector<Json> &both = value.as_list(what);
    if (both.size() != 2) throw Error(EDGEVIT_BAD_BUNDLE, std::string("the manifest is not valid: ") + what);
    return Size{edge(both[0], what), edge(both[1], what)};
  };
  const std::optional<Size> size = pair(from["size"], "preprocess.size");
  if (!size) throw Error(EDGEVIT_BAD_BUNDLE, "the manifest does not say the size of images");
  height = size->height, width = size->width;
  resize_ = edge(from["resize"], "preprocess.resize");
  longest_ = edge(from["longest"], "preprocess.longest");
  box_ = pair(from["box"], "preprocess.box");
  crop_ = pair(from["crop"], "preprocess.crop");
  interpolation_ = from["interpolation"].text_or("bicubic");
  order_ = from["channel_order"].text_or("RGB");
  fit_ = from["fit"].text_or("short");
  rounding_ = from["rounding"].text_or("nearest");
  pad_ = from["pad"].text_or("around");
  channels = order_ == "L" ? 1 : 3;
  if (interpolation_ != "nearest") filter_of(interpolation_);
  for (const Json &each : from["mean"].as_list("preprocess.mean")) mean_.push_back(each.as_number("preprocess.mean"));
  for (const Json &each : from["std"].as_list("preprocess.std")) std_.push_back(each.as_number("preprocess.std"));
  if (from["fill"].kind == Json::Kind::list)
    for (const Json &each : from["fill"].items) fill_.push_back(static_cast<int>(each.as_integer("preprocess.fill", 0, 255)));
  const bool boxed = fit_ == "squash" || fit_ == "cover" || fit_ == "contain";
  const size_t count = static_cast<size_t>(channels);
  if (mean_.size() != count || std_.size() != count || (!fill_.empty() && fill_.size() != count) ||
      boxed != box_.has_value() || (!boxed && fit_ != "short" && fit_ != "none") ||
      std::any_of(std_.begin(), std_.end(), [](double each) { return !(each > 0); }))
    throw Error(EDGEVIT_BAD_BUNDLE, "the manifest contradicts itself about how images are prepared");
}

std::vector<float> Preprocess::operator()(const edgevit_image &image) const {
  const Pixels seen = geometry(taken(image, channels));
  std::vector<float> input(static_cast<size_t>(channels) * height * width);
  for (int channel = 0; channel < channels; ++channel) {
    const float scale = static_cast<float>(1 / (255 * std_[channel]));
    const float shift = static_cast<float>(mean_[channel] / std_[channel]);
    const int source = order_ == "BGR" ? 2 - channel : channel;
    float *to = input.data() + static_cast<size_t>(channel) * height * width;
    const uint8_t *from = seen.values.data() + source;
    for (size_t at = 0; at < static_cast<size_t>(height) * width; ++at) {
      const float scaled = static_cast<float>(from[at * channels]) * scale;
      to[at] = scaled - shift;
    }
  }
  return input;
}

Pixels Preprocess::geometry(Pixels image) const {
  if (pad_ == "square") {
    const int edge = std::max(image.height, image.width);
    if (int64_t(edge) * edge > kMostPixels) bad("an image is too narrow to be padded to a square");
    image = on_canvas(image, {edge, edge}, (edge - image.width) / 2, (edge - image.height) / 2, true);
  }
  if (fit_ == "short" && !resize_) return resize(image, height, width, interpolation_);
  if (pad_ != "after") return cut(resized(image), {height, width}, pad_ == "around");
  Pixels found = resized(image);
  if (crop_) found = cut(found, *crop_, false);
  if (found.height > height || found.width > width)
    bad("an image becomes " + std::to_string(found.height) + "x" + std::to_string(found.width) +
        " pixels, more than the model's images are padded to");
  return on_canvas(found, {height, width}, 0, 0, true);
}

Pixels Preprocess::resized(const Pixels &image) const {
  if (fit_ == "none") return image;
  const Size to = edges(image.height, image.width);
  if (to.height < 1 || to.width < 1 || int64_t(to.height) * to.width > kMostPixels)
    bad("an image of " + std::to_string(image.width) + "x" + std::to_string(image.height) + " pixels is too narrow to be resized");
  return resize(image, to.height, to.width, interpolation_);
}

Preprocess::Size Preprocess::edges(int high, int wide) const {
  const int shorter = std::min(high, wide), longer = std::max(high, wide);
  int edge = box_ && fit_ == "cover" && box_->height == box_->width ? box_->height : resize_;
  if (edge && longest_) {
    double exact = edge;
    if (static_cast<double>(longer) / shorter * edge > longest_) {
      exact = static_cast<double>(static_cast<int64_t>(longest_) * shorter) / longer;
      edge = whole(exact);
    }
    if (shorter == edge) return {high, wide};
    const int far = static_cast<int>(exact * longer / shorter);
    return high <= wide ? Size{edge, far} : Size{far, edge};
  }
  if (edge) {
    const auto along = [&](int side) {
      return side == shorter ? edge : static_cast<int>(static_cast<double>(int64_t(edge) * side) / shorter);
    };
    return {along(high), along(wide)};
  }
  if (fit_ == "squash") return *box_;
  const double down = box_->height, across = box_->width;
  if (rounding_ != "nearest") {
    const double one = down / high, other = across / wide;
    const double scale = fit_ == "contain" ? std::min(one, other) : std::max(one, other), half = rounding_ == "half up" ? 0.5 : 0;
    return {static_cast<int>(high * scale + half), static_cast<int>(wide * scale + half)};
  }
  const double one = high / down, other = wide / across;
  const double share = fit_ == "contain" ? std::max(one, other) : std::min(one, other);
  return {whole(high / share), whole(wide / share)};
}

Pixels Preprocess::cut(const Pixels &image, Size size, bool filled) const {
  return on_canvas(image, size, -offset(image.width, size.width), -offset(image.height, size.height), filled);
}

// An image of `size` with this one at a place, which may be outside; the rest is filled, or black.
Pixels Preprocess::on_canvas(const Pixels &image, Size size, int left, int top, bool filled) const {
  Pixels found{size.height, size.width, channels, std::vector<uint8_t>(static_cast<size_t>(size.height) * size.width * channels)};
  if (filled && !fill_.empty())
    for (size_t at = 0; at < found.values.size(); ++at) found.values[at] = static_cast<uint8_t>(fill_[at % channels]);
  const int first = std::max(0, left), last = std::min(size.width, left + image.width);
  for (int y = std::max(0, top); y < std::min(size.height, top + image.height) && first < last; ++y)
    std::memcpy(found.row(y) + static_cast<size_t>(first) * channels,
                image.row(y - top) + static_cast<size_t>(first - left) * channels, static_cast<size_t>(last - first) * channels);
  return found;
}

int Preprocess::offset(int given, int wanted) const {
  if (rounding_ != "nearest") return static_cast<int>(std::floor((given - wanted) / 2.0));
  return given >= wanted ? whole((given - wanted) / 2.0) : -((wanted - given) / 2);
}

}  // namespace edgevit
