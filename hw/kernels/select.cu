// Selection: the Quest bound of every page against a group of query heads, and the top k of any scores in rank order.

const u32 WARPS = 4;

// Bounds of 16 pages at a time. A page's summary is 128 maxima and then 128 minima of its keys, bf16. The bound of a
// head is the sum over dimensions of max(q * max, q * min), which is the product of the maxima with the positive part
// of q plus that of the minima with the negative part; the group's is the largest of its heads'.
//
// `queries` is streams x GROUP x 128; `summaries` streams x stride pages; `pages[stream]` are scored.
template <u32 GROUP>
__device__ __forceinline__ void bound(const u16 *queries, const u8 *summaries, const u32 *pages, u32 stride, u32 streams, float *scores) {
    u32 lane = threadIdx.x & 31, n = lane / 4, t = lane & 3;
    u32 tiles = (stride + 15) / 16, total = tiles * streams;
    u32 at = part_start(blockIdx.x, gridDim.x, total), end = part_start(blockIdx.x + 1, gridDim.x, total);
    for (u32 stream = at / tiles; at < end; stream++) {
        u32 base = stream * tiles, stop = min(end, base + tiles), count = pages[stream];
        uint4 q[8];
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
            uint4 v = n < GROUP ? *(const uint4 *)(queries + ((u64)stream * GROUP + n) * 128 + j * 32 + t * 8) : make_uint4(0, 0, 0, 0);
            u32 *word = &v.x, *up = &q[j].x, *down = &q[4 + j].x;
#pragma unroll
            for (u32 w = 0; w < 4; w++) {
                // Sign bits, spread over their halves: the negative part keeps what the positive part drops.
                u32 sign = ((word[w] >> 15) & 0x00010001u) * 0xffffu;
                up[w] = word[w] & ~sign;
                down[w] = word[w] & sign;
            }
        }
        const u8 *rows = summaries + (u64)stream * stride * 512;
        auto load = [&](uint4 (&v)[8], u32 page, u32 half) {
            const u8 *low = rows + (u64)min(page + n, stride - 1) * 512 + half * 256 + t * 16;
            const u8 *high = rows + (u64)min(page + n + 8, stride - 1) * 512 + half * 256 + t * 16;
#pragma unroll
            for (u32 j = 0; j < 4; j++) v[j] = load_page(low + j * 64), v[4 + j] = load_page(high + j * 64);
        };
        uint4 top[8], bottom[8];
        u32 tile = at + threadIdx.x / 32;
        if (tile < stop) load(top, (tile - base) * 16, 0), load(bottom, (tile - base) * 16, 1);
        for (; tile < stop; tile += WARPS) {
            u32 page = (tile - base) * 16;
            bool more = tile + WARPS < stop;
            float s[4] = {0, 0, 0, 0}, r[4] = {0, 0, 0, 0};
#pragma unroll
            for (u32 j = 0; j < 4; j++) {
                mma_bf16(s, top[j].x, top[4 + j].x, top[j].y, top[4 + j].y, q[j].x, q[j].y);
                mma_bf16(r, top[j].z, top[4 + j].z, top[j].w, top[4 + j].w, q[j].z, q[j].w);
            }
            if (more) load(top, page + WARPS * 16, 0);
#pragma unroll
            for (u32 j = 0; j < 4; j++) {
                mma_bf16(s, bottom[j].x, bottom[4 + j].x, bottom[j].y, bottom[4 + j].y, q[4 + j].x, q[4 + j].y);
                mma_bf16(r, bottom[j].z, bottom[4 + j].z, bottom[j].w, bottom[4 + j].w, q[4 + j].z, q[4 + j].w);
            }
            if (more) load(bottom, page + WARPS * 16, 1);
            float low = NEGATIVE_INFINITY, high = NEGATIVE_INFINITY;
            if (2 * t < GROUP) {
                low = fmaxf(s[0] + r[0], s[1] + r[1]);
                high = fmaxf(s[2] + r[2], s[3] + r[3]);
            }
#pragma unroll
            for (u32 step = 1; step < 4; step *= 2) {
                low = fmaxf(low, __shfl_xor_sync(FULL, low, step));
                high = fmaxf(high, __shfl_xor_sync(FULL, high, step));
            }
            float *to = scores + (u64)stream * stride + page;
            if (t == 0 && page + n < count) to[n] = low;
            if (t == 1 && page + n + 8 < count) to[n + 8] = high;
        }
        at = stop;
    }
}

