// SPDX-License-Identifier: MIT
#include "json_number.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "err.h"

// Decimals with an exponent of ten in this range, and doubles that need no other, are converted by
// exact integer arithmetic: powers of five up to here fit 64 bits. What is beyond is rare and goes
// the long way through the C library, with texts that no locale changes.
enum { POWER_MAX = 27, TEN_MAX = 22 };

__extension__ typedef unsigned __int128 wide;

static const uint64_t power_of_five[POWER_MAX + 1] = {
    1u,
    5u,
    25u,
    125u,
    625u,
    3125u,
    15625u,
    78125u,
    390625u,
    1953125u,
    9765625u,
    48828125u,
    244140625u,
    1220703125u,
    6103515625u,
    30517578125u,
    152587890625u,
    762939453125u,
    3814697265625u,
    19073486328125u,
    95367431640625u,
    476837158203125u,
    2384185791015625u,
    11920928955078125u,
    59604644775390625u,
    298023223876953125u,
    1490116119384765625u,
    7450580596923828125u,
};

static const double power_of_ten[TEN_MAX + 1] = {
    1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
};

// What has been read of a number: digits * 10^exponent.
struct decimal {
  uint64_t digits; // the first 19 significant ones
  int64_t exponent;
  bool is_cut; // there are more digits, and not only zeros
};

static int bits_of(wide number) {
  uint64_t high = (uint64_t)(number >> 64);
  uint64_t low = (uint64_t)number;
  if (high != 0) {
    return 128 - __builtin_clzll(high);
  }
  return low != 0 ? 64 - __builtin_clzll(low) : 0;
}

// number / 2^shift, rounded to nearest, ties to even; is_more: there was a rest below number.
static wide shift_round(wide number, int shift, bool is_more) {
  if (shift <= 0) {
    return number << -shift;
  }
  wide kept = number >> shift;
  wide lost = number & (((wide)1 << shift) - 1);
  wide half = (wide)1 << (shift - 1);
  if (lost > half || (lost == half && (is_more || (kept & 1) != 0))) {
    kept++;
  }
  return kept;
}

static double to_double(wide number, int exponent, bool is_more) {
  int extra = bits_of(number) - 53;
  if (extra <= 0) {
    return ldexp((double)(uint64_t)number, exponent);
  }
  return ldexp((double)(uint64_t)shift_round(number, extra, is_more), exponent + extra);
}

// digits * 10^exponent for |exponent| <= POWER_MAX, rounded correctly.
static double small_decimal(uint64_t digits, int exponent) {
  if (digits <= (uint64_t)JSON_EXACT_MAX && exponent >= -TEN_MAX && exponent <= 0) {
    // Both are exact, so one division rounds once.
    return (double)digits / power_of_ten[-exponent];
  }
  if (digits == 0) {
    return 0;
  }
  if (exponent >= 0) {
    return to_double((wide)digits * power_of_five[exponent], exponent, false);
  }
  wide numerator = digits;
  int shift = 128 - bits_of(numerator);
  numerator <<= shift;
  wide divisor = power_of_five[-exponent];
  return to_double(numerator / divisor, exponent - shift, numerator % divisor != 0);
}

// A double needs at most 767 digits to be told from its neighbours' middle; then it only matters
// whether anything follows.
enum { DIGITS_MAX = 800 };

// The long way: the significant digits of text without their point, and an exponent of their own.
static double large_decimal(const char *text, size_t size) {
  char plain[DIGITS_MAX + 32];
  size_t count = 0;
  int64_t exponent = 0;
  bool is_fraction = false;
  bool is_more = false;
  size_t i = 0;
  for (; i < size && text[i] != 'e' && text[i] != 'E'; i++) {
    if (text[i] == '.') {
      is_fraction = true;
    } else if (count == 0 && text[i] == '0') {
      exponent -= is_fraction;
    } else if (count < DIGITS_MAX) {
      plain[count++] = text[i];
      exponent -= is_fraction;
    } else {
      is_more |= text[i] != '0';
      exponent += !is_fraction;
    }
  }
  if (count == 0) {
    return 0;
  }
  if (is_more) {
    plain[count++] = '1';
    exponent--;
  }
  if (i < size) {
    bool is_negative = text[i + 1] == '-';
    int64_t more = 0;
    i += text[i + 1] == '-' || text[i + 1] == '+' ? 2 : 1;
    for (; i < size; i++) {
      more = more > INT64_C(1) << 40 ? more : more * 10 + (text[i] - '0');
    }
    exponent += is_negative ? -more : more;
  }
  exponent = exponent > 99999 ? 99999 : exponent < -99999 ? -99999 : exponent;
  snprintf(plain + count, sizeof plain - count, "e%d", (int)exponent);
  return strtod(plain, NULL);
}

