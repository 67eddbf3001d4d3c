#include "sha256.hpp"

#include <array>
#include <cmath>
#include <cstring>

namespace edgevit {
namespace {

using Words = std::array<uint32_t, 64>;

// The first 32 bits of the fractional parts of roots of the first primes, of which the standard makes its constants.
uint32_t fraction(long double root) {
  return static_cast<uint32_t>((root - std::floor(root)) * 4294967296.0L);
}

struct Constants {
  Words rounds;
  std::array<uint32_t, 8> start;

  Constants() {
    int count = 0;
    for (int number = 2; count < 64; ++number) {
      bool prime = true;
      for (int divisor = 2; divisor * divisor <= number; ++divisor) prime = prime && number % divisor != 0;
      if (!prime) continue;
      if (count < 8) start[count] = fraction(std::sqrt(static_cast<long double>(number)));
      rounds[count++] = fraction(std::cbrt(static_cast<long double>(number)));
    }
  }
};

inline uint32_t turned(uint32_t word, int bits) { return word >> bits | word << (32 - bits); }

void compress(std::array<uint32_t, 8> &state, const uint8_t *block, const Words &rounds) {
  Words words;
  for (int at = 0; at < 16; ++at)
    words[at] = static_cast<uint32_t>(block[4 * at]) << 24 | static_cast<uint32_t>(block[4 * at + 1]) << 16 |
                static_cast<uint32_t>(block[4 * at + 2]) << 8 | block[4 * at + 3];
  for (int at = 16; at < 64; ++at) {
    const uint32_t early = words[at - 15], late = words[at - 2];
    words[at] = words[at - 16] + (turned(early, 7) ^ turned(early, 18) ^ early >> 3) + words[at - 7] +
                (turned(late, 17) ^ turned(late, 19) ^ late >> 10);
  }
  auto [a, b, c, d, e, f, g, h] = state;
  for (int at = 0; at < 64; ++at) {
    const uint32_t first =
        h + (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) + ((e & f) ^ (~e & g)) + rounds[at] + words[at];
    const uint32_t second = (turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
    h = g, g = f, f = e, e = d + first, d = c, c = b, b = a, a = first + second;
  }
  const std::array<uint32_t, 8> added = {a, b, c, d, e, f, g, h};
  for (int at = 0; at < 8; ++at) state[at] += added[at];
}

}  // namespace

std::string sha256(const uint8_t *content, size_t size) {
  static const Constants constants;
  std::array<uint32_t, 8> state = constants.start;
  size_t place = 0;
  for (; size - place >= 64; place += 64) compress(state, content + place, constants.rounds);
  std::array<uint8_t, 128> last{};
  const size_t rest = size - place;
  if (rest) std::memcpy(last.data(), content + place, rest);
  last[rest] = 0x80;
  const size_t blocks = rest < 56 ? 1 : 2;
  for (int at = 0; at < 8; ++at) last[64 * blocks - 1 - at] = static_cast<uint8_t>(static_cast<uint64_t>(size) * 8 >> 8 * at);
  for (size_t block = 0; block < blocks; ++block) compress(state, last.data() + 64 * block, constants.rounds);
  std::string found;
  for (const uint32_t word : state)
    for (int shift = 28; shift >= 0; shift -= 4) found += "0123456789abcdef"[word >> shift & 15];
  return found;
}

}  // namespace edgevit