extern "C" __global__ void __launch_bounds__(WARPS * 32, 4)
quest_bound_g4(const u16 *queries, const u8 *summaries, const u32 *pages, u32 stride, u32 streams, float *scores) {
    bound<4>(queries, summaries, pages, stride, streams, scores);
}

extern "C" __global__ void __launch_bounds__(WARPS * 32, 3)
quest_bound_g8(const u16 *queries, const u8 *summaries, const u32 *pages, u32 stride, u32 streams, float *scores) {
    bound<8>(queries, summaries, pages, stride, streams, scores);
}

// Order of floats as unsigned integers.
__device__ __forceinline__ u32 ascending(float v) {
    u32 bits = __float_as_uint(v);
    return bits ^ ((bits >> 31) ? 0xffffffffu : 0x80000000u);
}

// Scores of each thread that stay in registers, and how many of the others are read at a time.
const u32 TOP_KEPT = 16, TOP_AGAIN = 8;
// Keys that the blocks of a stream sort together at most, and that any of them sorts.
const u32 TOP_LISTED = 8192, TOP_ALONE = 4096;

__device__ __forceinline__ u32 neighbour_word(u32 at) {
    u32 v;
    asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(v) : "r"(at) : "memory");
    return v;
}

__device__ __forceinline__ u64 neighbour_key(u32 at) {
    u64 v;
    asm volatile("ld.shared::cluster.u64 %0, [%1];" : "=l"(v) : "r"(at) : "memory");
    return v;
}

// What lane i of every warp reads of block i of the cluster, and zero in lanes beyond.
__device__ __forceinline__ u32 of_every_block(const u32 *at) {
    u32 lane = threadIdx.x & 31;
    return lane < cluster_size() ? neighbour_word(neighbour(shared_address(at), lane)) : 0;
}

// The share of a stream's scores that one block has, from `start` to `end`. Better scores have smaller bits.
struct Share {
    const float *scores;
    u32 start, end;
    u32 kept[TOP_KEPT]; // bits of the first scores of this thread

    __device__ __forceinline__ u32 bits(u32 i) const { return i < end ? ~ascending(scores[i]) : 0; }

    __device__ __forceinline__ void load() {
#pragma unroll
        for (u32 u = 0; u < TOP_KEPT; u++) kept[u] = bits(start + u * blockDim.x + threadIdx.x);
    }

    // Calls `f` with the index, the bits and a running number of every score; those beyond the first are read again each time.
    template <typename F>
    __device__ __forceinline__ void each(F f) const {
        u32 i = start + threadIdx.x;
#pragma unroll
        for (u32 u = 0; u < TOP_KEPT; u++, i += blockDim.x)
            if (i < end) f(i, kept[u], u);
        while (i < end) {
            u32 more[TOP_AGAIN];
#pragma unroll
            for (u32 u = 0; u < TOP_AGAIN; u++) more[u] = bits(i + u * blockDim.x);
#pragma unroll
            for (u32 u = 0; u < TOP_AGAIN; u++, i += blockDim.x)
                if (i < end) f(i, more[u], u);
        }
    }
};

// Whom the best are not beyond: smaller bits, or the same and an index up to this one.
struct Bound {
    u32 bits, index;
    __device__ __forceinline__ bool holds(u32 i, u32 of) const { return of < bits || (of == bits && i <= index); }
};

