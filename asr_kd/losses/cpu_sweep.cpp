// Losses and gradient of frames on a CPU, one frame at a time, so that its logits are read from memory once.
// Names are those of Sweep, CompactRows and DenseRows in sweep.py; cpu_sweep.py has the fields of Arguments too.

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

enum Kind { PROBABILITIES, LOGITS, NONE, EVEN, PRIOR };
enum Hard { NO_LABELS, AT_1, AT_2, AT_T };

constexpr float LOG2_E = 1.44269504f;
constexpr int64_t BLOCK = 1024;  // sums are in float within a block, and in double over the blocks

struct Arguments {
  const float *logits, *soft;
  float *out;
  const int64_t *kept_classes;
  const float *change;
  float *values;
  const float *share, *base;
  const int64_t *labels;
  const bool *excluded;
  const float *soft_scale, *hard_scale;
  float *mass, *total, *hard_total, *label_y, *dot, *entropy;
  int64_t logits_row, soft_row, out_row, classes, num_kept, kind;
  double temperature;
};

// 2^y for y <= 0; a NaN stays one.
inline float power(float y) {
  y = y < -127.0f ? -127.0f : y;
  const int32_t whole = static_cast<int32_t>(y - 0.5f);
  const float f = y - static_cast<float>(whole);
  float p = 1.535336188e-4f;
  p = p * f + 1.339887440e-3f;
  p = p * f + 9.618437357e-3f;
  p = p * f + 5.550332471e-2f;
  p = p * f + 2.402264791e-1f;
  p = p * f + 6.931472028e-1f;
  p = p * f + 1.0f;
  const int32_t bits = static_cast<int32_t>(static_cast<uint32_t>(whole + 127) << 23);
  float scale;
  std::memcpy(&scale, &bits, 4);
  return p * scale;
}

// Base-2 logarithm of a positive, normal number; the polynomial is that of Cephes' logf.
inline float logarithm(float q) {
  int32_t bits;
  std::memcpy(&bits, &q, 4);
  const int32_t exponent = (bits - 0x3f3504f3) >> 23;  // of a mantissa between the roots of 1/2 and 2
  bits -= exponent * (1 << 23);
  float x;
  std::memcpy(&x, &bits, 4);
  x -= 1.0f;
  float p = 7.0376836292e-2f;
  p = p * x - 1.1514610310e-1f;
  p = p * x + 1.1676998740e-1f;
  p = p * x - 1.2420140846e-1f;
  p = p * x + 1.4249322787e-1f;
  p = p * x - 1.6668057665e-1f;
  p = p * x + 2.0000714765e-1f;
  p = p * x - 2.4999993993e-1f;
  p = p * x + 3.3333331174e-1f;
  const float square = x * x;
  return (x + (p * x * square - 0.5f * square)) * LOG2_E + static_cast<float>(exponent);
}

float largest(const float *values, int64_t classes) {
  float peak = -INFINITY;
#pragma omp simd reduction(max : peak)
  for (int64_t j = 0; j < classes; j++) peak = std::max(peak, values[j]);
  return peak;
}

