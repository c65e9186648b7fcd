// What the kernels of grouped-query attention share: how a warp attends to a tile of 16 tokens that lies in shared
// memory as in its frame, a row of 256 bytes per token. n = lane / 4 and t = lane % 4.

const u32 DIM = 128;
const u32 TILE_BYTES = 16 * DIM * 2; // of keys, and of values
const u32 STAGE_BYTES = 2 * TILE_BYTES;
const u32 PITCH = DIM + 4;

// What a warp, or a block, has summed of a stream; scores are in units of log2.
template <u32 GROUP> struct Piece { float max[GROUP], sum[GROUP], out[GROUP][PITCH]; };

// A warp has the same in registers: tile m holds (dimension `first_dimension(m)`, the next one) x (head 2t, 2t + 1).
struct Sums { float out[8][4]; float max[2], sum[2]; };

__device__ __forceinline__ u32 first_dimension(u32 m) { return (threadIdx.x & 31) / 4 * 16 + m / 4 * 8 + m % 4 * 2; }

__device__ __forceinline__ void clear(Sums &a) {
#pragma unroll
    for (u32 h = 0; h < 2; h++) a.max[h] = NEGATIVE_INFINITY, a.sum[h] = 0;
#pragma unroll
    for (u32 m = 0; m < 8; m++) a.out[m][0] = a.out[m][1] = a.out[m][2] = a.out[m][3] = 0;
}

// A stream's queries as right operands: element j holds dimensions 32 j + 8 t .. + 8 of head n.
template <u32 GROUP>
__device__ __forceinline__ void load_queries(uint4 (&q)[4], const u16 *queries) {
    u32 n = (threadIdx.x & 31) / 4, t = threadIdx.x & 3;
#pragma unroll
    for (u32 j = 0; j < 4; j++)
        q[j] = n < GROUP ? *(const uint4 *)(queries + n * DIM + j * 32 + t * 8) : make_uint4(0, 0, 0, 0);
}

// Brings a tile, of which `from` is the keys; by one lane. A page of 16 tokens is a single run. Bytes may
// land before they are announced: the barrier waits for the announcement too.
template <u32 PAGE>
__device__ __forceinline__ void copy_tile(u32 to, const u8 *from, u32 barrier) {
    if (PAGE == 16) {
        copy_run(to, from, STAGE_BYTES, barrier);
    } else {
        copy_run(to, from, TILE_BYTES, barrier);
        copy_run(to + TILE_BYTES, from + PAGE * DIM * 2, TILE_BYTES, barrier);
    }
    expect(barrier, STAGE_BYTES);
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

// Adds one tile, keys and then values at `at`, of which the first `valid` tokens count. The copy engine swizzles no
// runs; loads of 16 bytes a lane in this order meet twice in a bank at most, which costs less than runs save.
__device__ __forceinline__ void add_tile(Sums &a, const uint4 (&q)[4], u32 at, u32 valid, float scale) {
    u32 lane = threadIdx.x & 31, n = lane / 4, t = lane & 3, low, high;
    float even[4] = {0, 0, 0, 0}, odd[4] = {0, 0, 0, 0}, s[4];
    u32 key = at + n * 256 + t * 16;
#pragma unroll
    for (u32 j = 0; j < 4; j++) {
        uint4 x = load_chunk(key + j * 64), y = load_chunk(key + 2048 + j * 64);
        mma_bf16(even, x.x, y.x, x.y, y.y, q[j].x, q[j].y);
        mma_bf16(odd, x.z, y.z, x.w, y.w, q[j].z, q[j].w);
    }
    // Values of tokens 2t, 2t + 1, 2t + 8, 2t + 9, dimensions 16 n .. + 16; every other t begins with the second half.
    bool turned = t & 1;
    u32 value = at + TILE_BYTES + t * 512 + n * 32;
    u32 first = value + (turned ? 16 : 0), second = value + (turned ? 0 : 16);
    uint4 v[4][2];
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        u32 token = (i & 1) * 256 + i / 2 * 2048;
        uint4 x = load_chunk(first + token), y = load_chunk(second + token);
        v[i][0] = turned ? y : x, v[i][1] = turned ? x : y;
    }
#pragma unroll
    for (u32 j = 0; j < 4; j++) s[j] = n + j / 2 * 8 < valid ? (even[j] + odd[j]) * scale : NEGATIVE_INFINITY;
    weigh(a, s, low, high);
#pragma unroll
    for (u32 c = 0; c < 2; c++) {
        const u32 *k[4] = {&v[0][c].x, &v[1][c].x, &v[2][c].x, &v[3][c].x};
#pragma unroll
        for (u32 w = 0; w < 4; w++)
            mma_bf16(a.out[4 * c + w], __byte_perm(k[0][w], k[1][w], 0x5410), __byte_perm(k[0][w], k[1][w], 0x7632),
                     __byte_perm(k[2][w], k[3][w], 0x5410), __byte_perm(k[2][w], k[3][w], 0x7632), low, high);
    }
}

