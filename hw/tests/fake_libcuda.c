// A stand-in for libcuda.so.1: one device whose memory is the host's, and failures on demand. FAKE_CUDA chooses:
// "none" no device, "old" a driver of CUDA 12.4, "full" no device memory left, "unpinnable" no pinned memory, "short:N" none
// left after N allocations. FAKE_CUDA_LIVE names a file that says, when the process ends, how many were never freed.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int Result;
static int live; // allocations that have not been freed

static int is(const char *mode) {
    const char *chosen = getenv("FAKE_CUDA");
    return chosen && !strcmp(chosen, mode);
}

// Whether an allocation finds no room.
static int is_short(void) {
    const char *chosen = getenv("FAKE_CUDA");
    return chosen && !strncmp(chosen, "short:", 6) && live >= atoi(chosen + 6);
}

int fake_live(void) { return live; }

__attribute__((destructor)) static void say_live(void) {
    FILE *file = getenv("FAKE_CUDA_LIVE") ? fopen(getenv("FAKE_CUDA_LIVE"), "w") : NULL;
    if (file) fprintf(file, "%d", live), fclose(file);
}

Result cuInit(unsigned flags) { return is("none") ? 100 : 0; }
Result cuDriverGetVersion(int *version) { *version = is("old") ? 12040 : 13000; return 0; }
Result cuDeviceGetCount(int *count) { *count = 1; return 0; }
Result cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
Result cuDeviceGetName(char *name, int size, int device) { snprintf(name, size, "Fake H100"); return 0; }
Result cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)80 << 30; return 0; }
Result cuDeviceGetPCIBusId(char *id, int size, int device) { snprintf(id, size, "ffff:00:00.0"); return 0; }
Result cuDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) {
    case 75: *value = 9; break;        // compute capability, major
    case 76: *value = 0; break;        // minor
    case 16: *value = 132; break;      // multiprocessors
    case 38: *value = 50 << 20; break; // L2
    case 40: *value = 3; break;        // copy engines
    case 97: *value = 232448; break;   // shared memory of a block
    default: *value = 1;
    }
    return 0;
}
Result cuDevicePrimaryCtxRetain(void **context, int device) { *context = &live; return 0; }
Result cuDevicePrimaryCtxRelease_v2(int device) { return 0; }
Result cuCtxGetCurrent(void **context) { *context = &live; return 0; }
Result cuCtxSetCurrent(void *context) { return 0; }
Result cuCtxSynchronize(void) { return 0; }
Result cuMemGetInfo_v2(size_t *free_bytes, size_t *total) { *free_bytes = is("unpinnable") ? (size_t)80 << 30 : 1 << 20; *total = (size_t)80 << 30; return 0; }
Result cuMemAlloc_v2(uint64_t *address, size_t bytes) {
    if (is("full") || is_short()) return 2;
    *address = (uint64_t)malloc(bytes);
    live++;
    return 0;
}
Result cuMemFree_v2(uint64_t address) { free((void *)address); live--; return 0; }
Result cuMemsetD8_v2(uint64_t address, unsigned char byte, size_t bytes) { memset((void *)address, byte, bytes); return 0; }
Result cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t bytes) { memcpy((void *)to, from, bytes); return 0; }
Result cuMemcpyDtoH_v2(void *to, uint64_t from, size_t bytes) { memcpy(to, (void *)from, bytes); return 0; }
Result cuMemHostAlloc(void **host, size_t bytes, unsigned flags) {
    if (is("unpinnable") || is_short()) return 2;
    *host = malloc(bytes);
    live++;
    return 0;
}
Result cuMemFreeHost(void *host) { free(host); live--; return 0; }
Result cuMemHostGetDevicePointer_v2(uint64_t *address, void *host, unsigned flags) { *address = (uint64_t)host; return 0; }
Result cuGetErrorName(Result error, const char **name) {
    *name = error == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_NO_DEVICE";
    return 0;
}
Result cuGetErrorString(Result error, const char **text) { *text = "fake"; return 0; }
