// Long because the two row formats share one pipeline (load, scores, softmax, sums) that reads best in one place.
// Sparse decode attention over the latent rows of multi-head latent attention: 512 latent dimensions, which are key and
// value at once, and 64 rotary ones, which are key alone. Rows are selected one token at a time. Either bf16 (1152 B),
// or fp8 e4m3 with one f32 scale per 128 dimensions and bf16 rotary part (512 + 16 + 128 = 656 B).
//
// A block serves 16 heads of one stream at a time; two share a multiprocessor, so that one's products hide the other's
// barriers. Rows stream through a ring of stages in shared memory, a tile each. Eight warps split first tokens and key
// dimensions, add their partial scores through shared memory, and then split the value dimensions.

const u32 WARPS = 8;
const u32 THREADS = WARPS * 32;
const u32 HEADS = 16;
const u32 LATENT = 512;
const u32 ROPE = 64;
const u32 QUERY = LATENT + ROPE;
const u32 TILE = 16; // tokens
const u32 STEP = 4;  // tiles of one stream, or its last ones

// A stream's tiles of 16 tokens in the flat list of all, its first entry in `rows`, its tokens.
struct Row { u32 first_tile, entry, tokens, unused; };

// Rows stand `PITCH` bytes apart in shared memory, an odd number of 16-byte chunks, so that eight rows of a matrix never
// meet in a bank.
template <bool FP8> struct Format;
template <> struct Format<false> { static const u32 BYTES = 1152, PITCH = 1168, STAGES = 11; };
template <> struct Format<true> { static const u32 BYTES = 656, PITCH = 656, STAGES = 19; };

template <bool FP8>
__device__ __forceinline__ u32 place(u32 row, u32 chunk) { return row * Format<FP8>::PITCH + chunk * 16; }

__device__ __forceinline__ u32 shared_address(const void *p) { return (u32)__cvta_generic_to_shared(p); }

// A stage's barrier: complete once the expected bytes have landed.
__device__ __forceinline__ void expect(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

__device__ __forceinline__ void await(u32 barrier, u32 parity) {
    asm volatile("{ .reg .pred done; again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1; @!done bra again; }" ::"r"(barrier), "r"(parity) : "memory");
}

// One row by the copy engine of the multiprocessor.
__device__ __forceinline__ void copy_row(u32 to, const void *from, u32 bytes, u32 barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from), "r"(bytes), "r"(barrier) : "memory");
}

__device__ __forceinline__ void load_matrices(u32 (&v)[4], u32 at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3]) : "r"(at));
}

__device__ __forceinline__ void load_transposed(u32 (&v)[4], u32 at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3]) : "r"(at));
}

// Two fp8 values, in the low half, to two f16.
__device__ __forceinline__ u32 widen_fp8(u32 two) {
    u32 r;
    asm("{ .reg .b16 v; mov.b16 v, %1; cvt.rn.f16x2.e4m3x2 %0, v; }" : "=r"(r) : "h"((u16)two));
    return r;
}

// A warp's share of the queries as right operands: of heads n and n + 8, its half of the key dimensions.
const u32 KEYS = 18; // products of 16 dimensions
struct Queries { u32 at[2][KEYS][2]; };

// fp8: sixteen products of latent dimensions as f16 and two of rotary ones; bf16: eighteen in plain order.
template <bool FP8>
__device__ __forceinline__ void load_queries(Queries &q, const u16 *queries) {
    u32 half = threadIdx.x / 128, n = (threadIdx.x & 31) / 4, t = threadIdx.x & 3;
#pragma unroll
    for (u32 h = 0; h < 2; h++)
#pragma unroll
        for (u32 k = 0; k < KEYS; k++) {
            const u16 *head = queries + (n + 8 * h) * QUERY;
            if (FP8 && k < 16) {
                uint2 v = *(const uint2 *)(head + half * 256 + k * 16 + t * 4);
                q.at[h][k][0] = pack_f16(low_bf16(v.x), high_bf16(v.x));
                q.at[h][k][1] = pack_f16(low_bf16(v.y), high_bf16(v.y));
            } else {
                const u16 *from = head + (FP8 ? LATENT + half * 32 + (k - 16) * 16 : half * 288 + k * 16) + t * 2;
                q.at[h][k][0] = *(const u32 *)from;
                q.at[h][k][1] = *(const u32 *)(from + 8);
            }
        }
}

// Running sums of one warp over its 64 value dimensions: tile m of 16 x heads (2t, 2t + 1) + 8 h.
struct Sums {
    float out[4][2][4];
    float max[2][2], sum[2][2];
};

