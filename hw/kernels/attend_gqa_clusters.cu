// Sparse decode attention over frames where it has the device to itself: a cluster of thread blocks per stream, whose
// warps each bring every so many tiles of 16 tokens into a ring of their own, attend to them, and add up their sums in
// shared memory, across the cluster too. A frame holds PAGE keys and then PAGE values of 128 dimensions, bf16; 8 or fewer
// query heads share them.

const u32 MOST = 16; // blocks of a cluster

// What the blocks of a cluster have summed of the heads and dimensions that one of them finishes.
template <u32 GROUP> struct Inbox { float max[MOST][GROUP], sum[MOST][GROUP], out[GROUP * DIM]; };

// `queries` and `out` are streams x GROUP x 128 bf16, `lse` streams x GROUP. `stride` is how many entries most streams
// have, which only saves time: frame numbers are read as if, along with the row that says how it is.
template <u32 PAGE, u32 GROUP, u32 WARPS, u32 STAGES>
__device__ __forceinline__ void attend(const u16 *queries, const u8 *pool, const u32 *frames, const Row *rows, u32 stride,
                                       float scale, u16 *out, float *lse) {
    const u32 PER_PAGE = PAGE / 16, RING = STAGES * STAGE_BYTES;
    extern __shared__ __align__(1024) u8 rings[];
    __shared__ u64 full[WARPS * STAGES];
    __shared__ Inbox<GROUP> inbox;
    u32 warp = threadIdx.x / 32, lane = threadIdx.x & 31;
    u32 share = cluster_size(), rank = cluster_rank(), stream = blockIdx.x / share;
    u32 barriers = shared_address(full) + warp * STAGES * 8, ring = shared_address(rings) + warp * RING;
    if (lane < STAGES) make_barrier(barriers + lane * 8, 1);
    publish_barriers();
    __syncwarp();
    // Says that this block has begun: nobody writes to its inbox before.
    if (share > 1) cluster_arrive();
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
        add_tile(a, q, ring + i % STAGES * STAGE_BYTES, tokens - (begin + i * WARPS) * 16, scale);
        __syncwarp();
        issue(i + STAGES);
    }
    // Its ring is empty now.
    leave<GROUP>(a, *(Piece<GROUP> *)(rings + warp * RING));
    __syncthreads();
    auto store = [&](u32 head, u32 dim, float top, float sum, float value) {
        u64 at = (u64)stream * GROUP + head;
        out[at * DIM + dim] = tokens ? (u16)pack_bf16(value / sum, 0) : 0;
        if (dim == 0) lse[at] = tokens ? (top + __log2f(sum)) * 0.6931471805599453f : NEGATIVE_INFINITY;
    };
    if (share == 1) return add_up<GROUP, WARPS>(rings, RING, store);
    // Each block finishes its share of heads and dimensions, and is sent what the others have summed of it.
    cluster_await();
    u32 each = GROUP * DIM / share, here = shared_address(&inbox);
    add_up<GROUP, WARPS>(rings, RING, [&](u32 head, u32 dim, float top, float sum, float value) {
        u32 i = head * DIM + dim, within = i % each, there = neighbour(here, i / each), at = (rank * GROUP + head) * 4;
        store_neighbour(there + MOST * GROUP * 8 + (rank * each + within) * 4, value);
        if (within % DIM == 0) store_neighbour(there + at, top), store_neighbour(there + MOST * GROUP * 4 + at, sum);
    });
    cluster_barrier();
    for (u32 i = threadIdx.x; i < each; i += WARPS * 32) {
        u32 head = (rank * each + i) / DIM, dim = (rank * each + i) % DIM;
        float top = NEGATIVE_INFINITY, sum = 0, value = 0;
#pragma unroll
        for (u32 r = 0; r < MOST; r++)
            if (r < share) top = fmaxf(top, inbox.max[r][head]);
#pragma unroll
        for (u32 r = 0; r < MOST; r++)
            if (r < share) {
                float by = weight_of(inbox.max[r][head], top);
                sum += inbox.sum[r][head] * by, value += inbox.out[r * each + i] * by;
            }
        store(head, dim, top, sum, value);
    }
}

#define ATTEND(PAGE, GROUP, WARPS, STAGES)                                                                             \
    extern "C" __global__ void __launch_bounds__(WARPS * 32) attend_p##PAGE##_g##GROUP##_w##WARPS##_s##STAGES(         \
        const u16 *queries, const u8 *pool, const u32 *frames, const Row *rows, u32 stride, float scale, u16 *out,     \
        float *lse) {                                                                                                  \
        attend<PAGE, GROUP, WARPS, STAGES>(queries, pool, frames, rows, stride, scale, out, lse);                      \
    }
#define GEOMETRIES(WARPS, STAGES)                                                                                      \
    ATTEND(16, 4, WARPS, STAGES) ATTEND(16, 8, WARPS, STAGES) ATTEND(64, 4, WARPS, STAGES) ATTEND(64, 8, WARPS, STAGES)

GEOMETRIES(8, 2)
GEOMETRIES(8, 1)
