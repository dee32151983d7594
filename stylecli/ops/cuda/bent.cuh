// filtered_lrelu where nothing changes its size: bias, leaky ReLU, clamp, then a small filter.
//
//   y[o] = sum over k of taps[k] * f(x[o + k - pad] + bias),  f(u) = clamp(leaky(u * up^2) * gain)
//
// with zeros outside of x. ``up`` is the one tap of the filter before the activation; ``filter`` is one row
// of taps for both axes (height 0), or [height, width], turned by 180 degrees where ``turned``.
//
//   BENT     that, of x
//   BACK     its gradient: v is one of its output, filtered and then multiplied by f' at x
//   FORTH    the gradient of that by v: v is multiplied by f' at x, then filtered
//
// BACK and FORTH are each other's transpose. ``sums``, if given, has the sum of what each block writes.
#pragma once

#include "activation.cuh"
#include "channels_last.cuh"
#include "filtered.cuh"
#include "fir.cuh"

enum Way { BENT, BACK, FORTH };

// The activation f, or its slope.
template <typename T>
struct Bender {
    typedef typename Accumulator<T>::type A;
    A before;  // what a value is multiplied by on its way to the activation
    Bend<A> bend;

    DEVICE Bender(const A* up, double slope, double gain, double clamp) {
        before = up[0] * up[0];
        bend = {A(slope), A(gain), A(clamp)};
    }
    DEVICE A bent(A u) const {
        A place;
        keep<VALUE>(place, u * before, bend);
        return place;
    }
    DEVICE A slope(A u) const {
        A place;
        keep<FACTOR>(place, u * before, bend);
        return place * before;
    }
};

template <typename A>
DEVICE A tap_at(const A* filter, int height, int width, int ky, int kx, bool turned) {
    if (height == 0) {
        return turned ? filter[width - 1 - ky] * filter[width - 1 - kx] : filter[ky] * filter[kx];
    }
    const int k = ky * width + kx;
    return filter[turned ? height * width - 1 - k : k];
}

// A block makes a tile of one plane, as fir_tile does. Given are v, or x where WAY is BENT, of in_h x in_w;
// x has the size of y where WAY is BACK, else that of what is given.
template <typename T, int WAY, int NT>
KERNEL(NT)
bent_tile(const T* v, const T* x, const T* bias, const typename Accumulator<T>::type* up,
          const typename Accumulator<T>::type* filter, T* y, typename Accumulator<T>::type* sums,
          int channels, int in_h, int in_w, int out_h, int out_w, int filter_h, int filter_w,
          int pad_y, int pad_x, int tiles_y, int tiles_x, int turned, double slope, double gain,
          double clamp) {
    typedef typename Accumulator<T>::type A;
    const int SIDE = FIR_TILE + FIR_TAPS - 1;
    SHARED A taps[FIR_TAPS * FIR_TAPS];
    SHARED A tile[SIDE * SIDE];
    const Bender<T> f(up, slope, gain, clamp);
    const OutputTile<FIR_TILE, FIR_TILE> out(tiles_y, tiles_x);
    const A b = bias ? load(bias[out.plane % channels]) : A(0);
    const T* given = (WAY == BENT ? x : v) + out.plane * in_h * in_w;
    const T* seen = x + out.plane * (WAY == BACK ? int64(out_h) * out_w : int64(in_h) * in_w);
    REG(A, partial, NT, 1);
    THREADS(t) {
        if (t < FIR_TAPS * FIR_TAPS) {
            const int ky = t / FIR_TAPS, kx = t % FIR_TAPS;
            const bool real = ky < (filter_h ? filter_h : filter_w) && kx < filter_w;
            taps[t] = real ? tap_at(filter, filter_h, filter_w, ky, kx, turned) : A(0);
        }
        for (int i = t; i < SIDE * SIDE; i += NT) {
            const int iy = out.y - pad_y + i / SIDE, ix = out.x - pad_x + i % SIDE;
            A value = A(0);
            if (iy >= 0 && iy < in_h && ix >= 0 && inside(ix, in_w)) {
                const int64 at = int64(iy) * in_w + ix;
                value = load(given[at]);
                if (WAY == BENT) value = f.bent(value + b);
                if (WAY == FORTH) value *= f.slope(load(seen[at]) + b);
            }
            tile[i] = value;
        }
    }
    SYNC();
    THREADS(t) {
        A total = A(0);
        UNROLL for (int i = t; i < FIR_TILE * FIR_TILE; i += NT) {
            const int row = i / FIR_TILE, column = i % FIR_TILE;
            const int oy = out.y + row, ox = out.x + column;
            if (oy < out_h && ox < out_w) {
                const A* corner = tile + row * SIDE + column;
                A sum = A(0);
                UNROLL for (int ky = 0; ky < FIR_TAPS; ++ky) {
                    UNROLL for (int kx = 0; kx < FIR_TAPS; ++kx) {
                        sum += taps[ky * FIR_TAPS + kx] * corner[ky * SIDE + kx];
                    }
                }
                const int64 at = int64(oy) * out_w + ox;
                if (WAY == BACK) sum *= f.slope(load(seen[at]) + b);
                store(y[out.plane * out_h * out_w + at], sum);
                total += sum;
            }
        }
        R(partial, t, 0) = total;
    }
    if (sums) {
        SHARED A slots[NT];
        THREADS(t) { slots[t] = R(partial, t, 0); }
        const A sum = block_sum<NT>(slots);
        THREADS(t) {
            if (t == 0) sums[BLOCK_INDEX] = sum;
        }
    }
}

