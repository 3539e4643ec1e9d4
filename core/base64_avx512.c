// SPDX-License-Identifier: MIT
#include "base64_kernel.h"

#if BASE64_X86

#include <immintrin.h>

// After the idea of Muła and Lemire ("Base64 encoding and decoding at almost the speed of a memory
// copy", 2020): with VBMI a byte table of 64 or 128 entries is one instruction, and so is any
// shuffle of bytes.

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vbmi")))
#define AVX512_INLINE                                                                              \
  __attribute__((target("avx512f,avx512bw,avx512vbmi"), always_inline)) static inline

static const char alphabet[] __attribute__((aligned(64))) =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

// The value of each ASCII character, or 0x80. `X` is what is not in the alphabet.
#define X 0x80
static const uint8_t values[128] __attribute__((aligned(64))) = {
    X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,
    X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  62,
    X,  X,  X,  63, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, X,  X,  X,  X,  X,  X,  X,  0,
    1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22,
    23, 24, 25, X,  X,  X,  X,  X,  X,  26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38,
    39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, X,  X,  X,  X,  X};
#undef X

// Where each byte of a spread vector comes from: groups of four, b a c b of three.
#define SPREAD(n) 3 * (n) + 1, 3 * (n), 3 * (n) + 2, 3 * (n) + 1
static const uint8_t spread_order[64] __attribute__((aligned(64))) = {
    SPREAD(0), SPREAD(1), SPREAD(2),  SPREAD(3),  SPREAD(4),  SPREAD(5),  SPREAD(6),  SPREAD(7),
    SPREAD(8), SPREAD(9), SPREAD(10), SPREAD(11), SPREAD(12), SPREAD(13), SPREAD(14), SPREAD(15)};
#undef SPREAD

// Where each of the 48 decoded bytes comes from: three of four, the other way round.
#define PACK(n) 4 * (n) + 2, 4 * (n) + 1, 4 * (n)
static const uint8_t pack_order[64] __attribute__((aligned(64))) = {
    PACK(0), PACK(1), PACK(2),  PACK(3),  PACK(4),  PACK(5),  PACK(6),  PACK(7),
    PACK(8), PACK(9), PACK(10), PACK(11), PACK(12), PACK(13), PACK(14), PACK(15)};
#undef PACK

AVX512_INLINE __m512i load(const void *place) {
  return _mm512_loadu_si512(place);
}

// The lowest n bytes, n in 0..64.
static inline __mmask64 front(size_t n) {
  return n == 64 ? ~(__mmask64)0 : ((__mmask64)1 << n) - 1;
}

AVX512_INLINE __m512i encode_48(__m512i bytes, __m512i order, __m512i letters) {
  // From each 32 bits b a c b, the four six-bit numbers lie at the bits 10, 4, 22 and 16; the upper
  // two bits of what the shift selects are ignored by the look-up.
  const __m512i shifts = _mm512_set1_epi64(0x3036242a1016040aLL);
  __m512i spread = _mm512_permutexvar_epi8(order, bytes);
  return _mm512_permutexvar_epi8(_mm512_multishift_epi64_epi8(shifts, spread), letters);
}

AVX512 static size_t encode(const uint8_t *bytes, size_t size, uint8_t *text) {
  const __m512i order = load(spread_order);
  const __m512i letters = load(alphabet);
  size_t at = 0;
  for (; size - at >= 4 * 48 + 16; at += 4 * 48, text += 4 * 64) {
    __m512i v0 = encode_48(load(bytes + at), order, letters);
    __m512i v1 = encode_48(load(bytes + at + 48), order, letters);
    __m512i v2 = encode_48(load(bytes + at + 96), order, letters);
    __m512i v3 = encode_48(load(bytes + at + 144), order, letters);
    _mm512_storeu_si512(text, v0);
    _mm512_storeu_si512(text + 64, v1);
    _mm512_storeu_si512(text + 128, v2);
    _mm512_storeu_si512(text + 192, v3);
  }
  while (size - at >= 3) {
    size_t n = size - at >= 48 ? 48 : (size - at) / 3 * 3;
    __m512i v = _mm512_maskz_loadu_epi8(front(n), bytes + at);
    _mm512_mask_storeu_epi8(text, front(n / 3 * 4), encode_48(v, order, letters));
    at += n;
    text += n / 3 * 4;
  }
  return at;
}

AVX512_INLINE __m512i join(__m512i numbers, __m512i order) {
  __m512i pairs = _mm512_maddubs_epi16(numbers, _mm512_set1_epi32(0x01400140));
  __m512i groups = _mm512_madd_epi16(pairs, _mm512_set1_epi32(0x00011000));
  return _mm512_permutexvar_epi8(order, groups);
}

AVX512 static size_t decode(const uint8_t *text, size_t size, uint8_t *bytes) {
  const __m512i low = load(values);
  const __m512i high = load(values + 64);
  const __m512i order = load(pack_order);
  size_t at = 0;
  // A store writes 16 bytes more than it should; the text that is still to come makes up for it.
  for (; size - at >= 4 * 64 + 24; at += 4 * 64, bytes += 4 * 48) {
    __m512i t0 = load(text + at);
    __m512i t1 = load(text + at + 64);
    __m512i t2 = load(text + at + 128);
    __m512i t3 = load(text + at + 192);
    __m512i v0 = _mm512_permutex2var_epi8(low, t0, high);
    __m512i v1 = _mm512_permutex2var_epi8(low, t1, high);
    __m512i v2 = _mm512_permutex2var_epi8(low, t2, high);
    __m512i v3 = _mm512_permutex2var_epi8(low, t3, high);
    // 0xfe is "or" of three: the top bit is set by what is not ASCII or not of the alphabet.
    __m512i wrong = _mm512_ternarylogic_epi32(_mm512_ternarylogic_epi32(t0, v0, t1, 0xfe),
                                              _mm512_ternarylogic_epi32(v1, t2, v2, 0xfe),
                                              _mm512_or_si512(t3, v3), 0xfe);
    if (_mm512_movepi8_mask(wrong) != 0) {
      break;
    }
    _mm512_storeu_si512(bytes, join(v0, order));
    _mm512_storeu_si512(bytes + 48, join(v1, order));
    _mm512_storeu_si512(bytes + 96, join(v2, order));
    _mm512_storeu_si512(bytes + 144, join(v3, order));
  }
  while (at < size) {
    size_t n = size - at >= 64 ? 64 : size - at;
    __m512i t = _mm512_mask_loadu_epi8(_mm512_set1_epi8('A'), front(n), text + at);
    __m512i v = _mm512_permutex2var_epi8(low, t, high);
    if (_mm512_movepi8_mask(_mm512_or_si512(t, v)) != 0) {
      break;
    }
    _mm512_mask_storeu_epi8(bytes, front(n / 4 * 3), join(v, order));
    at += n;
    bytes += n / 4 * 3;
  }
  return at;
}

const struct base64_kernel base64_kernel_avx512 = {encode, decode};

#else
typedef int base64_avx512_is_not_for_this_processor;
#endif
