// A yardstick of attention over frames: brings the same tiles by the same copies, a block per stream, and does nothing
// with them. What an attention takes beyond this is its own; what this takes beyond a copy is where the frames lie.

const u32 WARPS = 8, STAGES = 2;

// A block per stream, of `each` frames; `frames` holds those of all streams in a row.
template <u32 PAGE> __device__ __forceinline__ void read(const u8 *pool, const u32 *frames, u32 each) {
    const u32 PER_PAGE = PAGE / 16;
    extern __shared__ __align__(1024) u8 rings[];
    __shared__ u64 full[WARPS * STAGES];
    u32 warp = threadIdx.x / 32, lane = threadIdx.x & 31, tiles = each * PER_PAGE;
    u32 barriers = shared_address(full) + warp * STAGES * 8, ring = shared_address(rings) + warp * STAGES * STAGE_BYTES;
    if (lane < STAGES) make_barrier(barriers + lane * 8, 1);
    publish_barriers();
    __syncwarp();
    begin_after_predecessor();
    u32 count = tiles > warp ? (tiles - warp + WARPS - 1) / WARPS : 0;
    auto issue = [&](u32 i) {
        if (i >= count || lane) return;
        u32 tile = warp + i * WARPS, frame = frames[blockIdx.x * each + tile / PER_PAGE], stage = i % STAGES;
        const u8 *from = pool + (u64)frame * (PAGE * DIM * 4) + tile % PER_PAGE * TILE_BYTES;
        copy_tile<PAGE>(ring + stage * STAGE_BYTES, from, barriers + stage * 8);
    };
    for (u32 i = 0; i < STAGES; i++) issue(i);
    for (u32 i = 0; i < count; i++) {
        await(barriers + i % STAGES * 8, i / STAGES & 1);
        __syncwarp();
        issue(i + STAGES);
    }
}

extern "C" __global__ void __launch_bounds__(WARPS * 32) read_p16(const u8 *pool, const u32 *frames, u32 each) {
    read<16>(pool, frames, each);
}

extern "C" __global__ void __launch_bounds__(WARPS * 32) read_p64(const u8 *pool, const u32 *frames, u32 each) {
    read<64>(pool, frames, each);
}
