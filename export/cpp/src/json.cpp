#include "json.hpp"

#include <cmath>
#include <cstdint>
#include <cstdlib>

#include "error.hpp"

namespace edgevit {
namespace {

constexpr int kMostDepth = 64;
const Json kNull;

[[noreturn]] void invalid(const std::string &why) {
  throw Error(EDGEVIT_BAD_BUNDLE, "the manifest is not valid: " + why);
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Json whole() {
    Json found = value(0);
    blank();
    if (place_ != text_.size()) invalid("something follows its end");
    return found;
  }

 private:
  std::string_view text_;
  size_t place_ = 0;

  char peek() const { return place_ < text_.size() ? text_[place_] : '\0'; }

  void blank() {
    while (place_ < text_.size() && std::string_view(" \t\r\n").find(text_[place_]) != std::string_view::npos) ++place_;
  }

  void expect(char wanted) {
    blank();
    if (peek() != wanted) invalid(std::string("'") + wanted + "' is missing");
    ++place_;
  }

  bool word(std::string_view wanted) {
    if (text_.substr(place_, wanted.size()) != wanted) return false;
    place_ += wanted.size();
    return true;
  }

  Json value(int depth) {
    if (depth > kMostDepth) invalid("it is nested too deep");
    blank();
    Json found;
    switch (peek()) {
      case '{':
        return object(depth);
      case '[':
        return list(depth);
      case '"':
        found.kind = Json::Kind::text;
        found.text = text();
        return found;
      default:
        break;
    }
    if (word("null")) return found;
    if (word("true") || word("false")) {
      found.kind = Json::Kind::boolean;
      found.boolean = text_[place_ - 2] == 'u';
      return found;
    }
    found.kind = Json::Kind::number;
    found.number = number();
    return found;
  }

  Json object(int depth) {
    Json found;
    found.kind = Json::Kind::object;
    expect('{');
    blank();
    if (peek() == '}') {
      ++place_;
      return found;
    }
    do {
      blank();
      std::string name = text();
      expect(':');
      if (!found.members.emplace(name, value(depth + 1)).second) invalid("'" + name + "' stands twice");
      blank();
    } while (peek() == ',' && ++place_);
    expect('}');
    return found;
  }

  Json list(int depth) {
    Json found;
    found.kind = Json::Kind::list;
    expect('[');
    blank();
    if (peek() == ']') {
      ++place_;
      return found;
    }
    do {
      found.items.push_back(value(depth + 1));
      blank();
    } while (peek() == ',' && ++place_);
    expect(']');
    return found;
  }

  double number() {
    size_t end = place_;
    while (end < text_.size() && std::string_view("+-0123456789.eE").find(text_[end]) != std::string_view::npos) ++end;
    const std::string digits(text_.substr(place_, end - place_));
    char *rest = nullptr;
    const double found = std::strtod(digits.c_str(), &rest);
    if (digits.empty() || *rest != '\0' || !std::isfinite(found)) invalid("a number is none");
    place_ = end;
    return found;
  }

  uint32_t hexadecimal() {
    uint32_t found = 0;
    for (int digit = 0; digit < 4; ++digit) {
      const char each = peek();
      const char *digits = "0123456789abcdef";
      const char lower = each >= 'A' && each <= 'F' ? static_cast<char>(each + 32) : each;
      const char *where = each ? std::char_traits<char>::find(digits, 16, lower) : nullptr;
      if (!where) invalid("an escape in a text is none");
      found = found * 16 + static_cast<uint32_t>(where - digits);
      ++place_;
    }
    return found;
  }

  static void append(std::string &text, uint32_t code) {
    if (code < 0x80) {
      text += static_cast<char>(code);
    } else if (code < 0x800) {
      text += {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
    } else if (code < 0x10000) {
      text += {static_cast<char>(0xE0 | code >> 12), static_cast<char>(0x80 | (code >> 6 & 0x3F)),
               static_cast<char>(0x80 | (code & 0x3F))};
    } else {
      text += {static_cast<char>(0xF0 | code >> 18), static_cast<char>(0x80 | (code >> 12 & 0x3F)),
               static_cast<char>(0x80 | (code >> 6 & 0x3F)), static_cast<char>(0x80 | (code & 0x3F))};
    }
  }

  std::string text() {
    if (peek() != '"') invalid("a text is missing");
    ++place_;
    std::string found;
    while (true) {
      if (place_ >= text_.size()) invalid("a text has no end");
      const char each = text_[place_++];
      if (each == '"') return found;
      if (static_cast<unsigned char>(each) < 0x20) invalid("a text has a control character");
      if (each != '\\') {
        const size_t length = utf8_length(text_.substr(place_ - 1));
        if (!length) invalid("a text is not in UTF-8");
        found += text_.substr(place_ - 1, length);
        place_ += length - 1;
        continue;
      }
      const char escaped = peek();
      ++place_;
      static const std::string_view letters = "\"\\/bfnrt", meanings = "\"\\/\b\f\n\r\t";
      if (const size_t which = letters.find(escaped); which != std::string_view::npos && escaped) {
        found += meanings[which];
      } else if (escaped == 'u') {
        uint32_t code = hexadecimal();
        if (code >= 0xD800 && code < 0xDC00) {
          if (!word("\\u")) invalid("half a character");
          const uint32_t low = hexadecimal();
          if (low < 0xDC00 || low > 0xDFFF) invalid("half a character");
          code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        } else if (code >= 0xDC00 && code <= 0xDFFF) {
          invalid("half a character");
        }
        append(found, code);
      } else {
        invalid("an escape in a text is none");
      }
    }
  }
};

}  // namespace

size_t utf8_length(std::string_view text) {
  const auto byte = [&](size_t at) { return at < text.size() ? static_cast<unsigned char>(text[at]) : 0u; };
  const unsigned first = byte(0);
  if (first < 0x80) return text.empty() ? 0 : 1;
  const size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  uint32_t code = first & (0xFF >> (length + 1));
  for (size_t at = 1; at < length; ++at) {
    if ((byte(at) & 0xC0) != 0x80) return 0;
    code = code << 6 | (byte(at) & 0x3F);
  }
  static constexpr uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = code >= 0xD800 && code < 0xE000;
  return first < 0xC2 || first > 0xF4 || code < least[length] || code > 0x10FFFF || surrogate ? 0 : length;
}

Json Json::parse(std::string_view text) { return Parser(text).whole(); }

const Json &Json::operator[](const std::string &name) const {
  const auto found = members.find(name);
  return found == members.end() ? kNull : found->second;
}

const std::string &Json::as_text(const char *what) const {
  if (kind != Kind::text) invalid(std::string(what) + " is no text");
  return text;
}

double Json::as_number(const char *what) const {
  if (kind != Kind::number) invalid(std::string(what) + " is no number");
  return number;
}

int64_t Json::as_integer(const char *what, int64_t least, int64_t most) const {
  const double found = as_number(what);
  if (found != std::floor(found) || found < static_cast<double>(least) || found > static_cast<double>(most))
    invalid(std::string(what) + " is no whole number that it can be");
  return static_cast<int64_t>(found);
}

const std::vector<Json> &Json::as_list(const char *what) const {
  if (kind != Kind::list) invalid(std::string(what) + " is no list");
  return items;
}

}  // namespace edgevit