// Dimension of accumulator (m, i) of this lane.
template <bool FP8>
__device__ __forceinline__ u32 dimension(u32 m, u32 i) {
    u32 n = (threadIdx.x & 31) / 4;
    return threadIdx.x / 32 * 64 + m * 16 + (FP8 ? n * 2 + i / 2 : n + i / 2 * 8);
}

// Where a warp's partial scores of heads (2t, 2t + 1) + 8 h stand.
__device__ __forceinline__ u32 slot(u32 half, u32 tile, u32 h) { return ((half * STEP + tile) * 2 + h) * 32 + (threadIdx.x & 31); }

// Partial scores of this warp's tile over its half of the dimensions.
template <bool FP8>
__device__ __forceinline__ void score(const u8 *stage, const Queries &q, float4 *exchange) {
    u32 warp = threadIdx.x / 32, lane = threadIdx.x & 31, half = warp / STEP;
    u32 chunk_of = lane / 16, at = shared_address(stage) + place<FP8>(lane & 15, 0);
    float s[2][4] = {}, other[2][2][4] = {};
    u32 a[4];
    if (FP8) {
#pragma unroll
        for (u32 k = 0; k < 16; k += 2) {
            load_matrices(a, at + (half * 16 + k + chunk_of) * 16);
#pragma unroll
            for (u32 i = 0; i < 2; i++)
#pragma unroll
                for (u32 h = 0; h < 2; h++)
                    mma_f16(other[k / 8][h], widen_fp8(a[2 * i]), widen_fp8(a[2 * i + 1]), widen_fp8(a[2 * i] >> 16),
                            widen_fp8(a[2 * i + 1] >> 16), q.at[h][k + i][0], q.at[h][k + i][1]);
        }
#pragma unroll
        for (u32 k = 0; k < 2; k++) {
            load_matrices(a, at + (33 + half * 4 + k * 2 + chunk_of) * 16);
#pragma unroll
            for (u32 h = 0; h < 2; h++) mma_bf16(s[h], a[0], a[1], a[2], a[3], q.at[h][16 + k][0], q.at[h][16 + k][1]);
        }
#pragma unroll
        for (u32 i = 0; i < 2; i++) {
            float2 scale = *(const float2 *)(stage + place<FP8>(lane / 4 + i * 8, 0) + LATENT + half * 8);
#pragma unroll
            for (u32 h = 0; h < 2; h++)
#pragma unroll
                for (u32 j = 2 * i; j < 2 * i + 2; j++) s[h][j] += other[0][h][j] * scale.x + other[1][h][j] * scale.y;
        }
    } else {
#pragma unroll
        for (u32 k = 0; k < KEYS; k++) {
            load_matrices(a, at + (half * 36 + k * 2 + chunk_of) * 16);
#pragma unroll
            for (u32 h = 0; h < 2; h++)
                mma_bf16(k % 3 == 0 ? s[h] : other[k % 3 - 1][h], a[0], a[1], a[2], a[3], q.at[h][k][0], q.at[h][k][1]);
        }
#pragma unroll
        for (u32 h = 0; h < 2; h++)
#pragma unroll
            for (u32 i = 0; i < 4; i++) s[h][i] += other[0][h][i] + other[1][h][i];
    }
#pragma unroll
    for (u32 h = 0; h < 2; h++) exchange[slot(half, warp % STEP, h)] = make_float4(s[h][0], s[h][1], s[h][2], s[h][3]);
}

// Adds the partial scores, turns them into weights as right operands, and rescales the sums.
template <bool FP8>
__device__ __forceinline__ void weigh(Sums &a, u32 (&weights)[STEP][2][2], const u8 *const (&tiles)[STEP], const float4 *exchange, float scale, u32 valid) {
    u32 warp = threadIdx.x / 32, n = (threadIdx.x & 31) / 4;
#pragma unroll
    for (u32 h = 0; h < 2; h++) {
        float s[STEP][4], top[2] = {NEGATIVE_INFINITY, NEGATIVE_INFINITY};
#pragma unroll
        for (u32 tile = 0; tile < STEP; tile++) {
            float4 x = exchange[slot(0, tile, h)], y = exchange[slot(1, tile, h)];
            s[tile][0] = x.x + y.x, s[tile][1] = x.y + y.y, s[tile][2] = x.z + y.z, s[tile][3] = x.w + y.w;
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                s[tile][i] = tile * TILE + n + i / 2 * 8 < valid ? s[tile][i] * scale : NEGATIVE_INFINITY;
                top[i & 1] = fmaxf(top[i & 1], s[tile][i]);
            }
        }
        top[0] = max_over_rows(top[0]), top[1] = max_over_rows(top[1]);
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
        for (u32 tile = 0; tile < STEP; tile++) {
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                s[tile][i] = exp2_fast(s[tile][i] - a.max[h][i & 1]);
                a.sum[h][i & 1] += s[tile][i];
                // The scale of a row that was never read may be anything.
                if (FP8) s[tile][i] = tile * TILE < valid ? s[tile][i] * *(const float *)(tiles[tile] + place<FP8>(n + i / 2 * 8, 0) + LATENT + warp / 2 * 4) : 0;
            }
#pragma unroll
            for (u32 i = 0; i < 2; i++)
                weights[tile][h][i] = transpose8(FP8 ? pack_f16(s[tile][2 * i], s[tile][2 * i + 1]) : pack_bf16(s[tile][2 * i], s[tile][2 * i + 1]));
        }
    }
}

