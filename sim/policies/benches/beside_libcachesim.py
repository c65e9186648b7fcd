#!/usr/bin/env python3
"""Times kvtier's policies beside libCacheSim's (PyPI `libcachesim`) on one trace, in one run, alternating.

    python3 sim/policies/benches/beside_libcachesim.py [--accesses N] [--rounds R] [--out FILE.csv]

Makes a throw-away virtual environment for libcachesim and numpy, and builds kvtier's bench with cargo. The trace is the
reference's sparse_decode (32 interleaved streams, 64 blocks a step, 51 kept), at a tenth of its blocks, one block a step.

What is timed, on both sides: accesses in parts of 50,000; the quickest round of each part counts, summed ("undisturbed", so that
a busy machine will do), and the median of whole rounds. kvtier has the trace in memory as dense ids; making ids dense is not in
the time. libCacheSim reads its trace from a mapped file as it goes, so there are two ratios: with that reading, and without it. The
time of reading is taken as that of a cache of size 0, which looks everything up in an empty table and refuses it: more than
reading alone, so that the second ratio errs in libCacheSim's favour. Its hash table (`hashpower`) is tuned per policy by trial.
"""
import argparse, csv, os, statistics, subprocess, sys, tempfile, time, venv

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


def write_oracle(ids, path):
    """The trace in libCacheSim's oracleGeneral format, which Belady needs."""
    import numpy as np

    n = len(ids)
    following = np.full(n, -1, dtype="<i8")
    order = np.lexsort((np.arange(n), ids))
    same = ids[order][1:] == ids[order][:-1]
    following[order[:-1][same]] = order[1:][same]
    records = np.zeros(n, dtype=[("time", "<u4"), ("id", "<u8"), ("size", "<u4"), ("next", "<i8")])
    records["id"], records["size"], records["next"] = ids, 1, following
    records.tofile(path)


class Theirs:
    """libCacheSim over one trace."""

    def __init__(self, path, accesses, slots):
        import libcachesim as lib

        self.lib, self.accesses, self.slots = lib, accesses, slots
        parameters = lib.ReaderInitParam(ignore_obj_size=True)
        kind = lib.TraceType.ORACLE_GENERAL_TRACE
        self.reader = lib.TraceReader(path, trace_type=kind, reader_init_params=parameters)

    def round(self, name, arguments, hashpower, slots):
        """Seconds of each part, and misses."""
        cache = getattr(self.lib, name)(slots, hashpower=hashpower, **arguments)
        seconds, misses = [], 0
        for start in range(0, self.accesses, PART):
            count = min(PART, self.accesses - start)
            before = time.perf_counter()
            ratio = cache.process_trace(self.reader, start, count)[0]
            seconds.append(time.perf_counter() - before)
            misses += round(ratio * count)
        return seconds, misses

    def time(self, name, arguments, hashpower, rounds, slots=None):
        """(undisturbed seconds, median seconds, misses)."""
        slots = self.slots if slots is None else slots
        all_rounds = [self.round(name, arguments, hashpower, slots) for _ in range(rounds)]
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
    ids = np.fromfile(flat, dtype="<u8")
    write_oracle(ids, oracle)
    n, slots = len(ids), 65_536 // 10
    theirs = Theirs(oracle, n, slots)
    reading = theirs.time("FIFO", {}, 12, options.rounds, slots=0)
    print(f"{n} accesses, {slots} slots; libCacheSim reads {n / reading[0] / 1e6:.1f} M/s, subtracted")
    rows = []
    wanted = options.policies.split(",") if options.policies else None
    for name, arguments, policy, equal in PAIRS:
        short = policy.split(":")[0]
        if wanted and short not in wanted:
            continue
        trials = {power: theirs.time(name, arguments, power, 3)[0] for power in (11, 12, 13, 14, 15, 16, 18)}
        power = min(trials, key=trials.get)
        sittings = [
            (theirs.time(name, arguments, power, options.rounds), ours(bench, flat, slots, options.rounds, policy))
            for _ in range(2)
        ]
        them, us = merge(sittings[0][0], sittings[1][0]), merge(sittings[0][1], sittings[1][1])
        assert not equal or them[2] == us[2], f"{short}: {us[2]} misses, libCacheSim {them[2]}"
        rate = lambda seconds: n / seconds / 1e6
        read, without = rate(them[0]), rate(them[0] - reading[0])
        rows.append([short, rate(us[0]) / read, rate(us[0]) / without, rate(us[0]), read, without,
                     rate(us[1]), rate(them[1]), power, us[2], them[2]])
        print(
            f"{short:10} {rate(us[0]) / read:5.1f}x {rate(us[0]) / without:5.1f}x without reading; kvtier "
            f"{rate(us[0]):6.1f} M/s, libCacheSim {read:5.1f}, {without:5.1f} without reading (medians "
            f"{rate(us[1]):.1f}, {rate(them[1]):.1f}); hashpower {power}; misses {us[2]}, {them[2]}",
            flush=True,
        )
    if options.out:
        with open(options.out, "w", newline="") as file:
            out = csv.writer(file, lineterminator="\n")
            out.writerow("policy ratio ratio_without_reading kvtier_m_per_s libcachesim_m_per_s "
                         "libcachesim_without_reading kvtier_median libcachesim_median hashpower misses "
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
