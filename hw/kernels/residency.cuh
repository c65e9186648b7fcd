// What the residency kernels share: look-up in rank order, fills, candidates of the prefetcher, and a sort.

const u32 THREADS = 1024;
const u32 WARPS = THREADS / 32;

// Cuts `n` elements into one contiguous run per warp, a multiple of 32 long.
__device__ __forceinline__ u32 run_length(u32 n) { return (n + THREADS - 1) / THREADS * 32; }

// Exclusive prefix over the warps' counts in `counts`, for this warp; all warps read the same counts.
__device__ __forceinline__ u32 warp_prefix(const u32 *counts, u32 &total) {
    u32 lane = threadIdx.x & 31;
    u32 before = exclusive_scan(counts[lane], total);
    return __shfl_sync(FULL, before, threadIdx.x / 32);
}

// The tables of one stream.
struct Buffer {
    u32 *slot_of;    // page table: block to slot
    u32 *block_of;   // tag: slot to block
    uint4 *fills;    // (block, slot, victim, source)
    const u32 *warm; // bit per block that is among the warm pages, or null

    // Where a block that enters comes from: 0 home, 1 the warm pages.
    __device__ __forceinline__ u32 source(u32 block) const { return warm ? warm[block / 32] >> (block % 32) & 1 : 0; }
};

// Puts `block` into `slot` and notes it as fill number `at`.
__device__ __forceinline__ void fill_slot(const Buffer &b, u32 at, u32 block, u32 slot, bool evicts, u32 source) {
    u32 victim = evicts ? b.block_of[slot] : NONE;
    if (evicts) b.slot_of[victim] = NONE;
    b.slot_of[block] = slot;
    b.block_of[slot] = block;
    b.fills[at] = make_uint4(block, slot, victim, source);
}

// Looks up the selection in rank order; hits are flagged. Returns this warp's misses.
__device__ __forceinline__ u32 look_up(const u32 *selected, u32 n, const u32 *slot_of, u32 *slots, u8 *held) {
    const u32 UNROLL = 4;
    u32 run = run_length(n), start = threadIdx.x / 32 * run, lane = threadIdx.x & 31, misses = 0;
    for (u32 base = start; base < start + run; base += 32 * UNROLL) {
        u32 block[UNROLL], slot[UNROLL];
#pragma unroll
        for (u32 u = 0; u < UNROLL; u++) {
            u32 rank = base + u * 32 + lane;
            block[u] = rank < n && rank < start + run ? selected[rank] : NONE;
        }
#pragma unroll
        for (u32 u = 0; u < UNROLL; u++) slot[u] = block[u] == NONE ? 0 : slot_of[block[u]];
#pragma unroll
        for (u32 u = 0; u < UNROLL; u++) {
            if (block[u] != NONE) slots[base + u * 32 + lane] = slot[u];
            bool hit = block[u] != NONE && slot[u] != NONE;
            if (hit) held[slot[u]] = 1;
            misses += __popc(__ballot_sync(FULL, block[u] != NONE && slot[u] == NONE));
        }
    }
    return misses;
}

// Candidates of the next-ranked prefetcher: the first `budget` near misses that are absent. By one warp.
__device__ __forceinline__ u32 candidates(const u32 *near, u32 n, u32 budget, const u32 *slot_of, u32 *out) {
    u32 found = 0;
    for (u32 base = 0; base < n && found < budget; base += 32) {
        u32 at = base + (threadIdx.x & 31);
        u32 block = at < n ? near[at] : NONE;
        bool absent = block != NONE && slot_of[block] == NONE;
        u32 mask = __ballot_sync(FULL, absent);
        u32 place = found + lanes_below(mask);
        if (absent && place < budget) out[place] = block;
        found += __popc(mask);
    }
    return min(found, budget);
}

// Sorts `n` distinct keys, padded to a power of two, in ascending order.
__device__ __forceinline__ void sort_keys(u64 *keys, u32 n, u32 padded) {
    for (u32 i = n + threadIdx.x; i < padded; i += THREADS) keys[i] = ~0ull;
    for (u32 size = 2; size <= padded; size *= 2)
        for (u32 step = size / 2; step > 0; step /= 2) {
            __syncthreads();
            for (u32 i = threadIdx.x; i < padded / 2; i += THREADS) {
                u32 low = i / step * 2 * step + i % step, high = low + step;
                u64 a = keys[low], b = keys[high];
                if ((a > b) == ((low & size) == 0)) keys[low] = b, keys[high] = a;
            }
        }
    __syncthreads();
}

