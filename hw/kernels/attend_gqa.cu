// Sparse decode attention over frames: 8 or fewer query heads share a KV head of 128 dimensions, bf16. A frame holds
// PAGE keys and then PAGE values. Work is cut evenly over all streams into tiles of 16 tokens (split KV); a block that
// finishes a stream's last piece combines the pieces.
//
// Both products run on tensor cores straight from registers: keys and values are loaded in the layout of the left
// operand, which fixes the dimensions only up to an order that queries and outputs follow. Shared memory only serves to
// add up the warps' results.

// One block of twelve warps fills a multiprocessor's registers: beside kernels that wait on the host link, whole
// multiprocessors are left to those.
const u32 WARPS = 12;
const u32 DIM = 128;
const u32 SLICES = WARPS * 32 / DIM; // threads that share a dimension, and take turns at the heads

// Keys of tokens n and n + 8 of a tile, n = lane / 4; element j holds dimensions 32 j + 8 t .. + 8, t = lane % 4.
struct Keys { uint4 low[4], high[4]; };
// Values of tokens 2t, 2t + 1, 2t + 8, 2t + 9; element c holds dimensions 64 c + 8 n .. + 8.
struct Values { uint4 token[4][2]; };

// A warp's `Sums`: tile m = 4 c + w holds (even, odd) dimension 64 c + 8 n + 2 w x heads (2t, 2t + 1).

__device__ __forceinline__ void load_keys(Keys &k, const u8 *tile) {
    u32 lane = threadIdx.x & 31;
    const u8 *p = tile + lane / 4 * (DIM * 2) + (lane & 3) * 16;
#pragma unroll
    for (u32 j = 0; j < 4; j++) {
        k.low[j] = load_page(p + j * 64);
        k.high[j] = load_page(p + 8 * DIM * 2 + j * 64);
    }
}

__device__ __forceinline__ void load_values(Values &v, const u8 *tile) {
    u32 lane = threadIdx.x & 31;
    const u8 *p = tile + (lane & 3) * 2 * (DIM * 2) + lane / 4 * 16;
#pragma unroll
    for (u32 c = 0; c < 2; c++) {
        v.token[0][c] = load_page(p + c * 128);
        v.token[1][c] = load_page(p + DIM * 2 + c * 128);
        v.token[2][c] = load_page(p + 8 * DIM * 2 + c * 128);
        v.token[3][c] = load_page(p + 9 * DIM * 2 + c * 128);
    }
}

// Scores of a tile: (token n, n + 8) x (head 2t, 2t + 1), scaled to log2; tokens from `valid` on count for nothing.
__device__ __forceinline__ void score(float (&s)[4], const Keys &k, const uint4 (&q)[4], float scale, u32 valid) {
    float even[4] = {0, 0, 0, 0}, odd[4] = {0, 0, 0, 0};
#pragma unroll
    for (u32 j = 0; j < 4; j++) {
        mma_bf16(even, k.low[j].x, k.high[j].x, k.low[j].y, k.high[j].y, q[j].x, q[j].y);
        mma_bf16(odd, k.low[j].z, k.high[j].z, k.low[j].w, k.high[j].w, q[j].z, q[j].w);
    }
    u32 token = (threadIdx.x & 31) / 4;
#pragma unroll
    for (u32 i = 0; i < 4; i++)
        s[i] = token + (i / 2) * 8 < valid ? (even[i] + odd[i]) * scale : NEGATIVE_INFINITY;
}

__device__ __forceinline__ void add_values(Sums &a, const Values &v, u32 low, u32 high) {
#pragma unroll
    for (u32 c = 0; c < 2; c++) {
        const u32 *t[4] = {&v.token[0][c].x, &v.token[1][c].x, &v.token[2][c].x, &v.token[3][c].x};
#pragma unroll
        for (u32 w = 0; w < 4; w++)
            mma_bf16(a.out[4 * c + w], __byte_perm(t[0][w], t[1][w], 0x5410), __byte_perm(t[0][w], t[1][w], 0x7632),
                     __byte_perm(t[2][w], t[3][w], 0x5410), __byte_perm(t[2][w], t[3][w], 0x7632), low, high);
    }
}

// Where a stream's tiles begin in the flat list of all, its first entry in `frames`, and its tokens.
struct Row { u32 first_tile, entry, tokens, unused; };

// Follows a warp's tiles through the streams: where each tile's keys are, in units of a tile's keys, found one step
// before they are read.
template <u32 PAGE>
struct Cursor {
    u32 stream, base, next, entry;