// Lays a warp's sums open.
template <u32 GROUP>
__device__ __forceinline__ void leave(const Sums &a, Piece<GROUP> &mine) {
    u32 n = (threadIdx.x & 31) / 4, t = threadIdx.x & 3;
#pragma unroll
    for (u32 h = 0; h < 2; h++) {
        float sum = sum_over_rows(a.sum[h]);
        u32 head = 2 * t + h;
        if (head < GROUP) {
            if (n == 0) mine.max[head] = a.max[h], mine.sum[head] = sum;
#pragma unroll
            for (u32 m = 0; m < 8; m++)
                *(float2 *)&mine.out[head][first_dimension(m)] = make_float2(a.out[m][h], a.out[m][h + 2]);
        }
    }
}

// Adds up the pieces of a block's warps, `apart` bytes from one to the next. Each thread has a run of values of a head:
// `f(head, first dimension, max, sum, values)`. Runs, because the weights of a head's pieces are worked out once for each.
template <u32 GROUP, u32 WARPS, typename F>
__device__ __forceinline__ void add_up(const u8 *pieces, u32 apart, F f) {
    const u32 RUN = GROUP * DIM / (WARPS * 32);
    auto piece = [&](u32 w) { return (const Piece<GROUP> *)(pieces + w * apart); };
    u32 head = threadIdx.x * RUN / DIM, dim = threadIdx.x * RUN % DIM;
    float max[WARPS], top = NEGATIVE_INFINITY, sum = 0, values[RUN];
#pragma unroll
    for (u32 w = 0; w < WARPS; w++) max[w] = piece(w)->max[head], top = fmaxf(top, max[w]);
#pragma unroll
    for (u32 i = 0; i < RUN; i++) values[i] = 0;
#pragma unroll
    for (u32 w = 0; w < WARPS; w++) {
        float by = weight_of(max[w], top);
        sum += piece(w)->sum[head] * by;
#pragma unroll
        for (u32 i = 0; i < RUN; i += 2) {
            float2 v = *(const float2 *)&piece(w)->out[head][dim + i];
            values[i] += v.x * by, values[i + 1] += v.y * by;
        }
    }
    f(head, dim, top, sum, values);
}

// Writes a run of a stream's result; a stream without a token has sum 0.
template <u32 GROUP, u32 RUN>
__device__ __forceinline__ void store_run(u16 *out, float *lse, u32 stream, u32 head, u32 dim, float top, float sum,
                                          const float (&values)[RUN]) {
    u64 at = (u64)stream * GROUP + head;
    float by = sum == 0 ? 0 : 1 / sum;
#pragma unroll
    for (u32 i = 0; i < RUN; i += 2)
        *(u32 *)(out + at * DIM + dim + i) = pack_bf16(values[i] * by, values[i + 1] * by);
    if (dim == 0) lse[at] = sum == 0 ? NEGATIVE_INFINITY : (top + __log2f(sum)) * 0.6931471805599453f;
}
