// The operators for features in channels-last memory, [N, pixels, C]: what follows a convolution of
// StyleGAN1 (epilogue.cuh), bias_act (activation.cuh) and resampling (fir.cuh), by the same formulas.
//
// A block takes a run of pixels of one sample and up to NT vectors of channels. Its threads stand in
// ``lanes`` columns, one for each vector, and ``rows`` rows (a power of two) that share the pixels. A
// vector is four channels where ``wide``, else one; ``groups`` is how many there are.
#pragma once

#include "activation.cuh"
#include "epilogue.cuh"

struct Layout {
    int channels, pixels, wide, groups, lanes, rows;
    int run;     // pixels of a block
    int chunks;  // runs of a sample
    int tiles;   // blocks that share a run
};

// What a block takes.
struct Run {
    int64 sample;
    int chunk, first, count;  // pixels
    int first_group;

    DEVICE Run(int64 block, const Layout& at) {
        const int64 place = quotient(block, at.tiles);
        first_group = int(block - place * at.tiles) * at.lanes;
        sample = quotient(place, at.chunks);
        chunk = int(place - sample * at.chunks);
        first = chunk * at.run;
        count = int(smaller(at.run, at.pixels - first));
    }
};

// Where a thread stands.
struct Post {
    int row, channel;  // the first of its channels
    bool active;

    DEVICE Post(int t, const Run& run, const Layout& at, int width) {
        row = t / at.lanes;
        const int group = run.first_group + t % at.lanes;
        active = row < at.rows && group < at.groups;
        channel = group * width;
    }
};

// Four channels: with more, what a thread keeps of each would not fit its registers.
template <typename T>
struct alignas(sizeof(T) == 8 ? 8 : 4 * sizeof(T)) Four {
    static const int COUNT = sizeof(T) == 8 ? 1 : 4;  // float64 is for tests
    T values[COUNT];
};

template <typename Vector, typename T>
DEVICE Vector fetch_vector(const T* from, bool wide) {
    Vector found = {};
    if (wide) {
        found = *reinterpret_cast<const Vector*>(from);
    } else {
        found.values[0] = from[0];
    }
    return found;
}

template <typename Vector, typename T>
DEVICE void put_vector(T* to, const Vector& values, bool wide) {
    if (wide) {
        *reinterpret_cast<Vector*>(to) = values;
    } else {
        to[0] = values.values[0];
    }
}

// Read one number for each of a thread's channels, in the accumulator's type.
template <typename T, typename A>
DEVICE void fetch_each(const T* from, int width, A otherwise, A* values) {
    const int V = Four<T>::COUNT;
    UNROLL for (int k = 0; k < V; ++k) values[k] = from && k < width ? load(from[k]) : otherwise;
}

// Add up the rows of every column: slots [V][NT], which the threads have filled. The sums are in row 0.
template <int NT, int V, typename A>
DEVICE void add_rows(A* slots, int lanes, int rows) {
    SYNC();
    for (int half = rows / 2; half > 0; half /= 2) {
        THREADS(t) {
            if (t < half * lanes) {
                UNROLL for (int k = 0; k < V; ++k) slots[k * NT + t] += slots[k * NT + t + half * lanes];
            }
        }
        SYNC();
    }
}

// ---- what follows a convolution of StyleGAN1

template <typename A>
DEVICE A leaky(A u) {
    return u > A(0) ? u : u * A(LEAKY_SLOPE);
}

