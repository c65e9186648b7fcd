// Sparse decode attention over the latent rows of multi-head latent attention: 512 latent dimensions, which are key and
// value at once, and 64 rotary ones, which are key alone. Rows are selected one token at a time. Either bf16 (1152 B),
// or fp8 e4m3 with one f32 scale per 128 dimensions and bf16 rotary part (512 + 16 + 128 = 656 B).
//
// A block serves 16 heads of one stream at a time; its eight warps split the dimensions. Each scores 16 tokens over its
// own part of the row, the parts are added through shared memory, and each warp adds the weighted rows over the
// dimensions it already holds: a row is read once, into registers, and transposed there to serve as value.

const u32 WARPS = 8;
const u32 THREADS = WARPS * 32;
const u32 HEADS = 16;
const u32 LATENT = 512;
const u32 ROPE = 64;
const u32 QUERY = LATENT + ROPE;
const u32 SUMS = 32; // accumulators of a thread

// A stream's tiles of 16 tokens in the flat list of all, its first entry in `rows`, its tokens.
struct Row { u32 first_tile, entry, tokens, unused; };

// One warp's part of 16 rows as loaded: of tokens n and n + 8, n = lane / 4, t = lane % 4.
template <bool FP8> struct Part;
// Element j holds dimensions 64 warp + 32 j + 8 t .. + 8.
template <> struct Part<false> { uint4 low[2], high[2]; uint2 rope[2]; };
// Dimensions 64 warp + 16 t .. + 16.
template <> struct Part<true> { uint4 low, high; uint2 rope[2]; float scale[2]; };

// This lane's share of the queries of heads n and n + 8, in the order of `Part`.
struct Queries { u32 latent[2][8]; u32 rope[2][2]; };

__device__ __forceinline__ uint2 load_once2(const void *p) {
    uint2 v;
    asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p));
    return v;
}

__device__ __forceinline__ void load_part(Part<false> &p, const u8 *pool, u32 low, u32 high) {
    u32 warp = threadIdx.x / 32, t = threadIdx.x & 3;
    const u8 *a = pool + (u64)low * (QUERY * 2), *b = pool + (u64)high * (QUERY * 2);
    u32 at = warp * 128 + t * 16;
#pragma unroll
    for (u32 j = 0; j < 2; j++) p.low[j] = load_once(a + at + j * 64), p.high[j] = load_once(b + at + j * 64);
    if (warp < 4) {
        u32 rope = LATENT * 2 + warp * 32 + t * 8;
        p.rope[0] = load_once2(a + rope), p.rope[1] = load_once2(b + rope);
    }
}

__device__ __forceinline__ void load_part(Part<true> &p, const u8 *pool, u32 low, u32 high) {
    u32 warp = threadIdx.x / 32, t = threadIdx.x & 3;
    const u32 BYTES = LATENT + 16 + ROPE * 2;
    const u8 *a = pool + (u64)low * BYTES, *b = pool + (u64)high * BYTES;
    u32 at = warp * 64 + t * 16;
    p.low = load_once(a + at), p.high = load_once(b + at);
    p.scale[0] = *(const float *)(a + LATENT + warp / 2 * 4);
    p.scale[1] = *(const float *)(b + LATENT + warp / 2 * 4);
    if (warp < 4) {
        u32 rope = LATENT + 16 + warp * 32 + t * 8;
        p.rope[0] = load_once2(a + rope), p.rope[1] = load_once2(b + rope);
    }
}

__device__ __forceinline__ u32 f16_from_bf16(u32 v) { return pack_f16(low_bf16(v), high_bf16(v)); }

