#include "bundle.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "error.hpp"
#include "sha256.hpp"

namespace edgevit {
namespace {

constexpr int64_t kNewestSchema = 3;
constexpr size_t kMostManifest = 16 << 20;
constexpr size_t kMostValues = 1 << 28;

[[noreturn]] void bad(const std::string &message) { throw Error(EDGEVIT_BAD_BUNDLE, message); }

Content mapped(const std::string &path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) bad(path + " cannot be opened: " + std::strerror(errno));
  struct stat status {};
  if (fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size == 0) {
    close(descriptor);
    bad(path + " is no file, or empty");
  }
  const size_t size = static_cast<size_t>(status.st_size);
  // Private and writable: OpenVINO takes weights from nothing that is constant.
  void *bytes = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, descriptor, 0);
  close(descriptor);
  if (bytes == MAP_FAILED) bad(path + " cannot be mapped: " + std::strerror(errno));
  std::shared_ptr<const void> owner(bytes, [size](void *mapping) { munmap(mapping, size); });
  return {static_cast<const uint8_t *>(bytes), size, owner};
}

uint32_t number(const uint8_t *at, int bytes) {
  uint32_t found = 0;
  for (int each = bytes; each-- > 0;) found = found << 8 | at[each];
  return found;
}

// Letters, digits, dots, dashes and underscores between slashes; nothing hidden, absolute or above.
bool is_safe(const std::string &path) {
  bool first = true;
  for (const char each : path) {
    const bool word = (each >= 'a' && each <= 'z') || (each >= 'A' && each <= 'Z') || (each >= '0' && each <= '9') || each == '_';
    if (first ? !word : !(word || each == '.' || each == '-' || each == '/')) return false;
    first = each == '/';
  }
  return !first && path.size() <= 512;
}

std::vector<std::string> texts(const Json &list, const char *what) {
  std::vector<std::string> found;
  for (const Json &each : list.as_list(what)) found.push_back(each.as_text(what));
  return found;
}

Variant variant_of(const Json &from) {
  Variant found;
  found.name = from["name"].as_text("the name of a variant");
  found.precision = from["precision"].as_text("the precision of a variant");
  found.backend = from["backend"].as_text("the backend of a variant");
  found.versions = from["versions"].text_or("");
  for (const auto &[name, value] : from["settings"].members) found.settings[name] = value.as_text("a setting");
  for (const Json &file : from["files"].as_list("the files of a variant")) {
    VariantFile each;
    each.path = file["path"].as_text("the path of a file");
    each.sha256 = file["sha256"].as_text("the hash of a file");
    each.bytes = static_cast<size_t>(file["bytes"].as_integer("the size of a file", 0, int64_t(1) << 40));
    if (!is_safe(each.path)) bad("the manifest lists a file that is not in the bundle: " + each.path);
    found.files.push_back(each);
  }
  if (found.files.empty()) bad("variant " + found.name + " has no files");
  const Json &accuracy = from["accuracy"], &latency = from["latency"];
  found.measured = !accuracy.is_null() || found.precision == "float32";
  found.passed = found.precision == "float32" || accuracy.is_null() || accuracy["passed"].boolean;
  if (from["evidence"].kind == Json::Kind::list)
    for (const Json &each : from["evidence"].items)
      for (const char *cost : {"speed", "p99", "size", "memory", "energy", "kernels"})
        found.dear |= each["limit"].text_or("") == cost && each["word"].text_or("") != "passed";
  if (latency["valid"].boolean && latency["p50_ms"].kind == Json::Kind::number)
    found.milliseconds = latency["p50_ms"].number / std::max(1.0, latency["batch"].as_number("a batch"));
  return found;
}

}  // namespace

size_t Output::values() const {
  size_t found = 1;
  for (const int64_t edge : shape) {
    if (edge < 1 || static_cast<size_t>(edge) > kMostValues / found) bad("output " + name + " is larger than any model's");
    found *= static_cast<size_t>(edge);
  }
  return found;
}

Bundle::Bundle(const std::string &path) : path_(path) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) bad("there is no pack or bundle " + path);
  packed_ = !S_ISDIR(status.st_mode);
  if (packed_) read_archive();
  const Content manifest = file("manifest.json");
  if (manifest.size > kMostManifest) bad("the manifest of " + path + " is too large");
  read_manifest(Json::parse({reinterpret_cast<const char *>(manifest.bytes), manifest.size}));
}

