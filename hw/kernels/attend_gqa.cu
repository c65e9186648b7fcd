// Sparse decode attention over frames: 8 or fewer query heads share a KV head of 128 dimensions, bf16. A frame holds
// PAGE keys and then PAGE values. Work is cut evenly over all streams into tiles of 16 tokens (split KV); a block that
// finishes a stream's last piece combines the pieces.
//
// Both products run on tensor cores straight from registers: keys and values are loaded in the layout of the
// left operand, which fixes the dimensions only up to an order that queries and outputs follow. No shared memory.

const u32 WARPS = 4;
const u32 DIM = 128;

// Keys of tokens n and n + 8 of a tile, n = lane / 4; element j holds dimensions 32 j + 8 t .. + 8, t = lane % 4.
struct Keys { uint4 low[4], high[4]; };
// Values of tokens 2t, 2t + 1, 2t + 8, 2t + 9; element c holds dimensions 64 c + 8 n .. + 8.
struct Values { uint4 token[4][2]; };

// What a warp has summed: scores are in units of log2.
struct Sums {
    float out[8][4]; // tile m = 4 c + w: (even, odd) dimension 64 c + 8 n + 2 w x heads (2t, 2t + 1)
    float max[2], sum[2];
};

__device__ __forceinline__ void load_keys(Keys &k, const u8 *tile) {
    u32 lane = threadIdx.x & 31;
    const u8 *p = tile + lane / 4 * (DIM * 2) + (lane & 3) * 16;
#pragma unroll
    for (u32 j = 0; j < 4; j++) {
        k.low[j] = load_once(p + j * 64);
        k.high[j] = load_once(p + 8 * DIM * 2 + j * 64);
    }
}