// Adds the weighted rows over this warp's 64 dimensions.
template <bool FP8>
__device__ __forceinline__ void add_rows(Sums &a, const u32 (&weights)[STEP][2][2], const u8 *const (&tiles)[STEP], u32 valid) {
    u32 warp = threadIdx.x / 32, lane = threadIdx.x & 31, v[4];
    u32 within = FP8 ? place<FP8>(lane & 15, warp * 4 + lane / 16) : place<FP8>((lane & 7) + lane / 16 * 8, warp * 8 + lane / 8 % 2);
#pragma unroll
    for (u32 tile = 0; tile < STEP; tile++) {
        // Later tiles may belong to another stream, or never have been read.
        if (tile * TILE >= valid) break;
        u32 at = shared_address(tiles[tile]) + within;
        if (FP8) {
#pragma unroll
            for (u32 m = 0; m < 4; m += 2) {
                load_transposed(v, at + m * 16);
#pragma unroll
                for (u32 i = 0; i < 2; i++) {
                    // A word holds two dimensions of two tokens; the operand wants two tokens of one dimension.
                    u32 low = __byte_perm(v[2 * i], 0, 0x3120), high = __byte_perm(v[2 * i + 1], 0, 0x3120);
#pragma unroll
                    for (u32 h = 0; h < 2; h++)
                        mma_f16(a.out[m + i][h], widen_fp8(low), widen_fp8(low >> 16), widen_fp8(high), widen_fp8(high >> 16),
                                weights[tile][h][0], weights[tile][h][1]);
                }
            }
        } else {
#pragma unroll
            for (u32 m = 0; m < 4; m++) {
                load_transposed(v, at + m * 32);
#pragma unroll
                for (u32 h = 0; h < 2; h++) mma_bf16(a.out[m][h], v[0], v[1], v[2], v[3], weights[tile][h][0], weights[tile][h][1]);
            }
        }
    }
}

// Follows the block's steps through its streams, ahead of the attention; of two warps. Sixteen lanes copy the rows of
// the same tile of each step, one row each; row numbers are read one step before the rows.
template <bool FP8>
struct Feeder {
    u32 stream, tile, end, base, next, entry, tokens, stage, number;

    __device__ __forceinline__ u32 place_in_step() const { return threadIdx.x / TILE; }

    __device__ __forceinline__ void start(const Row *rows, const u32 *list, u32 from, u32 at, u32 stop) {
        stream = from, tile = at, end = stop, stage = place_in_step();
        base = rows[from].first_tile, next = rows[from + 1].first_tile, entry = rows[from].entry, tokens = rows[from].tokens;
        look(rows, list);
    }

    // Row number of this lane's token in the next step; past the end of a stream, that of its last token, which is
    // masked.
    __device__ __forceinline__ void look(const Row *rows, const u32 *list) {
        number = NONE;
        if (tile >= end) return;
        u32 mine = tile + place_in_step(), token = (mine - base) * TILE + threadIdx.x % TILE;
        if (mine < min(end, next)) number = list[entry + min(token, tokens - 1)];
        tile = min(tile + STEP, next);
        while (tile < end && tile >= next) {
            stream++;
            base = next, next = rows[stream + 1].first_tile, entry = rows[stream].entry, tokens = rows[stream].tokens;
        }
    }

    // Copies the next tile of the lanes that take part.
    __device__ __forceinline__ void feed(bool part, const u8 *pool, const Row *rows, const u32 *list, u32 stages, u32 full) {
        u32 row = threadIdx.x % TILE;
        bool there = part && number != NONE;
        if (there && row == 0) expect(full + stage * 8, TILE * Format<FP8>::BYTES);
        __syncwarp();
        if (there)
            copy_row(stages + stage * (TILE * Format<FP8>::PITCH) + place<FP8>(row, 0), pool + (u64)number * Format<FP8>::BYTES,
                     Format<FP8>::BYTES, full + stage * 8);
        if (part) {
            stage = stage + STEP >= Format<FP8>::STAGES ? stage + STEP - Format<FP8>::STAGES : stage + STEP;
            look(rows, list);
        }
    }
};

