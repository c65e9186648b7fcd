// Sparse decode attention over frames by any number of thread blocks: 8 or fewer query heads share a KV head of 128
// dimensions, bf16. A frame holds PAGE keys and then PAGE values. Work is cut evenly over all streams into tiles of 16
// tokens (split KV), one block to a multiprocessor; a block that finishes a stream's last piece combines the pieces.
//
// Tiles come into a ring of each warp's own, across streams: the next ones fly while a finished stream is added up.

const u32 WARPS = 8, STAGES = 2, THREADS = WARPS * 32;
const u32 RING = STAGES * STAGE_BYTES;

__device__ __forceinline__ float4 load_shared_result4(const float *p) {
    float4 v;
    asm volatile("ld.global.cg.v4.f32 {%0,%1,%2,%3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(p));
    return v;
}

// Adds up, into one piece per warp, what several blocks have left of a stream; by the block that came last. Every warp
// keeps its own maximum, so that all loads of four heads of four pieces are in flight together.
template <u32 GROUP>
__device__ __forceinline__ void gather_pieces(const Piece<GROUP> *pieces, u32 first, u32 last, bool first_is_second,
                                              Piece<GROUP> *warp_pieces) {
    const u32 HEADS = 4, PIECES = 4;
    u32 warp = threadIdx.x / 32, lane = threadIdx.x & 31;
#pragma unroll
    for (u32 some = 0; some < GROUP; some += HEADS) {
        float top[HEADS], sum[HEADS];
        float4 out[HEADS];
#pragma unroll
        for (u32 h = 0; h < HEADS; h++) top[h] = NEGATIVE_INFINITY, sum[h] = 0, out[h] = make_float4(0, 0, 0, 0);
        for (u32 base = first + warp; base <= last; base += WARPS * PIECES) {
            float max[PIECES][HEADS], part_sum[PIECES][HEADS];
            float4 v[PIECES][HEADS];
#pragma unroll
            for (u32 i = 0; i < PIECES; i++) {
                u32 part = base + i * WARPS;
                if (part > last) continue;
                const Piece<GROUP> *p = pieces + part * 2 + (part == first && first_is_second);
#pragma unroll
                for (u32 h = 0; h < HEADS; h++) {
                    max[i][h] = load_shared_result(&p->max[some + h]);
                    part_sum[i][h] = load_shared_result(&p->sum[some + h]);
                    v[i][h] = load_shared_result4(&p->out[some + h][lane * 4]);
                }
            }
#pragma unroll
            for (u32 i = 0; i < PIECES; i++) {
                if (base + i * WARPS > last) continue;
#pragma unroll
                for (u32 h = 0; h < HEADS; h++) {
                    float rise = fmaxf(top[h], max[i][h]);
                    float old = exp2_fast(top[h] - rise), by = exp2_fast(max[i][h] - rise);
                    top[h] = rise;
                    sum[h] = sum[h] * old + part_sum[i][h] * by;
                    out[h].x = out[h].x * old + v[i][h].x * by, out[h].y = out[h].y * old + v[i][h].y * by;
                    out[h].z = out[h].z * old + v[i][h].z * by, out[h].w = out[h].w * old + v[i][h].w * by;
                }
            }
        }
#pragma unroll
        for (u32 h = 0; h < HEADS; h++) {
            *(float4 *)&warp_pieces[warp].out[some + h][lane * 4] = out[h];
            if (lane == 0) warp_pieces[warp].max[some + h] = top[h], warp_pieces[warp].sum[some + h] = sum[h];
        }
    }
    __syncthreads();
}

// How a block goes through its tiles: first those of a stream that the block before shares, then those of one that the
// block after shares, and then whole streams. So pieces are left, and added up, long before the end.
struct Order {
    u32 at, end, ahead, behind;

    __device__ __forceinline__ u32 tile(u32 visit) const {
        return visit < ahead ? at + visit : visit < ahead + behind ? end - behind + visit - ahead : at + visit - behind;
    }
};

// Which stream holds a tile. `usual` is how many tiles most have, which only saves time.
struct Streams {
    const Row *rows;
    u32 count, usual;

    __device__ __forceinline__ u32 first(u32 stream) const { return rows[stream].first_tile; }

    __device__ __forceinline__ u32 guess(u32 tile) const { return min(tile / usual, count - 1); }

    __device__ __forceinline__ u32 find(u32 tile) const {
        u32 low = guess(tile), high = count;
        if (first(low) <= tile && tile < first(low + 1)) return low;
        for (low = 0; high - low > 1;) {
            u32 middle = (low + high) / 2;
            if (first(middle) <= tile) low = middle;
            else high = middle;
        }
        return low;
    }
};

// `queries` and `out` are streams x GROUP x 128 bf16, `lse` streams x GROUP. `rows` has one more than there are streams,
// with the total of tiles. `pieces` holds two per block; `arrived` is zero before and after, one per stream. At least
// `least` tiles go to a block. `stride` is how many entries most streams have: what follows from it is read as if, along
// with the rows that say how it is.
template <u32 PAGE, u32 GROUP>
__device__ __forceinline__ void attend(const u16 *queries, const u8 *pool, const u32 *frames, const Row *rows, u32 streams,
                                       float scale, u16 *out, float *lse, float *pieces_raw, u32 *arrived, u32 least,
                                       u32 stride) {
    const u32 PER_PAGE = PAGE / 16;
    extern __shared__ __align__(1024) u8 rings[]; // and behind them, a piece per warp, twice
    __shared__ u64 full[WARPS * STAGES];
    __shared__ u32 arrivals;
    Piece<GROUP> *warp_pieces = (Piece<GROUP> *)(rings + WARPS * RING), *pieces = (Piece<GROUP> *)pieces_raw;
    u32 warp = threadIdx.x / 32, lane = threadIdx.x & 31;
    u32 barriers = shared_address(full) + warp * STAGES * 8, ring = shared_address(rings) + warp * RING;
    if (lane < STAGES) make_barrier(barriers + lane * 8, 1);
    publish_barriers();
    __syncwarp();
    begin_after_predecessor();

    u32 usual = max(stride, 1u) * PER_PAGE, total = streams * usual, parts, places, later;
    Streams all = {rows, streams, usual};
    Order order;
    auto bounds = [&]() {
        parts = max(1u, min(gridDim.x, (total + least - 1) / least));
        order.at = part_start(blockIdx.x, parts, total), order.end = part_start(blockIdx.x + 1, parts, total);
        if (blockIdx.x >= parts) order.at = order.end = 0;
    };
    // Where the keys of this warp's tile i are, in units of a tile's keys.
    auto place = [&](u32 i) {
        u32 visit = warp + i * WARPS;
        if (visit >= order.end - order.at) return 0u;
        u32 tile = order.tile(visit), stream = all.guess(tile), within = tile - stream * usual;
        uint4 row = *(const uint4 *)(rows + stream);
        u32 next = all.first(stream + 1), frame = 0;
        bool usually = stride && within < usual;
        if (usually) frame = frames[stream * stride + within / PER_PAGE];
        if (!usually || row.x != stream * usual || row.y != stream * stride || next <= tile) {
            stream = all.find(tile);
            // What is guessed to be there may lie past the last stream's end.
            if (all.first(stream + 1) <= tile) return 0u;
            row = *(const uint4 *)(rows + stream);
            within = tile - row.x;
            frame = frames[row.y + within / PER_PAGE];
        }
        return frame * (PER_PAGE * 2) + within % PER_PAGE;
    };
    // Given the streams at either end and the tiles that they have.
    auto arrange = [&](u32 a, u32 a_first, u32 a_next, u32 b, u32 b_first, u32 b_next) {
        order.ahead = a_first < order.at ? min(order.end, a_next) - order.at : 0;
        order.behind = b_next > order.end && !(order.ahead && a == b) ? order.end - max(order.at, b_first) : 0;
        places = place(lane), later = place(lane + 32);
    };
    bounds();
    u32 a = order.at / usual, b = max(order.end, 1u) - 1;
    b /= usual;
    u32 real = all.first(streams), a_first = all.first(a), a_next = all.first(a + 1);
    u32 b_first = all.first(b), b_next = all.first(b + 1);
    arrange(a, a * usual, a * usual + usual, b, b * usual, b * usual + usual);
    bool as_guessed = real == total && a_first == a * usual && a_next == a_first + usual;
    if (!as_guessed || b_first != b * usual || b_next != b_first + usual) {
        total = real;
        bounds();
        if (order.at < order.end) {
            a = all.find(order.at), b = all.find(order.end - 1);
            arrange(a, all.first(a), all.first(a + 1), b, all.first(b), all.first(b + 1));
        }
    }
    u32 tiles = order.end - order.at, count = tiles > warp ? (tiles - warp + WARPS - 1) / WARPS : 0;
    auto issue = [&](u32 i) {
        if (i >= count) return;
        if (i && !(i & 31)) places = later, later = place(i + 32 + lane);
        const u8 *from = pool + (u64)__shfl_sync(FULL, places, i & 31) * TILE_BYTES;
        if (lane == 0) copy_tile<PAGE>(ring + i % STAGES * STAGE_BYTES, from, barriers + i % STAGES * 8);
    };
    for (u32 i = 0; i < STAGES; i++) issue(i);
    // Streams without a token belong to no block's tiles.
    for (u32 s = blockIdx.x + threadIdx.x * gridDim.x; s < streams; s += gridDim.x * THREADS)
        if (rows[s].tokens == 0) {
            for (u32 i = 0; i < GROUP * DIM; i++) out[(u64)s * GROUP * DIM + i] = 0;
            for (u32 i = 0; i < GROUP; i++) lse[s * GROUP + i] = NEGATIVE_INFINITY;
        }
    u32 i = 0, whole = a;
    for (u32 visit = 0, side = 0; visit < tiles; side ^= 1) {
        u32 stream = visit < order.ahead ? a : b;
        if (visit >= order.ahead + order.behind) {
            while (all.first(whole + 1) <= order.tile(visit)) whole++;
            stream = whole;
        }
        uint4 row = *(const uint4 *)(rows + stream);
        u32 next = all.first(stream + 1), from = max(order.at, row.x), after = visit + min(order.end, next) - from;
        uint4 q[4];
        load_queries<GROUP>(q, queries + (u64)stream * GROUP * DIM);
        Sums sums;
        clear(sums);
        for (; warp + i * WARPS < after; i++) {
            // One lane waits for the others: as fast, and what racecheck can follow.
            if (lane == 0) await(barriers + i % STAGES * 8, i / STAGES & 1);
            __syncwarp();
            u32 tile = from + warp + i * WARPS - visit;
            add_tile(sums, q, ring + i % STAGES * STAGE_BYTES, row.z - (tile - row.x) * 16, scale);
            __syncwarp();
            issue(i + STAGES);
        }
        // The other side may still be read by warps that add up the stream before.
        Piece<GROUP> *own = warp_pieces + side * WARPS;
        leave<GROUP>(sums, own[warp]);
        __syncthreads();
        const u8 *first_piece = (const u8 *)own;
        const u32 RUN = GROUP * DIM / THREADS;
        auto store = [&](u32 head, u32 dim, float top, float sum, const float (&values)[RUN]) {
            store_run<GROUP>(out, lse, stream, head, dim, top, sum, values);
        };
        if (row.x >= order.at && next <= order.end) {
            add_up<GROUP, WARPS>(first_piece, sizeof(Piece<GROUP>), store);
        } else {
            Piece<GROUP> &mine = pieces[blockIdx.x * 2 + (row.x > order.at)];
            auto keep = [&](u32 head, u32 dim, float top, float sum, const float (&values)[RUN]) {
#pragma unroll
                for (u32 i = 0; i < RUN; i++) mine.out[head][dim + i] = values[i];
                if (dim == 0) mine.max[head] = top, mine.sum[head] = sum;
            };
            add_up<GROUP, WARPS>(first_piece, sizeof(Piece<GROUP>), keep);
            __syncthreads();
            if (threadIdx.x == 0) arrivals = arrive(&arrived[stream]);
            u32 first = part_of(row.x, parts, total), last = part_of(next - 1, parts, total);
            __syncthreads();
            if (arrivals == last - first) {
                gather_pieces<GROUP>(pieces, first, last, part_start(first, parts, total) < row.x, own);
                add_up<GROUP, WARPS>(first_piece, sizeof(Piece<GROUP>), store);
                if (threadIdx.x == 0) arrived[stream] = 0;
            }
        }
        visit = after;
    }
}

#define ATTEND(PAGE, GROUP)                                                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS, 1) attend_gqa_p##PAGE##_g##GROUP(                            \
        const u16 *queries, const u8 *pool, const u32 *frames, const Row *rows, u32 streams, float scale, u16 *out,    \
        float *lse, float *pieces, u32 *arrived, u32 least, u32 stride) {                                              \
        attend<PAGE, GROUP>(queries, pool, frames, rows, streams, scale, out, lse, pieces, arrived, least, stride);    \
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