// partials [planes, chunks, 2]: mean and sum of squared distances of each run, by Welford's recurrence,
// and Chan's formula between rows.
template <typename T, int NT>
KERNEL_AT_EASE(NT)
epilogue_last_statistics(const T* x, const T* bias, const T* noise, const T* strength,
                         typename Accumulator<T>::type* partials, int64 noise_stride, int channels,
                         int pixels, int wide, int groups, int lanes, int rows, int run_pixels,
                         int chunks, int tiles) {
    typedef typename Accumulator<T>::type A;
    const int V = Four<T>::COUNT;
    const Layout at = {channels, pixels, wide, groups, lanes, rows, run_pixels, chunks, tiles};
    const int width = wide ? V : 1;
    const Run run(BLOCK_INDEX, at);
    SHARED A means[V * NT];
    SHARED A squares[V * NT];
    SHARED int counts[NT];
    THREADS(t) {
        const Post post(t, run, at, width);
        A mean[V], square[V], b[V], s[V];
        UNROLL for (int k = 0; k < V; ++k) mean[k] = square[k] = A(0);
        int seen = 0;
        if (post.active) {
            fetch_each(bias + post.channel, width, A(0), b);
            fetch_each(noise ? strength + post.channel : nullptr, width, A(0), s);
            int64 i = (run.sample * pixels + run.first + post.row) * channels + post.channel;
            const T* own = noise ? noise + run.sample * noise_stride + run.first : nullptr;
            for (int p = post.row; p < run.count; p += rows, i += rows * channels) {
                const Four<T> in = fetch_vector<Four<T>>(x + i, wide);
                const A n = own ? load(own[p]) : A(0);
                const A part = A(1) / A(++seen);
                UNROLL for (int k = 0; k < V; ++k) {
                    const A a = leaky(load(in.values[k]) + n * s[k] + b[k]);
                    const A off = a - mean[k];
                    mean[k] += off * part;
                    square[k] += off * (a - mean[k]);
                }
            }
        }
        counts[t] = seen;
        UNROLL for (int k = 0; k < V; ++k) {
            means[k * NT + t] = mean[k];
            squares[k * NT + t] = square[k];
        }
    }
    SYNC();
    for (int half = rows / 2; half > 0; half /= 2) {
        THREADS(t) {
            const int other = t + half * lanes;
            if (t < half * lanes && counts[other]) {
                const A mine = A(counts[t]), more = A(counts[other]);
                const A part = more / (mine + more);
                UNROLL for (int k = 0; k < V; ++k) {
                    const A off = means[k * NT + other] - means[k * NT + t];
                    means[k * NT + t] += off * part;
                    squares[k * NT + t] += squares[k * NT + other] + off * off * mine * part;
                }
                counts[t] += counts[other];
            }
        }
        SYNC();
    }
    THREADS(t) {
        const Post post(t, run, at, width);
        if (post.active && post.row == 0) {
            for (int k = 0; k < width; ++k) {
                const int64 plane = run.sample * channels + post.channel + k;
                A* to = partials + (plane * chunks + run.chunk) * 2;
                to[0] = means[k * NT + t];
                to[1] = squares[k * NT + t];
            }
        }
    }
}

// statistics [planes, 2]: mean, 1 / deviation, merged from the runs of each plane.
template <typename T, int NT>
KERNEL_AT_EASE(NT)
epilogue_last_merge(const typename Accumulator<T>::type* partials,
                    typename Accumulator<T>::type* statistics, int64 planes, int pixels,
                    int run_pixels, int chunks) {
    typedef typename Accumulator<T>::type A;
    THREADS(t) {
        const int64 plane = int64(BLOCK_INDEX) * NT + t;
        if (inside(plane, planes)) {
            const A* own = partials + plane * chunks * 2;
            A mean = own[0], squares = own[1], seen = A(smaller(run_pixels, pixels));
            for (int i = 1; i < chunks; ++i) {
                const A more = A(smaller(run_pixels, pixels - int64(i) * run_pixels));
                const A off = own[i * 2] - mean, part = more / (seen + more);
                mean += off * part;
                squares += own[i * 2 + 1] + off * off * seen * part;
                seen += more;
            }
            statistics[plane * 2] = mean;
            statistics[plane * 2 + 1] = reciprocal_root(squares / A(pixels) + A(EPSILON));
        }
    }
}

