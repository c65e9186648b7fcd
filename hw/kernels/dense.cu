// Stand-ins for the rest of a layer, and the yardsticks of memory bandwidth.

// Streams `words` 16-byte words, as a layer streams its weights; the checksum keeps the reads alive.
extern "C" __global__ void __launch_bounds__(512)
stream_weights(const uint4 *weights, u64 words, u32 *checksum) {
    const u32 UNROLL = 8;
    u32 sum = 0;
    u64 chunk = (u64)blockDim.x * UNROLL;
    for (u64 base = blockIdx.x * chunk; base < words; base += gridDim.x * chunk) {
        uint4 v[UNROLL];
#pragma unroll
        for (u32 u = 0; u < UNROLL; u++) {
            u64 at = base + u * blockDim.x + threadIdx.x;
            v[u] = at < words ? load_once(weights + at) : make_uint4(0, 0, 0, 0);
        }
#pragma unroll
        for (u32 u = 0; u < UNROLL; u++) sum ^= v[u].x ^ v[u].y ^ v[u].z ^ v[u].w;
    }
    sum = __reduce_xor_sync(FULL, sum);
    if ((threadIdx.x & 31) == 0) atomicXor(checksum, sum);
}

// Nothing: its time is the cost of a launch.
extern "C" __global__ void nothing() {}

// Fills memory with reproducible noise: SplitMix64 of the index. As bf16 or f32 it may hold any bit pattern, so `mask`
// keeps chosen bits and `set` forces others.
extern "C" __global__ void __launch_bounds__(256)
fill_noise(u64 *to, u64 words, u64 seed, u64 mask, u64 set) {
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < words; i += (u64)gridDim.x * blockDim.x) {
        u64 z = (i + 1) * 0x9e3779b97f4a7c15ull + seed;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
        to[i] = ((z ^ (z >> 31)) & mask) | set;
    }
}
