// Which blocks of a decided step move, and to which frames. Follows replay.cu, which declares what it uses. Part 0 of a
// stream's fills are its loads, 1 its prefetches after the step, 3 those before the look-up, which stand last.

const u32 LOADS = 0, PREFETCHES = 1;

// A stream's fills of one part.
struct FillList { const uint4 *fills; u32 n; };

__device__ __forceinline__ FillList part_of(const Sizes &z, u32 g, u32 part, const uint4 *fills, const u32 *fill_counts) {
    const u32 *counts = fill_counts + g * 4;
    u32 first = part == LOADS ? 0 : part == PREFETCHES ? counts[0] : counts[0] + counts[1] + counts[2];
    return {fills + (u64)g * z.fills + first, counts[part]};
}

// Appends what a stream brings from home to its list of moves, in the order of decision; warm pages do not move. `missed`
// notes how many of the loads do.
extern "C" __global__ void __launch_bounds__(128)
list_moves(Sizes z, u32 layer, u32 part, const uint4 *fills, const u32 *fill_counts, const u32 *frame_of, Lists lists, u32 per_list, u32 *missed) {
    u32 g = layer * z.streams + blockIdx.x, lane = threadIdx.x & 31;
    FillList list = part_of(z, g, part, fills, fill_counts);
    __shared__ u32 base, total;
    if (threadIdx.x == 0) total = 0;
    __syncthreads();
    u32 mine = 0;
    for (u32 i = threadIdx.x; i < list.n; i += blockDim.x) mine += list.fills[i].w == HOME;
    mine = __reduce_add_sync(FULL, mine);
    if (lane == 0 && mine) atomicAdd(&total, mine);
    __syncthreads();
    if (threadIdx.x == 0 && part == LOADS) missed[g] = total;
    if (total == 0) return;
    if (threadIdx.x == 0) base = atomicAdd(&lists.ends[blockIdx.x / per_list], total);
    __syncthreads();
    const u32 *frames = frame_of + (u64)g * (z.slots + 1);
    bool all = total == list.n; // then every fill knows its place
    if (!all && threadIdx.x >= 32) return;
    u32 found = base, stride = all ? blockDim.x : 32;
    for (u32 first = 0; first < list.n; first += stride) {
        u32 i = first + threadIdx.x;
        uint4 fill = i < list.n ? list.fills[i] : make_uint4(NONE, 0, NONE, HOME + 1);
        u32 mask = __ballot_sync(FULL, fill.w == HOME);
        u32 place = all ? base + i : found + lanes_below(mask);
        if (fill.w == HOME) lists.moves[place] = make_uint2(g * z.blocks + fill.x, frames[fill.y]);
        found += __popc(mask);
    }
}

// The same in ascending home address within the stream: a bitmap over its blocks sorts distinct ids in two passes.
extern "C" __global__ void __launch_bounds__(1024)
sort_moves(Sizes z, u32 layer, u32 part, const uint4 *fills, const u32 *fill_counts, const u32 *frame_of, Lists lists, u32 per_list, u32 *missed) {
    extern __shared__ u32 shared[];
    u32 g = layer * z.streams + blockIdx.x;
    FillList list = part_of(z, g, part, fills, fill_counts);
    u32 words = (z.blocks + 31) / 32, *bitmap = shared, *below = shared + words, warp = threadIdx.x / 32, lane = threadIdx.x & 31;
    __shared__ u32 warp_sum[32], base;
    if (list.n == 0) {
        if (threadIdx.x == 0 && part == LOADS) missed[g] = 0;
        return;
    }
    for (u32 i = threadIdx.x; i < words; i += blockDim.x) bitmap[i] = 0;
    __syncthreads();
    for (u32 i = threadIdx.x; i < list.n; i += blockDim.x)
        if (list.fills[i].w == HOME) atomicOr(&bitmap[list.fills[i].x / 32], 1u << (list.fills[i].x % 32));
    __syncthreads();
    u32 run = (words + 1023) / 1024 * 32, start = warp * run, sum = 0;
    for (u32 i = start + lane; i < start + run; i += 32) {
        u32 total, set = i < words ? __popc(bitmap[i]) : 0;
        u32 before = exclusive_scan(set, total);
        if (i < words) below[i] = sum + before;
        sum += total;
    }
    if (lane == 0) warp_sum[warp] = sum;
    __syncthreads();
    if (warp == 0) {
        u32 total, before = exclusive_scan(warp_sum[lane], total);
        warp_sum[lane] = before;
        if (lane == 0) base = atomicAdd(&lists.ends[blockIdx.x / per_list], total);
        if (lane == 0 && part == LOADS) missed[g] = total;
    }
    __syncthreads();
    for (u32 i = threadIdx.x; i < list.n; i += blockDim.x) {
        uint4 fill = list.fills[i];
        if (fill.w != HOME) continue;
        u32 word = fill.x / 32;
        u32 place = warp_sum[word / run] + below[word] + __popc(bitmap[word] & ((1u << (fill.x % 32)) - 1));
        lists.moves[base + place] = make_uint2(g * z.blocks + fill.x, frame_of[(u64)g * (z.slots + 1) + fill.y]);
    }
}

// What was listed for a request that has left its seat still moves, to a frame that nobody reads. One row of blocks per list.
extern "C" __global__ void __launch_bounds__(128)
redirect(Sizes z, u32 heads, u32 seat, Lists lists, u32 frame) {
    u32 end = lists.ends[blockIdx.y];
    for (u32 i = blockIdx.y * lists.capacity + blockIdx.x * blockDim.x + threadIdx.x; i < end; i += gridDim.x * blockDim.x)
        if (lists.moves[i].x / z.blocks % z.streams / heads == seat) lists.moves[i].y = frame;
}
