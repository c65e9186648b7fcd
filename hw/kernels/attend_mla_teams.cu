// Sparse decode attention over latent rows in bf16 (512 latent dimensions, which are key and value, and 64 rotary ones,
// key alone) for 16 heads of many streams, where it has the device to itself: a cluster of thread blocks per stream. In a
// block, teams of four warps attend to tiles of 16 rows, each team in its own time, out of a ring that one more warp
// keeps filled. A team's warps split the dimensions: scores are added up through shared memory, sums are each warp's own.
// The products of `attend_mla_clusters` are for 64 heads; with 16, and much to read, what they leave unused and the
// barriers that they need cost more than these smaller ones.

// More stages than keep memory busy read scattered rows no faster, but slower.
const u32 TEAMS = 2, STAGES = 2, THREADS = TEAMS * 128 + 32;
const u32 HEADS = 16, LATENT = 512, QUERY = 576, TILE = 16, ROW_BYTES = 1152;
const u32 PITCH = ROW_BYTES + 16; // of rows in shared memory, so that eight of them never meet in a bank
const u32 STAGE_BYTES = TILE * PITCH, RING = STAGES * STAGE_BYTES;
const u32 SUMS_PITCH = LATENT + 8;
static_assert(HEADS * SUMS_PITCH * 4 <= RING, "a team's sums lie where its ring was");
const u32 MOST = 16; // blocks of a cluster

__device__ __forceinline__ float natural(float top, float sum) { return (top + __log2f(sum)) * 0.6931471805599453f; }

// The four warps of a team.
__device__ __forceinline__ void team_barrier(u32 team) { asm volatile("bar.sync %0, 128;" ::"r"(team + 1) : "memory"); }

__device__ __forceinline__ void arrive_at(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// What a block does for its share of a stream: tiles `begin` to `end`, of which each team takes every TEAMS-th.
struct Range { u32 entry, tokens, begin, end; };

__device__ __forceinline__ Range range_of(u32 entry, u32 tokens) {
    u32 tiles = (tokens + TILE - 1) / TILE, share = cluster_size(), rank = cluster_rank();
    return {entry, tokens, part_start(rank, share, tiles), part_start(rank + 1, share, tiles)};
}

// Row numbers of eight tiles in a warp's registers; past the end of a stream, those of its last row, which is masked.
const u32 AHEAD = 4;

__device__ __forceinline__ void look(u32 (&numbers)[AHEAD], const u32 *list, const Range &r, u32 tile) {
#pragma unroll
    for (u32 i = 0; i < AHEAD; i++) {
        u32 token = (tile + 2 * i) * TILE + (threadIdx.x & 31);
        numbers[i] = tile + 2 * i < r.end ? list[r.entry + min(token, r.tokens - 1)] : 0;
    }
}

// Keeps the teams' rings filled, a row per lane; by one warp. `numbers` are those of the first tiles.
__device__ __forceinline__ void feed(u32 (&numbers)[AHEAD], const u8 *pool, const u32 *list, const Range &r, u32 ring,
                                     u32 full, u32 empty) {
    u32 lane = threadIdx.x & 31, stage = 0, parity = 1, team = 0, later[AHEAD];
    for (u32 tile = r.begin; tile < r.end; tile += 2 * AHEAD) {
        look(later, list, r, tile + 2 * AHEAD);
#pragma unroll
        for (u32 j = 0; j < 2 * AHEAD; j++) {
            if (tile + j >= r.end) break;
            u32 slot = team * STAGES + stage, number = __shfl_sync(FULL, numbers[j / 2], (j & 1) * 16 + (lane & 15));
            await(empty + slot * 8, parity);
            if (lane == 0) expect(full + slot * 8, TILE * ROW_BYTES);
            __syncwarp();
            if (lane < TILE)
                copy_run(ring + slot * STAGE_BYTES + lane * PITCH, pool + (u64)number * ROW_BYTES, ROW_BYTES,
                         full + slot * 8);
            __syncwarp();
            if (++team == TEAMS) {
                team = 0;
                if (++stage == STAGES) stage = 0, parity ^= 1;
            }
        }
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) numbers[i] = later[i];
    }
}

// Sums of a warp over its 128 value dimensions: out[m] holds heads (g, g + 8) x dimensions (8 m + 2 t, 8 m + 2 t + 1),
// g = lane / 4 and t = lane % 4. Maxima and sums of heads g and g + 8 are those of the whole team.
struct Sums { float out[16][4], max[2], sum[2]; };

