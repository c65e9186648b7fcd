// Sparse decode attention over frames where it has the device to itself: a thread block or a cluster of them per stream,
// whose warps each bring every so many tiles of 16 tokens into a ring of their own, attend to them, and add up their sums
// in shared memory, across the cluster too. A frame holds PAGE keys and then PAGE values of 128 dimensions, bf16; 8 or fewer
// query heads share them.

const u32 MOST = 16; // blocks of a cluster

// What the blocks of a cluster have summed of the heads and dimensions that one of them finishes.
template <u32 GROUP> struct __align__(16) Inbox { float max[MOST][GROUP], sum[MOST][GROUP], out[GROUP * DIM]; };

// `queries` and `out` are streams x GROUP x 128 bf16, `lse` streams x GROUP. `stride` is how many entries most streams
// have, which only saves time: frame numbers are read as if, along with the row that says how it is. Each of the first
// `whole` streams, a multiple of the blocks of a cluster, is one block's; the others are cut, so that all blocks of a
// grid that does not fit the device at once end together.
template <u32 PAGE, u32 GROUP, u32 WARPS, u32 STAGES>
__device__ __forceinline__ void attend(const u16 *queries, const u8 *pool, const u32 *frames, const Row *rows, u32 stride,
                                       float scale, u16 *out, float *lse, u32 whole) {
    const u32 PER_PAGE = PAGE / 16, RING = STAGES * STAGE_BYTES;
    extern __shared__ __align__(1024) u8 rings[];
    __shared__ u64 full[WARPS * STAGES];
    __shared__ Inbox<GROUP> inbox;
    u32 warp = threadIdx.x / 32, lane = threadIdx.x & 31;
    u32 blocks = cluster_size(), share = blocks, rank = cluster_rank(), stream = whole + (blockIdx.x - whole) / share;
    if (blockIdx.x < whole) share = 1, rank = 0, stream = blockIdx.x;
    u32 barriers = shared_address(full) + warp * STAGES * 8, ring = shared_address(rings) + warp * RING;
    if (lane < STAGES) make_barrier(barriers + lane * 8, 1);
    publish_barriers();
    __syncwarp();
    // Says that this block has begun: nobody writes to its inbox before.
    if (blocks > 1) cluster_arrive();
    // Whoever wrote them, they will be read from L2.
    fetch(frames + stream * stride, stride * 4);
    fetch(queries + (u64)stream * GROUP * DIM, GROUP * DIM * 2);
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
    uint4 q[4];
    load_queries<GROUP>(q, queries + (u64)stream * GROUP * DIM);
    if (row.y != entry || row.z != tokens) entry = row.y, tokens = row.z, plan();

    auto issue = [&](u32 i) {
        if (i >= count) return;
        if (i && !(i & 31)) places = later, later = look(i + 32 + lane);
        u32 frame = __shfl_sync(FULL, places, i & 31), stage = i % STAGES;
        const u8 *from = pool + (u64)frame * (PAGE * DIM * 4) + (begin + i * WARPS) % PER_PAGE * TILE_BYTES;
        if (lane == 0) copy_tile<PAGE>(ring + stage * STAGE_BYTES, from, barriers + stage * 8);
    };
    Sums a;
    clear(a);
    for (u32 i = 0; i < STAGES; i++) issue(i);
    for (u32 i = 0; i < count; i++) {
        await(barriers + i % STAGES * 8, i / STAGES & 1);
        __syncwarp();
        add_tile(a, q, ring + i % STAGES * STAGE_BYTES, tokens - (begin + i * WARPS) * 16, scale);
        __syncwarp();
        issue(i + STAGES);
    }
    if (blocks > 1) cluster_await();
    // Its ring is empty now.
    leave<GROUP>(a, *(Piece<GROUP> *)(rings + warp * RING));
    __syncthreads();
    const u32 RUN = GROUP * DIM / (WARPS * 32);
    if (share == 1)
        return add_up<GROUP, WARPS>(rings, RING, [&](u32 head, u32 dim, float top, float sum, const float (&values)[RUN]) {
            store_run<GROUP>(out, lse, stream, head, dim, top, sum, values);
        });
    // Each block finishes its share of heads and dimensions, and is sent what the others have summed of it.
    u32 each = GROUP * DIM / share, here = shared_address(&inbox);
    add_up<GROUP, WARPS>(rings, RING, [&](u32 head, u32 dim, float top, float sum, const float (&values)[RUN]) {
        u32 i = head * DIM + dim, within = i % each, there = neighbour(here, i / each), at = (rank * GROUP + head) * 4;
#pragma unroll
        for (u32 v = 0; v < RUN; v += 2)
            store_neighbour2(there + MOST * GROUP * 8 + (rank * each + within + v) * 4, values[v], values[v + 1]);
        if (within % DIM == 0) store_neighbour(there + at, top), store_neighbour(there + MOST * GROUP * 4 + at, sum);
    });
    cluster_barrier();
    for (u32 i = threadIdx.x * 2; i < each; i += WARPS * 64) {
        u32 head = (rank * each + i) / DIM, dim = (rank * each + i) % DIM;
        float top = NEGATIVE_INFINITY, sum = 0, values[2] = {0, 0};
#pragma unroll
        for (u32 r = 0; r < MOST; r++)
            if (r < share) top = fmaxf(top, inbox.max[r][head]);
#pragma unroll
        for (u32 r = 0; r < MOST; r++)
            if (r < share) {
                float by = weight_of(inbox.max[r][head], top);
                float2 v = *(const float2 *)&inbox.out[r * each + i];
                sum += inbox.sum[r][head] * by, values[0] += v.x * by, values[1] += v.y * by;
            }
        store_run<GROUP>(out, lse, stream, head, dim, top, sum, values);
    }
}

#define ATTEND(PAGE, GROUP, WARPS, STAGES)                                                                             \
    extern "C" __global__ void __launch_bounds__(WARPS * 32) attend_p##PAGE##_g##GROUP##_w##WARPS##_s##STAGES(         \
        const u16 *queries, const u8 *pool, const u32 *frames, const Row *rows, u32 stride, float scale, u16 *out,     \
        float *lse, u32 whole) {                                                                                       \
        attend<PAGE, GROUP, WARPS, STAGES>(queries, pool, frames, rows, stride, scale, out, lse, whole);               \
    }
#define GEOMETRIES(WARPS, STAGES)                                                                                      \
    ATTEND(16, 4, WARPS, STAGES) ATTEND(16, 8, WARPS, STAGES) ATTEND(64, 4, WARPS, STAGES) ATTEND(64, 8, WARPS, STAGES)

GEOMETRIES(8, 2)
GEOMETRIES(8, 1)
