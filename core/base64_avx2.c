// SPDX-License-Identifier: MIT
#include "base64_kernel.h"

#if BASE64_X86

#include <immintrin.h>
#include <stdbool.h>

// After the ideas of Muła and Lemire ("Faster Base64 Encoding and Decoding Using AVX2
// Instructions", 2018): bits are moved by multiplications, characters are classed by their two
// nibbles.

#define AVX2 __attribute__((target("avx2")))
#define AVX2_INLINE __attribute__((target("avx2"), always_inline)) static inline

AVX2_INLINE __m256i both(__m128i lane) {
  return _mm256_broadcastsi128_si256(lane);
}

// 24 bytes, 12 in the low part of each lane, to 32 six-bit numbers.
AVX2_INLINE __m256i split(__m256i bytes) {
  // Every 32 bits get the bytes b a c b of their group, so that each wanted number lies in one
  // 16-bit half.
  const __m256i spread = both(_mm_setr_epi8(1, 0, 2, 1, 4, 3, 5, 4, 7, 6, 8, 7, 10, 9, 11, 10));
  __m256i v = _mm256_shuffle_epi8(bytes, spread);
  // Multiplying shifts each half by a distance of its own: first and third number down, second and
  // fourth up.
  __m256i down = _mm256_mulhi_epu16(_mm256_and_si256(v, _mm256_set1_epi32(0x0fc0fc00)),
                                    _mm256_set1_epi32(0x04000040));
  __m256i up = _mm256_mullo_epi16(_mm256_and_si256(v, _mm256_set1_epi32(0x003f03f0)),
                                  _mm256_set1_epi32(0x01000010));
  return _mm256_or_si256(down, up);
}

// Six-bit numbers to characters: the five ranges of the alphabet differ in what is to be added.
AVX2_INLINE __m256i to_text(__m256i numbers) {
  const __m256i distance =
      both(_mm_setr_epi8('a' - 26, '0' - 52, '0' - 52, '0' - 52, '0' - 52, '0' - 52, '0' - 52,
                         '0' - 52, '0' - 52, '0' - 52, '0' - 52, '+' - 62, '/' - 63, 'A', 0, 0));
  // 0 for a small letter, 1..10 for a digit, 11, 12; and 13 for a capital.
  __m256i range = _mm256_subs_epu8(numbers, _mm256_set1_epi8(51));
  __m256i capital = _mm256_cmpgt_epi8(_mm256_set1_epi8(26), numbers);
  range = _mm256_or_si256(range, _mm256_and_si256(capital, _mm256_set1_epi8(13)));
  return _mm256_add_epi8(numbers, _mm256_shuffle_epi8(distance, range));
}

// Reads 28 bytes, of which 24 count.
AVX2_INLINE __m256i encode_24(const uint8_t *bytes) {
  __m128i low = _mm_loadu_si128((const __m128i *)(const void *)bytes);
  __m128i high = _mm_loadu_si128((const __m128i *)(const void *)(bytes + 12));
  return to_text(split(_mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1)));
}

AVX2_INLINE void store(uint8_t *place, __m256i v) {
  _mm256_storeu_si256((__m256i *)(void *)place, v);
}

AVX2 static size_t encode(const uint8_t *bytes, size_t size, uint8_t *text) {
  size_t at = 0;
  for (; size - at >= 100; at += 96, text += 128) {
    store(text, encode_24(bytes + at));
    store(text + 32, encode_24(bytes + at + 24));
    store(text + 64, encode_24(bytes + at + 48));
    store(text + 96, encode_24(bytes + at + 72));
  }
  for (; size - at >= 28; at += 24, text += 32) {
    store(text, encode_24(bytes + at));
  }
  return at;
}

// One bit for each set of characters that share a high nibble and its good low nibbles.
enum {
  SIGNS = 1,   // 0x2_: + /
  DIGITS = 2,  // 0x3_: 0-9
  LETTERS = 4, // 0x4_ 0x6_: A-O a-o
  REST = 8,    // 0x5_ 0x7_: P-Z p-z
  NOTHING = 16 // no character of the alphabet has such a high nibble
};

