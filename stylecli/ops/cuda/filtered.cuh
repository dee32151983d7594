// filtered_lrelu: bias, upsampling, leaky ReLU, clamp, downsampling, and its gradients of any order.
//
//   s[p] = sum over k of up[k] * z[p + k - low],  z[i * UP] = x[i] + bias, zero elsewhere
//   y[o] = sum over k of down[k] * clamp(leaky(s[o * DOWN + k]) * gain)
//
// along both axes. A block makes TW x TH outputs of one plane; the upsampled picture exists only as
// its part of it, in shared memory. A filter has at most six taps for every pixel at the lower rate.
// ``up`` is one row of taps for both axes; ``down`` is that (height 0) or [height, width].
//
// The gradient is the same walk backwards: dy goes up by DOWN through the turned ``down`` filter, is
// multiplied by the activation's slope at s, which is made again from x, and goes down by UP. What
// that gives is linear in dy, and its own gradient is the walk forwards with the same slopes.
#pragma once

#include "activation.cuh"

const int FILTERED_TAPS = 6;     // for every pixel at the lower rate
const int FILTERED_OUTPUTS = 8;  // upsampled values that a thread makes, or takes for its outputs

// An odd distance between rows: neighbours in a column lie in different banks.
DEVICE constexpr int pitch(int width) { return width | 1; }

// One axis of upsampling by F to S values, which begin anywhere between two samples. A thread makes
// eight in a row, from the first that lies on a sample.
template <int F, int S>
struct Rise {
    static const int GROUP = FILTERED_OUTPUTS / F;  // samples under a thread's values
    static const int GROUPS = (S + F - 1 + FILTERED_OUTPUTS - 1) / FILTERED_OUTPUTS;
    static const int REACH = GROUPS * GROUP + FILTERED_TAPS;  // samples that all threads see
    static const int PAIRS = (S + F - 1 + F - 1) / F;  // samples under all values
};

template <typename A>
struct Bend {
    A slope, gain, limit;
};

enum Keep { VALUE, FACTOR, PRODUCT };

// What becomes of an upsampled value: it is bent; it leaves the slope there; it is multiplied by that.
template <int KEEP, typename A>
DEVICE void keep(A& place, A u, const Bend<A>& bend) {
    if (KEEP == PRODUCT) {
        place *= u;
        return;
    }
    const A y = activated<0>(0, u, bend.slope) * bend.gain;
    if (KEEP == VALUE) {
        place = clamped(y, bend.limit);
    } else {
        const bool cut = bend.limit >= A(0) && (y > bend.limit || y < -bend.limit);
        place = cut ? A(0) : slope_at<0>(0, u, bend.slope) * bend.gain;
    }
}

// Put a filter's taps into the order in which they meet the signal, with zeros up to SIDE.
template <int SIDE, int NT, typename A>
DEVICE void fetch_taps(A* taps, const A* filter, int height, int width, bool turned, A gain) {
    THREADS(t) {
        if (height == 0) {
            for (int k = t; k < SIDE; k += NT) {
                taps[k] = k < width ? filter[turned ? width - 1 - k : k] * gain : A(0);
            }
        } else {
            for (int i = t; i < SIDE * SIDE; i += NT) {
                const int ky = i / SIDE, kx = i % SIDE, k = ky * width + kx;
                const bool real = ky < height && kx < width;
                taps[i] = real ? filter[turned ? height * width - 1 - k : k] * gain * gain : A(0);
            }
        }
    }
}

// A plane [height, width] and the part of it that the block's upsampled values come from.
template <typename T>
struct Samples {
    typedef typename Accumulator<T>::type A;
    const T* values;
    int height, width;
    A bias;
    int first_y, first_x;  // the part's first sample
    int skip_y, skip_x;    // upsampled values between that and the block's first one

    // py, px: the block's first value; the filter's first tap is ``low`` values before its own.
    template <int F>
    DEVICE void place(int py, int px, int low_y, int low_x) {
        const int y = py - low_y, x = px - low_x;
        skip_y = y & (F - 1);
        skip_x = x & (F - 1);
        first_y = (y - skip_y) / F;
        first_x = (x - skip_x) / F;
    }
};

