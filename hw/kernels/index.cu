// Scores of an indexer: 64 query heads of 128 dimensions score every key of a stream's context, and a key's score is the
// sum over heads of weight x max(0, query . key). Work is cut evenly over all streams into blocks of 64 keys.

const u32 THREADS = 128, BLOCK = 64, HEADS = 64;

// `queries` is streams x 64 x 128, `head_weights` streams x 64. Keys of a stream are whole blocks of 64: bf16 rows, or 64
// rows e4m3 and then their 64 scales. `counts[stream]` keys are scored, of at most `stride`.
template <bool FP8>
__device__ __forceinline__ void score(const u8 *queries, const float *head_weights, const u8 *keys, const u32 *counts,
                                      u32 stride, u32 streams, float *scores) {
    const u32 CHUNKS = FP8 ? 1 : 2, STAGES = FP8 ? 4 : 3, PIECES = 8 * CHUNKS;
    const u32 BLOCK_BYTES = FP8 ? BLOCK * 132 : BLOCK * 256, STAGE = FP8 ? 9216 : 16384;
    extern __shared__ __align__(1024) u8 shared[];
    u32 ring = shared_address(shared), query = ring + STAGES * STAGE;
    u32 lane = threadIdx.x & 31, band = threadIdx.x / 32, g = lane / 4, t = lane & 3;
    u32 each = (stride + BLOCK - 1) / BLOCK, total = each * streams;
    begin_after_predecessor();
    u32 at = part_start(blockIdx.x, gridDim.x, total), end = part_start(blockIdx.x + 1, gridDim.x, total);
    for (u32 stream = at / each; at < end; stream++) {
        u32 base = stream * each, stop = min(end, base + each), count = counts[stream];
        u32 block = at - base, last = min(stop - base, (count + BLOCK - 1) / BLOCK);
        at = stop;
        if (block >= last) continue;
        const u8 *own = keys + (u64)stream * each * BLOCK_BYTES;
        __syncthreads(); // everybody is done with the queries of the stream before
        for (u32 i = threadIdx.x; i < HEADS * PIECES; i += THREADS) {
            u32 head = i / PIECES, p = i % PIECES;
            copy_chunk(query + p / 8 * 8192 + head * 128 + (((p & 7) ^ (head & 7)) << 4),
                       queries + ((u64)stream * HEADS + head) * (128 * CHUNKS) + p * 16);
        }
        float weights[16];
#pragma unroll
        for (u32 j = 0; j < 8; j++) {
            float2 w = *(const float2 *)(head_weights + stream * HEADS + j * 8 + t * 2);
            weights[2 * j] = w.x, weights[2 * j + 1] = w.y;
        }
        u32 next = block, put = 0, take = 0;
        auto fetch = [&]() {
            if (next < last) {
                const u8 *from = own + (u64)next * BLOCK_BYTES;
                u32 to = ring + put * STAGE;
#pragma unroll
                for (u32 i = 0; i < BLOCK * PIECES / THREADS; i++) {
                    u32 at = i * THREADS + threadIdx.x, row = at / PIECES, p = at % PIECES;
                    copy_chunk(to + p / 8 * 8192 + row * 128 + (((p & 7) ^ (row & 7)) << 4), from + at * 16);
                }
                if (FP8 && threadIdx.x < 16) copy_chunk(to + 8192 + threadIdx.x * 16, from + 8192 + threadIdx.x * 16);
            }
            next++;
            put = put + 1 == STAGES ? 0 : put + 1;
            commit_copies();
        };
#pragma unroll
        for (u32 i = 0; i < STAGES - 1; i++) fetch();
        for (; block < last; block++) {
            await_copies<STAGES - 2>();
            publish();
            __syncthreads(); // the block is there, and everybody is done with the one before
            fetch();
            u32 stage = ring + take * STAGE;
            float s[32];
            products_begin();
#pragma unroll
            for (u32 k = 0; k < 4 * CHUNKS; k++) {
                u64 a = descriptor(stage + k / 4 * 8192 + k % 4 * 32, 16), b = descriptor(query + k / 4 * 8192 + k % 4 * 32, 16);
                if (FP8) product_fp8_n64(s, a, b, k);
                else product_n64(s, a, b, k);
            }
            products_end();
            products_await();
#pragma unroll
            for (u32 h = 0; h < 2; h++) {
                float sum = 0;
#pragma unroll
                for (u32 j = 0; j < 8; j++) {
                    sum += fmaxf(s[4 * j + 2 * h], 0) * weights[2 * j];
                    sum += fmaxf(s[4 * j + 2 * h + 1], 0) * weights[2 * j + 1];
                }
                sum += __shfl_xor_sync(FULL, sum, 1);
                sum += __shfl_xor_sync(FULL, sum, 2);
                u32 row = band * 16 + g + h * 8, token = block * BLOCK + row;
                if (FP8) sum *= *(const float *)(shared + take * STAGE + 8192 + row * 4);
                if (t == 0 && token < count) scores[(u64)stream * stride + token] = sum;
            }
            take = take + 1 == STAGES ? 0 : take + 1;
        }
        await_copies<0>();
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
index_scores_bf16(const u8 *queries, const float *head_weights, const u8 *keys, const u32 *counts, u32 stride, u32 streams,
                  float *scores) {
    score<false>(queries, head_weights, keys, counts, stride, streams, scores);
}

extern "C" __global__ void __launch_bounds__(THREADS)
index_scores_fp8(const u8 *queries, const float *head_weights, const u8 *keys, const u32 *counts, u32 stride, u32 streams,
                 float *scores) {
    score<true>(queries, head_weights, keys, counts, stride, streams, scores);
}
