// JSON as manifests have it, read into a tree. The text may come from anywhere: depth and size are bounded.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace edgevit {

// The length of the text's first character if that is UTF-8, else 0.
size_t utf8_length(std::string_view text);

class Json {
 public:
  enum class Kind { null, boolean, number, text, list, object };

  // Throws Error (EDGEVIT_BAD_BUNDLE) where `text` is no JSON.
  static Json parse(std::string_view text);

  Kind kind = Kind::null;
  bool boolean = false;
  double number = 0;
  std::string text;
  std::vector<Json> items;
  std::map<std::string, Json> members;

  // The member called `name`; a null where there is none, or this is no object.
  const Json &operator[](const std::string &name) const;
  bool is_null() const { return kind == Kind::null; }

  // The value as what it must be; throw Error (EDGEVIT_BAD_BUNDLE) where it is not, naming `what`.
  const std::string &as_text(const char *what) const;
  double as_number(const char *what) const;
  int64_t as_integer(const char *what, int64_t least, int64_t most) const;
  const std::vector<Json> &as_list(const char *what) const;
  std::string text_or(const std::string &otherwise) const { return kind == Kind::text ? text : otherwise; }
};

}  // namespace edgevit