template <typename T, int NT>
KERNEL_AT_EASE(NT)
epilogue_last_apply(const T* x, const T* bias, const T* noise, const T* strength, const T* style,
                    const typename Accumulator<T>::type* statistics, T* y, int64 noise_stride,
                    int channels, int pixels, int wide, int groups, int lanes, int rows,
                    int run_pixels, int chunks, int tiles) {
    typedef typename Accumulator<T>::type A;
    const int V = Four<T>::COUNT;
    const Layout at = {channels, pixels, wide, groups, lanes, rows, run_pixels, chunks, tiles};
    const int width = wide ? V : 1;
    const Run run(BLOCK_INDEX, at);
    THREADS(t) {
        const Post post(t, run, at, width);
        if (post.active) {
            A b[V], s[V], mean[V], factor[V], shift[V];
            fetch_each(bias + post.channel, width, A(0), b);
            fetch_each(noise ? strength + post.channel : nullptr, width, A(0), s);
            const T* styles = style + run.sample * 2 * channels + post.channel;
            fetch_each(styles, width, A(0), factor);
            fetch_each(styles + channels, width, A(0), shift);
            const A* known = statistics + (run.sample * channels + post.channel) * 2;
            UNROLL for (int k = 0; k < V; ++k) {
                mean[k] = k < width ? known[k * 2] : A(0);
                factor[k] = k < width ? (factor[k] + A(1)) * known[k * 2 + 1] : A(0);
            }
            int64 i = (run.sample * pixels + run.first + post.row) * channels + post.channel;
            const T* own = noise ? noise + run.sample * noise_stride + run.first : nullptr;
            for (int p = post.row; p < run.count; p += rows, i += rows * channels) {
                const Four<T> in = fetch_vector<Four<T>>(x + i, wide);
                const A n = own ? load(own[p]) : A(0);
                Four<T> out;
                UNROLL for (int k = 0; k < V; ++k) {
                    const A a = leaky(load(in.values[k]) + n * s[k] + b[k]);
                    store(out.values[k], (a - mean[k]) * factor[k] + shift[k]);
                }
                put_vector(y + i, out, wide);
            }
        }
    }
}

// Write two sums of every column to sums [planes, chunks, 2].
template <typename T, int NT, typename A>
DEVICE void leave_sums(A* first, A* second, const Run& run, const Layout& at, A* sums) {
    const int V = Four<T>::COUNT, width = at.wide ? V : 1;
    add_rows<NT, V>(first, at.lanes, at.rows);
    add_rows<NT, V>(second, at.lanes, at.rows);
    THREADS(t) {
        const Post post(t, run, at, width);
        if (post.active && post.row == 0) {
            for (int k = 0; k < width; ++k) {
                const int64 plane = run.sample * at.channels + post.channel + k;
                A* to = sums + (plane * at.chunks + run.chunk) * 2;
                to[0] = first[k * NT + t];
                to[1] = second[k * NT + t];
            }
        }
    }
}

// sums [planes, chunks, 2]: d scale and d shift of every run.
template <typename T, int NT>
KERNEL_AT_EASE(NT)
epilogue_last_gradient_statistics(const T* dy, const T* x, const T* bias, const T* noise,
                                  const T* strength,
                                  const typename Accumulator<T>::type* statistics,
                                  typename Accumulator<T>::type* sums, int64 noise_stride,
                                  int channels, int pixels, int wide, int groups, int lanes,
                                  int rows, int run_pixels, int chunks, int tiles) {
    typedef typename Accumulator<T>::type A;
    const int V = Four<T>::COUNT;
    const Layout at = {channels, pixels, wide, groups, lanes, rows, run_pixels, chunks, tiles};
    const int width = wide ? V : 1;
    const Run run(BLOCK_INDEX, at);
    SHARED A of_scale[V * NT];
    SHARED A of_shift[V * NT];
    THREADS(t) {
        const Post post(t, run, at, width);
        A scale[V], shift[V];
        UNROLL for (int k = 0; k < V; ++k) scale[k] = shift[k] = A(0);
        if (post.active) {
            A b[V], s[V], mean[V], inverse[V];
            fetch_each(bias + post.channel, width, A(0), b);
            fetch_each(noise ? strength + post.channel : nullptr, width, A(0), s);
            const A* known = statistics + (run.sample * channels + post.channel) * 2;
            UNROLL for (int k = 0; k < V; ++k) {
                mean[k] = k < width ? known[k * 2] : A(0);
                inverse[k] = k < width ? known[k * 2 + 1] : A(0);
            }
            int64 i = (run.sample * pixels + run.first + post.row) * channels + post.channel;
            const T* own = noise ? noise + run.sample * noise_stride + run.first : nullptr;
            for (int p = post.row; p < run.count; p += rows, i += rows * channels) {
                const Four<T> in = fetch_vector<Four<T>>(x + i, wide), grad = fetch_vector<Four<T>>(dy + i, wide);
                const A n = own ? load(own[p]) : A(0);
                UNROLL for (int k = 0; k < V; ++k) {
                    const A a = leaky(load(in.values[k]) + n * s[k] + b[k]);
                    const A g = load(grad.values[k]);
                    scale[k] += g * ((a - mean[k]) * inverse[k]);
                    shift[k] += g;
                }
            }
        }
        UNROLL for (int k = 0; k < V; ++k) {
            of_scale[k * NT + t] = scale[k];
            of_shift[k * NT + t] = shift[k];
        }
    }
    leave_sums<T, NT>(of_scale, of_shift, run, at, sums);
}

