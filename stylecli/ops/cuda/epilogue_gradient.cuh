// Gradients of the StyleGAN1 epilogue (epilogue.cuh), per plane of P pixels with g = dL/dy:
//
//   d scale = sum g h;  d shift = sum g
//   da = (g - mean g - h * mean(g h)) * (scale + 1) / deviation;  dx = da * (a > 0 ? 1 : 0.2)
//   d bias = sum dx;  d strength = sum dx * noise      (left per plane or chunk; torch adds them up)
//
// a is recomputed from x; statistics [planes, 2] come from the forward pass.
#pragma once

#include "epilogue.cuh"

template <typename T, int NT, int PER>
DEVICE void fetch_values(const T* from, bool wide, int count,
                         REG_ARGUMENT(typename Accumulator<T>::type, values, NT, PER)) {
    const int V = Wide<T>::COUNT;
    THREADS(t) {
        UNROLL for (int slot = 0; slot < PER; slot += V) {
            const Wide<T> in = fetch<T, NT>(from, wide, t, slot, count);
            UNROLL for (int k = 0; k < V; ++k) R(values, t, slot + k) = load(in.values[k]);
        }
    }
}

// sums[0] = sum of g * h, sums[1] = sum of g. g is zero beyond the end.
template <typename T, int NT, int PER>
DEVICE void style_sums(REG_ARGUMENT(typename Accumulator<T>::type, a, NT, PER),
                       REG_ARGUMENT(typename Accumulator<T>::type, g, NT, PER),
                       typename Accumulator<T>::type mean, typename Accumulator<T>::type inverse,
                       typename Accumulator<T>::type* sums) {
    typedef typename Accumulator<T>::type A;
    SHARED A slots[NT];
    THREADS(t) {
        A sum = A(0);
        UNROLL for (int i = 0; i < PER; ++i) sum += R(g, t, i) * ((R(a, t, i) - mean) * inverse);
        slots[t] = sum;
    }
    sums[0] = block_sum<NT>(slots);
    THREADS(t) {
        A sum = A(0);
        UNROLL for (int i = 0; i < PER; ++i) sum += R(g, t, i);
        slots[t] = sum;
    }
    sums[1] = block_sum<NT>(slots);
}

// Write dx and leave sums[0] = sum of dx, sums[1] = sum of dx * noise. ``amount`` is (scale + 1) / deviation.
template <typename T, int NT, int PER>
DEVICE void write_gradient(const Strip<T>& strip, REG_ARGUMENT(typename Accumulator<T>::type, a, NT, PER),
                           REG_ARGUMENT(typename Accumulator<T>::type, g, NT, PER),
                           typename Accumulator<T>::type mean, typename Accumulator<T>::type inverse,
                           typename Accumulator<T>::type mean_g, typename Accumulator<T>::type mean_gh,
                           typename Accumulator<T>::type amount, T* dx, bool wide,
                           typename Accumulator<T>::type* sums) {
    typedef typename Accumulator<T>::type A;
    const int V = Wide<T>::COUNT;
    SHARED A slots[NT];
    REG(A, with_noise, NT, 1);
    THREADS(t) {
        A sum = A(0), sum_noise = A(0);
        UNROLL for (int slot = 0; slot < PER; slot += V) {
            Wide<T> noise = {}, out;
            if (strip.noise) noise = fetch<T, NT>(strip.noise, wide, t, slot, strip.count);
            UNROLL for (int k = 0; k < V; ++k) {
                const A value = R(a, t, slot + k), h = (value - mean) * inverse;
                const A da = (R(g, t, slot + k) - mean_g - h * mean_gh) * amount;
                const bool real = pixel_of<T, NT>(wide, t, slot + k) < strip.count;
                const A du = real ? (value > A(0) ? da : da * A(LEAKY_SLOPE)) : A(0);
                sum += du;
                sum_noise += du * load(noise.values[k]);
                store(out.values[k], du);
            }
            put<T, NT>(dx + strip.begin, out, wide, t, slot, strip.count);
        }
        slots[t] = sum;
        R(with_noise, t, 0) = sum_noise;
    }
    sums[0] = block_sum<NT>(slots);
    THREADS(t) { slots[t] = R(with_noise, t, 0); }
    sums[1] = block_sum<NT>(slots);
}

template <typename T>
DEVICE typename Accumulator<T>::type factor_of(const Strip<T>& strip, const T* style, int channels) {
    typedef typename Accumulator<T>::type A;
    return load(style[strip.sample * 2 * channels + strip.channel]) + A(1);
}