// The same for channels-last features; ``pixels`` are the output's. sums [planes, chunks].
template <typename T, int WAY, int NT>
KERNEL_AT_EASE(NT)
bent_last(const T* v, const T* x, const T* bias, const typename Accumulator<T>::type* up,
          const typename Accumulator<T>::type* filter, T* y, typename Accumulator<T>::type* sums,
          int channels, int pixels, int wide, int groups, int lanes, int rows, int run_pixels,
          int chunks, int tiles, int in_h, int in_w, int out_w, int filter_h, int filter_w,
          int pad_y, int pad_x, int turned, double slope, double gain, double clamp) {
    typedef typename Accumulator<T>::type A;
    const int V = Four<T>::COUNT;
    const Layout at = {channels, pixels, wide, groups, lanes, rows, run_pixels, chunks, tiles};
    const int width = wide ? V : 1;
    const Run run(BLOCK_INDEX, at);
    const Bender<T> f(up, slope, gain, clamp);
    const int reach_y = filter_h ? filter_h : filter_w;
    REG(A, partial, NT, V);
    THREADS(t) {
        const Post post(t, run, at, width);
        UNROLL for (int k = 0; k < V; ++k) R(partial, t, k) = A(0);
        if (post.active) {
            A b[V];
            fetch_each(bias ? bias + post.channel : nullptr, width, A(0), b);
            const int64 before = run.sample * in_h * in_w;
            for (int p = post.row; p < run.count; p += rows) {
                const int oy = (run.first + p) / out_w, ox = (run.first + p) % out_w;
                const int64 own = (run.sample * pixels + run.first + p) * channels + post.channel;
                A sum[V];
                UNROLL for (int k = 0; k < V; ++k) sum[k] = A(0);
                // Unrolled, which NVRTC would do for some cards, they took up to 95 registers.
                ROLLED for (int ky = 0; ky < reach_y; ++ky) {
                    const int iy = oy + ky - pad_y;
                    if (iy < 0 || iy >= in_h) continue;
                    ROLLED for (int kx = 0; kx < filter_w; ++kx) {
                        const int ix = ox + kx - pad_x;
                        if (ix < 0 || !inside(ix, in_w)) continue;
                        const A tap = tap_at(filter, filter_h, filter_w, ky, kx, turned);
                        const int64 i = (before + int64(iy) * in_w + ix) * channels + post.channel;
                        const Four<T> given = fetch_vector<Four<T>>((WAY == BENT ? x : v) + i, wide);
                        Four<T> seen = {};
                        if (WAY == FORTH) seen = fetch_vector<Four<T>>(x + i, wide);
                        UNROLL for (int k = 0; k < V; ++k) {
                            if (k >= width) break;
                            A value = load(given.values[k]);
                            if (WAY == BENT) value = f.bent(value + b[k]);
                            if (WAY == FORTH) value *= f.slope(load(seen.values[k]) + b[k]);
                            sum[k] += tap * value;
                        }
                    }
                }
                Four<T> seen = {}, out;
                if (WAY == BACK) seen = fetch_vector<Four<T>>(x + own, wide);
                UNROLL for (int k = 0; k < V; ++k) {
                    if (k >= width) break;
                    if (WAY == BACK) sum[k] *= f.slope(load(seen.values[k]) + b[k]);
                    store(out.values[k], sum[k]);
                    R(partial, t, k) += sum[k];
                }
                put_vector(y + own, out, wide);
            }
        }
    }
    if (sums) {
        SHARED A slots[V * NT];
        THREADS(t) {
            UNROLL for (int k = 0; k < V; ++k) slots[k * NT + t] = R(partial, t, k);
        }
        add_rows<NT, V>(slots, lanes, rows);
        THREADS(t) {
            const Post post(t, run, at, width);
            if (post.active && post.row == 0) {
                for (int k = 0; k < width; ++k) {
                    const int64 plane = run.sample * channels + post.channel + k;
                    sums[plane * chunks + run.chunk] = slots[k * NT + t];
                }
            }
        }
    }
}