template <int F, int SH, int SW, int NT, typename T, typename A>
DEVICE void fetch_samples(A* tile, const Samples<T>& from) {
    const int HEIGHT = Rise<F, SH>::REACH, WIDTH = Rise<F, SW>::REACH;
    THREADS(t) {
        for (int i = t; i < HEIGHT * WIDTH; i += NT) {
            const int row = i / WIDTH, column = i % WIDTH;
            const int y = from.first_y + row, x = from.first_x + column;
            const bool real = y >= 0 && y < from.height && x >= 0 && inside(x, from.width);
            tile[row * pitch(WIDTH) + column] =
                real ? load(from.values[int64(y) * from.width + x]) + from.bias : A(0);
        }
    }
}

// Eight upsampled values in a row: each meets the taps that lie on samples, every F-th of them.
template <int F, typename A>
DEVICE A rise(const A* own, const A* values, int q) {
    const int k = (F - q % F) % F, i = (q + F - 1) / F;
    A sum = A(0);
    UNROLL for (int j = 0; j < FILTERED_TAPS; ++j) sum += own[k + j * F] * values[i + j];
    return sum;
}

// Upsample along x into ``between`` [REACH, SW]. Neighbouring threads take neighbouring rows.
template <int F, int SH, int SW, int NT, typename T, typename A>
DEVICE void rise_across(A* between, const A* tile, const A* taps, const Samples<T>& from) {
    typedef Rise<F, SW> Axis;
    const int ROWS = Rise<F, SH>::REACH;
    THREADS(t) {
        A own[F * FILTERED_TAPS];
        UNROLL for (int k = 0; k < F * FILTERED_TAPS; ++k) own[k] = taps[k];
        ROLLED for (int unit = t; unit < ROWS * Axis::GROUPS; unit += NT) {
            const int row = unit % ROWS, group = unit / ROWS;
            const A* line = tile + row * pitch(Axis::REACH) + group * Axis::GROUP;
            A values[Axis::GROUP + FILTERED_TAPS];
            UNROLL for (int i = 0; i < Axis::GROUP + FILTERED_TAPS; ++i) values[i] = line[i];
            UNROLL for (int q = 0; q < FILTERED_OUTPUTS; ++q) {
                const int p = group * FILTERED_OUTPUTS + q - from.skip_x;
                if (p >= 0 && p < SW) between[row * pitch(SW) + p] = rise<F>(own, values, q);
            }
        }
    }
}

// Upsample along y into ``fine`` [SH, SW]. Neighbouring threads take neighbouring columns.
template <int KEEP, int F, int SH, int SW, int NT, typename T, typename A>
DEVICE void rise_along(A* fine, const A* between, const A* taps, const Samples<T>& from,
                       const Bend<A>& bend) {
    typedef Rise<F, SH> Axis;
    THREADS(t) {
        A own[F * FILTERED_TAPS];
        UNROLL for (int k = 0; k < F * FILTERED_TAPS; ++k) own[k] = taps[k];
        ROLLED for (int unit = t; unit < SW * Axis::GROUPS; unit += NT) {
            const int column = unit % SW, group = unit / SW;
            const A* line = between + group * Axis::GROUP * pitch(SW) + column;
            A values[Axis::GROUP + FILTERED_TAPS];
            UNROLL for (int i = 0; i < Axis::GROUP + FILTERED_TAPS; ++i) {
                values[i] = line[i * pitch(SW)];
            }
            UNROLL for (int q = 0; q < FILTERED_OUTPUTS; ++q) {
                const int p = group * FILTERED_OUTPUTS + q - from.skip_y;
                if (p >= 0 && p < SH) {
                    keep<KEEP>(fine[p * pitch(SW) + column], rise<F>(own, values, q), bend);
                }
            }
        }
    }
}