// Characters to six-bit numbers; gathers in *wrong what is not zero when any of them is bad.
AVX2_INLINE __m256i to_numbers(__m256i text, __m256i *wrong) {
  const __m256i set_of_high =
      both(_mm_setr_epi8(NOTHING, NOTHING, SIGNS, DIGITS, LETTERS, REST, LETTERS, REST, NOTHING,
                         NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING));
  // The sets in which a low nibble is bad.
  enum {
    ANY = NOTHING | SIGNS,
    PAST = NOTHING | DIGITS | REST,
  };
  const __m256i bad_for_low =
      both(_mm_setr_epi8(ANY | LETTERS, ANY, ANY, ANY, ANY, ANY, ANY, ANY, ANY, ANY, ANY | DIGITS,
                         PAST, PAST | SIGNS, PAST | SIGNS, PAST | SIGNS, PAST));
  // What to add, by high nibble; '/' shares its nibble with '+' and takes the free place 1.
  const __m256i distance = both(_mm_setr_epi8(0, 63 - '/', 62 - '+', 52 - '0', -'A', -'A', 26 - 'a',
                                              26 - 'a', 0, 0, 0, 0, 0, 0, 0, 0));
  const __m256i nibble = _mm256_set1_epi8(15);
  __m256i high = _mm256_and_si256(_mm256_srli_epi32(text, 4), nibble);
  __m256i low = _mm256_and_si256(text, nibble);
  __m256i bad = _mm256_and_si256(_mm256_shuffle_epi8(set_of_high, high),
                                 _mm256_shuffle_epi8(bad_for_low, low));
  *wrong = _mm256_or_si256(*wrong, bad);
  __m256i slash = _mm256_cmpeq_epi8(text, _mm256_set1_epi8('/'));
  return _mm256_add_epi8(text, _mm256_shuffle_epi8(distance, _mm256_add_epi8(high, slash)));
}

// 32 six-bit numbers to 24 bytes at the front.
AVX2_INLINE __m256i join(__m256i numbers) {
  __m256i pairs = _mm256_maddubs_epi16(numbers, _mm256_set1_epi32(0x01400140));
  __m256i groups = _mm256_madd_epi16(pairs, _mm256_set1_epi32(0x00011000));
  const __m256i order = both(_mm_setr_epi8(2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, -1, -1, -1, -1));
  groups = _mm256_shuffle_epi8(groups, order);
  return _mm256_permutevar8x32_epi32(groups, _mm256_setr_epi32(0, 1, 2, 4, 5, 6, 7, 7));
}

AVX2_INLINE __m256i load(const uint8_t *place) {
  return _mm256_loadu_si256((const __m256i *)(const void *)place);
}

AVX2_INLINE bool is_zero(__m256i v) {
  return _mm256_testz_si256(v, v) != 0;
}

AVX2 static size_t decode(const uint8_t *text, size_t size, uint8_t *bytes) {
  size_t at = 0;
  // A store writes 8 bytes more than it should, so 12 characters must still be to come.
  for (; size - at >= 128 + 12; at += 128, bytes += 96) {
    __m256i wrong = _mm256_setzero_si256();
    __m256i v0 = to_numbers(load(text + at), &wrong);
    __m256i v1 = to_numbers(load(text + at + 32), &wrong);
    __m256i v2 = to_numbers(load(text + at + 64), &wrong);
    __m256i v3 = to_numbers(load(text + at + 96), &wrong);
    if (!is_zero(wrong)) {
      return at;
    }
    store(bytes, join(v0));
    store(bytes + 24, join(v1));
    store(bytes + 48, join(v2));
    store(bytes + 72, join(v3));
  }
  for (; size - at >= 32 + 12; at += 32, bytes += 24) {
    __m256i wrong = _mm256_setzero_si256();
    __m256i v = to_numbers(load(text + at), &wrong);
    if (!is_zero(wrong)) {
      break;
    }
    store(bytes, join(v));
  }
  return at;
}

const struct base64_kernel base64_kernel_avx2 = {encode, decode};

#else
typedef int base64_avx2_is_not_for_this_processor;
#endif
