// A stub of NVIDIA's driver library: answers what cuda-core asks of it and writes down every call in
// the file that PRETENDED_DRIVER_LOG names. No device, no work.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int CUresult;
static __thread void *context = 0;  // of this thread, as the driver has it
static char contexts[2];            // one primary context for each device

static void note(const char *what, long long a, long long b, long long c) {
  const char *path = getenv("PRETENDED_DRIVER_LOG");
  FILE *file = path ? fopen(path, "a") : 0;
  if (!file) return;
  fprintf(file, "%s %lld %lld %lld\n", what, a, b, c);
  fclose(file);
}

static long long device_of(void *ctx) { return ctx ? (char *)ctx - contexts : -1; }

CUresult cuInit(unsigned flags) { return 0; }
CUresult cuDriverGetVersion(int *version) { *version = 13000; return 0; }
CUresult cuDeviceGetCount(int *count) { *count = 2; return 0; }
CUresult cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
CUresult cuDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == 75 ? 9 : attribute == 76 ? 0 : 1024;  // compute capability 9.0
  return 0;
}
CUresult cuDevicePrimaryCtxRetain(void **ctx, int device) {
  *ctx = &contexts[device];
  note("retain", device, 0, 0);
  return 0;
}
CUresult cuDevicePrimaryCtxRelease_v2(int device) { return 0; }
CUresult cuCtxGetCurrent(void **ctx) { *ctx = context; return 0; }
CUresult cuCtxSetCurrent(void *ctx) {
  context = ctx;
  note("current", device_of(ctx), 0, 0);
  return 0;
}
CUresult cuCtxPushCurrent_v2(void *ctx) { return cuCtxSetCurrent(ctx); }
CUresult cuCtxPopCurrent_v2(void **ctx) { if (ctx) *ctx = context; context = 0; return 0; }
CUresult cuCtxGetDevice(int *device) { *device = (int)device_of(context); return context ? 0 : 201; }
CUresult cuCtxGetDevice_v2(int *device, void *ctx) { *device = (int)device_of(ctx); return 0; }
CUresult cuStreamGetCtx(void *stream, void **ctx) { *ctx = context; return 0; }
CUresult cuStreamGetCtx_v2(void *stream, void **ctx, void **green) {
  *ctx = context;
  *green = 0;
  return 0;
}
CUresult cuStreamGetDevice(void *stream, int *device) { return cuCtxGetDevice(device); }
CUresult cuLibraryLoadData(void **library, const void *code, void *a, void *b, unsigned c, void *d,
                           void *e, unsigned f) {
  if (memcmp(code, "refused", 7) == 0) return 209;  // CUDA_ERROR_NO_BINARY_FOR_GPU
  *library = (void *)0x1000;
  note("load", device_of(context), 0, 0);
  return 0;
}
CUresult cuLibraryUnload(void *library) { return 0; }
CUresult cuLibraryGetKernel(void **kernel, void *library, const char *name) {
  *kernel = (void *)(uintptr_t)(0x2000 + name[0]);
  note(name, 0, 0, 0);
  return 0;
}
CUresult cuKernelGetFunction(void **function, void *kernel) { *function = kernel; return 0; }
CUresult cuKernelGetAttribute(int *value, int attribute, void *kernel, int device) {
  *value = 1;
  return 0;
}
CUresult cuFuncLoad(void *function) { note("function", (uintptr_t)function, 0, 0); return 0; }
CUresult cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                        unsigned by, unsigned bz, unsigned shared, void *stream, void **arguments,
                        void **extra) {
  if (!context) return 201;  // CUDA_ERROR_INVALID_CONTEXT
  note("launch", device_of(context), gx, bx);
  note("arguments", *(long long *)arguments[0], *(int *)arguments[1], shared);
  return 0;
}
typedef struct { unsigned gx, gy, gz, bx, by, bz, shared; void *stream; } Config;
CUresult cuLaunchKernelEx(const Config *how, void *function, void **arguments, void **extra) {
  return cuLaunchKernel(function, how->gx, how->gy, how->gz, how->bx, how->by, how->bz,
                        how->shared, how->stream, arguments, extra);
}
CUresult cuGetErrorName(CUresult error, const char **name) { *name = "CUDA_ERROR_STUB"; return 0; }
CUresult cuGetErrorString(CUresult error, const char **text) { *text = "refused by the stub"; return 0; }

static CUresult missing(void) { return 801; }  // CUDA_ERROR_NOT_SUPPORTED

#define HAS(f) if (strcmp(name, #f) == 0) { *function = (void *)f; return 0; }
#define HAS_AS(known, f) if (strcmp(name, known) == 0) { *function = (void *)f; return 0; }

CUresult cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags,
                             int *status) {
  if (status) *status = 0;
  HAS(cuInit) HAS(cuDriverGetVersion) HAS(cuDeviceGetCount) HAS(cuDeviceGet)
  HAS(cuDeviceGetAttribute) HAS(cuDevicePrimaryCtxRetain) HAS(cuCtxGetCurrent)
  HAS(cuCtxSetCurrent) HAS(cuLibraryLoadData) HAS(cuLibraryUnload) HAS(cuLibraryGetKernel)
  HAS(cuKernelGetFunction) HAS(cuKernelGetAttribute) HAS(cuFuncLoad) HAS(cuLaunchKernel)
  HAS(cuLaunchKernelEx) HAS(cuGetErrorName) HAS(cuGetErrorString) HAS(cuStreamGetDevice)
  HAS_AS("cuDevicePrimaryCtxRelease", cuDevicePrimaryCtxRelease_v2)
  HAS_AS("cuCtxPushCurrent", cuCtxPushCurrent_v2) HAS_AS("cuCtxPopCurrent", cuCtxPopCurrent_v2)
  HAS_AS("cuStreamGetCtx", (version >= 12050 ? (void *)cuStreamGetCtx_v2 : (void *)cuStreamGetCtx))
  HAS_AS("cuCtxGetDevice", (version >= 13000 ? (void *)cuCtxGetDevice_v2 : (void *)cuCtxGetDevice))
  HAS_AS("cuGetProcAddress", cuGetProcAddress_v2)
  *function = (void *)missing;
  return 0;
}
CUresult cuGetProcAddress(const char *name, void **function, int version, uint64_t flags) {
  return cuGetProcAddress_v2(name, function, version, flags, 0);
}