template <Kind KIND, Hard HARD>
void frame(const Arguments &a, int64_t i, float *out, float *hard, float *q_row) {
  const int64_t classes = a.classes;
  const float *z = a.logits + i * a.logits_row, *t = a.soft + i * a.soft_row;
  const float scale = static_cast<float>(LOG2_E / a.temperature);
  const float peak = largest(z, classes), soft_peak = KIND == LOGITS ? largest(t, classes) : 0.0f;
  double total = 0, hard_total = 0, mass = 0, dot = 0, q_log_q = 0;
  for (int64_t start = 0; start < classes; start += BLOCK) {
    const int64_t end = std::min(start + BLOCK, classes);
    float block_total = 0, block_hard = 0, block_mass = 0, block_dot = 0, block_log = 0;
#pragma omp simd reduction(+ : block_total, block_hard, block_mass, block_dot, block_log)
    for (int64_t j = start; j < end; j++) {
      const float y = scale * (z[j] - peak), e = power(y);
      out[j] = e;
      block_total += e;
      if (HARD == AT_2) block_hard += e * e;
      if (HARD == AT_T) {
        hard[j] = power(LOG2_E * (z[j] - peak));
        block_hard += hard[j];
      }
      if (KIND <= LOGITS) {
        float q, log_q;
        if (KIND == LOGITS) {
          log_q = scale * (t[j] - soft_peak);
          log_q = log_q < -2000.0f ? -2000.0f : log_q;  // so that 0 times it is 0
          q = power(log_q);
          q_row[j] = q;
        } else {
          q = t[j];
          log_q = logarithm(q < FLT_MIN ? FLT_MIN : q);
        }
        block_mass += q;
        block_log += q * log_q;
        // A class with a logit of -inf costs nothing if its target is zero, and else more than any other class.
        block_dot += q * (y < -FLT_MAX ? -FLT_MAX : y);
      }
      if (KIND == EVEN) block_dot += y;
      if (KIND == PRIOR) block_dot += a.base[j] * y;
    }
    total += block_total, hard_total += block_hard, mass += block_mass, dot += block_dot, q_log_q += block_log;
  }

  const double norm = KIND == LOGITS ? 1 / mass : 1;
  if (KIND <= LOGITS) {
    a.entropy[i] = static_cast<float>(((KIND == LOGITS ? std::log2(mass) : 0) - q_log_q * norm) / LOG2_E);
    a.mass[i] = static_cast<float>(mass * norm);
  }
  a.dot[i] = static_cast<float>(dot * norm);
  a.total[i] = static_cast<float>(total);
  if (HARD == AT_1) hard_total = total;
  if (HARD != NO_LABELS) {
    a.hard_total[i] = static_cast<float>(hard_total);
    a.label_y[i] = scale * (z[a.labels[i]] - peak);
  }
  if (KIND > LOGITS)
    for (int64_t k = i * a.num_kept; k < (i + 1) * a.num_kept; k++)
      a.values[k] = scale * (z[a.kept_classes[k]] - peak);
  if (!a.out) return;

  const float rate = static_cast<float>(a.soft_scale[i] * a.mass[i] / total);
  const float hard_rate = HARD == NO_LABELS ? 0.0f : static_cast<float>(a.hard_scale[i] / hard_total);
  const float q_rate = static_cast<float>(a.soft_scale[i] * norm), spread = KIND >= EVEN ? a.share[i] : 0.0f;
  const float *q = KIND == LOGITS ? q_row : t;
#pragma omp simd
  for (int64_t j = 0; j < classes; j++) {
    const float e = out[j];
    float slope = rate * e;
    if (HARD == AT_1) slope += hard_rate * e;
    if (HARD == AT_2) slope += hard_rate * e * e;
    if (HARD == AT_T) slope += hard_rate * hard[j];
    if (KIND <= LOGITS) slope -= q_rate * q[j];
    if (KIND == EVEN) slope -= spread;
    if (KIND == PRIOR) slope -= spread * a.base[j];
    out[j] = slope;
  }
  if (KIND > LOGITS)
    for (int64_t k = i * a.num_kept; k < (i + 1) * a.num_kept; k++) out[a.kept_classes[k]] += a.change[k];
  if (HARD != NO_LABELS) out[a.labels[i]] -= a.hard_scale[i];
}

template <Kind KIND, Hard HARD>
void frames(const Arguments &a, int64_t first, int64_t last, float *spare) {
  for (int64_t i = first; i < last; i++) {
    float *out = a.out ? a.out + i * a.out_row : spare + 2 * a.classes;
    if (!a.excluded[i])
      frame<KIND, HARD>(a, i, out, spare, spare + a.classes);
    else if (a.out)  // padding: the logits may be NaN
      std::fill_n(out, a.classes, 0.0f);
  }
}

template <Kind KIND>
void frames(const Arguments &a, int64_t first, int64_t last, float *spare) {
  if (!a.labels) return frames<KIND, NO_LABELS>(a, first, last, spare);
  if (a.temperature == 1) return frames<KIND, AT_1>(a, first, last, spare);
  if (a.temperature == 2) return frames<KIND, AT_2>(a, first, last, spare);
  frames<KIND, AT_T>(a, first, last, spare);
}

}  // namespace

// Frames first to last - 1; spare has room for 3 C floats.
extern "C" void sweep_frames(const Arguments *a, int64_t first, int64_t last, float *spare) {
  switch (a->kind) {
    case PROBABILITIES: return frames<PROBABILITIES>(*a, first, last, spare);
    case LOGITS: return frames<LOGITS>(*a, first, last, spare);
    case NONE: return frames<NONE>(*a, first, last, spare);
    case EVEN: return frames<EVEN>(*a, first, last, spare);
    case PRIOR: return frames<PRIOR>(*a, first, last, spare);
  }
}