// style_sums [planes, 2]: d scale and d shift; input_sums [planes, chunks, 2]: sums of dx and dx * noise.
template <typename T, int NT>
KERNEL_AT_EASE(NT)
epilogue_last_gradient_apply(const T* dy, const T* x, const T* bias, const T* noise,
                             const T* strength, const T* style,
                             const typename Accumulator<T>::type* statistics,
                             const typename Accumulator<T>::type* style_sums_, T* dx,
                             typename Accumulator<T>::type* input_sums, int64 noise_stride,
                             int channels, int pixels, int wide, int groups, int lanes, int rows,
                             int run_pixels, int chunks, int tiles) {
    typedef typename Accumulator<T>::type A;
    const int V = Four<T>::COUNT;
    const Layout at = {channels, pixels, wide, groups, lanes, rows, run_pixels, chunks, tiles};
    const int width = wide ? V : 1;
    const Run run(BLOCK_INDEX, at);
    SHARED A of_input[V * NT];
    SHARED A with_noise[V * NT];
    THREADS(t) {
        const Post post(t, run, at, width);
        A sum[V], sum_noise[V];
        UNROLL for (int k = 0; k < V; ++k) sum[k] = sum_noise[k] = A(0);
        if (post.active) {
            // da = (g - mean g - h * mean(g h)) * amount = g * amount - level - (a - mean) * slope
            A b[V], s[V], mean[V], amount[V], level[V], slope[V];
            fetch_each(bias + post.channel, width, A(0), b);
            fetch_each(noise ? strength + post.channel : nullptr, width, A(0), s);
            fetch_each(style + run.sample * 2 * channels + post.channel, width, A(0), amount);
            const int64 plane = run.sample * channels + post.channel;
            const A *known = statistics + plane * 2, *styled = style_sums_ + plane * 2;
            UNROLL for (int k = 0; k < V; ++k) {
                const bool real = k < width;
                const A inverse = real ? known[k * 2 + 1] : A(0);
                mean[k] = real ? known[k * 2] : A(0);
                amount[k] = (amount[k] + A(1)) * inverse;
                slope[k] = real ? styled[k * 2] / A(pixels) * inverse * amount[k] : A(0);
                level[k] = real ? styled[k * 2 + 1] / A(pixels) * amount[k] : A(0);
            }
            int64 i = (run.sample * pixels + run.first + post.row) * channels + post.channel;
            const T* own = noise ? noise + run.sample * noise_stride + run.first : nullptr;
            for (int p = post.row; p < run.count; p += rows, i += rows * channels) {
                const Four<T> in = fetch_vector<Four<T>>(x + i, wide), grad = fetch_vector<Four<T>>(dy + i, wide);
                const A n = own ? load(own[p]) : A(0);
                Four<T> out;
                UNROLL for (int k = 0; k < V; ++k) {
                    const A a = leaky(load(in.values[k]) + n * s[k] + b[k]);
                    const A da = load(grad.values[k]) * amount[k] - level[k] - (a - mean[k]) * slope[k];
                    const A du = a > A(0) ? da : da * A(LEAKY_SLOPE);
                    sum[k] += du;
                    sum_noise[k] += du * n;
                    store(out.values[k], du);
                }
                put_vector(dx + i, out, wide);
            }
        }
        UNROLL for (int k = 0; k < V; ++k) {
            of_input[k * NT + t] = sum[k];
            with_noise[k * NT + t] = sum_noise[k];
        }
    }
    leave_sums<T, NT>(of_input, with_noise, run, at, input_sums);
}

