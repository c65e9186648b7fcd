#!/usr/bin/env python3
"""Times kvtier's policies beside libCacheSim's (PyPI `libcachesim`) on one trace, in one run, alternating.

    python3 sim/policies/benches/beside_libcachesim.py [--accesses N] [--rounds R] [--out FILE.csv]

Makes a throw-away virtual environment for libcachesim and numpy, and builds kvtier's bench with cargo. The trace is the
reference's sparse_decode (32 interleaved streams, 64 blocks a step, 51 kept), at a tenth of its blocks, one block a step.

What is timed, on both sides: accesses in parts of 50,000; the quickest round of each part counts, summed ("undisturbed", so that
a busy machine will do), and the median of whole rounds. kvtier has the trace in memory as dense ids; making ids dense is not in
the time. There are two ratios. *With reading*: libCacheSim's `process_trace`, which decodes its trace from a mapped file as it
goes. *Requests in memory*, the one to go by: requests_in_memory.c calls the cache's own `get` for each block of an array, so
that neither side reads. It needs a C compiler (`cc`, or what CC names); without one the script says so and prints the first ratio
alone. Nothing of libCacheSim's headers is used: where a request keeps its block and its next use is found by
reading a trace whose values are known, and `get` is the second function after the cache's constructor; both are verified, in that the misses
must be those of `process_trace`. Its hash table (`hashpower`) is tuned per policy by trial.
"""
import argparse, csv, ctypes, os, shutil, statistics, subprocess, sys, tempfile, time, venv

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../../.."))
PART = 50_000
# libCacheSim's class and arguments; kvtier's policy; whether the miss counts must agree to the last miss.
PAIRS = [
    ("FIFO", {}, "fifo", True),
    ("LRU", {}, "lru", True),
    ("Clock", {}, "clock", True),
    ("Sieve", {}, "sieve", True),
    ("LFU", {}, "lfu", True),
    ("SLRU", {}, "slru:shares = [1, 1, 1, 1]\nvariant = 'libcachesim'", False),
    ("TwoQ", {}, "2q", True),
    ("ARC", {}, "arc", True),
    ("LRUK", {}, "lru-k:variant = 'libcachesim'", True),
    ("LIRS", {}, "lirs", False),
    ("S3FIFO", {}, "s3-fifo:variant = 'libcachesim'", True),
    ("WTinyLFU", {}, "w-tinylfu", False),
    ("GDSF", {}, "gdsf", False),
    ("Belady", {}, "belady", True),
]


def enter_environment(folder):
    """Runs this script again inside a fresh environment that has libcachesim."""
    venv.create(folder, with_pip=True)
    python = os.path.join(folder, "bin", "python")
    subprocess.run([python, "-m", "pip", "install", "-q", "libcachesim==0.3.5", "numpy"], check=True)
    return subprocess.run([python, os.path.abspath(__file__), "--inside", *sys.argv[1:]]).returncode


def build_bench():
    """Builds kvtier's bench; returns its path."""
    command = ["cargo", "bench", "-p", "kvtier-policies", "--bench", "accesses", "--no-run"]
    said = subprocess.run(command, cwd=ROOT, check=True, text=True, stderr=subprocess.PIPE).stderr
    return os.path.join(ROOT, said.rsplit("(", 1)[1].split(")")[0])


RECORD = [("time", "<u4"), ("id", "<u8"), ("size", "<u4"), ("next", "<i8")]


def oracle_records(ids):
    """The trace in libCacheSim's oracleGeneral format, which Belady needs."""
    import numpy as np

    n = len(ids)
    following = np.full(n, -1, dtype="<i8")
    order = np.lexsort((np.arange(n), ids))
    same = ids[order][1:] == ids[order][:-1]
    following[order[:-1][same]] = order[1:][same]
    records = np.zeros(n, dtype=RECORD)
    records["id"], records["size"], records["next"] = ids, 1, following
    return records


def address_in(wrapped):
    """The pointer that a pybind11 object holds, behind its Python header."""
    return ctypes.c_void_p.from_address(id(wrapped) + object.__basicsize__).value


