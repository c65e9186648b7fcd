"""Peers on the same machine, timed as the kernels here are: graphs whose nodes read different KV, from a cold L2.

Usage: peers.py OUT.json. Prints the rate of a large bf16 matrix product last, for the roofline.
"""
import itertools
import json
import statistics
import sys
import time
from importlib import metadata

import torch
import torch.nn.functional as F

TOKENS, DIM, KV_HEADS = 2048, 128, 8
WARM_UP = 0.02  # Seconds until the clocks of a device that stood idle have risen.
device = torch.device("cuda")
rows = []


def timed(graph, calls, repeats=20):
    """Microseconds per call: median, fastest, slowest of the repeats."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    began = time.perf_counter()
    while time.perf_counter() - began < WARM_UP:
        graph.replay()
        torch.cuda.synchronize()
    samples = []
    for _ in range(repeats):
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        samples.append(start.elapsed_time(end) * 1e3 / calls)
    return statistics.median(samples), min(samples), max(samples)


def capture(calls, submit):
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        submit(0)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for at in range(calls):
            submit(at)
    return graph


def note(peer, shape, took, size):
    median, fastest, slowest = took
    rows.append({"peer": peer, "shape": shape, "us": median, "us_min": fastest, "us_max": slowest, "GB/s": size / median / 1e3})
    print(f"{peer:<12} {shape:<60} {median:9.2f} us {size / median / 1e3:8.1f} GB/s")


def sdpa(batch, group):
    size = batch * KV_HEADS * TOKENS * DIM * 4
    sets = max(1, min(24, (4 << 30) // size))
    q = torch.randn(batch, KV_HEADS * group, 1, DIM, device=device, dtype=torch.bfloat16)
    k = torch.randn(sets, batch, KV_HEADS, TOKENS, DIM, device=device, dtype=torch.bfloat16)
    v = torch.randn_like(k)
    graph = capture(sets, lambda at: F.scaled_dot_product_attention(q, k[at], v[at], enable_gqa=True))
    note("torch sdpa", f"batch {batch}, group {group}, contiguous", timed(graph, sets), size)


def flashinfer_decode(batch, group, page, tensor_cores):
    import flashinfer
    size = batch * KV_HEADS * TOKENS * DIM * 4
    streams, per = batch * KV_HEADS, TOKENS // page
    pages = (4 << 30) // (page * DIM * 4)
    sets = max(1, min(24, pages // (streams * per)))
    pool = torch.randn(pages, 2, page, 1, DIM, device=device, dtype=torch.bfloat16)
    q = torch.randn(streams, group, DIM, device=device, dtype=torch.bfloat16)
    out = torch.empty_like(q)
    order = torch.randperm(pages, device=device, dtype=torch.int32)
    indptr = torch.arange(0, streams + 1, device=device, dtype=torch.int32) * per
    last = torch.full((streams,), page, device=device, dtype=torch.int32)
    wrappers = []
    for at in range(sets):
        work = torch.empty(64 << 20, device=device, dtype=torch.uint8)
        wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
            work, "NHD", use_cuda_graph=True, use_tensor_cores=tensor_cores, paged_kv_indptr_buffer=indptr.clone(),
            paged_kv_indices_buffer=order[at * streams * per:][:streams * per].clone(), paged_kv_last_page_len_buffer=last.clone())
        wrapper.plan(indptr, order[at * streams * per:][:streams * per], last, group, 1, DIM, page,
                     q_data_type=torch.bfloat16, kv_data_type=torch.bfloat16)
        wrappers.append(wrapper)
    graph = capture(sets, lambda at: wrappers[at].run(q, pool, out=out))
    by = "tensor cores" if tensor_cores else "CUDA cores"
    note("flashinfer", f"batch {batch}, group {group}, pages of {page}, {by}", timed(graph, sets), size)


def matrix_rate():
    n = 8192
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16)
    b = torch.randn(n, n, device=device, dtype=torch.bfloat16)
    graph = capture(5, lambda _: a @ b)
    median, _, _ = timed(graph, 5, 10)
    rate = 2 * n**3 / median / 1e6
    rows.append({"peer": "torch matmul", "shape": f"{n} cubed, bf16", "us": median, "TFLOP/s": rate})
    return rate


for group in (4, 8):
    for batch in (1, 8, 64):
        sdpa(batch, group)
        torch.cuda.empty_cache()
if "--flashinfer" in sys.argv:
    # Either of its kernels may be the faster one.
    for tensor_cores, group, batch in itertools.product((False, True), (4, 8), (1, 8, 64)):
        try:
            flashinfer_decode(batch, group, 16, tensor_cores)
        except Exception as error:  # A peer that fails is a row that is missing, not a failed run.
            print(f"flashinfer, batch {batch}, group {group}: {type(error).__name__}: {str(error)[:300]}")
        torch.cuda.empty_cache()
rate = matrix_rate()
taken = {"device": torch.cuda.get_device_name(), "date": time.strftime("%Y-%m-%d", time.gmtime()), "cuda": torch.version.cuda, "torch": torch.__version__}
if "--flashinfer" in sys.argv:
    taken["flashinfer"] = next((found.version for found in metadata.distributions(name="flashinfer-python")), None)
json.dump(taken | {"rows": rows}, open(sys.argv[1], "w"), indent=1)
print(f"{rate:.1f}")
