// The n smallest of a stream's keys in ascending order, by a whole block: digits are counted from the top until what is
// left at the n-th key is little, and only what is not above it is sorted. Keys are distinct and below NO_KEY, so no
// order depends on timing.

const u32 KEPT = 4;                   // keys of each thread that stay in registers; the rest is in shared memory
const u32 BINS = DIGITS + DIGITS / 32; // the coarse ones last
const u32 COUNTERS = 3 * BINS;

// Calls `f` with every key of this thread. Thread t has keys 4t .. 4t + 3 of each group of 4 x THREADS.
template <typename F>
__device__ __forceinline__ void each_key(const u64 (&kept)[KEPT], const u64 *keys, u32 slots, F f) {
#pragma unroll
    for (u32 j = 0; j < KEPT; j++) f(kept[j]);
    for (u32 i = KEPT * (THREADS + threadIdx.x); i < slots; i += KEPT * THREADS)
#pragma unroll
        for (u32 j = 0; j < KEPT; j++) f(keys[i + j]);
}

// A key that at least `need` keys do not exceed, and not many more than `room`. Ends before a barrier.
__device__ __forceinline__ u64 bound_of_smallest(const u64 (&kept)[KEPT], const u64 *keys, u32 slots, u32 need, u32 room, u32 *bins) {
    __shared__ u32 parts[4][MOST_WARPS];
    u32 warp = threadIdx.x / 32, lane = threadIdx.x & 31;
    u64 any = 0, all = NO_KEY;
    each_key(kept, keys, slots, [&](u64 key) {
        if (key != NO_KEY) any |= key, all &= key;
    });
    u32 part[4] = {__reduce_or_sync(FULL, (u32)any), __reduce_or_sync(FULL, (u32)(any >> 32)),
                   __reduce_and_sync(FULL, (u32)all), __reduce_and_sync(FULL, (u32)(all >> 32))};
    if (lane == 0)
#pragma unroll
        for (u32 j = 0; j < 4; j++) parts[j][warp] = part[j];
    for (u32 i = threadIdx.x; i < 2 * BINS; i += THREADS) bins[i] = 0;
    __syncthreads();
    bool counts = lane < THREADS / 32;
    any = (u64)__reduce_or_sync(FULL, counts ? parts[1][lane] : 0) << 32 | __reduce_or_sync(FULL, counts ? parts[0][lane] : 0);
    all = (u64)__reduce_and_sync(FULL, counts ? parts[3][lane] : FULL) << 32 | __reduce_and_sync(FULL, counts ? parts[2][lane] : FULL);
    // Every key is `prefix` above bit `high`.
    u32 high = 64 - __clzll(any ^ all), low, below = 0;
    u64 prefix = high < 64 ? any >> high : 0;
    for (u32 round = 0;; round++) {
        low = high > DIGIT_BITS ? high - DIGIT_BITS : 0;
        u32 *bin = bins + round % 3 * BINS, mask = (1u << (high - low)) - 1;
        each_key(kept, keys, slots, [&](u64 key) {
            if (key == NO_KEY || (round > 0 && key >> high != prefix)) return;
            u32 digit = (u32)(key >> low) & mask;
            atomicAdd(bin + digit, 1);
            atomicAdd(bin + DIGITS + digit / 32, 1);
        });
        // The counters of the round after this: their last readers have passed the barrier before.
        if (round > 0)
            for (u32 i = threadIdx.x; i < BINS; i += THREADS) bins[(round + 1) % 3 * BINS + i] = 0;
        __syncthreads();
        Digit found = nth_digit(bin, bin + DIGITS, need - below);
        below += found.below;
        prefix = prefix << (high - low) | found.digit;
        if (low == 0 || below + found.equal <= room) break;
        high = low;
    }
    return ((prefix + 1) << low) - 1;
}

// Brings the `need` smallest of `m` keys to the front of `keys`, in ascending order; `need` is at least one. Those of
// this thread that are `kept` need not be in `keys`, which has room for the slots padded to a power of two; `bins`
// for COUNTERS. Every slot has a key, which is NO_KEY if it may not be chosen. Begins and ends with a barrier.
__device__ __forceinline__ void smallest(const u64 (&kept)[KEPT], u64 *keys, u32 slots, u32 m, u32 need, u32 *bins) {
    __shared__ u32 taken;
    u32 room = padded_to(need + need / 4 + 32), lane = threadIdx.x & 31;
    if (threadIdx.x == 0) taken = 0;
    __syncthreads();
    u64 bound = m > room ? bound_of_smallest(kept, keys, slots, need, room, bins) : NO_KEY - 1;
    // Groups close up in place: what is written comes before what has not been read.
    auto take = [&](const u64 (&group)[KEPT]) {
        u32 mine = 0, all, at;
#pragma unroll
        for (u32 j = 0; j < KEPT; j++) mine += group[j] <= bound;
        u32 before = exclusive_scan(mine, all);
        if (lane == 0) at = all ? atomicAdd(&taken, all) : 0;
        at = __shfl_sync(FULL, at, 0) + before;
#pragma unroll
        for (u32 j = 0; j < KEPT; j++)
            if (group[j] <= bound) keys[at++] = group[j];
    };
    take(kept);
    for (u32 base = KEPT * THREADS; base < slots; base += KEPT * THREADS) {
        u64 group[KEPT];
        u32 i = base + KEPT * threadIdx.x;
#pragma unroll
        for (u32 j = 0; j < KEPT; j++) group[j] = i < slots ? keys[i + j] : NO_KEY;
        __syncthreads();
        take(group);
    }
    __syncthreads();
    u32 n = taken, padded = padded_to(n);
    for (u32 i = n + threadIdx.x; i < padded; i += THREADS) keys[i] = NO_KEY;
    __syncthreads();
    sort_keys(keys, padded);
}