// Upsample both ways at once, with a filter that does not separate: F x F values a thread.
template <int F, int SH, int SW, int NT, typename T, typename A>
DEVICE void rise_square(A* fine, const A* tile, const A* taps, const Samples<T>& from,
                        const Bend<A>& bend) {
    const int SIDE = F * FILTERED_TAPS, ACROSS = Rise<F, SW>::PAIRS;
    THREADS(t) {
        ROLLED for (int unit = t; unit < Rise<F, SH>::PAIRS * ACROSS; unit += NT) {
            const int group_y = unit / ACROSS, group_x = unit % ACROSS;
            A sums[F * F];
            UNROLL for (int q = 0; q < F * F; ++q) sums[q] = A(0);
            ROLLED for (int i = 0; i <= FILTERED_TAPS; ++i) {  // rows of samples
                const A* line = tile + (group_y + i) * pitch(Rise<F, SW>::REACH) + group_x;
                A values[1 + FILTERED_TAPS];
                UNROLL for (int j = 0; j <= FILTERED_TAPS; ++j) values[j] = line[j];
                UNROLL for (int qy = 0; qy < F; ++qy) {
                    const int j = i - (qy > 0);
                    if (j < 0 || j >= FILTERED_TAPS) continue;
                    const A* row = taps + ((F - qy) % F + j * F) * SIDE;
                    UNROLL for (int qx = 0; qx < F; ++qx) sums[qy * F + qx] += rise<F>(row, values, qx);
                }
            }
            UNROLL for (int q = 0; q < F * F; ++q) {
                const int p = group_y * F + q / F - from.skip_y;
                const int x = group_x * F + q % F - from.skip_x;
                if (p >= 0 && p < SH && x >= 0 && x < SW) {
                    keep<PRODUCT>(fine[p * pitch(SW) + x], sums[q], bend);
                }
            }
        }
    }
}

// Where a block's outputs lie.
template <int TW, int TH>
struct OutputTile {
    int64 plane;
    int y, x;

    DEVICE OutputTile(int tiles_y, int tiles_x) {
        const int64 tiles = int64(tiles_y) * tiles_x;
        plane = quotient(BLOCK_INDEX, tiles);
        const int in_plane = int(BLOCK_INDEX - plane * tiles);
        y = in_plane / tiles_x * TH;
        x = in_plane % tiles_x * TW;
    }
};

// Downsample along x into ``between`` [SH, TW]. Neighbouring threads take neighbouring rows.
template <int G, int SH, int SW, int TW, int NT, typename A>
DEVICE void fall_across(A* between, const A* fine, const A* taps) {
    const int GROUP = FILTERED_OUTPUTS / G, SIDE = G * FILTERED_TAPS;
    THREADS(t) {
        A own[SIDE];
        UNROLL for (int k = 0; k < SIDE; ++k) own[k] = taps[k];
        ROLLED for (int unit = t; unit < SH * (TW / GROUP); unit += NT) {
            const int row = unit % SH, group = unit / SH;
            const A* line = fine + row * pitch(SW) + group * FILTERED_OUTPUTS;
            A sums[GROUP];
            UNROLL for (int o = 0; o < GROUP; ++o) sums[o] = A(0);
            UNROLL for (int i = 0; i < (GROUP - 1) * G + SIDE; ++i) {
                const A value = line[i];
                UNROLL for (int o = 0; o < GROUP; ++o) {
                    const int k = i - o * G;
                    if (k >= 0 && k < SIDE) sums[o] += own[k] * value;
                }
            }
            UNROLL for (int o = 0; o < GROUP; ++o) {
                between[row * pitch(TW) + group * GROUP + o] = sums[o];
            }
        }
    }
}

// Downsample along y, or (SQUARE) both ways from ``fine``, into y; return each thread's sum of it.
template <bool SQUARE, int G, int DISTANCE, int TW, int TH, int NT, typename T, typename A>
DEVICE void fall_along(T* y, const A* source, const A* taps, const OutputTile<TW, TH>& tile,
                       int out_h, int out_w, REG_ARGUMENT(A, partial, NT, 1)) {
    const int GROUP = FILTERED_OUTPUTS / G, SIDE = G * FILTERED_TAPS;
    THREADS(t) {
        A total = A(0);
        ROLLED for (int unit = t; unit < TW * (TH / GROUP); unit += NT) {
            const int column = unit % TW, group = unit / TW;
            const A* line = source + group * FILTERED_OUTPUTS * DISTANCE + column * (SQUARE ? G : 1);
            A sums[GROUP];
            UNROLL for (int o = 0; o < GROUP; ++o) sums[o] = A(0);
            ROLLED for (int kx = 0; kx < (SQUARE ? SIDE : 1); ++kx) {
                A own[SIDE];
                UNROLL for (int k = 0; k < SIDE; ++k) own[k] = SQUARE ? taps[k * SIDE + kx] : taps[k];
                UNROLL for (int i = 0; i < (GROUP - 1) * G + SIDE; ++i) {
                    const A value = line[i * DISTANCE + kx];
                    UNROLL for (int o = 0; o < GROUP; ++o) {
                        const int k = i - o * G;
                        if (k >= 0 && k < SIDE) sums[o] += own[k] * value;
                    }
                }
            }
            const int ox = tile.x + column;
            UNROLL for (int o = 0; o < GROUP; ++o) {
                const int oy = tile.y + group * GROUP + o;
                if (oy < out_h && ox < out_w) {
                    store(y[(tile.plane * out_h + oy) * out_w + ox], sums[o]);
                    total += sums[o];
                }
            }
        }
        R(partial, t, 0) = total;
    }
}