// A bound that holds for at least the `want` best of the stream's `n` scores, and for at most `room`. Digits of the bits
// are counted from the top, by every block for its share, and then, if too many are equal, those of their indices.
// `bins` has room for three times DIGITS counters, `total` for DIGITS and `coarse` for their 32nds.
__device__ __forceinline__ Bound bound_of_best(const Share &share, u32 n, u32 want, u32 room, u32 *bins, u32 *total, u32 *coarse) {
    u32 parts = cluster_size(), high = 32, below = 0, prefix = 0, known = 0;
    bool by_index = false;
    for (u32 i = threadIdx.x; i < 2 * DIGITS; i += blockDim.x) bins[i] = 0;
    __syncthreads();
    for (u32 round = 0;; round++) {
        u32 low = high > DIGIT_BITS ? high - DIGIT_BITS : 0, *bin = bins + round % 3 * DIGITS, mask = (1u << (high - low)) - 1;
        share.each([&](u32 i, u32 bits, u32) {
            u32 word = by_index ? i : bits;
            if ((!by_index || bits == known) && (round == 0 || word >> high == prefix)) atomicAdd(bin + (word >> low & mask), 1);
        });
        // The counters of the round after this: their last readers have passed the barrier before.
        if (round > 0)
            for (u32 i = threadIdx.x; i < DIGITS; i += blockDim.x) bins[(round + 1) % 3 * DIGITS + i] = 0;
        cluster_barrier();
        for (u32 i = threadIdx.x; i < DIGITS; i += blockDim.x) {
            u32 sum = 0;
            for (u32 part = 0; part < parts; part++) sum += neighbour_word(neighbour(shared_address(bin + i), part));
            total[i] = sum;
            sum = __reduce_add_sync(FULL, sum);
            if (i % 32 == 0) coarse[i / 32] = sum;
        }
        __syncthreads();
        Digit found = nth_digit(total, coarse, want - below);
        below += found.below;
        prefix = prefix << (high - low) | found.digit;
        u32 last = ((prefix + 1) << low) - 1;
        if (below + found.equal <= room) return by_index ? Bound{known, last} : Bound{last, NONE};
        high = low;
        // Indices are distinct, so the search ends with their last digit.
        if (low == 0) by_index = true, known = prefix, prefix = 0, high = 32 - __clz(n);
    }
}

// Bits that at least `want` scores of the stream do not exceed, mostly few more: every block takes its part of them from
// the best of a thread's scores, or of each quarter or half of them where there would be too few, by their first 20 bits;
// and the worst of the blocks' answers holds for all.
__device__ __forceinline__ u32 likely_bound(const Share &share, u32 want, u32 *bins, u32 *answer) {
    u32 parts = cluster_size(), place = (want + parts - 1) / parts, below = 0, prefix = 0;
    u32 best[4] = {FULL, FULL, FULL, FULL}, groups = place <= blockDim.x / 2 ? 1 : place <= blockDim.x ? 2 : 4;
    for (u32 i = threadIdx.x; i < 2 * (DIGITS + DIGITS / 32); i += blockDim.x) bins[i] = 0;
    share.each([&](u32, u32 bits, u32 u) { best[u % 4] = min(best[u % 4], bits); });
    if (groups <= 2) best[0] = min(best[0], best[2]), best[1] = min(best[1], best[3]);
    if (groups == 1) best[0] = min(best[0], best[1]);
    __syncthreads();
#pragma unroll
    for (u32 round = 0; round < 2; round++) {
        u32 *fine = bins + round * (DIGITS + DIGITS / 32), *coarse = fine + DIGITS;
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
            u32 digit = best[j] >> (22 - 10 * round) & (DIGITS - 1);
            if (j < groups && (round == 0 || best[j] >> 22 == prefix)) atomicAdd(fine + digit, 1), atomicAdd(coarse + digit / 32, 1);
        }
        __syncthreads();
        Digit found = nth_digit(fine, coarse, min(place, blockDim.x * groups) - below);
        below += found.below;
        prefix = prefix << 10 | found.digit;
    }
    // More are wanted than there are bests: none can be left out.
    if (place > blockDim.x * groups) prefix = FULL >> 12;
    if (threadIdx.x == 0) *answer = prefix;
    if (parts > 1) {
        cluster_barrier();
        prefix = __reduce_max_sync(FULL, of_every_block(answer));
    }
    return prefix << 12 | 0xfff;
}

// Lists every score within the bound, as its bits and its index; `listed` counts them, also those beyond `room`. The order
// plays no part: keys are distinct, and will be sorted.
__device__ __forceinline__ void list(const Share &share, const Bound &bound, u64 *keys, u32 *listed, u32 room) {
    share.each([&](u32 i, u32 bits, u32) {
        if (!bound.holds(i, bits)) return;
        u32 at = atomicAdd(listed, 1);
        if (at < room) keys[at] = (u64)bits << 32 | i;
    });
}

// Sorts `n` keys in ascending order; the list has room for a power of two of them.
__device__ __forceinline__ void sort_list(u64 *keys, u32 n) {
    u32 padded = padded_to(n);
    for (u32 i = n + threadIdx.x; i < padded; i += blockDim.x) keys[i] = NO_KEY;
    __syncthreads();
    sort_keys(keys, padded);
}

// How many of the `n` ascending bits are smaller, or else the same and `ties` count.
__device__ __forceinline__ u32 place_among(const u32 *sorted, u32 n, u32 bits, bool ties) {
    u32 low = 0;
    for (u32 step = padded_to(n); step > 0; step /= 2) {
        u32 probe = low + step;
        if (probe > n) continue;
        u32 other = sorted[probe - 1];
        if (other < bits || (ties && other == bits)) low = probe;
    }
    return low;
}