template <bool FP8>
__device__ __forceinline__ void load_queries(Queries &q, const u16 *queries) {
    u32 warp = threadIdx.x / 32, n = (threadIdx.x & 31) / 4, t = threadIdx.x & 3;
#pragma unroll
    for (u32 h = 0; h < 2; h++) {
        const u16 *head = queries + (n + 8 * h) * QUERY;
#pragma unroll
        for (u32 j = 0; j < 2; j++) {
            uint4 v = *(const uint4 *)(head + warp * 64 + (FP8 ? t * 16 + j * 8 : t * 8 + j * 32));
            u32 *to = &q.latent[h][4 * j];
            to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
            if (FP8)
                for (u32 w = 0; w < 4; w++) to[w] = f16_from_bf16(to[w]);
        }
        uint2 v = warp < 4 ? *(const uint2 *)(head + LATENT + warp * 16 + t * 4) : make_uint2(0, 0);
        q.rope[h][0] = v.x, q.rope[h][1] = v.y;
    }
}

// Two fp8 values to two f16.
__device__ __forceinline__ u32 widen_fp8(u32 two) {
    u32 r;
    asm("{ .reg .b16 v; mov.b16 v, %1; cvt.rn.f16x2.e4m3x2 %0, v; }" : "=r"(r) : "h"((u16)two));
    return r;
}

// The eight words of latent dimensions of token n (first) or n + 8, as 16-bit floats in the order of the queries.
__device__ __forceinline__ void words(u32 (&w)[8], const Part<false> &p, u32 half) {
    const uint4 *v = half ? p.high : p.low;
#pragma unroll
    for (u32 j = 0; j < 2; j++) w[4 * j] = v[j].x, w[4 * j + 1] = v[j].y, w[4 * j + 2] = v[j].z, w[4 * j + 3] = v[j].w;
}

__device__ __forceinline__ void words(u32 (&w)[8], const Part<true> &p, u32 half) {
    uint4 v = half ? p.high : p.low;
    u32 raw[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (u32 i = 0; i < 4; i++) w[2 * i] = widen_fp8(raw[i] & 0xffff), w[2 * i + 1] = widen_fp8(raw[i] >> 16);
}

template <bool FP8>
__device__ __forceinline__ void mma(float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    if (FP8) mma_f16(d, a0, a1, a2, a3, b0, b1);
    else mma_bf16(d, a0, a1, a2, a3, b0, b1);
}

__device__ __forceinline__ float scale_of(const Part<false> &, u32) { return 1; }
__device__ __forceinline__ float scale_of(const Part<true> &p, u32 half) { return p.scale[half]; }

// Running sums of one warp: tile m of 16 dimensions x heads (2t, 2t + 1) + 8 h.
struct Sums {
    float out[4][2][4];
    float max[2][2], sum[2][2];
};

// One tile: scores over all warps, weights, weighted rows.
template <bool FP8>
__device__ __forceinline__ void attend_tile(Sums &a, const Part<FP8> &p, const Queries &q, float4 (*exchange)[32][2], float scale, u32 valid) {
    u32 warp = threadIdx.x / 32, lane = threadIdx.x & 31, n = lane / 4;
    u32 low[8], high[8];
    words(low, p, 0), words(high, p, 1);
    float s[2][4];
#pragma unroll
    for (u32 h = 0; h < 2; h++) {
        float latent[4] = {0, 0, 0, 0};
#pragma unroll
        for (u32 i = 0; i < 8; i += 2) mma<FP8>(latent, low[i], high[i], low[i + 1], high[i + 1], q.latent[h][i], q.latent[h][i + 1]);
        float rope[4] = {0, 0, 0, 0};
        if (warp < 4) mma_bf16(rope, p.rope[0].x, p.rope[1].x, p.rope[0].y, p.rope[1].y, q.rope[h][0], q.rope[h][1]);
#pragma unroll
        for (u32 i = 0; i < 4; i++) s[h][i] = latent[i] * scale_of(p, i / 2) + rope[i];
        exchange[warp][lane][h] = make_float4(s[h][0], s[h][1], s[h][2], s[h][3]);
    }
    __syncthreads();
    u32 weights[2][2];
#pragma unroll
    for (u32 h = 0; h < 2; h++) {
        float4 sum = exchange[0][lane][h];
#pragma unroll
        for (u32 w = 1; w < WARPS; w++) {
            float4 v = exchange[w][lane][h];
            sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
        }
        float all[4] = {sum.x, sum.y, sum.z, sum.w};
#pragma unroll
        for (u32 i = 0; i < 4; i++) all[i] = n + i / 2 * 8 < valid ? all[i] * scale : NEGATIVE_INFINITY;
        float top[2] = {max_over_rows(fmaxf(all[0], all[2])), max_over_rows(fmaxf(all[1], all[3]))};
        if (__any_sync(FULL, top[0] > a.max[h][0] || top[1] > a.max[h][1])) {
#pragma unroll
            for (u32 i = 0; i < 2; i++) {
                float rise = fmaxf(a.max[h][i], top[i]), by = exp2_fast(a.max[h][i] - rise);
                a.max[h][i] = rise;
                a.sum[h][i] *= by;
#pragma unroll
                for (u32 m = 0; m < 4; m++) a.out[m][h][i] *= by, a.out[m][h][i + 2] *= by;
            }
        }
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            all[i] = exp2_fast(all[i] - a.max[h][i & 1]);
            a.sum[h][i & 1] += all[i];
            all[i] *= scale_of(p, i / 2);
        }
        weights[h][0] = transpose8(FP8 ? pack_f16(all[0], all[1]) : pack_bf16(all[0], all[1]));
        weights[h][1] = transpose8(FP8 ? pack_f16(all[2], all[3]) : pack_bf16(all[2], all[3]));
    }
#pragma unroll
    for (u32 m = 0; m < 4; m++) {
        u32 a0 = transpose8(low[2 * m]), a1 = transpose8(low[2 * m + 1]);
        u32 a2 = transpose8(high[2 * m]), a3 = transpose8(high[2 * m + 1]);
#pragma unroll
        for (u32 h = 0; h < 2; h++) mma<FP8>(a.out[m][h], a0, a1, a2, a3, weights[h][0], weights[h][1]);
    }
}