// sums [planes, 4]: d scale, d shift, sum of dx, sum of dx * noise.
template <typename T, int NT, int PER>
KERNEL(NT)
epilogue_plane_gradient(const T* dy, const T* x, const T* bias, const T* noise, const T* strength,
                        const T* style, const typename Accumulator<T>::type* statistics, T* dx,
                        typename Accumulator<T>::type* sums, int channels, int pixels,
                        int64 noise_stride) {
    typedef typename Accumulator<T>::type A;
    const int64 plane = BLOCK_INDEX;
    const Strip<T> strip(plane, 0, pixels, bias, noise, strength, channels, pixels, noise_stride);
    const bool wide = aligned(dy) && aligned(x) && aligned(dx) && aligned(noise) &&
                      pixels % Wide<T>::COUNT == 0;
    const A mean = statistics[plane * 2], inverse = statistics[plane * 2 + 1];
    REG(A, a, NT, PER);
    REG(A, g, NT, PER);
    activate<T, NT, PER>(strip, x, wide, a);
    fetch_values<T, NT, PER>(dy + strip.begin, wide, pixels, g);
    A of_style[2], of_input[2];
    style_sums<T, NT, PER>(a, g, mean, inverse, of_style);
    write_gradient<T, NT, PER>(strip, a, g, mean, inverse, of_style[1] / A(pixels),
                               of_style[0] / A(pixels), factor_of(strip, style, channels) * inverse,
                               dx, wide, of_input);
    THREADS(t) {
        if (t == 0) {
            sums[plane * 4] = of_style[0];
            sums[plane * 4 + 1] = of_style[1];
            sums[plane * 4 + 2] = of_input[0];
            sums[plane * 4 + 3] = of_input[1];
        }
    }
}

// sums [planes, chunks, 2]: d scale and d shift of every chunk.
template <typename T, int NT>
KERNEL(NT)
epilogue_gradient_statistics(const T* dy, const T* x, const T* bias, const T* noise,
                             const T* strength, const typename Accumulator<T>::type* statistics,
                             typename Accumulator<T>::type* sums, int channels, int pixels,
                             int chunks, int64 noise_stride) {
    typedef typename Accumulator<T>::type A;
    const int CHUNK = NT * CHUNK_VALUES;
    const int64 plane = quotient(BLOCK_INDEX, chunks);
    const int first = int(BLOCK_INDEX - plane * chunks) * CHUNK;
    const int count = int(smaller(CHUNK, pixels - first));
    const Strip<T> strip(plane, first, count, bias, noise, strength, channels, pixels, noise_stride);
    const bool wide = aligned(dy) && aligned(x) && aligned(noise) && pixels % Wide<T>::COUNT == 0;
    REG(A, a, NT, CHUNK_VALUES);
    REG(A, g, NT, CHUNK_VALUES);
    activate<T, NT, CHUNK_VALUES>(strip, x, wide, a);
    fetch_values<T, NT, CHUNK_VALUES>(dy + strip.begin, wide, count, g);
    A found[2];
    style_sums<T, NT, CHUNK_VALUES>(a, g, statistics[plane * 2], statistics[plane * 2 + 1], found);
    THREADS(t) {
        if (t == 0) {
            sums[int64(BLOCK_INDEX) * 2] = found[0];
            sums[int64(BLOCK_INDEX) * 2 + 1] = found[1];
        }
    }
}

// style_sums_ as the launch before left them; input_sums [planes, chunks, 2]: sums of dx and dx * noise.
template <typename T, int NT>
KERNEL(NT)
epilogue_gradient_apply(const T* dy, const T* x, const T* bias, const T* noise, const T* strength,
                        const T* style, const typename Accumulator<T>::type* statistics,
                        const typename Accumulator<T>::type* style_sums_, T* dx,
                        typename Accumulator<T>::type* input_sums, int channels, int pixels,
                        int chunks, int64 noise_stride) {
    typedef typename Accumulator<T>::type A;
    const int CHUNK = NT * CHUNK_VALUES;
    const int64 plane = quotient(BLOCK_INDEX, chunks);
    const int first = int(BLOCK_INDEX - plane * chunks) * CHUNK;
    const int count = int(smaller(CHUNK, pixels - first));
    const A* own = style_sums_ + plane * chunks * 2;
    A merged[2];
    SHARED A slots[NT];
    for (int kind = 0; kind < 2; ++kind) {
        THREADS(t) {
            A sum = A(0);
            for (int i = t; i < chunks; i += NT) sum += own[i * 2 + kind];
            slots[t] = sum;
        }
        merged[kind] = block_sum<NT>(slots) / A(pixels);
    }
    const Strip<T> strip(plane, first, count, bias, noise, strength, channels, pixels, noise_stride);
    const bool wide = aligned(dy) && aligned(x) && aligned(dx) && aligned(noise) &&
                      pixels % Wide<T>::COUNT == 0;
    const A mean = statistics[plane * 2], inverse = statistics[plane * 2 + 1];
    REG(A, a, NT, CHUNK_VALUES);
    REG(A, g, NT, CHUNK_VALUES);
    activate<T, NT, CHUNK_VALUES>(strip, x, wide, a);
    fetch_values<T, NT, CHUNK_VALUES>(dy + strip.begin, wide, count, g);
    A found[2];
    write_gradient<T, NT, CHUNK_VALUES>(strip, a, g, mean, inverse, merged[1], merged[0],
                                        factor_of(strip, style, channels) * inverse, dx, wide, found);
    THREADS(t) {
        if (t == 0) {
            input_sums[int64(BLOCK_INDEX) * 2] = found[0];
            input_sums[int64(BLOCK_INDEX) * 2 + 1] = found[1];
        }
    }
}