// ---- bias_act

template <typename T, int SMOOTH, int NT>
KERNEL_AT_EASE(NT)
bias_act_last(const T* x, const T* bias, const T* scale, const T* noise, const T* strength, T* y,
              int64 noise_stride, int channels, int pixels, int wide, int groups, int lanes, int rows,
              int run_pixels, int chunks, int tiles, int act, double alpha_, double gain_,
              double clamp_) {
    typedef typename Accumulator<T>::type A;
    const A alpha = A(alpha_), gain = A(gain_), limit = A(clamp_);
    const int V = Four<T>::COUNT;
    const Layout at = {channels, pixels, wide, groups, lanes, rows, run_pixels, chunks, tiles};
    const int width = wide ? V : 1;
    const Run run(BLOCK_INDEX, at);
    THREADS(t) {
        const Post post(t, run, at, width);
        if (post.active) {
            A b[V], s[V], scales[V];
            fetch_each(bias ? bias + post.channel : nullptr, width, A(0), b);
            fetch_each(strength ? strength + post.channel : nullptr, width, A(1), s);
            fetch_each(scale ? scale + run.sample * channels + post.channel : nullptr, width, A(1),
                       scales);
            int64 i = (run.sample * pixels + run.first + post.row) * channels + post.channel;
            const T* own = noise ? noise + run.sample * noise_stride + run.first : nullptr;
            for (int p = post.row; p < run.count; p += rows, i += rows * channels) {
                const Four<T> in = fetch_vector<Four<T>>(x + i, wide);
                const A n = own ? load(own[p]) : A(0);
                Four<T> out;
                UNROLL for (int k = 0; k < V; ++k) {
                    if (k >= width) break;
                    A u = load(in.values[k]) * scales[k] + b[k];
                    if (own) u += n * s[k];
                    store(out.values[k], clamped(activated<SMOOTH>(act, u, alpha) * gain, limit));
                }
                put_vector(y + i, out, wide);
            }
        }
    }
}

// As bias_act_gradient; with ``sums`` [planes, chunks, 3] those of du, du * x and du * noise.
template <typename T, int SMOOTH, int NT>
KERNEL_AT_EASE(NT)
bias_act_last_gradient(const T* dy, const T* reference, const T* bias, const T* scale,
                       const T* noise, const T* strength, T* dx,
                       typename Accumulator<T>::type* sums, int64 noise_stride, int channels,
                       int pixels, int wide, int groups, int lanes, int rows, int run_pixels,
                       int chunks, int tiles, int act, int from_output, double alpha_, double gain_,
                       double clamp_) {
    typedef typename Accumulator<T>::type A;
    const A alpha = A(alpha_), gain = A(gain_), limit = A(clamp_);
    T rounded;  // an output that was cut is the limit as T stores it
    store(rounded, limit);
    const A seen_limit = load(rounded);
    const int V = Four<T>::COUNT;
    const Layout at = {channels, pixels, wide, groups, lanes, rows, run_pixels, chunks, tiles};
    const int width = wide ? V : 1;
    const Run run(BLOCK_INDEX, at);
    REG(A, partial, NT, 3 * V);
    THREADS(t) {
        const Post post(t, run, at, width);
        UNROLL for (int k = 0; k < 3 * V; ++k) R(partial, t, k) = A(0);
        if (post.active) {
            A b[V], s[V], scales[V];
            fetch_each(bias ? bias + post.channel : nullptr, width, A(0), b);
            fetch_each(strength ? strength + post.channel : nullptr, width, A(1), s);
            fetch_each(scale ? scale + run.sample * channels + post.channel : nullptr, width, A(1),
                       scales);
            int64 i = (run.sample * pixels + run.first + post.row) * channels + post.channel;
            const T* own = noise ? noise + run.sample * noise_stride + run.first : nullptr;
            for (int p = post.row; p < run.count; p += rows, i += rows * channels) {
                const Four<T> grad = fetch_vector<Four<T>>(dy + i, wide);
                const Four<T> seen = fetch_vector<Four<T>>(reference + i, wide);
                const A n = own ? load(own[p]) : A(0);
                Four<T> out;
                UNROLL for (int k = 0; k < V; ++k) {
                    if (k >= width) break;
                    const A value = load(seen.values[k]);
                    A u, y;
                    if (from_output) {
                        u = y = value;  // of one sign; the value itself is needed for the clamp alone
                    } else {
                        u = value * scales[k] + b[k];
                        if (own) u += n * s[k];
                        y = limit < A(0) ? A(0) : activated<SMOOTH>(act, u, alpha) * gain;
                    }
                    A du = load(grad.values[k]) * slope_at<SMOOTH>(act, u, alpha) * gain;
                    const bool cut = from_output ? y >= seen_limit || y <= -seen_limit
                                                 : y > limit || y < -limit;
                    if (limit >= A(0) && cut) du = A(0);
                    store(out.values[k], du * scales[k]);
                    R(partial, t, k) += du;
                    R(partial, t, V + k) += du * value;
                    R(partial, t, 2 * V + k) += du * n;
                }
                put_vector(dx + i, out, wide);
            }
        }
    }
    if (sums) {
        SHARED A slots[V * NT];
        UNROLL for (int kind = 0; kind < 3; ++kind) {
            THREADS(t) {
                UNROLL for (int k = 0; k < V; ++k) slots[k * NT + t] = R(partial, t, kind * V + k);
            }
            add_rows<NT, V>(slots, lanes, rows);
            THREADS(t) {
                const Post post(t, run, at, width);
                if (post.active && post.row == 0) {
                    for (int k = 0; k < width; ++k) {
                        const int64 plane = run.sample * channels + post.channel + k;
                        sums[(plane * chunks + run.chunk) * 3 + kind] = slots[k * NT + t];
                    }
                }
            }
            SYNC();
        }
    }
}