// The archive is read by its central directory. Its files are believed only once their SHA-256 was checked.
void Bundle::read_archive() {
  archive_ = mapped(path_);
  const uint8_t *bytes = archive_.bytes;
  const size_t size = archive_.size;
  if (size < 22 || std::memcmp(bytes + size - 22, "PK\5\6", 4) != 0) bad(path_ + " is no pack, or cut short");
  const uint8_t *end = bytes + size - 22;
  const size_t count = number(end + 10, 2), length = number(end + 12, 4), start = number(end + 16, 4);
  if (start > size - 22 || length != size - 22 - start) bad(path_ + " is no pack, or cut short");
  size_t place = start;
  for (size_t entry = 0; entry < count; ++entry) {
    if (size - 22 - place < 46 || std::memcmp(bytes + place, "PK\1\2", 4) != 0) bad(path_ + " has a damaged list of files");
    const uint8_t *at = bytes + place;
    const size_t flags = number(at + 8, 2), method = number(at + 10, 2), packed = number(at + 20, 4);
    const size_t whole = number(at + 24, 4), name_size = number(at + 28, 2), local = number(at + 42, 4);
    const size_t further = number(at + 30, 2) + number(at + 32, 2);
    if (flags || method || packed != whole || further || size - 22 - place < 46 + name_size || start < 30 || local > start - 30)
      bad(path_ + " is no pack as 'edgevit pack' writes them");
    const std::string name(reinterpret_cast<const char *>(at + 46), name_size);
    const uint8_t *header = bytes + local;
    const size_t data = local + 30 + number(header + 26, 2) + number(header + 28, 2);
    if (std::memcmp(header, "PK\3\4", 4) != 0 || number(header + 26, 2) != name_size || data > start || whole > start - data ||
        std::memcmp(header + 30, name.data(), name_size) != 0)
      bad(path_ + " is damaged at " + name);
    if (!entries_.emplace(name, Content{bytes + data, whole, archive_.owner}).second) bad(path_ + " has " + name + " twice");
    place += 46 + name_size;
  }
  if (place != size - 22) bad(path_ + " has a damaged list of files");
}

Content Bundle::file(const std::string &name) const {
  if (!packed_) return mapped(path_ + "/" + name);
  const auto found = entries_.find(name);
  if (found == entries_.end()) bad(path_ + " lacks " + name);
  return found->second;
}

Content Bundle::verified(const VariantFile &file) const {
  Content found = this->file(file.path);
  if (found.size != file.bytes || sha256(found.bytes, found.size) != file.sha256)
    bad(path_ + "/" + file.path + " is damaged: its content is not what the manifest says; get it again from where it came");
  return found;
}

void Bundle::read_manifest(const Json &manifest) {
  const int64_t version = manifest["schema_version"].as_integer("the schema version", 1, 1 << 30);
  if (version > kNewestSchema)
    bad("the bundle has schema version " + std::to_string(version) + ", and this library knows versions up to " +
        std::to_string(kNewestSchema) + ": build a newer one");
  preprocess = manifest["preprocess"];
  for (const Json &each : manifest["variants"].as_list("variants")) variants.push_back(variant_of(each));
  read_outputs(manifest);
}

void Bundle::read_outputs(const Json &manifest) {
  const bool sigmoid = manifest["activation"].text_or("softmax") == "sigmoid";
  if (manifest["outputs"].kind == Json::Kind::list) {
    for (const Json &each : manifest["outputs"].items) {
      Output found;
      found.name = each["name"].as_text("the name of an output");
      found.kind = each["kind"].as_text("the kind of an output");
      for (const Json &edge : each["shape"].as_list("the shape of an output"))
        found.shape.push_back(edge.as_integer("the shape of an output", 1, kMostValues));
      if (each["labels"].kind == Json::Kind::list) found.labels = texts(each["labels"], "labels");
      found.independent = each["activation"].text_or("softmax") == "sigmoid";
      found.values();
      outputs.push_back(found);
    }
    if (outputs.empty()) bad("the model has no outputs");
    for (size_t at = 0; at < outputs.size(); ++at)
      if (!outputs[at].labels.empty() && labelled == SIZE_MAX) {
        labelled = at;
        labels = outputs[at].labels;
        independent = outputs[at].independent || outputs[at].values() == 1;
      }
    return;
  }
  const Json &spec = manifest["spec"].is_null() ? manifest["graph"] : manifest["spec"];
  const int64_t classes = spec["classes"].is_null() ? 0 : spec["classes"].as_integer("classes", 0, 1 << 24);
  labels = texts(manifest["labels"], "labels");
  independent = classes == 1 || (sigmoid && classes > 0);
  Output only;
  only.name = only.kind = classes ? "logits" : "embedding";
  only.shape = {classes};  // an embedding's width is the engine's to say
  if (classes) labelled = 0;
  if (classes == 1 && labels.size() == 1) {
    const std::string yes = labels[0];
    labels = yes.empty() || yes == "0" || yes == "1" ? std::vector<std::string>{"0", "1"}
                                                     : std::vector<std::string>{"not " + yes, yes};
  }
  if (classes && labels.size() != static_cast<size_t>(std::max<int64_t>(2, classes)) && !(classes > 1 && labels.empty()))
    bad("the manifest has " + std::to_string(labels.size()) + " labels for " + std::to_string(classes) + " classes");
  outputs.push_back(only);
}

}  // namespace edgevit
