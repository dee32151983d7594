// The kernel source as host code: a launcher for ctypes and, with STYLECLI_REPLAY, a program that
// repeats recorded launches on exactly sized buffers, which is what the sanitizers are given.
#include "kernels.cuh"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

unsigned host_block_index;

#if defined(STYLECLI_OS_THREADS)
#include <barrier>
#include <memory>
#include <thread>
thread_local int host_thread_index;
static std::unique_ptr<std::barrier<>> barrier;
void host_barrier() { barrier->arrive_and_wait(); }
#endif

template <typename A>
constexpr char code_of() {
    if (std::is_pointer_v<A>) return 'p';
    if (std::is_same_v<A, int>) return 'i';
    if (std::is_same_v<A, long long>) return 'l';
    if (std::is_same_v<A, double>) return 'd';
    return '?';
}

struct Instance {
    const char* name;
    void (*call)(void**);
    std::string signature;
};

// Arguments arrive as the driver takes them: an array of pointers to the values.
template <auto KERNEL_FUNCTION>
struct Entry;
template <typename... A, void (*KERNEL_FUNCTION)(A...)>
struct Entry<KERNEL_FUNCTION> {
    template <std::size_t... I>
    static void expand(void** values, std::index_sequence<I...>) {
        KERNEL_FUNCTION(*static_cast<A*>(values[I])...);
    }
    static void call(void** values) { expand(values, std::index_sequence_for<A...>()); }
    static Instance named(const char* name) { return {name, &call, {code_of<A>()...}}; }
};

static const std::vector<Instance> instances = {
#include "instances.inc"
};

static void run(const Instance& instance, unsigned grid, int block, void** values) {
    for (unsigned index = 0; index < grid; ++index) {
        host_block_index = index;
#if defined(STYLECLI_OS_THREADS)
        barrier = std::make_unique<std::barrier<>>(block);
        std::vector<std::thread> threads;
        for (int t = 0; t < block; ++t) {
            threads.emplace_back([&, t] {
                host_thread_index = t;
                instance.call(values);
            });
        }
        for (auto& thread : threads) thread.join();
#else
        (void)block;
        instance.call(values);
#endif
    }
}

extern "C" {
int host_find(const char* name) {
    for (std::size_t i = 0; i < instances.size(); ++i) {
        if (!std::strcmp(instances[i].name, name)) return int(i);
    }
    return -1;
}
const char* host_signature(int index) { return instances[index].signature.c_str(); }
void host_launch(int index, unsigned grid, int block, void** values) {
    run(instances[index], grid, block, values);
}
}

#if defined(STYLECLI_REPLAY)
template <typename V>
static V take(FILE* file) {
    V value;
    if (std::fread(&value, sizeof value, 1, file) != 1) std::exit(3);
    return value;
}

static std::vector<char> take_bytes(FILE* file, std::size_t count) {
    std::vector<char> bytes(count);
    if (count && std::fread(bytes.data(), count, 1, file) != 1) std::exit(3);
    return bytes;
}

struct Buffer {
    char* block;
    char* start;
    std::vector<char> expected;
};

// Exit 0: every launch left the recorded bytes; 1: one did not; the sanitizers have codes of their own.
int main(int, char** words) {
    FILE* file = std::fopen(words[1], "rb");
    if (!file) return 3;
    int wrong = 0;
    const int launches = take<std::int32_t>(file);
    for (int number = 0; number < launches; ++number) {
        const std::vector<char> text = take_bytes(file, take<std::int32_t>(file));
        const std::string name(text.begin(), text.end());
        const unsigned grid = take<std::uint32_t>(file);
        const int block = take<std::int32_t>(file), count = take<std::int32_t>(file);
        std::vector<long long> slots(count);
        std::vector<void*> values(count);
        std::vector<Buffer> buffers;
        for (int i = 0; i < count; ++i) {
            values[i] = &slots[i];
            const char code = take<char>(file);
            if (code == 'i') {
                const int value = take<std::int32_t>(file);
                std::memcpy(&slots[i], &value, sizeof value);
            } else if (code != 'p') {  // long long or double
                slots[i] = take<std::int64_t>(file);
            } else if (const long long size = take<std::int64_t>(file); size >= 0) {
                const int shift = take<std::int32_t>(file);  // address modulo 16
                const std::vector<char> before = take_bytes(file, size);
                char* block_start = static_cast<char*>(std::malloc(size + shift));
                buffers.push_back({block_start, block_start + shift, take_bytes(file, size)});
                std::memcpy(block_start + shift, before.data(), size);
                void* address = block_start + shift;
                std::memcpy(&slots[i], &address, sizeof address);
            }
        }
        const int index = host_find(name.c_str());
        if (index < 0) return 3;
        run(instances[index], grid, block, values.data());
        bool same = true;
        for (const Buffer& buffer : buffers) {
            same &= !std::memcmp(buffer.start, buffer.expected.data(), buffer.expected.size());
            std::free(buffer.block);
        }
        if (!same) {
            std::printf("different: launch %d, %s\n", number, name.c_str());
            wrong = 1;
        }
    }
    std::printf("%d launches\n", launches);
    return wrong;
}
#endif