// ---- resampling: one vector of an output pixel per thread, any factors and any filter

template <typename T, int NT>
KERNEL_AT_EASE(NT)
fir_last(const T* x, const typename Accumulator<T>::type* filter, T* y, int64 total, int channels,
         int wide, int in_h, int in_w, int out_h, int out_w, int filter_h, int filter_w, int up_y,
         int up_x, int down_y, int down_x, int pad_y, int pad_x, int flip, double gain) {
    typedef typename Accumulator<T>::type A;
    const int V = Wide<T>::COUNT, width = wide ? V : 1, groups = channels / width;
    THREADS(t) {
        const int64 i = int64(BLOCK_INDEX) * NT + t;
        if (inside(i, total)) {
            const int64 pixel = quotient(i, groups);
            const int channel = int(i - pixel * groups) * width;
            const int64 row = quotient(pixel, out_w);
            const int ox = int(pixel - row * out_w);
            const int64 sample = quotient(row, out_h);
            const int oy = int(row - sample * out_h);
            const T* from = x + sample * in_h * in_w * channels + channel;
            const int base_y = oy * down_y - pad_y, base_x = ox * down_x - pad_x;
            int iy = base_y > 0 ? (base_y + up_y - 1) / up_y : 0;
            const int first_x = base_x > 0 ? (base_x + up_x - 1) / up_x : 0;
            A sum[V];
            UNROLL for (int k = 0; k < V; ++k) sum[k] = A(0);
            for (int ky = iy * up_y - base_y; ky < filter_h && iy < in_h; ky += up_y, ++iy) {
                int ix = first_x;
                for (int kx = ix * up_x - base_x; kx < filter_w && ix < in_w; kx += up_x, ++ix) {
                    const int tap = ky * filter_w + kx;
                    const A weight = filter[flip ? tap : filter_h * filter_w - 1 - tap];
                    const Wide<T> in =
                        fetch_vector<Wide<T>>(from + (int64(iy) * in_w + ix) * channels, wide);
                    UNROLL for (int k = 0; k < V; ++k) sum[k] += weight * load(in.values[k]);
                }
            }
            Wide<T> out;
            UNROLL for (int k = 0; k < V; ++k) store(out.values[k], sum[k] * A(gain));
            put_vector(y + pixel * channels + channel, out, wide);
        }
    }
}