    __device__ __forceinline__ u32 seek(const Row *rows, const u32 *frames, u32 tile) {
        const u32 PER_PAGE = PAGE / 16;
        while (tile >= next) {
            stream++;
            base = next, entry = rows[stream].entry, next = rows[stream + 1].first_tile;
        }
        u32 at = tile - base;
        return frames[entry + at / PER_PAGE] * (PER_PAGE * 2) + at % PER_PAGE;
    }
};

// One piece's result as it waits for the others: weights' maximum and sum per head, then sums per head and dimension.
template <u32 GROUP>
struct Piece {
    float max[GROUP], sum[GROUP], out[GROUP][DIM];
};

template <u32 GROUP>
__device__ __forceinline__ void leave(const Sums &a, Piece<GROUP> &mine) {
    u32 lane = threadIdx.x & 31, n = lane / 4, t = lane & 3;
#pragma unroll
    for (u32 h = 0; h < 2; h++) {
        float sum = sum_over_rows(a.sum[h]);
        u32 head = 2 * t + h;
        if (head < GROUP) {
            if (n == 0) mine.max[head] = a.max[h], mine.sum[head] = sum;
#pragma unroll
            for (u32 m = 0; m < 8; m++) {
                u32 dim = m / 4 * 64 + n * 8 + m % 4 * 2;
                *(float2 *)&mine.out[head][dim] = make_float2(a.out[m][h], a.out[m][h + 2]);
            }
        }
    }
}

// Adds up the pieces of the block's warps and calls `f(head, dimension, max, sum, value)` for each value, once.
template <u32 GROUP, typename F>
__device__ __forceinline__ void add_up(const Piece<GROUP> *pieces, F f) {
    u32 dim = threadIdx.x % DIM;
    for (u32 head = threadIdx.x / DIM; head < GROUP; head += SLICES) {
        float top = NEGATIVE_INFINITY, sum = 0, out = 0;
#pragma unroll
        for (u32 w = 0; w < WARPS; w++) top = fmaxf(top, pieces[w].max[head]);
#pragma unroll
        for (u32 w = 0; w < WARPS; w++) {
            float scale = exp2_fast(pieces[w].max[head] - top);
            sum += pieces[w].sum[head] * scale;
            out += pieces[w].out[head][dim] * scale;
        }
        f(head, dim, top, sum, out);
    }
}

// Stores one value of the result, and with the first dimension the natural logarithm of the sum of exponentials, so
// that parts of a selection can be merged.
__device__ __forceinline__ void store(u16 *out, float *lse, u32 head, u32 dim, float top, float sum, float value) {
    out[head * DIM + dim] = (u16)pack_bf16(value / sum, 0);
    if (dim == 0) lse[head] = (top + __log2f(sum)) * 0.6931471805599453f;
}