class Places(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in ("get", "id", "next")]


class InMemory:
    """Calls a cache's `get` over arrays; `None` of `compiled` where there is no C compiler."""

    @staticmethod
    def compiled(records, folder):
        compiler = shutil.which(os.environ.get("CC", "cc"))
        if compiler is None:
            print("no C compiler (cc, or what CC names): the ratio for requests in memory is left out")
            return None
        source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "requests_in_memory.c")
        library = os.path.join(folder, "requests_in_memory.so")
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
        return InMemory(records, library, folder)

    def __init__(self, records, library, folder):
        import libcachesim as lib
        import numpy as np
        from libcachesim import libcachesim_python

        self.replay = ctypes.CDLL(library).replay
        self.replay.restype = ctypes.c_uint64
        theirs = ctypes.CDLL(libcachesim_python.__file__)
        self.ids = np.ascontiguousarray(records["id"].astype("<u8"))
        # What is never used again is so marked by the reader.
        never = np.iinfo("<i8").max
        self.next = np.ascontiguousarray(np.where(records["next"] < 0, never, records["next"]).astype("<i8"))
        # A request is far smaller than this; the reader fills one from records whose values occur nowhere else.
        self.request = ctypes.create_string_buffer(4096)
        known = np.zeros(1, dtype=RECORD)
        known["id"], known["size"], known["next"] = 0x0123_4567_89AB_CDE, 1, 0x0FED_CBA9_8765
        path = os.path.join(folder, "known")
        known.tofile(path)
        reader = open_reader(path)
        theirs.read_one_req(ctypes.c_void_p(address_in(reader._reader)), self.request)
        words = [int.from_bytes(self.request.raw[at : at + 8], "little") for at in range(0, 512, 8)]
        place_of = lambda field: 8 * words.index(int(known[field][0]))
        cache = lib.FIFO(10)
        first = [ctypes.c_void_p.from_address(address_in(cache._cache) + 8 * word).value for word in range(16)]
        constructor = ctypes.cast(theirs.FIFO_init, ctypes.c_void_p).value
        self.places = Places(8 * (first.index(constructor) + 2), place_of("id"), place_of("next"))

    def part(self, cache, start, count):
        """Replays part of the trace; returns the misses."""
        arrays = [ctypes.c_void_p(array.ctypes.data + 8 * start) for array in (self.ids, self.next)]
        pointer = ctypes.c_void_p(address_in(cache._cache))
        return self.replay(pointer, self.request, ctypes.byref(self.places), *arrays, ctypes.c_size_t(count))


def open_reader(path):
    import libcachesim as lib

    kind, parameters = lib.TraceType.ORACLE_GENERAL_TRACE, lib.ReaderInitParam(ignore_obj_size=True)
    return lib.TraceReader(path, trace_type=kind, reader_init_params=parameters)


class Theirs:
    """libCacheSim over one trace, read as it goes or in memory."""

    def __init__(self, path, accesses, slots, memory):
        import libcachesim as lib

        self.lib, self.accesses, self.slots, self.memory = lib, accesses, slots, memory
        self.reader = open_reader(path)

    def read_part(self, cache, start, count):
        return round(cache.process_trace(self.reader, start, count)[0] * count)

    def round(self, name, arguments, hashpower, part):
        """Seconds of each part, and misses."""
        cache = getattr(self.lib, name)(self.slots, hashpower=hashpower, **arguments)
        seconds, misses = [], 0
        for start in range(0, self.accesses, PART):
            count = min(PART, self.accesses - start)
            before = time.perf_counter()
            missed = part(cache, start, count)
            seconds.append(time.perf_counter() - before)
            misses += missed
        return seconds, misses

    def time(self, name, arguments, hashpower, rounds, in_memory=False):
        """(undisturbed seconds, median seconds, misses)."""
        part = self.memory.part if in_memory else self.read_part
        all_rounds = [self.round(name, arguments, hashpower, part) for _ in range(rounds)]
        parts = [seconds for seconds, _ in all_rounds]
        quickest = sum(min(part) for part in zip(*parts))
        return quickest, statistics.median(sum(part) for part in parts), all_rounds[0][1]