// Both ways down. The factor 4 has no square filter.
template <int G, int SH, int SW, int TW, int TH, int NT, typename T, typename A>
DEVICE void fall(T* y, const A* fine, A* between, const A* taps, bool square,
                 const OutputTile<TW, TH>& tile, int out_h, int out_w,
                 REG_ARGUMENT(A, partial, NT, 1)) {
    if (G == 2 && square) {
        fall_along<true, G, pitch(SW), TW, TH, NT>(y, fine, taps, tile, out_h, out_w, partial);
    } else {
        fall_across<G, SH, SW, TW, NT>(between, fine, taps);
        SYNC();
        fall_along<false, G, pitch(TW), TW, TH, NT>(y, between, taps, tile, out_h, out_w, partial);
    }
}

// Taps of one axis, or of both where a square filter may come.
template <int F>
struct TapCount {
    static const int SIDE = F * FILTERED_TAPS;
    static const int ALL = F == 2 ? SIDE * SIDE : SIDE;
};

template <int F, int SH, int SW>
struct TileSize {
    static const int FETCHED = Rise<F, SH>::REACH * pitch(Rise<F, SW>::REACH);
    static const int BETWEEN = Rise<F, SH>::REACH * pitch(SW);
};

DEVICE constexpr int larger(int a, int b) { return a > b ? a : b; }

template <typename T, int UP, int DOWN, int TW, int TH, int NT>
KERNEL(NT)
filtered_lrelu(const T* x, const T* bias, const typename Accumulator<T>::type* up_filter,
               const typename Accumulator<T>::type* down_filter, T* y, int channels, int in_h,
               int in_w, int out_h, int out_w, int tiles_y, int tiles_x, int up_taps, int down_h,
               int down_w, int pad_y, int pad_x, int flip, double slope, double gain,
               double clamp) {
    typedef typename Accumulator<T>::type A;
    const int SW = (TW - 1) * DOWN + DOWN * FILTERED_TAPS;
    const int SH = (TH - 1) * DOWN + DOWN * FILTERED_TAPS;
    typedef TileSize<UP, SH, SW> Size;
    SHARED A up[TapCount<UP>::SIDE], down[TapCount<DOWN>::ALL];
    SHARED A fine[SH * pitch(SW)], tile[Size::FETCHED];
    SHARED A between[larger(Size::BETWEEN, SH * pitch(TW))];
    const OutputTile<TW, TH> out(tiles_y, tiles_x);
    const Bend<A> bend = {A(slope), A(gain), A(clamp)};
    Samples<T> from = {x + out.plane * in_h * in_w, in_h, in_w,
                       bias ? load(bias[out.plane % channels]) : A(0), 0, 0, 0, 0};
    from.template place<UP>(out.y * DOWN, out.x * DOWN, pad_y, pad_x);
    REG(A, partial, NT, 1);
    fetch_taps<TapCount<UP>::SIDE, NT>(up, up_filter, 0, up_taps, !flip, A(UP));
    fetch_taps<TapCount<DOWN>::SIDE, NT>(down, down_filter, down_h, down_w, !flip, A(1));
    fetch_samples<UP, SH, SW, NT>(tile, from);
    SYNC();
    rise_across<UP, SH, SW, NT>(between, tile, up, from);
    SYNC();
    rise_along<VALUE, UP, SH, SW, NT>(fine, between, up, from, bend);
    SYNC();
    fall<DOWN, SH, SW, TW, TH, NT>(y, fine, between, down, down_h > 0, out, out_h, out_w, partial);
}

