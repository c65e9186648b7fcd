// What every kernel shares: integer names, streaming loads, tensor-core and shuffle primitives. NVRTC sees no CUDA
// headers, so bf16 is a 16-bit integer and instructions without a builtin are inline PTX.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define NONE 0xffffffffu
#define FULL 0xffffffffu
#define NEGATIVE_INFINITY __int_as_float(0xff800000)

// Reads data that is used once: it does not displace anything in L1.
__device__ __forceinline__ uint4 load_once(const void *p) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
    return v;
}

// Half as much.
__device__ __forceinline__ uint2 load_half_once(const void *p) {
    uint2 v;
    asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p));
    return v;
}

// The same within pages read from end to end: asks L2 for 256 bytes at a time.
__device__ __forceinline__ uint4 load_page(const void *p) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
    return v;
}

// Reads past L1, for data that another block of this launch wrote.
__device__ __forceinline__ float load_shared_result(const float *p) {
    float v;
    asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(v) : "l"(p));
    return v;
}

// D += A B, bf16 16x16 times 16x8, accumulated in f32.
__device__ __forceinline__ void mma_bf16(float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// The same for f16 operands.
__device__ __forceinline__ void mma_f16(float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Transposes an 8x8 matrix of 16-bit elements, one row per quad of lanes.
__device__ __forceinline__ u32 transpose8(u32 v) {
    u32 r;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(r) : "r"(v));
    return r;
}

__device__ __forceinline__ u32 pack_bf16(float low, float high) {
    u32 r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}

__device__ __forceinline__ u32 pack_f16(float low, float high) {
    u32 r;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}

__device__ __forceinline__ float low_bf16(u32 v) { return __uint_as_float(v << 16); }
__device__ __forceinline__ float high_bf16(u32 v) { return __uint_as_float(v & 0xffff0000u); }

__device__ __forceinline__ float exp2_fast(float x) {
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

// Over the eight lanes that share lane % 4.
__device__ __forceinline__ float max_over_rows(float v) {
    v = fmaxf(v, __shfl_xor_sync(FULL, v, 4));
    v = fmaxf(v, __shfl_xor_sync(FULL, v, 8));
    return fmaxf(v, __shfl_xor_sync(FULL, v, 16));
}

__device__ __forceinline__ float sum_over_rows(float v) {
    v += __shfl_xor_sync(FULL, v, 4);
    v += __shfl_xor_sync(FULL, v, 8);
    return v + __shfl_xor_sync(FULL, v, 16);
}

// Sum of `v` over the lanes below this one; the sum over all lanes goes to `total`.
__device__ __forceinline__ u32 exclusive_scan(u32 v, u32 &total) {
    u32 lane = threadIdx.x & 31, sum = v;
#pragma unroll
    for (u32 step = 1; step < 32; step *= 2) {
        u32 other = __shfl_up_sync(FULL, sum, step);
        if (lane >= step) sum += other;
    }
    total = __shfl_sync(FULL, sum, 31);
    return sum - v;
}

__device__ __forceinline__ u32 lanes_below(u32 mask) {
    u32 below;
    asm("mov.u32 %0, %%lanemask_lt;" : "=r"(below));
    return __popc(mask & below);
}

// A flat list of `total` equal pieces of work, cut into `parts` contiguous ranges; the first `total % parts` hold one more.
__device__ __forceinline__ u32 part_start(u32 part, u32 parts, u32 total) {
    u32 each = total / parts;
    return part * each + min(part, total - each * parts);
}

// The part that holds piece `at`; there are at least as many pieces as parts.
__device__ __forceinline__ u32 part_of(u32 at, u32 parts, u32 total) {
    u32 each = total / parts, more = total - each * parts, split = more * (each + 1);
    return at < split ? at / (each + 1) : more + (at - split) / each;
}

// Counts an arrival at a counter that other blocks count at too. Ordered after everything that this block wrote before
// its last barrier, and before what it reads after the next.
__device__ __forceinline__ u32 arrive(u32 *counter) {
    u32 before;
    asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], 1;" : "=r"(before) : "l"(counter) : "memory");
    return before;
}

// This lane's two first probes of `find_range`, read ahead of knowing what is sought.
struct Guess { u32 low, high; };

__device__ __forceinline__ Guess find_first(const u32 *first, u32 stride, u32 n) {
    u32 step = (n + 63) / 64, low = (threadIdx.x & 31) * step, high = low + 32 * step;
    return {low < n ? first[low * stride] : NONE, high < n ? first[high * stride] : NONE};
}

// The index i with first[i] <= at < first[i + 1], for ascending `first` of `n` + 1 elements that stand `stride` apart; by
// a whole warp, whose first probes are `guess`. `at` is below NONE.
__device__ __forceinline__ u32 find_range(const u32 *first, u32 stride, u32 n, u32 at, Guess guess) {
    u32 lane = threadIdx.x & 31, step = (n + 63) / 64;
    u32 low_ok = __ballot_sync(FULL, guess.low <= at), high_ok = __ballot_sync(FULL, guess.high <= at);
    u32 low = (high_ok ? 63 - __clz(high_ok) : 31 - __clz(low_ok)) * step, high = min(n, low + step);
    while (high - low > 1) {
        step = (high - low + 31) / 32;
        u32 probe = low + lane * step;
        u32 ok = __ballot_sync(FULL, probe < high && first[probe * stride] <= at);
        low += (31 - __clz(ok)) * step;
        high = min(high, low + step);
    }
    return low;
}