// The k best of each stream's scores, best first, ties to the lower index; all of them where there are no more than k.
// `taken[stream]` says how many. A cluster of blocks per stream, each of which keeps its share of the scores and sorts
// what of it may be among the best; a key's place is the sum of its places in all blocks' lists. Where those lists are
// too long, as with many equal scores, the bound is made exact, and the first block sorts. `padded` is k rounded up to
// a power of two, at least 64; dynamic shared memory holds this block's keys, the bits of all unless it is alone, and
// counters.
extern "C" __global__ void __launch_bounds__(1024)
top_k(const float *scores, const u32 *counts, u32 stride, u32 k, u32 padded, u32 *best, u32 *taken) {
    extern __shared__ u64 keys[];
    begin_after_predecessor();
    u32 parts = cluster_size(), part = cluster_rank(), stream = blockIdx.x / parts, room = TOP_LISTED / parts;
    // One word more between lists, so that they do not share banks.
    u32 *lists = (u32 *)(keys + TOP_ALONE), *bins = lists + (parts > 1 ? TOP_LISTED + parts : 0), *total = bins + 3 * DIGITS;
    u32 *coarse = total + DIGITS, *listed = coarse + DIGITS / 32, *answer = listed + 1;
    u32 n = counts[stream], want = min(k, n);
    Share share = {scores + (u64)stream * stride, part_start(part, parts, n), part_start(part + 1, parts, n)};
    best += (u64)stream * k;
    share.load();
    if (threadIdx.x == 0) *listed = 0;
    if (part == 0 && threadIdx.x == 0) taken[stream] = want;
    Bound bound = {FULL, NONE};
    if (want < n) bound.bits = likely_bound(share, want, bins, answer);
    room = min(room, TOP_ALONE);
    __syncthreads();
    list(share, bound, keys, listed, room);
    __syncthreads();
    u32 mine = *listed, longest = mine;
    if (mine <= room) sort_list(keys, mine);
    if (parts == 1 && mine <= room) {
        for (u32 i = threadIdx.x; i < want; i += blockDim.x) best[i] = (u32)keys[i];
        return;
    }
    cluster_barrier();
    u32 lengths = of_every_block(listed);
    longest = __reduce_max_sync(FULL, lengths);
    if (longest <= room) {
        // Each block's list is copied by as many threads as any other's.
        u32 per = blockDim.x / parts, other = threadIdx.x / per, length = __shfl_sync(FULL, lengths, other);
        u32 from = neighbour(shared_address(keys), other) + 4;
        for (u32 i = threadIdx.x % per; i < length; i += per) lists[other * (room + 1) + i] = neighbour_word(from + i * 8);
        cluster_barrier();
        // Neighbouring lanes, one per list, find the place of one key. Blocks with lower indices come first among equals.
        other = threadIdx.x % parts, length = __shfl_sync(FULL, lengths, other);
        for (u32 base = 0; base < mine; base += per) {
            u32 i = base + threadIdx.x / parts, place = 0;
            u64 key = i < mine ? keys[i] : 0;
            if (i < mine) place = other == part ? i : place_among(lists + other * (room + 1), length, key >> 32, other < part);
            for (u32 step = 1; step < parts; step *= 2) place += __shfl_xor_sync(FULL, place, step);
            if (i < mine && other == 0 && place < want) best[place] = (u32)key;
        }
        return;
    }
    cluster_barrier(); // everybody knows how long the lists are
    if (threadIdx.x == 0) *listed = 0;
    bound = bound_of_best(share, n, want, padded, bins, total, coarse);
    list(share, bound, keys, listed, padded);
    cluster_barrier();
    if (part == 0) {
        u32 held = *listed;
        for (u32 other = 1; other < parts; other++) {
            u32 length = neighbour_word(neighbour(shared_address(listed), other)), from = neighbour(shared_address(keys), other);
            for (u32 i = threadIdx.x; i < length; i += blockDim.x) keys[held + i] = neighbour_key(from + i * 8);
            held += length;
        }
        __syncthreads();
        sort_list(keys, held);
        for (u32 i = threadIdx.x; i < want; i += blockDim.x) best[i] = (u32)keys[i];
    }
    cluster_barrier(); // no block ends while the first one reads its list
}
