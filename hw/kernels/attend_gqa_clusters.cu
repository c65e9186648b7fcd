// Sparse decode attention over frames where it has the device to itself: a cluster of thread blocks per stream, whose
// warps each bring every so many tiles of 16 tokens into a ring of their own, attend to them, and add up their sums in
// shared memory, across the cluster too. A frame holds PAGE keys and then PAGE values of 128 dimensions, bf16; 8 or fewer
// query heads share them.

const u32 DIM = 128;
const u32 TILE_BYTES = 16 * DIM * 2; // of keys, and of values
const u32 PITCH = DIM + 4;

// What a warp, or a block, has summed of a stream; scores are in units of log2.
template <u32 GROUP> struct Piece { float max[GROUP], sum[GROUP], out[GROUP][PITCH]; };

// A warp has the same in registers, in `Sums`: tile m holds (dimension 16 m + n, 16 m + n + 8) x (head 2t, 2t + 1).

// Adds one tile, keys and then values at `at`, of which the first `valid` tokens count.
__device__ __forceinline__ void add_tile(Sums &a, const u32 (&q)[8][2], u32 at, u32 valid, float scale) {
    u32 lane = threadIdx.x & 31, n = lane / 4, v[4], low, high;
    float even[4] = {0, 0, 0, 0}, odd[4] = {0, 0, 0, 0}, s[4];
    u32 key = at + (lane & 15) * 256;
#pragma unroll
    for (u32 j = 0; j < 8; j++) {
        load_matrices(v, key + ((2 * j + lane / 16) ^ (lane & 7)) * 16);
        mma_bf16(j & 1 ? odd : even, v[0], v[1], v[2], v[3], q[j][0], q[j][1]);
    }
#pragma unroll
    for (u32 j = 0; j < 4; j++) s[j] = n + j / 2 * 8 < valid ? (even[j] + odd[j]) * scale : NEGATIVE_INFINITY;
    weigh(a, s, low, high);
    u32 value = at + TILE_BYTES + ((lane & 7) + lane / 16 * 8) * 256;
#pragma unroll
    for (u32 m = 0; m < 8; m++) {
        load_transposed(v, value + ((2 * m + (lane / 8 & 1)) ^ (lane & 7)) * 16);
        mma_bf16(a.out[m], v[0], v[1], v[2], v[3], low, high);
    }
}

// Adds up what the blocks of a cluster have left in `mine`, each its share of heads and dimensions.
template <u32 GROUP, u32 THREADS, typename F>
__device__ __forceinline__ void add_up_cluster(const Piece<GROUP> &mine, F store) {
    const u32 MOST = 16; // blocks of a cluster
    u32 share = cluster_size(), rank = cluster_rank(), each = GROUP * DIM / share, here = shared_address(&mine);
    for (u32 i = rank * each + threadIdx.x; i < (rank + 1) * each; i += THREADS) {
        u32 head = i / DIM, dim = i % DIM;
        u32 max_at = here + head * 4, sum_at = max_at + GROUP * 4, out_at = here + GROUP * 8 + (head * PITCH + dim) * 4;
        float tops[MOST], sums[MOST], values[MOST], top = NEGATIVE_INFINITY, sum = 0, value = 0;
#pragma unroll
        for (u32 r = 0; r < MOST; r++)
            if (r < share) {
                tops[r] = load_neighbour(neighbour(max_at, r));
                sums[r] = load_neighbour(neighbour(sum_at, r));
                values[r] = load_neighbour(neighbour(out_at, r));
            }
#pragma unroll
        for (u32 r = 0; r < MOST; r++)
            if (r < share) top = fmaxf(top, tops[r]);
#pragma unroll
        for (u32 r = 0; r < MOST; r++)
            if (r < share) {
                float by = weight_of(tops[r], top);
                sum += sums[r] * by, value += values[r] * by;
            }
        store(head, dim, top, sum, value);
    }
}

