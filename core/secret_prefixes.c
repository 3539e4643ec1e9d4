// SPDX-License-Identifier: MIT
#include "secret_rules.h"

#include <string.h>

// One vendor's token. `word` is the length of what stands before the first separator: that
// separator is the trigger. A body of letters and digits only needs no further look, because names
// that people write are shorter or have separators; nor does one behind a prefix that nobody uses
// for anything else. Where neither holds it must be dense, so that sk-fading-circle-animation is
// left alone.
struct prefix {
  const char *text;
  uint8_t size;
  uint8_t word;
  uint8_t min; // of the body
  uint8_t class;
  bool dense;
};

#define PREFIX(text, word, min, class)                                                             \
  { text, sizeof(text) - 1, word, min, class, false }
#define DENSE(text, word, min, class)                                                              \
  { text, sizeof(text) - 1, word, min, class, true }
#define END                                                                                        \
  { NULL, 0, 0, 0, 0, false }
#define ALNUM SECRET_ALNUM
#define TOKEN SECRET_TOKEN
#define TOKEN_DOT SECRET_TOKEN_DOT
#define BASE64 SECRET_BASE64

// Sorted by the first letter, which is how they are looked up.
static const struct prefix upper_a[] = {PREFIX("AGE-SECRET-KEY-1", 3, 50, ALNUM), END};
static const struct prefix upper_g[] = {PREFIX("GOCSPX-", 6, 24, TOKEN), END};
static const struct prefix upper_n[] = {PREFIX("NRAK-", 4, 20, ALNUM), END};
static const struct prefix upper_p[] = {PREFIX("PMAK-", 4, 50, TOKEN), END};
static const struct prefix upper_s[] = {DENSE("SG.", 2, 40, TOKEN_DOT), END};
static const struct prefix lower_a[] = {PREFIX("apify_api_", 5, 30, ALNUM), END};
static const struct prefix lower_d[] = {
    PREFIX("dop_v1_", 3, 40, ALNUM),   PREFIX("doo_v1_", 3, 40, ALNUM),
    PREFIX("dor_v1_", 3, 40, ALNUM),   PREFIX("dckr_pat_", 4, 20, TOKEN),
    PREFIX("dckr_oat_", 4, 20, TOKEN), PREFIX("dp.pt.", 2, 40, ALNUM),
    DENSE("dp.st.", 2, 40, TOKEN_DOT), END};
static const struct prefix lower_f[] = {PREFIX("fc-", 2, 32, ALNUM), PREFIX("figd_", 4, 36, TOKEN),
                                        END};
static const struct prefix lower_g[] = {
    PREFIX("ghp_", 3, 30, ALNUM),    PREFIX("gho_", 3, 30, ALNUM),
    PREFIX("ghu_", 3, 30, ALNUM),    PREFIX("ghs_", 3, 30, ALNUM),
    PREFIX("ghr_", 3, 30, ALNUM),    DENSE("github_pat_", 6, 30, TOKEN),
    PREFIX("glpat-", 5, 20, TOKEN),  PREFIX("gldt-", 4, 20, TOKEN),
    PREFIX("glrt-", 4, 20, TOKEN),   PREFIX("glft-", 4, 20, TOKEN),
    PREFIX("glptt-", 5, 20, TOKEN),  PREFIX("glcbt-", 5, 20, TOKEN),
    PREFIX("glsoat-", 6, 20, TOKEN), PREFIX("glimt-", 5, 20, TOKEN),
    PREFIX("gloas-", 5, 20, TOKEN),  PREFIX("glagent-", 7, 20, TOKEN),
    PREFIX("gsk_", 3, 40, ALNUM),    END};
static const struct prefix lower_h[] = {PREFIX("hf_", 2, 30, ALNUM), DENSE("hvs.", 3, 24, TOKEN),
                                        DENSE("hvb.", 3, 24, TOKEN), DENSE("hvr.", 3, 24, TOKEN),
                                        END};
static const struct prefix lower_k[] = {PREFIX("key-", 3, 32, ALNUM), END};
static const struct prefix lower_l[] = {PREFIX("lin_api_", 3, 32, ALNUM),
                                        DENSE("lsv2_pt_", 4, 32, TOKEN),
                                        DENSE("lsv2_sk_", 4, 32, TOKEN), END};
static const struct prefix lower_n[] = {PREFIX("npm_", 3, 36, ALNUM), PREFIX("ntn_", 3, 40, ALNUM),
                                        PREFIX("nfp_", 3, 36, ALNUM), END};
static const struct prefix lower_p[] = {PREFIX("pplx-", 4, 40, ALNUM),
                                        DENSE("pypi-", 4, 50, TOKEN),
                                        PREFIX("phx_", 3, 40, ALNUM),
                                        PREFIX("pul-", 3, 40, ALNUM),
                                        DENSE("pscale_tkn_", 6, 32, TOKEN_DOT),
                                        DENSE("pscale_pw_", 6, 32, TOKEN_DOT),
                                        DENSE("pscale_oauth_", 6, 32, TOKEN_DOT),
                                        END};
