// What follows a StyleGAN1 convolution, per plane (sample n, channel c):
//
//   a = leaky(x + noise[n, pixel] * strength[c] + bias[c]);  h = (a - mean a) / sqrt(var a + 1e-8)
//   y = h * (style[n, c] + 1) + style[n, channels + c]
//
// Planes up to NT * PER pixels are one block's work and stay in registers (one pass). Larger ones are cut
// into chunks: a first launch leaves every chunk's statistics, a second merges them and applies.
// ``noise`` and ``strength`` may be null. statistics [planes, 2]: mean of a, 1 / deviation.
#pragma once

#include "shim.cuh"

const double LEAKY_SLOPE = 0.2;
const double EPSILON = 1e-8;

DEVICE float reciprocal_root(float v) { return 1.0f / sqrtf(v); }
DEVICE double reciprocal_root(double v) { return 1.0 / sqrt(v); }

// A run of pixels of one plane, with what is added to them.
template <typename T>
struct Strip {
    typedef typename Accumulator<T>::type A;
    int64 begin;  // of the run in x
    int count;
    const T* noise;  // of the run's first pixel
    A bias, strength;
    int64 sample;
    int channel;

    DEVICE Strip(int64 plane, int first, int count_, const T* bias_, const T* noise_,
                 const T* strength_, int channels, int pixels, int64 noise_stride) {
        sample = quotient(plane, channels);
        channel = int(plane - sample * channels);
        begin = plane * pixels + first;
        count = count_;
        noise = noise_ ? noise_ + sample * noise_stride + first : nullptr;
        bias = load(bias_[channel]);
        strength = noise_ ? load(strength_[channel]) : A(0);
    }
};

// The pixel that a thread holds in a slot: neighbours share a vector where accesses are wide.
template <typename T, int NT>
DEVICE int pixel_of(bool wide, int t, int slot) {
    const int V = Wide<T>::COUNT;
    return wide ? (slot / V * NT + t) * V + slot % V : slot * NT + t;
}

// Read a vector's worth of slots, zeros beyond the end.
template <typename T, int NT>
DEVICE Wide<T> fetch(const T* from, bool wide, int t, int slot, int count) {
    const int V = Wide<T>::COUNT;
    Wide<T> found = {};
    if (wide) {
        const int i = pixel_of<T, NT>(true, t, slot);
        if (i < count) found = load_wide(from + i);
    } else {
        UNROLL for (int k = 0; k < V; ++k) {
            const int i = pixel_of<T, NT>(false, t, slot + k);
            if (i < count) found.values[k] = from[i];
        }
    }
    return found;
}

template <typename T, int NT>
DEVICE void put(T* to, const Wide<T>& values, bool wide, int t, int slot, int count) {
    const int V = Wide<T>::COUNT;
    if (wide) {
        const int i = pixel_of<T, NT>(true, t, slot);
        if (i < count) store_wide(to + i, values);
    } else {
        UNROLL for (int k = 0; k < V; ++k) {
            const int i = pixel_of<T, NT>(false, t, slot + k);
            if (inside(i, count)) to[i] = values.values[k];
        }
    }
}

// Fill ``a`` with the activations of the strip (zeros beyond its end).
template <typename T, int NT, int PER>
DEVICE void activate(const Strip<T>& strip, const T* x, bool wide,
                     REG_ARGUMENT(typename Accumulator<T>::type, a, NT, PER)) {
    typedef typename Accumulator<T>::type A;
    const int V = Wide<T>::COUNT;
    THREADS(t) {
        UNROLL for (int slot = 0; slot < PER; slot += V) {
            const Wide<T> in = fetch<T, NT>(x + strip.begin, wide, t, slot, strip.count);
            Wide<T> noise = {};
            if (strip.noise) noise = fetch<T, NT>(strip.noise, wide, t, slot, strip.count);
            UNROLL for (int k = 0; k < V; ++k) {
                const A u = load(in.values[k]) + load(noise.values[k]) * strip.strength + strip.bias;
                const bool real = pixel_of<T, NT>(wide, t, slot + k) < strip.count;
                R(a, t, slot + k) = real ? (u > A(0) ? u : u * A(LEAKY_SLOPE)) : A(0);
            }
        }
    }
}

// Mean and sum of squared distances from it, of what the block holds: two passes on purpose, because
// E[a^2] - E[a]^2 cancels badly on nearly constant planes.
template <typename T, int NT, int PER>
DEVICE void measure(REG_ARGUMENT(typename Accumulator<T>::type, a, NT, PER), bool wide, int count,
                    typename Accumulator<T>::type* mean, typename Accumulator<T>::type* squares) {
    typedef typename Accumulator<T>::type A;
    SHARED A slots[NT];
    THREADS(t) {
        A sum = A(0);
        UNROLL for (int slot = 0; slot < PER; ++slot) sum += R(a, t, slot);
        slots[t] = sum;
    }
    const A centre = block_sum<NT>(slots) / A(count);
    THREADS(t) {
        A sum = A(0);
        UNROLL for (int slot = 0; slot < PER; ++slot) {
            const A distance = R(a, t, slot) - centre;
            if (pixel_of<T, NT>(wide, t, slot) < count) sum += distance * distance;
        }
        slots[t] = sum;
    }
    *squares = block_sum<NT>(slots);
    *mean = centre;
}

