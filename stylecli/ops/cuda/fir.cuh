// Pad, upsample by zero insertion, filter, downsample:
//
//   y[oy, ox] = gain * sum over ky, kx of k[ky, kx] * u[oy * down_y + ky - pad_y, ox * down_x + kx - pad_x]
//
// where u[i * up_y, j * up_x] = x[i, j] and all else is zero; k is the filter, turned by 180 degrees
// unless ``flip``. A negative padding crops. Only the taps that meet a sample are visited.
#pragma once

#include "shim.cuh"

// One output per thread, any factors and any filter: also the two passes of a separable filter.
template <typename T, int NT>
KERNEL(NT)
fir_any(const T* x, const typename Accumulator<T>::type* filter, T* y, int64 total, int in_h,
        int in_w, int out_h, int out_w, int filter_h, int filter_w, int up_y, int up_x, int down_y,
        int down_x, int pad_y, int pad_x, int flip, double gain) {
    typedef typename Accumulator<T>::type A;
    THREADS(t) {
        const int64 i = int64(BLOCK_INDEX) * NT + t;
        if (inside(i, total)) {
            const int64 row = quotient(i, out_w);
            const int ox = int(i - row * out_w);
            const int64 plane = quotient(row, out_h);
            const int oy = int(row - plane * out_h);
            const T* from = x + plane * in_h * in_w;
            // The first tap on a sample; the next ones follow at steps of ``up``.
            const int base_y = oy * down_y - pad_y, base_x = ox * down_x - pad_x;
            int iy = base_y > 0 ? (base_y + up_y - 1) / up_y : 0;
            const int first_x = base_x > 0 ? (base_x + up_x - 1) / up_x : 0;
            A sum = A(0);
            for (int ky = iy * up_y - base_y; ky < filter_h && iy < in_h; ky += up_y, ++iy) {
                int ix = first_x;
                for (int kx = ix * up_x - base_x; kx < filter_w && ix < in_w; kx += up_x, ++ix) {
                    const int tap = ky * filter_w + kx;
                    const A weight = filter[flip ? tap : filter_h * filter_w - 1 - tap];
                    sum += weight * load(from[int64(iy) * in_w + ix]);
                }
            }
            store(y[i], sum * A(gain));
        }
    }
}

const int FIR_TAPS = 4;
const int FIR_TILE = 32;  // outputs of a block, both ways

// Filters up to 4 x 4; UP and DOWN are 1 or 2, alike both ways, not both 2. The block's part of x goes
// through shared memory, so that every sample is read about once.
template <typename T, int UP, int DOWN, int NT>
KERNEL(NT)
fir_tile(const T* x, const typename Accumulator<T>::type* filter, T* y, int in_h, int in_w, int out_h,
         int out_w, int filter_h, int filter_w, int pad_y, int pad_x, int tiles_y, int tiles_x, int flip,
         double gain) {
    typedef typename Accumulator<T>::type A;
    const int SIDE = ((FIR_TILE - 1) * DOWN + FIR_TAPS - 1) / UP + 1;
    SHARED A taps[FIR_TAPS * FIR_TAPS];
    SHARED A tile[SIDE * SIDE];
    const int64 tiles = int64(tiles_y) * tiles_x;
    const int64 plane = quotient(BLOCK_INDEX, tiles);
    const int in_plane = int(BLOCK_INDEX - plane * tiles);
    const int oy0 = in_plane / tiles_x * FIR_TILE, ox0 = in_plane % tiles_x * FIR_TILE;
    // The sample under or right after the first tap: a quotient rounded up, also below zero.
    const int iy0 = (oy0 * DOWN - pad_y + UP - 1) >> (UP - 1);
    const int ix0 = (ox0 * DOWN - pad_x + UP - 1) >> (UP - 1);
    const T* from = x + plane * in_h * in_w;
    THREADS(t) {
        if (t < FIR_TAPS * FIR_TAPS) {
            const int ky = t / FIR_TAPS, kx = t % FIR_TAPS;
            const bool real = ky < filter_h && kx < filter_w;
            const int tap = ky * filter_w + kx;
            taps[t] = real ? filter[flip ? tap : filter_h * filter_w - 1 - tap] * A(gain) : A(0);
        }
        for (int i = t; i < SIDE * SIDE; i += NT) {
            const int iy = iy0 + i / SIDE, ix = ix0 + i % SIDE;
            const bool real = iy >= 0 && iy < in_h && ix >= 0 && ix < in_w;
            tile[i] = real ? load(from[int64(iy) * in_w + ix]) : A(0);
        }
    }
    SYNC();
    THREADS(t) {
        UNROLL for (int i = t; i < FIR_TILE * FIR_TILE; i += NT) {
            const int oy = oy0 + i / FIR_TILE, ox = ox0 + i % FIR_TILE;
            if (oy < out_h && ox < out_w) {
                const int base_y = oy * DOWN - pad_y, base_x = ox * DOWN - pad_x;
                const int ky0 = base_y & (UP - 1), kx0 = base_x & (UP - 1);
                const A* corner = tile + (((base_y + ky0) >> (UP - 1)) - iy0) * SIDE +
                                  (((base_x + kx0) >> (UP - 1)) - ix0);
                A sum = A(0);
                UNROLL for (int jy = 0; jy < FIR_TAPS / UP; ++jy) {
                    UNROLL for (int jx = 0; jx < FIR_TAPS / UP; ++jx) {
                        sum += taps[(ky0 + jy * UP) * FIR_TAPS + kx0 + jx * UP] * corner[jy * SIDE + jx];
                    }
                }
                store(y[(plane * out_h + oy) * out_w + ox], sum);
            }
        }
    }
}
