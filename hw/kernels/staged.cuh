// What kernels share that stage their operands in shared memory: asynchronous copies, matrix loads, and the clusters of
// thread blocks that add up one result among themselves.

__device__ __forceinline__ u32 shared_address(const void *p) { return (u32)__cvta_generic_to_shared(p); }

// Sixteen bytes into shared memory, in the background.
__device__ __forceinline__ void copy_chunk(u32 to, const void *from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most `LEFT` groups of this thread's copies are under way.
template <u32 LEFT>
__device__ __forceinline__ void await_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory"); }

__device__ __forceinline__ void load_matrices(u32 (&v)[4], u32 at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3]) : "r"(at) : "memory");
}

__device__ __forceinline__ void load_transposed(u32 (&v)[4], u32 at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3]) : "r"(at) : "memory");
}

// Thread blocks of a cluster read one another's shared memory.
__device__ __forceinline__ u32 cluster_size() {
    u32 n;
    asm("mov.u32 %0, %%cluster_nctaid.x;" : "=r"(n));
    return n;
}

__device__ __forceinline__ u32 cluster_rank() {
    u32 n;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(n));
    return n;
}

__device__ __forceinline__ void cluster_barrier() {
    asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// The address at which block `rank` of the cluster keeps what this one keeps at `at`.
__device__ __forceinline__ u32 neighbour(u32 at, u32 rank) {
    u32 r;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(r) : "r"(at), "r"(rank));
    return r;
}

__device__ __forceinline__ float load_neighbour(u32 at) {
    float v;
    asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(v) : "r"(at) : "memory");
    return v;
}

__device__ __forceinline__ float4 load_neighbour4(u32 at) {
    float4 v;
    asm volatile("ld.shared::cluster.v4.f32 {%0,%1,%2,%3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "r"(at) : "memory");
    return v;
}

// Lets the next kernel of the stream get ready beside this one, and waits for what the one before has written. Both do
// nothing where the launch does not ask for it.
__device__ __forceinline__ void begin_after_predecessor() {
    asm volatile("griddepcontrol.launch_dependents;\n\tgriddepcontrol.wait;" ::: "memory");
}

// 2^(a - b) where a may be minus infinity, which weighs nothing.
__device__ __forceinline__ float weight_of(float a, float b) { return a == NEGATIVE_INFINITY ? 0.0f : exp2_fast(a - b); }

// Where a stream's tiles begin in the flat list of all, its first entry in the list of entries, and its tokens.
struct Row { u32 first_tile, entry, tokens, unused; };
