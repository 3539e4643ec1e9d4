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

// Where each of the 48 decoded bytes comes from: three of four, the other way round. Twice, because
// what one vector of numbers gives is spread over two vectors of bytes.
#define PACK(n) 4 * (n) + 2, 4 * (n) + 1, 4 * (n)
#define PACK_ALL                                                                                   \
  PACK(0), PACK(1), PACK(2), PACK(3), PACK(4), PACK(5), PACK(6), PACK(7), PACK(8), PACK(9),        \
      PACK(10), PACK(11), PACK(12), PACK(13), PACK(14), PACK(15)
static const uint8_t pack_order[96] __attribute__((aligned(64))) = {PACK_ALL, PACK_ALL};
#undef PACK_ALL
#undef PACK

AVX512_INLINE __m512i load(const void *place) {
  return _mm512_loadu_si512(place);
}

// The lowest n bytes, n in 0..64.
static inline __mmask64 front(size_t n) {
  return n >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << n) - 1;
}

// From this size on it pays to bring the output to the start of a cache line first: a store that
// straddles two lines costs twice, and a load that does costs much less.
enum { WORTH_ALIGNING = 1024 };

AVX512_INLINE __m512i encode_48(__m512i bytes, __m512i order, __m512i letters) {
  // From each 32 bits b a c b, the four six-bit numbers lie at the bits 10, 4, 22 and 16; the upper
  // two bits of what the shift selects are ignored by the look-up.
  const __m512i shifts = _mm512_set1_epi64(0x3036242a1016040aLL);
  __m512i spread = _mm512_permutexvar_epi8(order, bytes);
  return _mm512_permutexvar_epi8(_mm512_multishift_epi64_epi8(shifts, spread), letters);
}

// Up to 48 bytes, n being a multiple of 3.
AVX512_INLINE void encode_some(const uint8_t *bytes, size_t n, uint8_t *text, __m512i order,
                               __m512i letters) {
  __m512i v = _mm512_maskz_loadu_epi8(front(n), bytes);
  _mm512_mask_storeu_epi8(text, front(n / 3 * 4), encode_48(v, order, letters));
}

AVX512 static size_t encode(const uint8_t *bytes, size_t size, uint8_t *text) {
  const __m512i order = load(spread_order);
  const __m512i letters = load(alphabet);
  size_t at = 0;
  if (size >= WORTH_ALIGNING) {
    at = (0 - (uintptr_t)text) % 64 / 4 * 3;
    encode_some(bytes, at, text, order, letters);
    text += at / 3 * 4;
  }
  for (; size - at >= 192 + 16; at += 192, text += 256) {
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
    encode_some(bytes + at, n, text, order, letters);
    at += n;
    text += n / 3 * 4;
  }
  return at;
}

// 64 six-bit numbers to 16 groups of 24 bits, each at the bottom of 32.
AVX512_INLINE __m512i join(__m512i numbers) {
  __m512i pairs = _mm512_maddubs_epi16(numbers, _mm512_set1_epi32(0x01400140));
  return _mm512_madd_epi16(pairs, _mm512_set1_epi32(0x00011000));
}

// Up to 64 characters, n being a multiple of 4. Returns n, or 0 when any of them is bad.
AVX512_INLINE size_t decode_some(const uint8_t *text, size_t n, uint8_t *bytes) {
  const __m512i low = load(values);
  const __m512i high = load(values + 64);
  __m512i t = _mm512_mask_loadu_epi8(_mm512_set1_epi8('A'), front(n), text);
  __m512i v = _mm512_permutex2var_epi8(low, t, high);
  if (_mm512_movepi8_mask(_mm512_or_si512(t, v)) != 0) {
    return 0;
  }
  __m512i packed = _mm512_permutexvar_epi8(load(pack_order), join(v));
  _mm512_mask_storeu_epi8(bytes, front(n / 4 * 3), packed);
  return n;
}

// Four vectors of groups to three full vectors of bytes.
AVX512_INLINE void store_192(uint8_t *bytes, __m512i g0, __m512i g1, __m512i g2, __m512i g3) {
  const __m512i order0 = load(pack_order);
  const __m512i order1 = load(pack_order + 16);
  const __m512i order2 = load(pack_order + 32);
  __m512i b0 = _mm512_permutexvar_epi8(order0, g0);
  __m512i b1 = _mm512_permutexvar_epi8(order1, g1);
  __m512i b2 = _mm512_permutexvar_epi8(order2, g2);
  b0 = _mm512_mask_permutexvar_epi8(b0, ~front(48), order0, g1);
  b1 = _mm512_mask_permutexvar_epi8(b1, ~front(32), order1, g2);
  b2 = _mm512_mask_permutexvar_epi8(b2, ~front(16), order2, g3);
  _mm512_storeu_si512(bytes, b0);
  _mm512_storeu_si512(bytes + 64, b1);
  _mm512_storeu_si512(bytes + 128, b2);
}

// Decodes until the output stands at the start of a cache line, which takes a number of groups that
// solves 3 * groups + address = 0 modulo 64. Returns how many characters that took; fewer when one
// of them is bad.
AVX512_INLINE size_t decode_to_line(const uint8_t *text, uint8_t *bytes) {
  size_t want = (0 - (uintptr_t)bytes) * 43 % 64 * 4;
  size_t at = 0;
  while (at < want) {
    size_t n = decode_some(text + at, want - at < 64 ? want - at : 64, bytes + at / 4 * 3);
    if (n == 0) {
      break;
    }
    at += n;
  }
  return at;
}

AVX512 static size_t decode(const uint8_t *text, size_t size, uint8_t *bytes) {
  const __m512i low = load(values);
  const __m512i high = load(values + 64);
  size_t at = 0;
  if (size >= WORTH_ALIGNING) {
    at = decode_to_line(text, bytes);
    bytes += at / 4 * 3;
  }
  for (; size - at >= 256; at += 256, bytes += 192) {
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
    store_192(bytes, join(v0), join(v1), join(v2), join(v3));
  }
  while (at < size) {
    size_t n = decode_some(text + at, size - at >= 64 ? 64 : size - at, bytes);
    if (n == 0) {
      break;
    }
    at += n;
    bytes += n / 4 * 3;
  }
  return at;
}

const struct base64_kernel base64_kernel_avx512 = {encode, decode};

#else
typedef int base64_avx512_is_not_for_this_processor;
#endif