// Finds the rows of a tile's tokens n and n + 8; past the end, those of the last token, which is masked.
struct Cursor {
    const Row *row;
    u32 base, next, entry, tokens;

    __device__ __forceinline__ void seek(const u32 *rows, u32 tile, u32 &low, u32 &high) {
        while (tile >= next) {
            row++;
            base = next, entry = row->entry, tokens = row->tokens, next = row[1].first_tile;
        }
        u32 token = (tile - base) * 16 + (threadIdx.x & 31) / 4;
        low = rows[entry + min(token, tokens - 1)];
        high = rows[entry + min(token + 8, tokens - 1)];
    }
};

// What a block leaves of a stream that others share: per thread, so that writing and adding are coalesced.
struct Piece { float max[HEADS], sum[HEADS], out[SUMS][THREADS]; };

// Dimension of accumulator (m, i) of this lane: rows of the transposed words.
template <bool FP8>
__device__ __forceinline__ u32 dimension(u32 m, u32 i) {
    u32 warp = threadIdx.x / 32, n = (threadIdx.x & 31) / 4;
    u32 word = 2 * m + i / 2;
    // Column c of a word's matrix is lane t = c / 2, half c % 2.
    return warp * 64 + (FP8 ? n / 2 * 16 + word * 2 : word / 4 * 32 + n / 2 * 8 + word % 4 * 2) + n % 2;
}

template <bool FP8>
__device__ __forceinline__ void store(const Sums &a, const float (&sum)[2][2], u16 *out, float *lse) {
    u32 lane = threadIdx.x & 31, t = lane & 3;
#pragma unroll
    for (u32 h = 0; h < 2; h++)
#pragma unroll
        for (u32 i = 0; i < 2; i++) {
            u32 head = 2 * t + i + 8 * h;
            float by = 1 / sum[h][i];
#pragma unroll
            for (u32 m = 0; m < 4; m++)
#pragma unroll
                for (u32 r = 0; r < 2; r++)
                    out[head * LATENT + dimension<FP8>(m, i + 2 * r)] = (u16)pack_bf16(a.out[m][h][i + 2 * r] * by, 0);
            if (threadIdx.x < 4) lse[head] = (a.max[h][i] + __log2f(sum[h][i])) * 0.6931471805599453f;
        }
}

