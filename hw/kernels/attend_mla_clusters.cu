// Sparse decode attention over latent rows where it has the device to itself: a cluster of thread blocks per stream and
// 16 or 64 heads. A row holds 512 latent dimensions, which are key and value, and 64 rotary ones, key alone: bf16 (1152
// bytes), or the latent ones e4m3 with a scale per 128 (656 bytes), which are scaled to f16 on their way into shared memory:
// bf16 would round them so that scores no longer agree to 1%. Queries to those are f16 in their latent dimensions.
// Two groups of four warps: each takes the scores of half a step's tokens, and the sums of half the dimensions.

const u32 THREADS = 256;
const u32 LATENT = 512, QUERY = 576, CHUNKS = 9; // a chunk is 64 dimensions
const u32 BLOCK = 64, HALF = 32; // tokens of a step, and of a stage of the ring
const u32 CHUNK_BYTES = HALF * 128, HALF_BYTES = CHUNKS * CHUNK_BYTES;

// Two e4m3 values as two f16.
__device__ __forceinline__ u32 widen_fp8(u32 two) {
    u32 r;
    asm("{ .reg .b16 v; mov.b16 v, %1; cvt.rn.f16x2.e4m3x2 %0, v; }" : "=r"(r) : "h"((u16)two));
    return r;
}

__device__ __forceinline__ float2 widen_f16(u32 two) {
    float2 r;
    asm("{ .reg .b16 a, b; mov.b32 {a, b}, %2; cvt.f32.f16 %0, a; cvt.f32.f16 %1, b; }"
        : "=f"(r.x), "=f"(r.y) : "r"(two));
    return r;
}

__device__ __forceinline__ u32 scaled_f16(u32 two, float scale) {
    float2 v = widen_f16(widen_fp8(two));
    return pack_f16(v.x * scale, v.y * scale);
}

__device__ __forceinline__ u32 narrow_bf16(u32 two) { return pack_f16(low_bf16(two), high_bf16(two)); }

__device__ __forceinline__ void store_words(u32 at, u32 a, u32 b, u32 c, u32 d) {
    asm volatile("st.shared.v4.u32 [%0], {%1,%2,%3,%4};" ::"r"(at), "r"(a), "r"(b), "r"(c), "r"(d) : "memory");
}

// fp8 values of a warp's four rows of a half, on their way from memory through registers, where they are widened. A lane
// has eight of a row's first 256 and eight of the others, so that what it widens meets no other lane's in a bank.
struct Staged { uint2 values[4][2]; float scales[4][2]; };

__device__ __forceinline__ float natural(float top, float sum) { return (top + __log2f(sum)) * 0.6931471805599453f; }