static bool is_digit(const char *p, const char *end) {
  return p < end && *p >= '0' && *p <= '9';
}

// Takes digits in; at most 19 are kept.
static const char *read_digits(const char *p, const char *end, bool is_fraction,
                               struct decimal *decimal) {
  for (; is_digit(p, end); p++) {
    if (decimal->digits < UINT64_C(1000000000000000000)) {
      decimal->digits = decimal->digits * 10 + (uint64_t)(*p - '0');
      decimal->exponent -= is_fraction;
    } else {
      decimal->is_cut |= *p != '0';
      decimal->exponent += !is_fraction;
    }
  }
  return p;
}

// From behind the 'e' on; NULL when no digit follows.
static const char *read_exponent(const char **at, const char *end, struct decimal *decimal) {
  const char *p = *at;
  bool is_negative = p < end && *p == '-';
  p += p < end && (*p == '-' || *p == '+');
  *at = p;
  if (!is_digit(p, end)) {
    return NULL;
  }
  int64_t exponent = 0;
  for (; is_digit(p, end); p++) {
    exponent = exponent > INT64_C(1) << 40 ? exponent : exponent * 10 + (*p - '0');
  }
  decimal->exponent += is_negative ? -exponent : exponent;
  return p;
}

static int refuse(struct json_number *number, size_t size, const char *why) {
  number->size = size;
  number->why = why;
  return ERR_NUMBER;
}

int json_number_read(const char *text, size_t size, struct json_number *number) {
  const char *end = text + size;
  bool is_negative = size > 0 && text[0] == '-';
  const char *start = text + is_negative;
  struct decimal decimal = {0};
  if (!is_digit(start, end)) {
    return refuse(number, (size_t)(start - text), "a digit is missing in a number");
  }
  const char *p = read_digits(start, end, false, &decimal);
  if (*start == '0' && p - start > 1) {
    return refuse(number, (size_t)(start - text) + 1, "a number with a leading zero");
  }
  bool is_integer = true;
  if (p < end && *p == '.') {
    is_integer = false;
    if (!is_digit(++p, end)) {
      return refuse(number, (size_t)(p - text), "a digit is missing behind the point");
    }
    p = read_digits(p, end, true, &decimal);
  }
  if (p < end && (*p == 'e' || *p == 'E')) {
    is_integer = false;
    const char *at = p + 1;
    p = read_exponent(&at, end, &decimal);
    if (p == NULL) {
      return refuse(number, (size_t)(at - text), "a digit is missing in the exponent");
    }
  }
  number->size = (size_t)(p - text);
  number->is_large = 0;
  double value;
  if (is_integer) {
    number->is_large = decimal.exponent != 0 || decimal.digits > (uint64_t)JSON_EXACT_MAX;
    value = (double)decimal.digits;
  } else if (!decimal.is_cut && decimal.exponent >= -POWER_MAX && decimal.exponent <= POWER_MAX) {
    value = small_decimal(decimal.digits, (int)decimal.exponent);
  } else {
    value = large_decimal(start, (size_t)(p - start));
    if (isinf(value)) {
      return refuse(number, 0, "a number larger than any double");
    }
  }
  number->value = is_negative ? -value : value;
  return 0;
}

// The decimal digits that were found, and the exponent of the first one.
struct digits {
  char text[17];
  int count;
  int exponent;
};

static size_t write_integer(uint64_t number, char *text) {
  char backward[20];
  size_t count = 0;
  do {
    backward[count++] = (char)('0' + number % 10);
    number /= 10;
  } while (number != 0);
  for (size_t i = 0; i < count; i++) {
    text[i] = backward[count - 1 - i];
  }
  return count;
}

