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

const u32 TOP_THREADS = 1024;
const u32 KEPT = 8;

// Counts of one 8-bit digit. Every lane counts in a column of its own, so that equal digits do not queue.
struct Digits {
    u32 columns[256][32];
};

// Calls `f(index, key)` for every score; keys of short streams stay in registers between calls.
template <typename F>
__device__ __forceinline__ void each_key(const float *scores, u32 n, const u32 (&kept)[KEPT], F f) {
    if (n <= KEPT * TOP_THREADS) {
#pragma unroll
        for (u32 u = 0; u < KEPT; u++) {
            u32 i = u * TOP_THREADS + threadIdx.x;
            if (i < n) f(i, kept[u]);
        }
        return;
    }
    const u32 UNROLL = 16;
    for (u32 base = 0; base < n; base += UNROLL * TOP_THREADS) {
        float v[UNROLL];
#pragma unroll
        for (u32 u = 0; u < UNROLL; u++) {
            u32 i = base + u * TOP_THREADS + threadIdx.x;
            v[u] = i < n ? scores[i] : 0;
        }
#pragma unroll
        for (u32 u = 0; u < UNROLL; u++) {
            u32 i = base + u * TOP_THREADS + threadIdx.x;
            if (i < n) f(i, ascending(v[u]));
        }
    }
}

// The k-th largest key; `need` becomes how many of the keys equal to it belong to the k, `equal` how many there are.
__device__ __forceinline__ u32 kth_key(const float *scores, u32 n, const u32 (&kept)[KEPT], Digits *digits, u32 &need, u32 &equal) {
    __shared__ u32 counts[256], chosen[3];
    u32 warp = threadIdx.x / 32, lane = threadIdx.x & 31, known = 0;
    for (u32 digit = 0; digit < 4; digit++) {
        u32 shift = 24 - 8 * digit;
        for (u32 bin = warp; bin < 256; bin += TOP_THREADS / 32) digits->columns[bin][lane] = 0;
        __syncthreads();
        each_key(scores, n, kept, [&](u32, u32 key) {
            if (digit == 0 || key >> (shift + 8) == known) atomicAdd(&digits->columns[key >> shift & 255][lane], 1);
        });
        __syncthreads();
        for (u32 bin = warp; bin < 256; bin += TOP_THREADS / 32) {
            u32 count = __reduce_add_sync(FULL, digits->columns[bin][lane]);
            if (lane == 0) counts[bin] = count;
        }
        __syncthreads();
        if (warp == 0) {
            // Lane i holds the eight bins from 255 - 8i down.
            u32 sum = 0, all;
#pragma unroll
            for (u32 j = 0; j < 8; j++) sum += counts[255 - 8 * lane - j];
            u32 above = exclusive_scan(sum, all);
#pragma unroll
            for (u32 j = 0; j < 8; j++) {
                u32 bin = 255 - 8 * lane - j, count = counts[bin];
                if (above < need && above + count >= need) chosen[0] = bin, chosen[1] = need - above, chosen[2] = count;
                above += count;
            }
        }
        __syncthreads();
        known = known << 8 | chosen[0];
        need = chosen[1];
        equal = chosen[2];
        __syncthreads();
    }
    return known;
}

// The k best of each stream's scores, best first, ties to the lower index; all of them where there are no more than k.
// `taken[stream]` says how many. One block per stream; `padded` is k rounded up to a power of two, at least 2.
// Dynamic shared memory holds first the digits and then the winners.
extern "C" __global__ void __launch_bounds__(TOP_THREADS)
top_k(const float *scores, const u32 *counts, u32 stride, u32 k, u32 padded, u32 *best, u32 *taken) {
    extern __shared__ u64 winners[];
    __shared__ u32 tied[32], found;
    u32 stream = blockIdx.x, n = counts[stream], warp = threadIdx.x / 32, lane = threadIdx.x & 31;
    scores += (u64)stream * stride;
    u32 want = min(k, n), need = want, equal = 0, known = 0, kept[KEPT];
#pragma unroll
    for (u32 u = 0; u < KEPT; u++) {
        u32 i = u * TOP_THREADS + threadIdx.x;
        kept[u] = i < n ? ascending(scores[i]) : 0;
    }
    if (threadIdx.x == 0) found = 0, taken[stream] = want;
    if (n > k) known = kth_key(scores, n, kept, (Digits *)winners, need, equal);
    __syncthreads();
    auto win = [&](u32 i, u32 key) { winners[atomicAdd(&found, 1)] = (u64)~key << 32 | i; };
    bool tie = n > k && need < equal;
    each_key(scores, n, kept, [&](u32 i, u32 key) {
        if (n <= k || key > known || (!tie && key == known)) win(i, key);
    });
    if (tie) {
        // Too many keys equal the last one: the first `need` by index belong.
        u32 run = (n + 1023) / 1024 * 32, start = warp * run, ties = 0, all;
        for (u32 i = start + lane; i < start + run; i += 32)
            ties += __popc(__ballot_sync(FULL, i < n && ascending(scores[i]) == known));
        if (lane == 0) tied[warp] = ties;
        __syncthreads();
        ties = __shfl_sync(FULL, exclusive_scan(tied[lane], all), warp);
        for (u32 i = start + lane; i < start + run && ties < need; i += 32) {
            bool equals = i < n && ascending(scores[i]) == known;
            u32 mask = __ballot_sync(FULL, equals);
            if (equals && ties + lanes_below(mask) < need) win(i, known);
            ties += __popc(mask);
        }
    }
    __syncthreads();
    for (u32 i = want + threadIdx.x; i < padded; i += TOP_THREADS) winners[i] = ~0ull;
    // Bitonic sort: keys are distinct, so the order in which they were found plays no part.
    for (u32 size = 2; size <= padded; size *= 2)
        for (u32 step = size / 2; step > 0; step /= 2) {
            __syncthreads();
            for (u32 i = threadIdx.x; i < padded / 2; i += TOP_THREADS) {
                u32 low = i / step * 2 * step + i % step, high = low + step;
                u64 a = winners[low], b = winners[high];
                if ((a > b) == ((low & size) == 0)) winners[low] = b, winners[high] = a;
            }
        }
    __syncthreads();
    for (u32 i = threadIdx.x; i < want; i += TOP_THREADS) best[(u64)stream * k + i] = (u32)winners[i];
}