// `queries` is streams x heads x 576 and `out` streams x heads x 512 bf16, `lse` streams x heads; blockIdx.y names 16
// heads. `rows` are row numbers of the pool. `streams_rows` has one more than there are streams, with the total of
// tiles. `pieces` holds two per block; `arrived` is zero before and after, one per stream and 16 heads.
template <bool FP8>
__device__ __forceinline__ void attend(const u16 *queries, const u8 *pool, const u32 *rows, const Row *streams_rows, u32 streams,
                                       float scale, u16 *out, float *lse, Piece *pieces, u32 *arrived, u32 least) {
    __shared__ float4 exchange[2][WARPS][32][2];
    __shared__ u32 arrivals;
    u32 lane = threadIdx.x & 31, t = lane & 3, heads = gridDim.y * HEADS;
    u32 total = streams_rows[streams].first_tile, parts = min(gridDim.x, (total + least - 1) / least);
    u32 at = part_start(blockIdx.x, parts, total), end = part_start(blockIdx.x + 1, parts, total);
    if (blockIdx.x >= parts) at = end = 0;
    u32 stream = at < end ? find_range(&streams_rows->first_tile, 4, streams, at) : 0, tile = at;
    const Row *row = streams_rows + stream;
    Cursor cursor = {row, row->first_tile, row[1].first_tile, row->entry, row->tokens};
    Part<FP8> even, odd;
    u32 low, high;
    if (at < end) {
        cursor.seek(rows, at, low, high);
        load_part(even, pool, low, high);
        if (at + 1 < end) cursor.seek(rows, at + 1, low, high), load_part(odd, pool, low, high);
        if (at + 2 < end) cursor.seek(rows, at + 2, low, high);
    }
    u32 side = 0;
    for (u32 which = 0; at < end; stream++) {
        u32 base = streams_rows[stream].first_tile, next = streams_rows[stream + 1].first_tile;
        if (base == next) continue;
        u32 stop = min(end, next), tokens = streams_rows[stream].tokens;
        Queries q;
        load_queries<FP8>(q, queries + ((u64)stream * heads + blockIdx.y * HEADS) * QUERY);
        Sums a;
#pragma unroll
        for (u32 h = 0; h < 2; h++)
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                if (i < 2) a.max[h][i] = NEGATIVE_INFINITY, a.sum[h][i] = 0;
#pragma unroll
                for (u32 m = 0; m < 4; m++) a.out[m][h][i] = 0;
            }
        // Tiles alternate between two sets of registers: one is used while the other's rows fly.
        while (tile < stop) {
            u32 valid = tokens - (tile - base) * 16;
            if (side == 0) attend_tile<FP8>(a, even, q, exchange[0], scale, valid);
            else attend_tile<FP8>(a, odd, q, exchange[1], scale, valid);
            if (tile + 2 < end) {
                if (side == 0) load_part(even, pool, low, high);
                else load_part(odd, pool, low, high);
            }
            if (tile + 3 < end) cursor.seek(rows, tile + 3, low, high);
            side ^= 1;
            tile++;
        }
        float sum[2][2];
#pragma unroll
        for (u32 h = 0; h < 2; h++) sum[h][0] = sum_over_rows(a.sum[h][0]), sum[h][1] = sum_over_rows(a.sum[h][1]);
        u16 *o = out + ((u64)stream * heads + blockIdx.y * HEADS) * LATENT;
        float *l = lse + (u64)stream * heads + blockIdx.y * HEADS;
        if (at == base && stop == next) {
            store<FP8>(a, sum, o, l);
        } else {
            Piece *own = pieces + (u64)blockIdx.y * gridDim.x * 2, *mine = own + blockIdx.x * 2 + which;
#pragma unroll
            for (u32 h = 0; h < 2; h++) {
#pragma unroll
                for (u32 i = 0; i < 2; i++)
                    if (threadIdx.x < 4) mine->max[2 * t + i + 8 * h] = a.max[h][i], mine->sum[2 * t + i + 8 * h] = sum[h][i];
#pragma unroll
                for (u32 m = 0; m < 4; m++)
#pragma unroll
                    for (u32 i = 0; i < 4; i++) mine->out[m * 8 + h * 4 + i][threadIdx.x] = a.out[m][h][i];
            }
            __threadfence();
            __syncthreads();
            u32 first = part_of(base, parts, total), last = part_of(next - 1, parts, total);
            u32 *count = arrived + stream * gridDim.y + blockIdx.y;
            if (threadIdx.x == 0) arrivals = atomicAdd(count, 1);
            __syncthreads();
            if (arrivals == last - first) {
                __threadfence();
                bool first_is_second = part_start(first, parts, total) < base;
                auto piece = [&](u32 part) { return own + part * 2 + (part == first && first_is_second); };
#pragma unroll
                for (u32 h = 0; h < 2; h++)
#pragma unroll
                    for (u32 i = 0; i < 2; i++) {
                        u32 head = 2 * t + i + 8 * h;
                        a.max[h][i] = NEGATIVE_INFINITY, sum[h][i] = 0;
                        for (u32 part = first; part <= last; part++) a.max[h][i] = fmaxf(a.max[h][i], load_shared_result(&piece(part)->max[head]));
#pragma unroll
                        for (u32 m = 0; m < 4; m++) a.out[m][h][i] = a.out[m][h][i + 2] = 0;
                    }
                for (u32 part = first; part <= last; part++) {
                    const Piece *p = piece(part);
#pragma unroll
                    for (u32 h = 0; h < 2; h++)
#pragma unroll
                        for (u32 i = 0; i < 2; i++) {
                            u32 head = 2 * t + i + 8 * h;
                            float by = exp2_fast(load_shared_result(&p->max[head]) - a.max[h][i]);
                            sum[h][i] += load_shared_result(&p->sum[head]) * by;
#pragma unroll
                            for (u32 m = 0; m < 4; m++) {
                                a.out[m][h][i] += load_shared_result(&p->out[m * 8 + h * 4 + i][threadIdx.x]) * by;
                                a.out[m][h][i + 2] += load_shared_result(&p->out[m * 8 + h * 4 + i + 2][threadIdx.x]) * by;
                            }
                        }
                }
                store<FP8>(a, sum, o, l);
                if (threadIdx.x == 0) *count = 0;
            }
            __syncthreads();
        }
        at = stop;
        which = 1;
    }
    // Streams without a token belong to no block's tiles.
    for (u32 stream = blockIdx.x; stream < streams; stream += gridDim.x)
        if (streams_rows[stream].tokens == 0) {
            u64 head = (u64)stream * heads + blockIdx.y * HEADS;
            for (u32 i = threadIdx.x; i < HEADS * LATENT; i += THREADS) out[head * LATENT + i] = 0;
            if (threadIdx.x < HEADS) lse[head + threadIdx.x] = NEGATIVE_INFINITY;
        }
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
attend_mla_bf16(const u16 *queries, const u8 *pool, const u32 *rows, const Row *streams_rows, u32 streams, float scale,
                u16 *out, float *lse, Piece *pieces, u32 *arrived, u32 least) {
    attend<false>(queries, pool, rows, streams_rows, streams, scale, out, lse, pieces, arrived, least);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
attend_mla_fp8(const u16 *queries, const u8 *pool, const u32 *rows, const Row *streams_rows, u32 streams, float scale,
               u16 *out, float *lse, Piece *pieces, u32 *arrived, u32 least) {
    attend<true>(queries, pool, rows, streams_rows, streams, scale, out, lse, pieces, arrived, least);
}