__device__ __forceinline__ float4 load_shared_result4(const float *p) {
    float4 v;
    asm volatile("ld.global.cg.v4.f32 {%0,%1,%2,%3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(p));
    return v;
}

// Adds up, into one piece per warp, what several blocks have left of a stream; by the block that came last. Every warp
// keeps its own maximum, so that all loads of four heads of four pieces are in flight together.
template <u32 GROUP>
__device__ __forceinline__ void gather_pieces(const Piece<GROUP> *pieces, u32 first, u32 last, bool first_is_second, Piece<GROUP> *warp_pieces) {
    const u32 HEADS = 4, PIECES = 4;
    u32 warp = threadIdx.x / 32, lane = threadIdx.x & 31;
#pragma unroll
    for (u32 some = 0; some < GROUP; some += HEADS) {
        float top[HEADS], sum[HEADS];
        float4 out[HEADS];
#pragma unroll
        for (u32 h = 0; h < HEADS; h++) top[h] = NEGATIVE_INFINITY, sum[h] = 0, out[h] = make_float4(0, 0, 0, 0);
        for (u32 base = first + warp; base <= last; base += WARPS * PIECES) {
            float max[PIECES][HEADS], part_sum[PIECES][HEADS];
            float4 v[PIECES][HEADS];
#pragma unroll
            for (u32 i = 0; i < PIECES; i++) {
                u32 part = base + i * WARPS;
                if (part > last) continue;
                const Piece<GROUP> *p = pieces + part * 2 + (part == first && first_is_second);
#pragma unroll
                for (u32 h = 0; h < HEADS; h++) {
                    max[i][h] = load_shared_result(&p->max[some + h]);
                    part_sum[i][h] = load_shared_result(&p->sum[some + h]);
                    v[i][h] = load_shared_result4(&p->out[some + h][lane * 4]);
                }
            }
#pragma unroll
            for (u32 i = 0; i < PIECES; i++) {
                if (base + i * WARPS > last) continue;
#pragma unroll
                for (u32 h = 0; h < HEADS; h++) {
                    float rise = fmaxf(top[h], max[i][h]);
                    float old = exp2_fast(top[h] - rise), by = exp2_fast(max[i][h] - rise);
                    top[h] = rise;
                    sum[h] = sum[h] * old + part_sum[i][h] * by;
                    out[h].x = out[h].x * old + v[i][h].x * by, out[h].y = out[h].y * old + v[i][h].y * by;
                    out[h].z = out[h].z * old + v[i][h].z * by, out[h].w = out[h].w * old + v[i][h].w * by;
                }
            }
        }
#pragma unroll
        for (u32 h = 0; h < HEADS; h++) {
            *(float4 *)&warp_pieces[warp].out[some + h][lane * 4] = out[h];
            if (lane == 0) warp_pieces[warp].max[some + h] = top[h], warp_pieces[warp].sum[some + h] = sum[h];
        }
    }
    __syncthreads();
}

// `queries` and `out` are streams x GROUP x 128 bf16, `lse` streams x GROUP. `rows` has one more than there are
// streams, with the total of tiles. `pieces` holds two per block; `arrived` is zero before and after, one per stream.
// At least `least` tiles go to a block. A warp takes every WARPS-th tile of its block, across streams: its next tile
// flies while a finished stream is combined.
template <u32 PAGE, u32 GROUP>
__device__ __forceinline__ void attend(const u16 *queries, const u8 *pool, const u32 *frames, const Row *rows, u32 streams,
                                       float scale, u16 *out, float *lse, float *pieces_raw, u32 *arrived, u32 least) {
    extern __shared__ float4 shared[]; // a piece per warp
    Piece<GROUP> *warp_pieces = (Piece<GROUP> *)shared;
    __shared__ u32 arrivals;
    Piece<GROUP> *pieces = (Piece<GROUP> *)pieces_raw;
    u32 lane = threadIdx.x & 31, n = lane / 4, t = lane & 3;
    Guess guess = find_first(&rows->first_tile, 4, streams);
    u32 total = rows[streams].first_tile, parts = min(gridDim.x, (total + least - 1) / least);
    u32 at = part_start(blockIdx.x, parts, total), end = part_start(blockIdx.x + 1, parts, total);
    if (blockIdx.x >= parts) at = end = 0;
    u32 stream = at < end ? find_range(&rows->first_tile, 4, streams, at, guess) : 0, tile = at + threadIdx.x / 32;
    u32 base = rows[stream].first_tile, next = rows[stream + 1].first_tile;
    Cursor<PAGE> cursor = {stream, base, next, rows[stream].entry};
    Keys k;
    Values v;
    u32 ahead = 0;
    auto keys = [&](u32 place) { return pool + (u64)place * (16 * DIM * 2); };
    if (tile < end) {
        const u8 *here = keys(cursor.seek(rows, frames, tile));
        load_keys(k, here);
        load_values(v, here + PAGE * DIM * 2);
        if (tile + WARPS < end) ahead = cursor.seek(rows, frames, tile + WARPS);
    }
    u32 complete[2] = {NONE, NONE};
    for (u32 which = 0; at < end; stream++) {
        base = rows[stream].first_tile, next = rows[stream + 1].first_tile;
        if (base == next) continue;
        u32 stop = min(end, next), tokens = rows[stream].tokens;
        uint4 q[4];
#pragma unroll
        for (u32 j = 0; j < 4; j++)
            q[j] = n < GROUP ? *(const uint4 *)(queries + ((u64)stream * GROUP + n) * DIM + j * 32 + t * 8) : make_uint4(0, 0, 0, 0);
        Sums a;
#pragma unroll
        for (u32 h = 0; h < 2; h++) a.max[h] = NEGATIVE_INFINITY, a.sum[h] = 0;
#pragma unroll
        for (u32 m = 0; m < 8; m++) a.out[m][0] = a.out[m][1] = a.out[m][2] = a.out[m][3] = 0;
        for (; tile < stop; tile += WARPS) {
            float s[4];
            u32 low, high;
            bool more = tile + WARPS < end;
            u32 after = tile + 2 * WARPS < end ? cursor.seek(rows, frames, tile + 2 * WARPS) : 0;
            score(s, k, q, scale, tokens - (tile - base) * 16);
            weigh(a, s, low, high);
            add_values(a, v, low, high);
            if (more) {
                load_keys(k, keys(ahead));
                load_values(v, keys(ahead) + PAGE * DIM * 2);
            }
            ahead = after;
        }
        leave<GROUP>(a, warp_pieces[threadIdx.x / 32]);
        __syncthreads();
        u16 *o = out + (u64)stream * GROUP * DIM;
        float *l = lse + stream * GROUP;
        if (at == base && stop == next) {
            add_up<GROUP>(warp_pieces, [&](u32 head, u32 dim, float top, float sum, float value) { store(o, l, head, dim, top, sum, value); });
        } else {
            Piece<GROUP> &mine = pieces[blockIdx.x * 2 + which];
            add_up<GROUP>(warp_pieces, [&](u32 head, u32 dim, float top, float sum, float value) {
                mine.out[head][dim] = value;
                if (dim == 0) mine.max[head] = top, mine.sum[head] = sum;
            });
            __syncthreads();
            if (threadIdx.x == 0) arrivals = arrive(&arrived[stream]);
            u32 first = part_of(base, parts, total), last = part_of(next - 1, parts, total);
            __syncthreads();
            if (arrivals == last - first) complete[0] = which ? complete[0] : stream, complete[1] = which ? stream : complete[1];
        }
        __syncthreads();
        at = stop;
        which = 1;
    }
    // Of the streams that this block shares, at its begin and its end, those in which it was the last.
#pragma unroll
    for (u32 which = 0; which < 2; which++) {
        u32 stream = complete[which];
        if (stream == NONE) continue;
        u32 base = rows[stream].first_tile, next = rows[stream + 1].first_tile;
        u32 first = part_of(base, parts, total), last = part_of(next - 1, parts, total);
        gather_pieces<GROUP>(pieces, first, last, part_start(first, parts, total) < base, warp_pieces);
        u16 *o = out + (u64)stream * GROUP * DIM;
        float *l = lse + stream * GROUP;
        add_up<GROUP>(warp_pieces, [&](u32 head, u32 dim, float top, float sum, float value) { store(o, l, head, dim, top, sum, value); });
        if (threadIdx.x == 0) arrived[stream] = 0;
        __syncthreads();
    }
    // Streams without a token belong to no block's tiles.
    for (u32 stream = blockIdx.x; stream < streams; stream += gridDim.x)
        if (rows[stream].tokens == 0)
            for (u32 i = threadIdx.x; i < GROUP * DIM; i += WARPS * 32) {
                out[(u64)stream * GROUP * DIM + i] = 0;
                if (i < GROUP) lse[stream * GROUP + i] = NEGATIVE_INFINITY;
            }
}

#define ATTEND(PAGE, GROUP)                                                                                            \
    extern "C" __global__ void __launch_bounds__(WARPS * 32, 1) attend_gqa_p##PAGE##_g##GROUP(                         \
        const u16 *queries, const u8 *pool, const u32 *frames, const Row *rows, u32 streams, float scale, u16 *out,    \
        float *lse, float *pieces, u32 *arrived, u32 least) {                                                          \
        attend<PAGE, GROUP>(queries, pool, frames, rows, streams, scale, out, lse, pieces, arrived, least);            \
    }

ATTEND(16, 4)
ATTEND(16, 8)
ATTEND(64, 4)
ATTEND(64, 8)

// Merges two attentions over disjoint parts of a selection (hit-first: over the hits while the misses fly, then over
// the misses) into the first. One block of 128 threads per row; either part may be empty.
extern "C" __global__ void __launch_bounds__(128)
merge_parts(u16 *out, float *lse, const u16 *other_out, const float *other_lse, u32 dim) {
    u32 row = blockIdx.x;
    float a = lse[row], b = other_lse[row], top = fmaxf(a, b);
    float wa = 0, wb = 0, sum = 1;
    if (top > NEGATIVE_INFINITY) {
        wa = __expf(a - top), wb = __expf(b - top);
        sum = wa + wb;
    }
    for (u32 d = threadIdx.x; d < dim; d += blockDim.x) {
        u64 at = (u64)row * dim + d;
        float x = low_bf16(out[at]), y = low_bf16(other_out[at]);
        out[at] = (u16)pack_bf16((wa * x + wb * y) / sum, 0);
    }
    __syncthreads();
    if (threadIdx.x == 0) lse[row] = top + __logf(sum);
}