// What a block leaves of a stream that others share.
struct Piece { float max[HEADS], sum[HEADS], out[HEADS][LATENT]; };

__device__ __forceinline__ float natural(float top, float sum) { return (top + __log2f(sum)) * 0.6931471805599453f; }

// Calls `f(head, dimension, value)` for every accumulator of this thread.
template <bool FP8, typename F>
__device__ __forceinline__ void each_sum(const Sums &a, F f) {
    u32 t = threadIdx.x & 3;
#pragma unroll
    for (u32 h = 0; h < 2; h++)
#pragma unroll
        for (u32 m = 0; m < 4; m++)
#pragma unroll
            for (u32 i = 0; i < 4; i++) f(h, i & 1, 2 * t + (i & 1) + 8 * h, dimension<FP8>(m, i), a.out[m][h][i]);
}

// `queries` is streams x heads x 576 and `out` streams x heads x 512 bf16, `lse` streams x heads; blockIdx.y names 16
// heads. `list` holds row numbers of the pool. `rows` has one more than there are streams, with the total of tiles.
// `pieces` holds two per block; streams that several blocks share are left there for `add_pieces`.
template <bool FP8>
__device__ __forceinline__ void attend(const u16 *queries, const u8 *pool, const u32 *list, const Row *rows, u32 streams,
                                       float scale, u16 *out, float *lse, Piece *pieces, u32 least) {
    extern __shared__ __align__(128) u8 stages[];
    __shared__ float4 exchange[2][WARPS * 2 * 32];
    const u32 STAGES = Format<FP8>::STAGES, STAGE = TILE * Format<FP8>::PITCH;
    __shared__ u64 full[STAGES];
    u32 warp = threadIdx.x / 32, heads = gridDim.y * HEADS;
    Guess guess = find_first(&rows->first_tile, 4, streams);
    u32 total = rows[streams].first_tile, parts = min(gridDim.x, (total + least - 1) / least);
    u32 at = part_start(blockIdx.x, parts, total), end = part_start(blockIdx.x + 1, parts, total);
    if (blockIdx.x >= parts) at = end = 0;
    u32 stream = at < end ? find_range(&rows->first_tile, 4, streams, at, guess) : 0, stage = 0, parity = 0, side = 0;
    u32 full_at = shared_address(full), stages_at = shared_address(stages);
    if (threadIdx.x < STAGES) asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(full_at + threadIdx.x * 8));
    asm volatile("fence.mbarrier_init.release.cluster;");
    __syncthreads();
    Feeder<FP8> feeder;
    bool feeds = threadIdx.x < STEP * TILE;
    if (feeds) {
        // All stages but those of a step are fed ahead, and refilled as steps are done.
        feeder.start(rows, list, stream, at, end);
        for (u32 i = 0; i < STAGES - STEP; i += STEP)
            feeder.feed(i + feeder.place_in_step() < STAGES - STEP, pool, rows, list, stages_at, full_at);
    }
    for (u32 which = 0; at < end; stream++) {
        u32 base = rows[stream].first_tile, next = rows[stream + 1].first_tile;
        if (base == next) continue;
        u32 stop = min(end, next), limit = min(rows[stream].tokens, (stop - base) * TILE);
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
        for (u32 tile = at; tile < stop; tile += STEP) {
            const u8 *tiles[STEP];
#pragma unroll
            for (u32 i = 0; i < STEP; i++) {
                tiles[i] = stages + stage * STAGE;
                if (tile + i < stop) {
                    await(full_at + stage * 8, parity >> stage & 1);
                    parity ^= 1 << stage;
                }
                stage = stage + 1 == STAGES ? 0 : stage + 1;
            }
            u32 own = warp % STEP;
            score<FP8>(own < 2 ? (own ? tiles[1] : tiles[0]) : own == 2 ? tiles[2] : tiles[3], q, exchange[side]);
            // After this barrier every warp is done with the step before.
            __syncthreads();
            if (feeds) feeder.feed(true, pool, rows, list, stages_at, full_at);
            u32 weights[STEP][2][2], valid = limit - (tile - base) * TILE;
            weigh<FP8>(a, weights, tiles, exchange[side], scale, valid);
            add_rows<FP8>(a, weights, tiles, valid);
            side ^= 1;
        }
        float sum[2][2];
#pragma unroll
        for (u32 h = 0; h < 2; h++) sum[h][0] = sum_over_rows(a.sum[h][0]), sum[h][1] = sum_over_rows(a.sum[h][1]);
        if (at == base && stop == next) {
            u64 row = (u64)stream * heads + blockIdx.y * HEADS;
            each_sum<FP8>(a, [&](u32 h, u32 i, u32 head, u32 dim, float value) {
                out[(row + head) * LATENT + dim] = (u16)pack_bf16(value / sum[h][i], 0);
                if (dim == 0) lse[row + head] = natural(a.max[h][i], sum[h][i]);
            });
        } else {
            Piece *mine = pieces + ((u64)blockIdx.y * gridDim.x + blockIdx.x) * 2 + which;
            each_sum<FP8>(a, [&](u32 h, u32 i, u32 head, u32 dim, float value) {
                mine->out[head][dim] = value;
                if (dim == 0) mine->max[head] = a.max[h][i], mine->sum[head] = sum[h][i];
            });
        }
        at = stop;
        which = 1;
    }
    // Streams without a token belong to no block's tiles.
    for (u32 stream = blockIdx.x; stream < streams; stream += gridDim.x)
        if (rows[stream].tokens == 0) {
            u64 head = (u64)stream * heads + blockIdx.y * HEADS;
            for (u32 i = threadIdx.x; i < HEADS * LATENT; i += THREADS) out[head * LATENT + i] = 0;
            if (threadIdx.x < HEADS) lse[head + threadIdx.x] = NEGATIVE_INFINITY;
        }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
