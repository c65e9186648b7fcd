// What the kernels of grouped-query attention share: a warp's sums over the tokens that it has attended to, n = lane / 4 and
// t = lane % 4. How the eight tiles of `out` divide the dimensions is each kernel's own.

// Scores are in units of log2; two heads a lane.
struct Sums { float out[8][4]; float max[2], sum[2]; };

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
