// What the residency kernels share: look-up in rank order, fills, and candidates of the prefetcher. One block per
// stream, of a power of two of threads that the host chooses by the shape: from 128 to 1024.

#define THREADS blockDim.x
const u32 MOST_WARPS = 32;

// The rank of what has none, in 16 bits.
const u32 UNRANKED = 0xffff;

// Cuts `n` elements into one contiguous run per warp, a multiple of 32 long.
__device__ __forceinline__ u32 run_length(u32 n) { return (n + THREADS - 1) >> (31 - __clz(THREADS)) << 5; }

// Exclusive prefix over the warps' counts in `counts`, for this warp; all warps read the same counts.
__device__ __forceinline__ u32 warp_prefix(const u32 *counts, u32 &total) {
    u32 lane = threadIdx.x & 31;
    u32 before = exclusive_scan(lane < THREADS / 32 ? counts[lane] : 0, total);
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

// Looks up the selection in rank order: `hit(slot, rank)` for every block that is there. Returns this warp's misses.
// `ready()` is called while the first look-ups are under way, and may be a barrier.
template <typename Ready, typename Hit>
__device__ __forceinline__ u32 look_up(const u32 *selected, u32 n, const u32 *slot_of, u32 *slots, Ready ready, Hit hit) {
    const u32 UNROLL = 2;
    u32 run = run_length(n), start = threadIdx.x / 32 * run, end = start + run, lane = threadIdx.x & 31, misses = 0;
    u32 block[UNROLL], slot[UNROLL];
    auto fetch = [&](u32 base) {
#pragma unroll
        for (u32 u = 0; u < UNROLL; u++) {
            u32 rank = base + u * 32 + lane;
            block[u] = rank < n && rank < end ? selected[rank] : NONE;
        }
#pragma unroll
        for (u32 u = 0; u < UNROLL; u++) slot[u] = block[u] == NONE ? 0 : slot_of[block[u]];
    };
    fetch(start);
    ready();
    for (u32 base = start; base < end; base += 32 * UNROLL) {
        if (base > start) fetch(base);
#pragma unroll
        for (u32 u = 0; u < UNROLL; u++) {
            u32 rank = base + u * 32 + lane;
            if (block[u] != NONE) slots[rank] = slot[u];
            if (block[u] != NONE && slot[u] != NONE) hit(slot[u], rank);
            misses += __popc(__ballot_sync(FULL, block[u] != NONE && slot[u] == NONE));
        }
    }
    return misses;
}

// Candidates of the next-ranked prefetcher: the places in `near` of the first `budget` near misses that are absent.
// `counts` has room for a word per warp. Begins and ends with a barrier.
__device__ __forceinline__ u32 candidates(const u32 *near, u32 n, u32 budget, const u32 *slot_of, u32 *out, u32 *counts) {
    u32 warp = threadIdx.x / 32, lane = threadIdx.x & 31;
    u32 run = run_length(n), start = warp * run, absent = 0, all;
    auto is_absent = [&](u32 at) { return at < n && slot_of[near[at]] == NONE; };
    __syncthreads();
    for (u32 base = start; base < start + run; base += 32) absent += __popc(__ballot_sync(FULL, is_absent(base + lane)));
    if (lane == 0) counts[warp] = absent;
    __syncthreads();
    u32 place = warp_prefix(counts, all);
    for (u32 base = start; base < start + run && place < budget; base += 32) {
        bool found = is_absent(base + lane);
        u32 mask = __ballot_sync(FULL, found), at = place + lanes_below(mask);
        if (found && at < budget) out[at] = base + lane;
        place += __popc(mask);
    }
    __syncthreads();
    return min(all, budget);
}