attend_mla_bf16(const u16 *queries, const u8 *pool, const u32 *list, const Row *rows, u32 streams, float scale, u16 *out,
                float *lse, Piece *pieces, u32 *, u32 least) {
    attend<false>(queries, pool, list, rows, streams, scale, out, lse, pieces, least);
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
attend_mla_fp8(const u16 *queries, const u8 *pool, const u32 *list, const Row *rows, u32 streams, float scale, u16 *out,
               float *lse, Piece *pieces, u32 *, u32 least) {
    attend<true>(queries, pool, list, rows, streams, scale, out, lse, pieces, least);
}

// Adds up what several blocks of an attention with `grid` blocks per 16 heads have left of each stream: one block of
// 128 threads per stream and head.
extern "C" __global__ void __launch_bounds__(128)
add_pieces(const Row *rows, u32 streams, u16 *out, float *lse, const Piece *pieces, u32 grid, u32 least) {
    u32 stream = blockIdx.x, head = blockIdx.y, base = rows[stream].first_tile, next = rows[stream + 1].first_tile;
    u32 total = rows[streams].first_tile, parts = min(grid, (total + least - 1) / least);
    if (base == next) return;
    u32 first = part_of(base, parts, total), last = part_of(next - 1, parts, total);
    if (first == last) return;
    bool first_is_second = part_start(first, parts, total) < base;
    const Piece *own = pieces + (u64)(head / HEADS) * grid * 2;
    float top = NEGATIVE_INFINITY, sum = 0;
    float4 value = make_float4(0, 0, 0, 0);
    const u32 PIECES = 4;
    for (u32 some = first; some <= last; some += PIECES) {
        float max[PIECES], part_sum[PIECES];
        float4 v[PIECES];
#pragma unroll
        for (u32 i = 0; i < PIECES; i++) {
            u32 part = min(some + i, last);
            const Piece *p = own + part * 2 + (part == first && first_is_second);
            max[i] = p->max[head % HEADS], part_sum[i] = p->sum[head % HEADS];
            v[i] = *(const float4 *)&p->out[head % HEADS][threadIdx.x * 4];
        }
#pragma unroll
        for (u32 i = 0; i < PIECES; i++) {
            if (some + i > last) break;
            float rise = fmaxf(top, max[i]), old = exp2_fast(top - rise), by = exp2_fast(max[i] - rise);
            top = rise;
            sum = sum * old + part_sum[i] * by;
            value.x = value.x * old + v[i].x * by, value.y = value.y * old + v[i].y * by;
            value.z = value.z * old + v[i].z * by, value.w = value.w * old + v[i].w * by;
        }
    }
    u64 row = (u64)stream * gridDim.y + head;
    uint2 packed = make_uint2(pack_bf16(value.x / sum, value.y / sum), pack_bf16(value.z / sum, value.w / sum));
    *(uint2 *)(out + row * LATENT + threadIdx.x * 4) = packed;
    if (threadIdx.x == 0) lse[row] = natural(top, sum);
}