def ours(bench, path, slots, rounds, policy):
    command = [bench, "time", path, str(slots), str(rounds), policy]
    line = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout.strip()
    misses, undisturbed, median = line.rsplit(";", 3)[1:]
    return int(undisturbed) / 1e9, int(median) / 1e9, int(misses)


def merge(first, second):
    """Two sittings of the same work: the quicker one, the mean of the medians."""
    assert first[2] == second[2], "the same work misses the same"
    return min(first[0], second[0]), (first[1] + second[1]) / 2, first[2]


def compare(options, folder):
    import numpy as np

    bench = build_bench()
    flat, oracle = os.path.join(folder, "ids"), os.path.join(folder, "oracle")
    subprocess.run([bench, "write", flat, str(options.accesses)], check=True)
    records = oracle_records(np.fromfile(flat, dtype="<u8"))
    records.tofile(oracle)
    n, slots = len(records), 65_536 // 10
    memory = InMemory.compiled(records, folder)
    theirs = Theirs(oracle, n, slots, memory)
    print(f"{n} accesses, {slots} slots")
    rate = lambda seconds: n / seconds / 1e6
    rows = []
    wanted = options.policies.split(",") if options.policies else None
    for name, arguments, policy, equal in PAIRS:
        short = policy.split(":")[0]
        if wanted and short not in wanted:
            continue
        trials = {power: theirs.time(name, arguments, power, 3)[0] for power in (11, 12, 13, 14, 15, 16, 18)}
        power = min(trials, key=trials.get)
        rounds = options.rounds
        sittings = [
            (
                theirs.time(name, arguments, power, rounds),
                theirs.time(name, arguments, power, rounds, in_memory=True) if memory else None,
                ours(bench, flat, slots, rounds, policy),
            )
            for _ in range(2)
        ]
        read, held, us = [None if one is None else merge(one, two) for one, two in zip(*sittings)]
        assert not equal or read[2] == us[2], f"{short}: {us[2]} misses, libCacheSim {read[2]}"
        assert not held or held[2] == read[2], f"{short}: {held[2]} misses in memory, {read[2]} read"
        both = [rate(us[0]) / rate(them[0]) if them else "" for them in (read, held)]
        rates = [rate(them[0]) if them else "" for them in (us, read, held)]
        rows.append([short, *both, *rates, rate(us[1]), rate(read[1]), power, us[2], read[2]])
        in_memory = f"{both[1]:5.1f}x in memory, " if held else ""
        their_memory = f", {rates[2]:.1f} in memory" if held else ""
        print(
            f"{short:10} {in_memory}{both[0]:5.1f}x with reading; kvtier {rates[0]:6.1f} M/s, libCacheSim "
            f"{rates[1]:.1f} with reading{their_memory} (medians {rate(us[1]):.1f}, {rate(read[1]):.1f}); "
            f"hashpower {power}; misses {us[2]}, {read[2]}",
            flush=True,
        )
    if options.out:
        with open(options.out, "w", newline="") as file:
            out = csv.writer(file, lineterminator="\n")
            out.writerow("policy ratio_with_reading ratio_in_memory kvtier_m_per_s libcachesim_m_per_s "
                         "libcachesim_in_memory kvtier_median libcachesim_median hashpower misses "
                         "libcachesim_misses".split())
            out.writerows([f"{value:.2f}" if isinstance(value, float) else value for value in row] for row in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accesses", type=int, default=2_000_000, help="how much of the trace (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=11, help="rounds per sitting, of two (default %(default)s)")
    parser.add_argument("--policies", help="kvtier's names, with commas between (default: all that both have)")
    parser.add_argument("--out", help="a CSV file to write")
    parser.add_argument("--inside", action="store_true", help="libcachesim and numpy are already installed here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if not options.inside:
            sys.exit(enter_environment(os.path.join(folder, "environment")))
        compare(options, folder)


if __name__ == "__main__":
    main()