// A warp's share of the queries as left operands: of 16 heads, 144 key dimensions.
struct Queries { u32 at[9][4]; };

__device__ __forceinline__ void load_queries(Queries &q, const u16 *queries, u32 warp) {
    u32 g = (threadIdx.x & 31) / 4, t = threadIdx.x & 3;
#pragma unroll
    for (u32 k = 0; k < 9; k++) {
        const u16 *from = queries + g * QUERY + warp * 144 + k * 16 + t * 2;
        q.at[k][0] = *(const u32 *)from;
        q.at[k][1] = *(const u32 *)(from + 8 * QUERY);
        q.at[k][2] = *(const u32 *)(from + 8);
        q.at[k][3] = *(const u32 *)(from + 8 * QUERY + 8);
    }
}

// Scores of a tile over this warp's key dimensions: s[h] holds heads (g, g + 8) x rows (8 h + 2 t, 8 h + 2 t + 1).
__device__ __forceinline__ void score(float (&s)[2][4], const Queries &q, u32 tile, u32 warp) {
    u32 lane = threadIdx.x & 31, row = (lane & 7) + lane / 16 * 8;
    u32 key = tile + row * PITCH + (lane / 8 & 1) * 16 + warp * 288;
    float other[2][4] = {};
#pragma unroll
    for (u32 h = 0; h < 2; h++) s[h][0] = s[h][1] = s[h][2] = s[h][3] = 0;
#pragma unroll
    for (u32 k = 0; k < 9; k++) {
        u32 v[4];
        load_matrices(v, key + k * 32);
#pragma unroll
        for (u32 h = 0; h < 2; h++)
            mma_bf16(k & 1 ? other[h] : s[h], q.at[k][0], q.at[k][1], q.at[k][2], q.at[k][3], v[2 * h], v[2 * h + 1]);
    }
#pragma unroll
    for (u32 h = 0; h < 2; h++)
#pragma unroll
        for (u32 i = 0; i < 4; i++) s[h][i] += other[h][i];
}

// Turns scores, of which the first `valid` rows count, into weights as left operand, and rescales the sums where the
// maximum rises.
__device__ __forceinline__ void weigh(Sums &a, u32 (&weights)[4], float (&s)[2][4], u32 valid, float scale) {
    u32 t = threadIdx.x & 3;
    float top[2] = {NEGATIVE_INFINITY, NEGATIVE_INFINITY};
#pragma unroll
    for (u32 h = 0; h < 2; h++)
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            s[h][i] = h * 8 + 2 * t + (i & 1) < valid ? s[h][i] * scale : NEGATIVE_INFINITY;
            top[i / 2] = fmaxf(top[i / 2], s[h][i]);
        }
#pragma unroll
    for (u32 j = 0; j < 2; j++) {
        top[j] = fmaxf(top[j], __shfl_xor_sync(FULL, top[j], 1));
        top[j] = fmaxf(top[j], __shfl_xor_sync(FULL, top[j], 2));
    }
    if (__any_sync(FULL, top[0] > a.max[0] || top[1] > a.max[1])) {
#pragma unroll
        for (u32 j = 0; j < 2; j++) {
            float rise = fmaxf(a.max[j], top[j]), by = weight_of(a.max[j], rise);
            a.max[j] = rise;
            a.sum[j] *= by;
#pragma unroll
            for (u32 m = 0; m < 16; m++) a.out[m][2 * j] *= by, a.out[m][2 * j + 1] *= by;
        }
    }
#pragma unroll
    for (u32 h = 0; h < 2; h++) {
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            s[h][i] = exp2_fast(s[h][i] - a.max[i / 2]);
            a.sum[i / 2] += s[h][i];
        }
        weights[2 * h] = pack_bf16(s[h][0], s[h][1]), weights[2 * h + 1] = pack_bf16(s[h][2], s[h][3]);
    }
}

// Adds the weighted rows over this warp's value dimensions.
__device__ __forceinline__ void add_rows(Sums &a, const u32 (&weights)[4], u32 tile, u32 warp) {
    u32 lane = threadIdx.x & 31, value = tile + (lane & 15) * PITCH + lane / 16 * 16 + warp * 256;
#pragma unroll
    for (u32 m = 0; m < 8; m++) {
        u32 v[4];
        load_transposed(v, value + m * 32);
        mma_bf16(a.out[2 * m], weights[0], weights[1], weights[2], weights[3], v[0], v[1]);
        mma_bf16(a.out[2 * m + 1], weights[0], weights[1], weights[2], weights[3], v[2], v[3]);
    }
}

