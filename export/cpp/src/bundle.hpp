// A pack, or the folder of a bundle: its manifest, and files that are checked against their SHA-256.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "json.hpp"

namespace edgevit {

// Bytes of a file that are mapped as long as `owner` lives.
struct Content {
  const uint8_t *bytes = nullptr;
  size_t size = 0;
  std::shared_ptr<const void> owner;
};

struct VariantFile {
  std::string path, sha256;
  size_t bytes = 0;
};

struct Variant {
  std::string name, precision, backend, versions;
  std::map<std::string, std::string> settings;
  std::vector<VariantFile> files;
  bool measured = false, passed = true;
  bool dear = false;        // a race did not show that it keeps a limit on what it costs
  double milliseconds = -1;  // per image, where it is known; else below 0
};

struct Output {
  std::string name, kind;
  std::vector<int64_t> shape;
  std::vector<std::string> labels;
  bool independent = false;
  size_t values() const;
};

class Bundle {
 public:
  // Throws Error (EDGEVIT_BAD_BUNDLE).
  explicit Bundle(const std::string &path);

  // The content of a file of a variant, after a check of its SHA-256.
  Content verified(const VariantFile &file) const;

  Json preprocess;
  std::vector<Variant> variants;
  std::vector<std::string> labels;  // what the model can say: two where it has a single logit
  bool independent = false;         // each logit is a decision of its own
  std::vector<Output> outputs;      // at least one: "logits", or "embedding", where the manifest names none
  size_t labelled = SIZE_MAX;       // the output that the labels are of

 private:
  std::string path_;
  bool packed_ = false;
  Content archive_;
  std::map<std::string, Content> entries_;

  Content file(const std::string &name) const;
  void read_archive();
  void read_manifest(const Json &manifest);
  void read_outputs(const Json &manifest);
};

}  // namespace edgevit
