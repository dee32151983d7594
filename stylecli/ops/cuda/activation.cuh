// y = clamp(act(x * scale[n, c] + noise[n, pixel] * strength[c] + bias[c]) * gain), and its gradient.
//
// x is seen as [n, channels, inner]. A block takes a span of NT * 16 elements in a row. scale,
// noise, strength and bias may be null. SMOOTH = 0 serves linear, relu and lrelu, which differ in the
// slope below zero; SMOOTH = 1 the six activations with an exponential, named by ``act``.
#pragma once

#include "shim.cuh"

enum Act { TANH = 0, SIGMOID = 1, ELU = 2, SELU = 3, SOFTPLUS = 4, SWISH = 5 };

const double SELU_ALPHA = 1.6732632423543772;
const double SELU_SCALE = 1.0507009873554805;

DEVICE float exponential(float v) { return expf(v); }
DEVICE double exponential(double v) { return exp(v); }
DEVICE float exponential_minus_one(float v) { return expm1f(v); }
DEVICE double exponential_minus_one(double v) { return expm1(v); }
DEVICE float log_one_plus(float v) { return log1pf(v); }
DEVICE double log_one_plus(double v) { return log1p(v); }
DEVICE float hyperbolic_tangent(float v) { return tanhf(v); }
DEVICE double hyperbolic_tangent(double v) { return tanh(v); }

template <typename A>
DEVICE A sigmoid_of(A u) {
    // The exponential never overflows: its argument is at most zero.
    const A e = exponential(u < A(0) ? u : -u);
    return (u < A(0) ? e : A(1)) / (A(1) + e);
}

template <int SMOOTH, typename A>
DEVICE A activated(int act, A u, A alpha) {
    if (!SMOOTH) {
        if (alpha == A(0) && u == u) return u > A(0) ? u : A(0);  // 0 * infinity is not a number
        return u > A(0) ? u : u * alpha;
    }
    switch (act) {
        case TANH: return hyperbolic_tangent(u);
        case SIGMOID: return sigmoid_of(u);
        case ELU: return u > A(0) ? u : exponential_minus_one(u);
        case SELU:
            return A(SELU_SCALE) * (u > A(0) ? u : A(SELU_ALPHA) * exponential_minus_one(u));
        case SOFTPLUS: return (u > A(0) ? u : A(0)) + log_one_plus(exponential(u > A(0) ? -u : u));
        default: return u * sigmoid_of(u);
    }
}

template <int SMOOTH, typename A>
DEVICE A slope_at(int act, A u, A alpha) {
    if (!SMOOTH) return u > A(0) ? A(1) : alpha;
    switch (act) {
        case TANH: {
            const A y = hyperbolic_tangent(u);
            return A(1) - y * y;
        }
        case SIGMOID: {
            const A y = sigmoid_of(u);
            return y * (A(1) - y);
        }
        case ELU: return u > A(0) ? A(1) : exponential(u);
        case SELU: return A(SELU_SCALE) * (u > A(0) ? A(1) : A(SELU_ALPHA) * exponential(u));
        case SOFTPLUS: return sigmoid_of(u);
        default: {
            const A y = sigmoid_of(u);
            return y * (A(1) + u * (A(1) - y));
        }
    }
}

// Where an element lies and what is added to it there.
template <typename T>
struct Surroundings {
    typedef typename Accumulator<T>::type A;
    const T* bias;      // [channels]
    const T* scale;     // [n, channels]
    const T* noise;     // [n or 1, inner]
    const T* strength;  // [channels]
    int64 inner;
    int64 noise_stride;  // elements from one sample's noise to the next, 0 when shared
    int channels;

    struct Place {
        A bias, scale, strength;
        const T* noise;  // of the element itself
    };

    DEVICE Place at(int64 element) const {
        const int64 plane = quotient(element, inner);
        const int64 sample = quotient(plane, channels);
        const int channel = int(plane - sample * channels);
        Place place;
        place.bias = bias ? load(bias[channel]) : A(0);
        place.scale = scale ? load(scale[plane]) : A(1);
        place.strength = strength ? load(strength[channel]) : A(1);
        place.noise = noise ? noise + sample * noise_stride + (element - plane * inner) : nullptr;
        return place;
    }
};

template <typename T, typename A>
DEVICE A preactivation(A x, const typename Surroundings<T>::Place& place, int step) {
    A u = x * place.scale + place.bias;
    if (place.noise) u += load(place.noise[step]) * place.strength;
    return u;
}

template <typename A>
DEVICE A clamped(A v, A limit) {
    if (limit < A(0)) return v;
    return v > limit ? limit : v < -limit ? -limit : v;  // not a number stays what it is
}

const int SPAN_VALUES = 16;  // elements per thread