// `queries` is streams x heads x 576 and `out` streams x heads x 512 bf16, `lse` streams x heads; blockIdx.y names HEADS
// heads, of which 16 leave most of each product unused. `list` holds row numbers of the pool. `stride` is how many rows
// most streams have, which only saves time: row numbers are read as if, along with the row that says how it is.
template <bool FP8, u32 HEADS, u32 STAGES>
__device__ __forceinline__ void attend(const u16 *queries, const u8 *pool, const u32 *list, const Row *rows, u32 stride,
                                       u32 heads, float scale, u16 *out, float *lse) {
    const u32 ROW_BYTES = FP8 ? 656 : 1152, QUERY_CHUNK = HEADS * 128;
    extern __shared__ __align__(1024) u8 shared[];
    __shared__ float exchange[2][2][64]; // maxima, then sums, of each half of the tokens
    __shared__ float final_top[HEADS], final_sum[HEADS];
    u32 ring = shared_address(shared), query = ring + STAGES * HALF_BYTES, weights = query + CHUNKS * QUERY_CHUNK;
    u32 warp = threadIdx.x / 32, lane = threadIdx.x & 31, g = lane / 4, t = lane & 3, half = warp / 4, band = warp % 4;
    u32 share = cluster_size(), rank = cluster_rank(), stream = blockIdx.x / share, first_head = blockIdx.y * HEADS;
    begin_after_predecessor();
    uint4 row = *(const uint4 *)(rows + stream);
    u64 head_at = (u64)stream * heads + first_head;
    // Row numbers of this lane in the halves to be fetched next, read ahead.
    u32 entry = stream * stride, tokens = stride, begin, end, next, number[2];
    auto look = [&](u32 at) { return at < 2 * end ? list[entry + min(at * HALF + warp * 4 + lane / 8, tokens - 1)] : 0; };
    auto plan = [&]() {
        u32 blocks = (tokens + BLOCK - 1) / BLOCK;
        begin = part_start(rank, share, blocks), end = part_start(rank + 1, share, blocks), next = 2 * begin;
        number[0] = look(next), number[1] = look(next + 1);
    };
    plan();
    for (u32 i = threadIdx.x; i < HEADS * 72; i += THREADS) {
        u32 head = i / 72, p = i % 72, c = p / 8;
        u32 to = query + c * QUERY_CHUNK + head * 128 + (((p & 7) ^ (head & 7)) << 4);
        const u16 *from = queries + (head_at + head) * QUERY + p * 8;
        if (FP8 && c < CHUNKS - 1) {
            uint4 v = *(const uint4 *)from;
            store_words(to, narrow_bf16(v.x), narrow_bf16(v.y), narrow_bf16(v.z), narrow_bf16(v.w));
        } else {
            copy_chunk(to, from);
        }
    }
    if (row.y != entry || row.z != tokens) entry = row.y, tokens = row.z, plan();

    Staged staged[FP8 ? 2 : 1];
    u32 put = 0, piece = lane & 7, own_row = warp * 4 + lane / 8, within = own_row * 128 + ((piece ^ (own_row & 7)) << 4);
    // Copies this warp's four rows of the next half into the ring; `which` of the two that are fetched together.
    auto fetch = [&](u32 which) {
        if (next < 2 * end) {
            u32 to = ring + put * HALF_BYTES + within;
            const u8 *from = pool + (u64)number[which] * ROW_BYTES + piece * 16;
            if (FP8) {
                copy_chunk(to + 8 * CHUNK_BYTES, from + 528);
#pragma unroll
                for (u32 r = 0; r < 4; r++) {
                    const u8 *values = pool + (u64)__shfl_sync(FULL, number[which], r * 8) * ROW_BYTES;
#pragma unroll
                    for (u32 i = 0; i < 2; i++) {
                        staged[which].values[r][i] = load_half_once(values + i * 256 + lane * 8);
                        staged[which].scales[r][i] = *(const float *)(values + 512 + i * 8 + lane / 16 * 4);
                    }
                }
            } else {
#pragma unroll
                for (u32 c = 0; c < CHUNKS; c++) copy_chunk(to + c * CHUNK_BYTES, from + c * 128);
            }
            number[which] = look(next + 2);
        }
        next++;
        put = put + 1 == STAGES ? 0 : put + 1;
        commit_copies();
    };
    // Widens what `fetch` has staged of the half before the last.
    auto unpack = [&](u32 which) {
        if (!FP8 || next > 2 * end + 1) return;
        u32 stage = (put + STAGES - 2) % STAGES, to = ring + stage * HALF_BYTES + lane / 8 * CHUNK_BYTES;
#pragma unroll
        for (u32 r = 0; r < 4; r++) {
            u32 row = warp * 4 + r, at = to + row * 128 + (((lane & 7) ^ (row & 7)) << 4);
#pragma unroll
            for (u32 i = 0; i < 2; i++) {
                uint2 v = staged[FP8 ? which : 0].values[r][i];
                float s = staged[FP8 ? which : 0].scales[r][i];
                store_words(at + i * 4 * CHUNK_BYTES, scaled_f16(v.x, s), scaled_f16(v.x >> 16, s), scaled_f16(v.y, s),
                            scaled_f16(v.y >> 16, s));
            }
        }
    };
    fetch(0), fetch(1);
    // Of fp8 half a step more is under way, so that one half widens beside either product.
    if (FP8) unpack(0), fetch(0), unpack(1);
    if (STAGES == 5) {
        // A half more is under way, so that the next one to fetch is an odd one.
        fetch(0);
        u32 odd = number[1];
        number[1] = number[0], number[0] = odd;
    }

    float sums[128], top[2] = {NEGATIVE_INFINITY, NEGATIVE_INFINITY}, sum[2] = {0, 0};
#pragma unroll
    for (u32 i = 0; i < 128; i++) sums[i] = 0;
    u32 take = 0;
    for (u32 block = begin; block < end; block++) {
        u32 stage[2] = {ring + take * HALF_BYTES, ring + (take + 1 == STAGES ? 0 : take + 1) * HALF_BYTES};
        take = take + 2 >= STAGES ? take + 2 - STAGES : take + 2;
        await_copies<FP8 ? 1 : STAGES - 4>();
        publish();
        __syncthreads(); // the block is there, and everybody is done with the one before
        float s[16];
        u32 own = half ? stage[1] : stage[0];
        products_begin();
#pragma unroll
        for (u32 c = 0; c < CHUNKS; c++) {
            // Rows are asked for while products are queued: earlier would hold the products up, later wait for them.
            if (c == 3) {
                if (!FP8) fetch(0);
                fetch(1);
            }
#pragma unroll
            for (u32 k = 0; k < 4; k++) {
                u64 a = descriptor(query + c * QUERY_CHUNK + k * 32, 16), b = descriptor(own + c * CHUNK_BYTES + k * 32, 16);
                if (FP8 && c < CHUNKS - 1) product_f16_n32(s, a, b, c | k);
                else product_n32(s, a, b, c | k);
            }
        }
        products_end();
        unpack(0);
        products_await();
        bool real = HEADS == 64 || band == 0; // of fewer heads than 64 the first warp holds all
        float most[2] = {NEGATIVE_INFINITY, NEGATIVE_INFINITY};
        if (real) {
            u32 valid = tokens - block * BLOCK;
#pragma unroll
            for (u32 i = 0; i < 16; i++) {
                u32 token = half * 32 + i / 4 * 8 + 2 * t + (i & 1);
                s[i] = token < valid ? s[i] * scale : NEGATIVE_INFINITY;
                most[i / 2 & 1] = fmaxf(most[i / 2 & 1], s[i]);
            }
#pragma unroll
            for (u32 h = 0; h < 2; h++) {
                most[h] = fmaxf(most[h], __shfl_xor_sync(FULL, most[h], 1));
                most[h] = fmaxf(most[h], __shfl_xor_sync(FULL, most[h], 2));
                if (t == 0) exchange[0][half][band * 16 + g + h * 8] = most[h];
            }
        }
        __syncthreads();
        if (real) {
            float rise[2];
#pragma unroll
            for (u32 h = 0; h < 2; h++)
                rise[h] = fmaxf(top[h], fmaxf(most[h], exchange[0][half ^ 1][band * 16 + g + h * 8]));
            if (__any_sync(FULL, rise[0] > top[0] || rise[1] > top[1])) {
#pragma unroll
                for (u32 h = 0; h < 2; h++) {
                    float by = weight_of(top[h], rise[h]);
                    top[h] = rise[h];
                    sum[h] *= by;
#pragma unroll
                    for (u32 i = 0; i < 32; i++) sums[4 * i + 2 * h] *= by, sums[4 * i + 2 * h + 1] *= by;
                }
            }
#pragma unroll
            for (u32 i = 0; i < 16; i++) {
                s[i] = exp2_fast(s[i] - top[i / 2 & 1]);
                sum[i / 2 & 1] += s[i];
            }
#pragma unroll
            for (u32 j = 0; j < 4; j++)
#pragma unroll
                for (u32 h = 0; h < 2; h++) {
                    u32 r = band * 16 + g + h * 8, at = weights + r * 128 + (((half * 4 + j) ^ (r & 7)) << 4) + t * 4;
                    float x = s[4 * j + 2 * h], y = s[4 * j + 2 * h + 1];
                    u32 two = FP8 ? pack_f16(x, y) : pack_bf16(x, y);
                    asm volatile("st.shared.u32 [%0], %1;" ::"r"(at), "r"(two) : "memory");
                }
        }
        publish();
        __syncthreads();
        if (FP8) fetch(0);
        products_begin();
#pragma unroll
        for (u32 k = 0; k < 4; k++) {
            u64 a = descriptor(weights + k * 32, 16);
            u64 b = descriptor(stage[k / 2] + half * 4 * CHUNK_BYTES + k % 2 * 2048, CHUNK_BYTES);
            if (FP8) product_f16_n256_t(sums, a, b, 1);
            else product_n256_t(sums, a, b, 1);
        }
        products_end();
        unpack(1);
        products_await();
    }
    await_copies<0>();
    // Sums over all tokens of this block of threads.
#pragma unroll
    for (u32 h = 0; h < 2; h++) {
        sum[h] += __shfl_xor_sync(FULL, sum[h], 1);
        sum[h] += __shfl_xor_sync(FULL, sum[h], 2);
        if (t == 0) exchange[1][half][band * 16 + g + h * 8] = sum[h];
    }
    __syncthreads();
#pragma unroll
    for (u32 h = 0; h < 2; h++) sum[h] += exchange[1][half ^ 1][band * 16 + g + h * 8];
    bool real = HEADS == 64 || band == 0;
    if (share == 1) {
        if (real)
#pragma unroll
            for (u32 h = 0; h < 2; h++) {
                u32 head = band * 16 + g + h * 8;
                float by = tokens ? 1 / sum[h] : 0;
#pragma unroll
                for (u32 j = 0; j < 32; j++)
                    *(u32 *)(out + (head_at + head) * LATENT + half * 256 + j * 8 + t * 2) =
                        pack_bf16(sums[4 * j + 2 * h] * by, sums[4 * j + 2 * h + 1] * by);
                if (half == 0 && t == 0) lse[head_at + head] = tokens ? natural(top[h], sum[h]) : NEGATIVE_INFINITY;
            }
        return;
    }
    // The cluster's blocks lay their sums open to one another, and each adds up some of them.
    const u32 PITCH = LATENT + 8;
    float *own = (float *)shared;
    if (real)
#pragma unroll
        for (u32 h = 0; h < 2; h++) {
            u32 head = band * 16 + g + h * 8;
            if (half == 0 && t == 0) final_top[head] = top[h], final_sum[head] = sum[h];
#pragma unroll
            for (u32 j = 0; j < 32; j++)
                *(float2 *)(own + head * PITCH + half * 256 + j * 8 + t * 2) =
                    make_float2(sums[4 * j + 2 * h], sums[4 * j + 2 * h + 1]);
        }
    cluster_barrier();
    u32 tops_at = shared_address(final_top), sums_at = shared_address(final_sum), each = HEADS * LATENT / 4 / share;
    for (u32 i = rank * each + threadIdx.x; i < (rank + 1) * each; i += THREADS) {
        u32 head = i / (LATENT / 4), dim = i % (LATENT / 4) * 4;
        float most = NEGATIVE_INFINITY, all = 0;
        float4 value = make_float4(0, 0, 0, 0);
        for (u32 r = 0; r < share; r++) most = fmaxf(most, load_neighbour(neighbour(tops_at + head * 4, r)));
#pragma unroll 4
        for (u32 r = 0; r < share; r++) {
            float by = weight_of(load_neighbour(neighbour(tops_at + head * 4, r)), most);
            float4 v = load_neighbour4(neighbour(ring + (head * PITCH + dim) * 4, r));
            all += load_neighbour(neighbour(sums_at + head * 4, r)) * by;
            value.x += v.x * by, value.y += v.y * by, value.z += v.z * by, value.w += v.w * by;
        }
        float by = tokens ? 1 / all : 0;
        *(uint2 *)(out + (head_at + head) * LATENT + dim) =
            make_uint2(pack_bf16(value.x * by, value.y * by), pack_bf16(value.z * by, value.w * by));
        if (dim == 0) lse[head_at + head] = tokens ? natural(most, all) : NEGATIVE_INFINITY;
    }
    cluster_barrier();
}

#define ATTEND(NAME, FP8, HEADS, STAGES)                                                                               \
    extern "C" __global__ void __launch_bounds__(THREADS, 1)                                                           \
        NAME(const u16 *queries, const u8 *pool, const u32 *list, const Row *rows, u32 stride, u32 heads, float scale, \
             u16 *out, float *lse) {                                                                                   \
        attend<FP8, HEADS, STAGES>(queries, pool, list, rows, stride, heads, scale, out, lse);                         \
    }

ATTEND(attend_bf16_h16, false, 16, 5)
ATTEND(attend_bf16_h64, false, 64, 4)
ATTEND(attend_fp8_h16, true, 16, 4)
ATTEND(attend_fp8_h64, true, 64, 4)