__device__ __forceinline__ void load_values(Values &v, const u8 *tile) {
    u32 lane = threadIdx.x & 31;
    const u8 *p = tile + (lane & 3) * 2 * (DIM * 2) + lane / 4 * 16;
#pragma unroll
    for (u32 c = 0; c < 2; c++) {
        v.token[0][c] = load_once(p + c * 128);
        v.token[1][c] = load_once(p + DIM * 2 + c * 128);
        v.token[2][c] = load_once(p + 8 * DIM * 2 + c * 128);
        v.token[3][c] = load_once(p + 9 * DIM * 2 + c * 128);
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

// Turns scores into weights and rescales the sums where the maximum rises. The weights come out as right operand.
__device__ __forceinline__ void weigh(Sums &a, float (&s)[4], u32 &low, u32 &high) {
    float top[2] = {max_over_rows(fmaxf(s[0], s[2])), max_over_rows(fmaxf(s[1], s[3]))};
    if (__any_sync(FULL, top[0] > a.max[0] || top[1] > a.max[1])) {
#pragma unroll
        for (u32 h = 0; h < 2; h++) {
            float rise = fmaxf(a.max[h], top[h]);
            float scale = exp2_fast(a.max[h] - rise);
            a.max[h] = rise;
            a.sum[h] *= scale;
#pragma unroll
            for (u32 m = 0; m < 8; m++) a.out[m][h] *= scale, a.out[m][h + 2] *= scale;
        }
    }
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        s[i] = exp2_fast(s[i] - a.max[i & 1]);
        a.sum[i & 1] += s[i];
    }
    low = transpose8(pack_bf16(s[0], s[1]));
    high = transpose8(pack_bf16(s[2], s[3]));
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

// Follows a warp's tiles through the streams: the address of each tile, found one step before it is read.
template <u32 PAGE>
struct Cursor {
    const Row *row;
    u32 base, next, entry;

    __device__ __forceinline__ const u8 *seek(const u8 *pool, const u32 *frames, u32 tile) {
        const u32 PER_PAGE = PAGE / 16;
        while (tile >= next) {
            row++;
            base = next, entry = row->entry, next = row[1].first_tile;
        }
        u32 at = tile - base;
        return pool + frames[entry + at / PER_PAGE] * ((u64)PAGE * DIM * 4) + at % PER_PAGE * (16 * DIM * 2);
    }
};

// One piece's result as it waits for the others: weights' maximum and sum per head, then sums per head and dimension.
template <u32 GROUP>
struct Piece {
    float max[GROUP], sum[GROUP], out[GROUP][DIM];
};

// One thread's view of a combined piece: every head, at the thread's own dimension.
template <u32 GROUP>
struct Total {
    float max[GROUP], sum[GROUP], out[GROUP];
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

// Adds up the pieces of the block's warps.
template <u32 GROUP>
__device__ __forceinline__ Total<GROUP> add_up(const Piece<GROUP> *pieces) {
    Total<GROUP> total;
#pragma unroll
    for (u32 head = 0; head < GROUP; head++) {
        float top = NEGATIVE_INFINITY, sum = 0, out = 0;
#pragma unroll
        for (u32 w = 0; w < WARPS; w++) top = fmaxf(top, pieces[w].max[head]);
#pragma unroll
        for (u32 w = 0; w < WARPS; w++) {
            float scale = exp2_fast(pieces[w].max[head] - top);
            sum += pieces[w].sum[head] * scale;
            out += pieces[w].out[head][threadIdx.x] * scale;
        }
        total.max[head] = top, total.sum[head] = sum, total.out[head] = out;
    }
    return total;
}

template <u32 GROUP>
__device__ __forceinline__ void store(const Total<GROUP> &total, u16 *out, float *lse) {
#pragma unroll
    for (u32 head = 0; head < GROUP; head++) {
        out[head * DIM + threadIdx.x] = (u16)pack_bf16(total.out[head] / total.sum[head], 0);
        // Natural logarithm of the sum of exponentials, so that parts of a selection can be merged.
        if (threadIdx.x == 0) lse[head] = (total.max[head] + __log2f(total.sum[head])) * 0.6931471805599453f;
    }
}

__device__ __forceinline__ float4 load_shared_result4(const float *p) {
    float4 v;
    asm volatile("ld.global.cg.v4.f32 {%0,%1,%2,%3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(p));
    return v;
}

// Adds up, into one piece per warp, what several blocks have left of a stream; by the block that came last.
template <u32 GROUP>
__device__ __forceinline__ void gather_pieces(const Piece<GROUP> *pieces, u32 first, u32 last, bool first_is_second, Piece<GROUP> *warp_pieces) {
    __shared__ float tops[WARPS][GROUP];
    auto piece = [&](u32 part) { return &pieces[part * 2 + (part == first && first_is_second)]; };
    u32 warp = threadIdx.x / 32, lane = threadIdx.x & 31;
    float top = NEGATIVE_INFINITY;
    for (u32 i = threadIdx.x; i < (last - first + 1) * GROUP; i += WARPS * 32)
        top = fmaxf(top, load_shared_result(&piece(first + i / GROUP)->max[i % GROUP]));
#pragma unroll
    for (u32 step = GROUP; step < 32; step *= 2) top = fmaxf(top, __shfl_xor_sync(FULL, top, step));
    if (lane < GROUP) tops[warp][lane] = top;
    __syncthreads();
    for (u32 head = 0; head < GROUP; head++) {
        float top = fmaxf(fmaxf(tops[0][head], tops[1][head]), fmaxf(tops[2][head], tops[3][head]));
        float sum = 0;
        float4 out = make_float4(0, 0, 0, 0);
#pragma unroll 8
        for (u32 part = first + warp; part <= last; part += WARPS) {
            const Piece<GROUP> *p = piece(part);
            float scale = exp2_fast(load_shared_result(&p->max[head]) - top);
            float4 v = load_shared_result4(&p->out[head][lane * 4]);
            sum += load_shared_result(&p->sum[head]) * scale;
            out.x += v.x * scale, out.y += v.y * scale, out.z += v.z * scale, out.w += v.w * scale;
        }
        *(float4 *)&warp_pieces[warp].out[head][lane * 4] = out;
        if (lane == 0) warp_pieces[warp].max[head] = top, warp_pieces[warp].sum[head] = sum;
    }
    __syncthreads();
}

// `queries` and `out` are streams x GROUP x 128 bf16, `lse` streams x GROUP. `rows` has one more than there are
// streams, with the total of tiles. `pieces` holds two per block; `arrived` is zero before and after, one per stream.
// At least `least` tiles go to a block. A warp takes every WARPS-th tile of its block, across streams: keys of its
// next tile fly while values are used, and the other way round, also while a finished stream is combined.
template <u32 PAGE, u32 GROUP>
__device__ __forceinline__ void attend(const u16 *queries, const u8 *pool, const u32 *frames, const Row *rows, u32 streams,
                                       float scale, u16 *out, float *lse, float *pieces_raw, u32 *arrived, u32 least) {
    __shared__ __align__(16) Piece<GROUP> warp_pieces[WARPS];
    __shared__ u32 arrivals;
    Piece<GROUP> *pieces = (Piece<GROUP> *)pieces_raw;
    u32 lane = threadIdx.x & 31, n = lane / 4, t = lane & 3;
    u32 total = rows[streams].first_tile, parts = min(gridDim.x, (total + least - 1) / least);
    u32 at = part_start(blockIdx.x, parts, total), end = part_start(blockIdx.x + 1, parts, total);
    if (blockIdx.x >= parts) at = end = 0;
    u32 stream = at < end ? find_range(&rows->first_tile, 4, streams, at) : 0, tile = at + threadIdx.x / 32;
    u32 base = rows[stream].first_tile, next = rows[stream + 1].first_tile;
    Cursor<PAGE> cursor = {rows + stream, base, next, rows[stream].entry};
    Keys k;
    Values v;
    const u8 *ahead = pool;
    if (tile < end) {
        const u8 *here = cursor.seek(pool, frames, tile);
        load_keys(k, here);
        load_values(v, here + PAGE * DIM * 2);
        if (tile + WARPS < end) ahead = cursor.seek(pool, frames, tile + WARPS);
    }
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
            const u8 *after = tile + 2 * WARPS < end ? cursor.seek(pool, frames, tile + 2 * WARPS) : pool;
            score(s, k, q, scale, tokens - (tile - base) * 16);
            if (more) load_keys(k, ahead);
            weigh(a, s, low, high);
            add_values(a, v, low, high);
            if (more) load_values(v, ahead + PAGE * DIM * 2);
            ahead = after;
        }
        leave<GROUP>(a, warp_pieces[threadIdx.x / 32]);
        __syncthreads();
        u16 *o = out + (u64)stream * GROUP * DIM;
        float *l = lse + stream * GROUP;
        Total<GROUP> sum = add_up<GROUP>(warp_pieces);
        if (at == base && stop == next) {
            store<GROUP>(sum, o, l);
        } else {
            Piece<GROUP> &mine = pieces[blockIdx.x * 2 + which];
#pragma unroll
            for (u32 head = 0; head < GROUP; head++) {
                mine.out[head][threadIdx.x] = sum.out[head];
                if (threadIdx.x == head) mine.max[head] = sum.max[head], mine.sum[head] = sum.sum[head];
            }
            __threadfence();
            __syncthreads();
            u32 first = part_of(base, parts, total), last = part_of(next - 1, parts, total);
            if (threadIdx.x == 0) arrivals = atomicAdd(&arrived[stream], 1);
            __syncthreads();
            if (arrivals == last - first) {
                __threadfence();
                bool first_is_second = part_start(first, parts, total) < base;
                gather_pieces<GROUP>(pieces, first, last, first_is_second, warp_pieces);
                store<GROUP>(add_up<GROUP>(warp_pieces), o, l);
                if (threadIdx.x == 0) arrived[stream] = 0;
            }
        }
        __syncthreads();
        at = stop;
        which = 1;
    }
    // Streams without a token belong to no block's tiles.
    for (u32 stream = blockIdx.x; stream < streams; stream += gridDim.x)
        if (rows[stream].tokens == 0)
            for (u32 head = 0; head < GROUP; head++) {
                out[((u64)stream * GROUP + head) * DIM + threadIdx.x] = 0;
                if (threadIdx.x == 0) lse[stream * GROUP + head] = NEGATIVE_INFINITY;
            }
}

#define ATTEND(PAGE, GROUP)                                                                                            \
    extern "C" __global__ void __launch_bounds__(WARPS * 32, 3) attend_gqa_p##PAGE##_g##GROUP(                         \
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