template <typename T, int SMOOTH, int NT>
KERNEL(NT)
bias_act(const T* x, const T* bias, const T* scale, const T* noise, const T* strength, T* y,
         int64 total, int64 inner, int64 noise_stride, int channels, int act, double alpha_,
         double gain_, double clamp_) {
    typedef typename Accumulator<T>::type A;
    const A alpha = A(alpha_), gain = A(gain_), limit = A(clamp_);
    const Surroundings<T> around = {bias, scale, noise, strength, inner, noise_stride, channels};
    const int V = Wide<T>::COUNT;
    const int64 begin = int64(BLOCK_INDEX) * (NT * SPAN_VALUES);
    const int64 end = smaller(begin + NT * SPAN_VALUES, total);
    const bool wide = aligned(x) && aligned(y) && inner % V == 0;
    THREADS(t) {
        if (wide) {
            for (int64 i = begin + t * V; i < end; i += NT * V) {
                const typename Surroundings<T>::Place place = around.at(i);
                const Wide<T> in = load_wide(x + i);
                Wide<T> out;
                UNROLL for (int k = 0; k < V; ++k) {
                    const A u = preactivation<T>(load(in.values[k]), place, k);
                    store(out.values[k], clamped(activated<SMOOTH>(act, u, alpha) * gain, limit));
                }
                store_wide(y + i, out);
            }
        } else {
            for (int64 i = begin + t; i < end; i += NT) {
                const A u = preactivation<T>(load(x[i]), around.at(i), 0);
                store(y[i], clamped(activated<SMOOTH>(act, u, alpha) * gain, limit));
            }
        }
    }
}

// du = dy * act'(u) * gain where the clamp let the value pass; dx = du * scale.
//
// ``reference`` is x, or y when ``from_output`` says so (SMOOTH = 0, positive slopes and gain, no scale).
// With ``sums`` [planes, spans, 3] a block stays inside one plane (``spans`` blocks a plane) and writes
// the sums of du, du * x and du * noise over its span; without, a block takes any span of x.
template <typename T, int SMOOTH, int NT>
KERNEL(NT)
bias_act_gradient(const T* dy, const T* reference, const T* bias, const T* scale, const T* noise,
                  const T* strength, T* dx, typename Accumulator<T>::type* sums, int64 total,
                  int64 inner, int64 noise_stride, int channels, int spans, int act,
                  int from_output, double alpha_, double gain_, double clamp_) {
    typedef typename Accumulator<T>::type A;
    const A alpha = A(alpha_), gain = A(gain_), limit = A(clamp_);
    T rounded;  // an output that was cut is the limit as T stores it
    store(rounded, limit);
    const A seen_limit = load(rounded);
    const Surroundings<T> around = {bias, scale, noise, strength, inner, noise_stride, channels};
    const int V = Wide<T>::COUNT;
    const int SPAN = NT * SPAN_VALUES;
    int64 begin, end;
    if (sums) {
        const int64 plane = quotient(BLOCK_INDEX, spans);
        begin = plane * inner + (BLOCK_INDEX - plane * spans) * int64(SPAN);
        end = smaller(begin + SPAN, (plane + 1) * inner);
    } else {
        begin = int64(BLOCK_INDEX) * SPAN;
        end = smaller(begin + SPAN, total);
    }
    const bool wide = aligned(dy) && aligned(reference) && aligned(dx) && inner % V == 0;
    REG(A, partial, NT, 3);
    THREADS(t) {
        A sum_u = A(0), sum_x = A(0), sum_noise = A(0);
        for (int64 i = begin + (wide ? t * V : t); i < end; i += wide ? NT * V : NT) {
            const typename Surroundings<T>::Place place = around.at(i);
            Wide<T> grad, seen, out;
            const int count = wide ? V : 1;
            if (wide) {
                grad = load_wide(dy + i);
                seen = load_wide(reference + i);
            } else {
                grad.values[0] = dy[i];
                seen.values[0] = reference[i];
            }
            UNROLL for (int k = 0; k < V; ++k) {
                if (k >= count) break;
                const A value = load(seen.values[k]);
                A u, y;
                if (from_output) {
                    u = y = value;  // of one sign; the value itself is needed for the clamp alone
                } else {
                    u = preactivation<T>(value, place, k);
                    y = limit < A(0) ? A(0) : activated<SMOOTH>(act, u, alpha) * gain;
                }
                A du = load(grad.values[k]) * slope_at<SMOOTH>(act, u, alpha) * gain;
                // An output equal to the limit was almost surely cut; an input never seen cannot tell.
                const bool cut = from_output ? y >= seen_limit || y <= -seen_limit
                                             : y > limit || y < -limit;
                if (limit >= A(0) && cut) du = A(0);
                store(out.values[k], du * place.scale);
                sum_u += du;
                sum_x += du * value;
                if (place.noise) sum_noise += du * load(place.noise[k]);
            }
            if (wide) {
                store_wide(dx + i, out);
            } else {
                dx[i] = out.values[0];
            }
        }
        R(partial, t, 0) = sum_u;
        R(partial, t, 1) = sum_x;
        R(partial, t, 2) = sum_noise;
    }
    if (sums) {
        SHARED A slots[NT];
        UNROLL for (int kind = 0; kind < 3; ++kind) {
            THREADS(t) { slots[t] = R(partial, t, kind); }
            const A sum = block_sum<NT>(slots);
            THREADS(t) {
                if (t == 0) sums[int64(BLOCK_INDEX) * 3 + kind] = sum;
            }
        }
    }
}
