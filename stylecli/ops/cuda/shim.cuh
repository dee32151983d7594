// What lets one text be device code for NVRTC and host code for g++.
//
// Kernel bodies are written in phases. A phase is THREADS(t) { ... }: what every thread of the block
// does, t being its number. SYNC() stands between phases that exchange data. Values a thread keeps
// from one phase to the next live in REG arrays and are reached with R(values, t, i). Nothing
// outside THREADS may depend on the thread.
//
//   on the device   every thread runs each phase once
//   on the host     a phase is a loop over the threads, forwards or (STYLECLI_REVERSED) backwards
//   host, threads   (STYLECLI_OS_THREADS) one OS thread per GPU thread, for ThreadSanitizer
#pragma once

#if defined(__CUDACC__)

#define KERNEL(threads) __global__ void __launch_bounds__(threads)
#define KERNEL_AT_EASE(threads) __global__ void __launch_bounds__(threads, 2)
#define DEVICE __device__ __forceinline__
#define BLOCK_INDEX blockIdx.x
#define THREADS(t) if (const int t = threadIdx.x; true)
#define SYNC() __syncthreads()
#define REG(T, name, NT, count) T name[count]
#define REG_ARGUMENT(T, name, NT, count) T(&name)[count]
#define R(name, t, i) name[i]
#define SHARED __shared__
#define UNROLL _Pragma("unroll")
#define ROLLED _Pragma("unroll 1")

#else

#include <cmath>
#include <cstring>

#define KERNEL(threads) void
#define KERNEL_AT_EASE(threads) void
#define DEVICE inline
#define BLOCK_INDEX host_block_index
#define UNROLL
#define ROLLED

extern unsigned host_block_index;

#if defined(STYLECLI_OS_THREADS)
extern thread_local int host_thread_index;
void host_barrier();
#define THREADS(t) if (const int t = host_thread_index; true)
#define SYNC() host_barrier()
#define REG(T, name, NT, count) T name[count]
#define REG_ARGUMENT(T, name, NT, count) T(&name)[count]
#define R(name, t, i) name[i]
#else
#if defined(STYLECLI_REVERSED)
#define THREADS(t) for (int t = NT - 1; t >= 0; --t)
#else
#define THREADS(t) for (int t = 0; t < NT; ++t)
#endif
#define SYNC()
#define REG(T, name, NT, count) T name[NT][count]
#define REG_ARGUMENT(T, name, NT, count) T(&name)[NT][count]
#define R(name, t, i) name[t][i]
#endif
#define SHARED static

#endif

typedef long long int64;

// ---- element types: f16 and bf16 are storage only, arithmetic is in float (double for double)

struct f16 {
    unsigned short bits;
};
struct bf16 {
    unsigned short bits;
};

template <typename T>
struct Accumulator {
    typedef float type;
};
template <>
struct Accumulator<double> {
    typedef double type;
};

DEVICE float load(const float& value) { return value; }
DEVICE double load(const double& value) { return value; }
DEVICE void store(float& place, float value) { place = value; }
DEVICE void store(double& place, double value) { place = value; }

DEVICE float float_of_bits(unsigned bits) {
#if defined(__CUDACC__)
    return __uint_as_float(bits);
#else
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
#endif
}

DEVICE unsigned bits_of_float(float value) {
#if defined(__CUDACC__)
    return __float_as_uint(value);
#else
    unsigned bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
#endif
}

DEVICE float load(const bf16& value) { return float_of_bits(unsigned(value.bits) << 16); }

DEVICE void store(bf16& place, float value) {
    const unsigned bits = bits_of_float(value);
    const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    const unsigned rounded = bits + 0x7fffu + ((bits >> 16) & 1u);  // to nearest, ties to even
    place.bits = (unsigned short)(is_nan ? 0x7fc0u : rounded >> 16);
}

DEVICE float load(const f16& value) {
#if defined(__CUDACC__)
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value.bits));
    return wide;
#else
    _Float16 half;
    std::memcpy(&half, &value, sizeof half);
    return float(half);
#endif
}

DEVICE void store(f16& place, float value) {
#if defined(__CUDACC__)
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(place.bits) : "f"(value));
#else
    const _Float16 half = _Float16(value);
    std::memcpy(&place, &half, sizeof half);
#endif
}

// ---- 128-bit accesses

// Sixteen bytes of T, moved by one instruction. The host compiler keeps the alignment as a promise,
// so UndefinedBehaviorSanitizer sees an access that breaks it.
template <typename T>
struct alignas(16) Wide {
    static const int COUNT = 16 / sizeof(T);
    T values[COUNT];
};

DEVICE bool aligned(const void* address) {
#if defined(STYLECLI_PLANT_MISALIGNED)
    return true;
#else
    return (((unsigned long long)address) & 15u) == 0;  // null counts as aligned
#endif
}

template <typename T>
DEVICE Wide<T> load_wide(const T* from) {
    return *reinterpret_cast<const Wide<T>*>(from);
}

template <typename T>
DEVICE void store_wide(T* to, const Wide<T>& wide) {
    *reinterpret_cast<Wide<T>*>(to) = wide;
}

// ---- sums over a block, in an order that does not change from run to run

#if defined(STYLECLI_PLANT_NO_BARRIER)
#define SYNC_OF_SUM()
#else
#define SYNC_OF_SUM() SYNC()
#endif

// Add up slots[0..NT), which the threads have just filled, and return the total to all of them.
template <int NT, typename A>
DEVICE A block_sum(A* slots) {
    SYNC_OF_SUM();
    for (int half = NT / 2; half > 0; half /= 2) {
        THREADS(t) {
            if (t < half) slots[t] += slots[t + half];
        }
        SYNC();
    }
    const A total = slots[0];
    SYNC();  // slots may be filled again
    return total;
}

// ---- indices

#if defined(STYLECLI_PLANT_OFF_BY_ONE)
DEVICE bool inside(int64 index, int64 count) { return index <= count; }
#else
DEVICE bool inside(int64 index, int64 count) { return index < count; }
#endif

// a / b for b > 0, through the much cheaper 32-bit division where both fit.
DEVICE int64 quotient(int64 a, int64 b) {
    if ((a | b) >> 31) return a / b;
    return (unsigned)a / (unsigned)b;
}

DEVICE int64 smaller(int64 a, int64 b) { return a < b ? a : b; }