// `queries` is streams x heads x 576 and `out` streams x heads x 512 bf16, `lse` streams x heads; blockIdx.y names 16
// heads. `list` holds row numbers of the pool. `stride` is how many rows most streams have, which only saves time: row
// numbers are read as if, along with the row that says how it is.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
attend_bf16_teams(const u16 *queries, const u8 *pool, const u32 *list, const Row *rows, u32 stride, u32 heads,
                  float scale, u16 *out, float *lse) {
    extern __shared__ __align__(1024) u8 rings[];
    __shared__ float4 exchange[TEAMS][2][4][2][32];
    __shared__ u64 full[TEAMS * STAGES], empty[TEAMS * STAGES];
    __shared__ float team_max[TEAMS][HEADS], team_sum[TEAMS][HEADS];
    __shared__ float block_max[MOST][HEADS], block_sum[MOST][HEADS]; // of every block of the cluster
    u32 team = threadIdx.x / 128, warp = threadIdx.x % 128 / 32, lane = threadIdx.x & 31, g = lane / 4, t = lane & 3;
    u32 share = cluster_size(), rank = cluster_rank(), stream = blockIdx.x / share;
    u32 full_at = shared_address(full), empty_at = shared_address(empty), ring = shared_address(rings);
    // Says that this block has begun: nobody writes to its shared memory before.
    cluster_arrive();
    if (threadIdx.x < TEAMS * STAGES) {
        make_barrier(full_at + threadIdx.x * 8, 1);
        make_barrier(empty_at + threadIdx.x * 8, 128);
    }
    publish_barriers();
    __syncthreads();
    begin_after_predecessor();
    uint4 row = *(const uint4 *)(rows + stream);
    u64 head_at = (u64)stream * heads + blockIdx.y * HEADS;
    Range r = range_of(stream * stride, stride);
    Sums a;
    if (team == TEAMS) {
        u32 numbers[AHEAD];
        look(numbers, list, r, r.begin);
        if (row.y != r.entry || row.z != r.tokens) r = range_of(row.y, row.z), look(numbers, list, r, r.begin);
        feed(numbers, pool, list, r, ring, full_at, empty_at);
    } else {
        Queries q;
        load_queries(q, queries + head_at * QUERY, warp);
        r = range_of(row.y, row.z);
#pragma unroll
        for (u32 j = 0; j < 2; j++) a.max[j] = NEGATIVE_INFINITY, a.sum[j] = 0;
#pragma unroll
        for (u32 m = 0; m < 16; m++) a.out[m][0] = a.out[m][1] = a.out[m][2] = a.out[m][3] = 0;
        u32 stage = 0, parity = 0, side = 0;
        for (u32 tile = r.begin + team; tile < r.end; tile += TEAMS, side ^= 1) {
            u32 slot = team * STAGES + stage, at = ring + slot * STAGE_BYTES, weights[4];
            float s[2][4];
            await(full_at + slot * 8, parity);
            score(s, q, at, warp);
#pragma unroll
            for (u32 h = 0; h < 2; h++)
                exchange[team][side][warp][h][lane] = make_float4(s[h][0], s[h][1], s[h][2], s[h][3]);
            // Whoever still reads the other side is a tile behind, and not yet here.
            team_barrier(team);
#pragma unroll
            for (u32 h = 0; h < 2; h++) {
                const float4(*parts)[2][32] = exchange[team][side];
                float4 w = parts[0][h][lane], x = parts[1][h][lane], y = parts[2][h][lane], z = parts[3][h][lane];
                s[h][0] = w.x + x.x + y.x + z.x, s[h][1] = w.y + x.y + y.y + z.y;
                s[h][2] = w.z + x.z + y.z + z.z, s[h][3] = w.w + x.w + y.w + z.w;
            }
            weigh(a, weights, s, r.tokens - tile * TILE, scale);
            add_rows(a, weights, at, warp);
            arrive_at(empty_at + slot * 8);
            if (++stage == STAGES) stage = 0, parity ^= 1;
        }
#pragma unroll
        for (u32 j = 0; j < 2; j++) {
            a.sum[j] += __shfl_xor_sync(FULL, a.sum[j], 1);
            a.sum[j] += __shfl_xor_sync(FULL, a.sum[j], 2);
            if (warp == 0 && t == 0) team_max[team][g + 8 * j] = a.max[j], team_sum[team][g + 8 * j] = a.sum[j];
        }
    }
    __syncthreads();
    auto most_of_teams = [&](u32 head) {
        float most = NEGATIVE_INFINITY;
#pragma unroll
        for (u32 w = 0; w < TEAMS; w++) most = fmaxf(most, team_max[w][head]);
        return most;
    };
    // Every block of the cluster is told the maxima and sums of this one; its sums of rows, scaled to those maxima, lie
    // open where the ring was.
    cluster_await();
    if (threadIdx.x < share * HEADS) {
        u32 to = threadIdx.x / HEADS, head = threadIdx.x % HEADS;
        float most = most_of_teams(head), sum = 0;
#pragma unroll
        for (u32 w = 0; w < TEAMS; w++) sum += team_sum[w][head] * weight_of(team_max[w][head], most);
        store_neighbour(neighbour(shared_address(&block_max[rank][head]), to), most);
        store_neighbour(neighbour(shared_address(&block_sum[rank][head]), to), sum);
    }
    if (team < TEAMS) {
        float *own = (float *)(rings + team * RING);
#pragma unroll
        for (u32 j = 0; j < 2; j++) {
            u32 head = g + 8 * j;
            float by = weight_of(a.max[j], most_of_teams(head));
#pragma unroll
            for (u32 m = 0; m < 16; m++)
                *(float2 *)(own + head * SUMS_PITCH + warp * 128 + m * 8 + t * 2) =
                    make_float2(a.out[m][2 * j] * by, a.out[m][2 * j + 1] * by);
        }
    }
    cluster_barrier();
    // Each block finishes its share, SOME times four dimensions a thread at once, so that their loads fly together.
    const u32 SOME = 4;
    u32 each = HEADS * LATENT / 4 / share, stop = (rank + 1) * each;
    for (u32 first = rank * each + threadIdx.x; first < stop; first += SOME * THREADS) {
        float4 value[SOME];
        float sum[SOME], most[SOME];
        auto place = [&](u32 u) { return min(first + u * THREADS, stop - 1); };
#pragma unroll
        for (u32 u = 0; u < SOME; u++) {
            value[u] = make_float4(0, 0, 0, 0), sum[u] = 0, most[u] = NEGATIVE_INFINITY;
            for (u32 b = 0; b < share; b++) most[u] = fmaxf(most[u], block_max[b][place(u) / (LATENT / 4)]);
        }
        for (u32 b = 0; b < share; b++) {
            float4 v[SOME][TEAMS];
#pragma unroll
            for (u32 u = 0; u < SOME; u++) {
                u32 head = place(u) / (LATENT / 4), dim = place(u) % (LATENT / 4) * 4;
#pragma unroll
                for (u32 w = 0; w < TEAMS; w++)
                    v[u][w] = load_neighbour4(neighbour(ring + w * RING + (head * SUMS_PITCH + dim) * 4, b));
            }
#pragma unroll
            for (u32 u = 0; u < SOME; u++) {
                u32 head = place(u) / (LATENT / 4);
                float by = weight_of(block_max[b][head], most[u]);
                sum[u] += block_sum[b][head] * by;
#pragma unroll
                for (u32 w = 0; w < TEAMS; w++) {
                    value[u].x += v[u][w].x * by, value[u].y += v[u][w].y * by;
                    value[u].z += v[u][w].z * by, value[u].w += v[u][w].w * by;
                }
            }
        }
#pragma unroll
        for (u32 u = 0; u < SOME; u++) {
            u32 head = place(u) / (LATENT / 4), dim = place(u) % (LATENT / 4) * 4;
            if (first + u * THREADS >= stop) break;
            float by = row.z ? 1 / sum[u] : 0;
            *(uint2 *)(out + (head_at + head) * LATENT + dim) =
                make_uint2(pack_bf16(value[u].x * by, value[u].y * by), pack_bf16(value[u].z * by, value[u].w * by));
            if (dim == 0) lse[head_at + head] = row.z ? natural(most[u], sum[u]) : NEGATIVE_INFINITY;
        }
    }
    // No block leaves while others read from it.
    cluster_barrier();
}