// mantissa * 2^binary * 10^decimal, rounded to an integer.
static uint64_t scaled(uint64_t mantissa, int binary, int decimal) {
  if (decimal >= 0) {
    return (uint64_t)shift_round((wide)mantissa * power_of_five[decimal], -(binary + decimal),
                                 false);
  }
  int shift = binary + decimal;
  wide numerator = mantissa;
  wide divisor = power_of_five[-decimal];
  if (shift >= 0) {
    numerator <<= shift;
  } else {
    divisor <<= -shift;
  }
  wide quotient = numerator / divisor;
  wide twice = (numerator % divisor) * 2;
  return (uint64_t)quotient + (twice > divisor || (twice == divisor && (quotient & 1) != 0));
}

// The shortest digits by exact arithmetic; false when the value is too large or small for it.
// Any decimal of up to 15 digits is the nearest one of its double, so 15 digits come first and lose
// their zeros.
static bool short_digits(double value, struct digits *digits) {
  static const uint64_t limit[3] = {UINT64_C(1000000000000000), UINT64_C(10000000000000000),
                                    UINT64_C(100000000000000000)};
  int binary;
  uint64_t mantissa = (uint64_t)ldexp(frexp(value, &binary), 53);
  // The exponent of the first digit is this or one more: 78913 / 2^18 is log10(2), near enough.
  int first = (int)(((int64_t)(binary - 1) * 78913) >> 18);
  if (first < -10 || first > 38) {
    return false;
  }
  for (int count = 15; count <= 17; count++) {
    uint64_t number = scaled(mantissa, binary - 53, count - 1 - first);
    if (number >= limit[count - 15]) {
      first++;
      number = scaled(mantissa, binary - 53, count - 1 - first);
    }
    if (small_decimal(number, first - count + 1) == value) {
      while (number % 10 == 0) {
        number /= 10;
      }
      digits->count = (int)write_integer(number, digits->text);
      digits->exponent = first;
      return true;
    }
  }
  return false;
}

// The same by way of the C library. What a locale puts for the point is no digit, and skipped.
static void long_digits(double value, struct digits *digits) {
  for (int precision = 0; precision < 17; precision++) {
    char text[64];
    snprintf(text, sizeof text, "%.*e", precision, value);
    digits->count = 0;
    const char *p = text;
    for (; *p != 'e'; p++) {
      if (*p >= '0' && *p <= '9') {
        digits->text[digits->count++] = *p;
      }
    }
    digits->exponent = (int)strtol(p + 1, NULL, 10);
    char plain[64];
    memcpy(plain, digits->text, (size_t)digits->count);
    snprintf(plain + digits->count, sizeof plain - (size_t)digits->count, "e%d",
             digits->exponent - digits->count + 1);
    if (strtod(plain, NULL) == value) {
      return;
    }
  }
}

static size_t lay_out(const struct digits *digits, char *text) {
  char *p = text;
  int whole = digits->exponent + 1;
  if (whole <= 0 && whole > -6) {
    memcpy(p, "0.00000", (size_t)(2 - whole));
    p += 2 - whole;
    memcpy(p, digits->text, (size_t)digits->count);
    return (size_t)(p - text) + (size_t)digits->count;
  }
  if (whole > 0 && whole < digits->count) {
    memcpy(p, digits->text, (size_t)whole);
    p[whole] = '.';
    memcpy(p + whole + 1, digits->text + whole, (size_t)(digits->count - whole));
    return (size_t)digits->count + 1;
  }
  *p++ = digits->text[0];
  if (digits->count > 1) {
    *p++ = '.';
    memcpy(p, digits->text + 1, (size_t)digits->count - 1);
    p += digits->count - 1;
  }
  *p++ = 'e';
  if (digits->exponent < 0) {
    *p++ = '-';
  }
  p += write_integer((uint64_t)abs(digits->exponent), p);
  return (size_t)(p - text);
}

size_t json_number_write(double value, char text[JSON_NUMBER_ROOM]) {
  if (!isfinite(value)) {
    return 0;
  }
  char *p = text;
  if (signbit(value)) {
    *p++ = '-';
    value = -value;
  }
  if (value <= JSON_EXACT_MAX && value == (double)(uint64_t)value) {
    return (size_t)(p - text) + write_integer((uint64_t)value, p);
  }
  struct digits digits = {0};
  if (!short_digits(value, &digits)) {
    long_digits(value, &digits);
  }
  return (size_t)(p - text) + lay_out(&digits, p);
}