// Write h * factor + shift.
template <typename T, int NT, int PER>
DEVICE void restyle(const Strip<T>& strip, REG_ARGUMENT(typename Accumulator<T>::type, a, NT, PER),
                    const T* style, int channels, typename Accumulator<T>::type mean,
                    typename Accumulator<T>::type inverse, T* y, bool wide) {
    typedef typename Accumulator<T>::type A;
    const int V = Wide<T>::COUNT;
    const T* own = style + strip.sample * 2 * channels + strip.channel;
    const A factor = (load(own[0]) + A(1)) * inverse, shift = load(own[channels]);
    THREADS(t) {
        UNROLL for (int slot = 0; slot < PER; slot += V) {
            Wide<T> out;
            UNROLL for (int k = 0; k < V; ++k) {
                store(out.values[k], (R(a, t, slot + k) - mean) * factor + shift);
            }
            put<T, NT>(y + strip.begin, out, wide, t, slot, strip.count);
        }
    }
}

template <typename T, int NT, int PER>
KERNEL(NT)
epilogue_plane(const T* x, const T* bias, const T* noise, const T* strength, const T* style, T* y,
               typename Accumulator<T>::type* statistics, int channels, int pixels,
               int64 noise_stride) {
    typedef typename Accumulator<T>::type A;
    const int64 plane = BLOCK_INDEX;
    const Strip<T> strip(plane, 0, pixels, bias, noise, strength, channels, pixels, noise_stride);
    const bool wide = aligned(x) && aligned(y) && aligned(noise) && pixels % Wide<T>::COUNT == 0;
    REG(A, a, NT, PER);
    activate<T, NT, PER>(strip, x, wide, a);
    A mean, squares;
    measure<T, NT, PER>(a, wide, pixels, &mean, &squares);
    const A inverse = reciprocal_root(squares / A(pixels) + A(EPSILON));
    restyle<T, NT, PER>(strip, a, style, channels, mean, inverse, y, wide);
    THREADS(t) {
        if (t == 0) {
            statistics[plane * 2] = mean;
            statistics[plane * 2 + 1] = inverse;
        }
    }
}

// ---- planes in chunks

const int CHUNK_VALUES = 16;  // per thread

// partials [planes, chunks, 2]: mean and sum of squared distances of each chunk.
template <typename T, int NT>
KERNEL(NT)
epilogue_statistics(const T* x, const T* bias, const T* noise, const T* strength,
                    typename Accumulator<T>::type* partials, int channels, int pixels, int chunks,
                    int64 noise_stride) {
    typedef typename Accumulator<T>::type A;
    const int CHUNK = NT * CHUNK_VALUES;
    const int64 plane = quotient(BLOCK_INDEX, chunks);
    const int first = int(BLOCK_INDEX - plane * chunks) * CHUNK;
    const int count = int(smaller(CHUNK, pixels - first));
    const Strip<T> strip(plane, first, count, bias, noise, strength, channels, pixels, noise_stride);
    const bool wide = aligned(x) && aligned(noise) && pixels % Wide<T>::COUNT == 0;
    REG(A, a, NT, CHUNK_VALUES);
    activate<T, NT, CHUNK_VALUES>(strip, x, wide, a);
    A mean, squares;
    measure<T, NT, CHUNK_VALUES>(a, wide, count, &mean, &squares);
    THREADS(t) {
        if (t == 0) {
            partials[int64(BLOCK_INDEX) * 2] = mean;
            partials[int64(BLOCK_INDEX) * 2 + 1] = squares;
        }
    }
}

template <typename T, int NT>
KERNEL(NT)
epilogue_apply(const T* x, const T* bias, const T* noise, const T* strength, const T* style,
               const typename Accumulator<T>::type* partials, T* y,
               typename Accumulator<T>::type* statistics, int channels, int pixels, int chunks,
               int64 noise_stride) {
    typedef typename Accumulator<T>::type A;
    const int CHUNK = NT * CHUNK_VALUES;
    const int64 plane = quotient(BLOCK_INDEX, chunks);
    const int chunk = int(BLOCK_INDEX - plane * chunks), first = chunk * CHUNK;
    const int count = int(smaller(CHUNK, pixels - first));
    const A* own = partials + plane * chunks * 2;
    SHARED A slots[NT];
    THREADS(t) {
        A sum = A(0);
        for (int i = t; i < chunks; i += NT) sum += own[i * 2] * A(smaller(CHUNK, pixels - i * CHUNK));
        slots[t] = sum;
    }
    const A mean = block_sum<NT>(slots) / A(pixels);
    THREADS(t) {
        A sum = A(0);
        for (int i = t; i < chunks; i += NT) {
            const A off = own[i * 2] - mean;
            sum += own[i * 2 + 1] + off * off * A(smaller(CHUNK, pixels - i * CHUNK));
        }
        slots[t] = sum;
    }
    const A inverse = reciprocal_root(block_sum<NT>(slots) / A(pixels) + A(EPSILON));
    const Strip<T> strip(plane, first, count, bias, noise, strength, channels, pixels, noise_stride);
    const bool wide = aligned(x) && aligned(y) && aligned(noise) && pixels % Wide<T>::COUNT == 0;
    REG(A, a, NT, CHUNK_VALUES);
    activate<T, NT, CHUNK_VALUES>(strip, x, wide, a);
    restyle<T, NT, CHUNK_VALUES>(strip, a, style, channels, mean, inverse, y, wide);
    THREADS(t) {
        if (t == 0 && chunk == 0) {
            statistics[plane * 2] = mean;
            statistics[plane * 2 + 1] = inverse;
        }
    }
}