// v up by UP, times the activation's slopes at x upsampled by SEEN_UP, down by DOWN. ``transposed``: v
// is a gradient of filtered_lrelu's output and goes back, so its filters are the other's turned.
// sums [blocks], if given: of the block's outputs.
template <typename T, int UP, int SEEN_UP, int DOWN, int TW, int TH, int NT>
KERNEL(NT)
filtered_lrelu_slopes(const T* v, const T* x, const T* bias,
                      const typename Accumulator<T>::type* up_filter,
                      const typename Accumulator<T>::type* seen_filter,
                      const typename Accumulator<T>::type* down_filter, T* y,
                      typename Accumulator<T>::type* sums, int channels, int v_h, int v_w, int in_h,
                      int in_w, int out_h, int out_w, int tiles_y, int tiles_x, int up_h, int up_w,
                      int seen_taps, int down_h, int down_w, int up_low_y, int up_low_x, int pad_y,
                      int pad_x, int down_low_y, int down_low_x, int transposed, int flip,
                      double slope, double gain, double clamp) {
    typedef typename Accumulator<T>::type A;
    const int SW = (TW - 1) * DOWN + DOWN * FILTERED_TAPS;
    const int SH = (TH - 1) * DOWN + DOWN * FILTERED_TAPS;
    typedef TileSize<UP, SH, SW> Size;
    typedef TileSize<SEEN_UP, SH, SW> Seen;
    SHARED A up[TapCount<UP>::ALL], seen[TapCount<SEEN_UP>::SIDE], down[TapCount<DOWN>::ALL];
    SHARED A fine[SH * pitch(SW)], tile[larger(Size::FETCHED, Seen::FETCHED)];
    SHARED A between[larger(larger(Size::BETWEEN, Seen::BETWEEN), SH * pitch(TW))];
    const OutputTile<TW, TH> out(tiles_y, tiles_x);
    const Bend<A> bend = {A(slope), A(gain), A(clamp)};
    const int py = out.y * DOWN - down_low_y, px = out.x * DOWN - down_low_x;
    Samples<T> given = {v + out.plane * v_h * v_w, v_h, v_w, A(0), 0, 0, 0, 0};
    given.template place<UP>(py, px, up_low_y, up_low_x);
    Samples<T> from = {x + out.plane * in_h * in_w, in_h, in_w,
                       bias ? load(bias[out.plane % channels]) : A(0), 0, 0, 0, 0};
    from.template place<SEEN_UP>(py, px, pad_y, pad_x);
    const bool turned = bool(flip) == bool(transposed);
    REG(A, partial, NT, 1);
    fetch_taps<TapCount<UP>::SIDE, NT>(up, up_filter, up_h, up_w, turned, A(transposed ? 1 : UP));
    fetch_taps<TapCount<SEEN_UP>::SIDE, NT>(seen, seen_filter, 0, seen_taps, !flip, A(SEEN_UP));
    fetch_taps<TapCount<DOWN>::SIDE, NT>(down, down_filter, down_h, down_w, turned,
                                         A(transposed ? DOWN : 1));
    fetch_samples<SEEN_UP, SH, SW, NT>(tile, from);
    SYNC();
    rise_across<SEEN_UP, SH, SW, NT>(between, tile, seen, from);
    SYNC();
    rise_along<FACTOR, SEEN_UP, SH, SW, NT>(fine, between, seen, from, bend);
    fetch_samples<UP, SH, SW, NT>(tile, given);
    SYNC();
    if (UP == 2 && up_h > 0) {
        rise_square<UP, SH, SW, NT>(fine, tile, up, given, bend);
    } else {
        rise_across<UP, SH, SW, NT>(between, tile, up, given);
        SYNC();
        rise_along<PRODUCT, UP, SH, SW, NT>(fine, between, up, given, bend);
    }
    SYNC();
    fall<DOWN, SH, SW, TW, TH, NT>(y, fine, between, down, down_h > 0, out, out_h, out_w, partial);
    if (sums) {
        SHARED A slots[NT];
        THREADS(t) { slots[t] = R(partial, t, 0); }
        const A sum = block_sum<NT>(slots);
        THREADS(t) {
            if (t == 0) sums[BLOCK_INDEX] = sum;
        }
    }
}