// `queries` and `out` are streams x GROUP x 128 bf16, `lse` streams x GROUP. `stride` is how many entries most streams
// have, which only saves time: frame numbers are read as if, along with the row that says how it is.
template <u32 PAGE, u32 GROUP, u32 WARPS, u32 STAGES>
__device__ __forceinline__ void attend(const u16 *queries, const u8 *pool, const u32 *frames, const Row *rows, u32 stride,
                                       float scale, u16 *out, float *lse) {
    const u32 PER_PAGE = PAGE / 16;
    extern __shared__ __align__(1024) u8 ring[];
    __shared__ Piece<GROUP> mine;
    u32 warp = threadIdx.x / 32, lane = threadIdx.x & 31, n = lane / 4, t = lane & 3;
    u32 share = cluster_size(), rank = cluster_rank(), stream = blockIdx.x / share;
    begin_after_predecessor();
    uint4 row = *(const uint4 *)(rows + stream);
    // Tiles of this warp: `begin`, and every WARPS-th after it. Each lane holds the frames of two of them.
    u32 entry = stream * stride, tokens = stride * PAGE, begin, count, places, later;
    auto look = [&](u32 i) { return i < count ? frames[entry + (begin + i * WARPS) / PER_PAGE] : 0; };
    auto plan = [&]() {
        u32 tiles = (tokens + 15) / 16, end = part_start(rank + 1, share, tiles);
        begin = part_start(rank, share, tiles) + warp;
        count = begin < end ? (end - begin + WARPS - 1) / WARPS : 0;
        places = look(lane), later = look(lane + 32);
    };
    plan();
    u32 q[8][2];
#pragma unroll
    for (u32 j = 0; j < 8; j++) {
        const u16 *from = queries + ((u64)stream * GROUP + n) * DIM + j * 16 + t * 2;
        q[j][0] = n < GROUP ? *(const u32 *)from : 0;
        q[j][1] = n < GROUP ? *(const u32 *)(from + 8) : 0;
    }
    if (row.y != entry || row.z != tokens) entry = row.y, tokens = row.z, plan();

    u32 base = shared_address(ring) + warp * (STAGES * 2 * TILE_BYTES), put = base + lane / 16 * 256;
    auto issue = [&](u32 i) {
        if (i < count) {
            if (i && !(i & 31)) places = later, later = look(i + 32 + lane);
            u32 frame = __shfl_sync(FULL, places, i & 31);
            const u8 *from = pool + (u64)frame * (PAGE * DIM * 4) + (begin + i * WARPS) % PER_PAGE * TILE_BYTES + lane * 16;
            u32 to = put + i % STAGES * (2 * TILE_BYTES);
#pragma unroll
            for (u32 half = 0; half < 2; half++)
#pragma unroll
                for (u32 c = 0; c < 8; c++) {
                    u32 chunk = ((lane & 15) ^ ((c * 2 + lane / 16) & 7)) * 16;
                    copy_chunk(to + half * TILE_BYTES + c * 512 + chunk, from + half * (PAGE * DIM * 2) + c * 512);
                }
        }
        commit_copies();
    };
    Sums a;
#pragma unroll
    for (u32 h = 0; h < 2; h++) a.max[h] = NEGATIVE_INFINITY, a.sum[h] = 0;
#pragma unroll
    for (u32 m = 0; m < 8; m++) a.out[m][0] = a.out[m][1] = a.out[m][2] = a.out[m][3] = 0;
    for (u32 i = 0; i < STAGES; i++) issue(i);
    for (u32 i = 0; i < count; i++) {
        await_copies<STAGES - 1>();
        __syncwarp();
        add_tile(a, q, base + i % STAGES * (2 * TILE_BYTES), tokens - (begin + i * WARPS) * 16, scale);
        __syncwarp();
        issue(i + STAGES);
    }
    await_copies<0>();
    __syncthreads();

    Piece<GROUP> *pieces = (Piece<GROUP> *)ring;
#pragma unroll
    for (u32 h = 0; h < 2; h++) {
        float sum = sum_over_rows(a.sum[h]);
        u32 head = 2 * t + h;
        if (head < GROUP) {
            if (n == 0) pieces[warp].max[head] = a.max[h], pieces[warp].sum[head] = sum;
#pragma unroll
            for (u32 m = 0; m < 8; m++) {
                pieces[warp].out[head][m * 16 + n] = a.out[m][h];
                pieces[warp].out[head][m * 16 + n + 8] = a.out[m][h + 2];
            }
        }
    }
    __syncthreads();
    auto store = [&](u32 head, u32 dim, float top, float sum, float value) {
        u64 at = (u64)stream * GROUP + head;
        out[at * DIM + dim] = tokens ? (u16)pack_bf16(value / sum, 0) : 0;
        if (dim == 0) lse[at] = tokens ? (top + __log2f(sum)) * 0.6931471805599453f : NEGATIVE_INFINITY;
    };
    for (u32 i = threadIdx.x; i < GROUP * DIM; i += WARPS * 32) {
        u32 head = i / DIM, dim = i % DIM;
        float top = NEGATIVE_INFINITY, sum = 0, value = 0;
#pragma unroll
        for (u32 w = 0; w < WARPS; w++) top = fmaxf(top, pieces[w].max[head]);
#pragma unroll
        for (u32 w = 0; w < WARPS; w++) {
            float by = weight_of(pieces[w].max[head], top);
            sum += pieces[w].sum[head] * by;
            value += pieces[w].out[head][dim] * by;
        }
        if (share == 1) store(head, dim, top, sum, value);
        else {
            mine.out[head][dim] = value;
            if (dim == 0) mine.max[head] = top, mine.sum[head] = sum;
        }
    }
    if (share == 1) return;
    cluster_barrier();
    add_up_cluster<GROUP, WARPS * 32>(mine, store);
    // No block leaves while others read from it.
    cluster_barrier();
}

#define ATTEND(PAGE, GROUP, WARPS, STAGES)                                                                             \
    extern "C" __global__ void __launch_bounds__(WARPS * 32) attend_p##PAGE##_g##GROUP##_w##WARPS##_s##STAGES(         \
        const u16 *queries, const u8 *pool, const u32 *frames, const Row *rows, u32 stride, float scale, u16 *out,     \
        float *lse) {                                                                                                  \
        attend<PAGE, GROUP, WARPS, STAGES>(queries, pool, frames, rows, stride, scale, out, lse);                      \
    }
#define GEOMETRIES(WARPS, STAGES)                                                                                      \
    ATTEND(16, 4, WARPS, STAGES) ATTEND(16, 8, WARPS, STAGES) ATTEND(64, 4, WARPS, STAGES) ATTEND(64, 8, WARPS, STAGES)

GEOMETRIES(4, 2)
GEOMETRIES(8, 1)
GEOMETRIES(8, 2)