static const struct prefix lower_r[] = {
    PREFIX("r8_", 2, 36, ALNUM), PREFIX("rk_live_", 2, 16, ALNUM), PREFIX("rk_test_", 2, 16, ALNUM),
    PREFIX("rubygems_", 8, 40, ALNUM), END};
static const struct prefix lower_s[] = {
    DENSE("sk-", 2, 20, TOKEN),        PREFIX("sk_live_", 2, 16, ALNUM),
    PREFIX("sk_test_", 2, 16, ALNUM),  PREFIX("shpat_", 5, 32, ALNUM),
    PREFIX("shpss_", 5, 32, ALNUM),    PREFIX("shpca_", 5, 32, ALNUM),
    PREFIX("shppa_", 5, 32, ALNUM),    PREFIX("sq0atp-", 6, 22, TOKEN),
    PREFIX("sq0csp-", 6, 22, TOKEN),   PREFIX("sbp_", 3, 40, ALNUM),
    DENSE("sb_secret_", 2, 20, TOKEN), PREFIX("sntryu_", 6, 40, ALNUM),
    DENSE("sntrys_", 6, 40, BASE64),   DENSE("syt_", 3, 30, TOKEN),
    PREFIX("secret_", 6, 40, ALNUM),   END};
static const struct prefix lower_t[] = {PREFIX("tvly-", 4, 20, TOKEN),
                                        PREFIX("tskey-", 5, 20, TOKEN), END};
static const struct prefix lower_v[] = {DENSE("vercel_blob_rw_", 6, 24, TOKEN), END};
static const struct prefix lower_w[] = {DENSE("whsec_", 5, 24, BASE64), END};
static const struct prefix lower_x[] = {
    PREFIX("xoxb-", 4, 12, TOKEN),     PREFIX("xoxp-", 4, 12, TOKEN),
    PREFIX("xoxa-", 4, 12, TOKEN),     PREFIX("xoxr-", 4, 12, TOKEN),
    PREFIX("xoxs-", 4, 12, TOKEN),     PREFIX("xoxe-", 4, 12, TOKEN),
    PREFIX("xoxe.", 4, 20, TOKEN_DOT), PREFIX("xapp-", 4, 20, TOKEN),
    PREFIX("xai-", 3, 40, ALNUM),      END};
static const struct prefix lower_y[] = {PREFIX("ya29.", 4, 20, TOKEN), END};

static const struct prefix *const by_letter[128] = {
    ['A'] = upper_a, ['G'] = upper_g, ['N'] = upper_n, ['P'] = upper_p, ['S'] = upper_s,
    ['a'] = lower_a, ['d'] = lower_d, ['f'] = lower_f, ['g'] = lower_g, ['h'] = lower_h,
    ['k'] = lower_k, ['l'] = lower_l, ['n'] = lower_n, ['p'] = lower_p, ['r'] = lower_r,
    ['s'] = lower_s, ['t'] = lower_t, ['v'] = lower_v, ['w'] = lower_w, ['x'] = lower_x,
    ['y'] = lower_y};

static enum secret_verdict try_prefix(const struct secret_view *v, const struct prefix *p,
                                      struct secret *found) {
  struct secret_bound bound = secret_bound(v, SECRET_LOOK_AHEAD);
  size_t start = v->at - p->word;
  size_t come = bound.end - start < p->size ? bound.end - start : p->size;
  if (memcmp(v->text + start, p->text, come) != 0) {
    return SECRET_NONE;
  }
  if (come < p->size) {
    return bound.more ? SECRET_MORE : SECRET_NONE;
  }
  size_t body = start + p->size;
  size_t end = secret_run(v, body, secret_judged_end(bound, body), p->class);
  if (end == bound.end && bound.more) {
    return SECRET_MORE;
  }
  if (end - body < p->min || (p->dense && !secret_is_dense(v->text + body, end - body, 10))) {
    return SECRET_NONE;
  }
  end = secret_run(v, end, bound.end, p->class);
  if (end == bound.end && bound.more) {
    return SECRET_MORE;
  }
  found->rest = end == bound.end && bound.cut ? p->class : 0;
  // A dot or a dash at the end belongs to the sentence.
  while (found->rest == 0 && end > body &&
         (secret_class[(uint8_t)v->text[end - 1]] & SECRET_ALNUM) == 0 && v->text[end - 1] != '=') {
    end--;
  }
  if (end - body < p->min) {
    return SECRET_NONE;
  }
  found->start = start;
  found->end = end;
  return SECRET_FOUND;
}

enum secret_verdict secret_by_prefix(const struct secret_view *v, struct secret *found) {
  size_t word = secret_word_before(v);
  if (word == 0 || word > SECRET_WORD_MAX) {
    return SECRET_NONE;
  }
  size_t start = v->at - word;
  const struct prefix *p = by_letter[(uint8_t)v->text[start] & 127];
  // An identifier that merely ends like a prefix: my_sk-...
  if (p == NULL || (start > v->floor && v->text[start - 1] == '_')) {
    return SECRET_NONE;
  }
  enum secret_verdict verdict = SECRET_NONE;
  for (; p->text != NULL && verdict == SECRET_NONE; p++) {
    if (p->word == word && p->text[1] == v->text[start + 1]) {
      verdict = try_prefix(v, p, found);
    }
  }
  return verdict;
}
