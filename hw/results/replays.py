"""Replays every configuration below on this machine's device and writes replays.json. Usage: replays.py KVTIER OUT.json DATE"""
import json
import subprocess
import sys
import tempfile

SMALL = "--policy lru-step"
LLAMA = "--model llama-3.1-8b --policy {} --concurrency {} --set batch.steps=80"
BUSY = LLAMA + " --set batch.stagger=17"
EIGHT = LLAMA.format("lru-step", 8)
AHEAD = LLAMA.format("lru", 8) + " --prefetch "
STREAM = EIGHT + " --set time.launch=stream"
# With five repeats, then with three.
FIVE = [
    SMALL, LLAMA.format("lru-step", 1), EIGHT, BUSY.format("lru-step", 24), BUSY.format("lru-step", 24) + " --overlap hit-first",
    BUSY.format("echo", 24) + " --slots 1.5k",
]
THREE = [
    LLAMA.format("arc", 8), AHEAD + "next-ranked", AHEAD + "next-ranked --overlap hit-first", AHEAD + "next-ranked --overlap layer-ahead",
    AHEAD + "next-layer --overlap layer-ahead", EIGHT + " --set time.transfer=gather-per-request", STREAM,
    STREAM + " --set time.transfer=auto", STREAM + " --set time.transfer=copy-batch",
    STREAM + " --set time.transfer=copy-batch --overlap hit-first", STREAM + " --set time.transfer=copy-loop",
    LLAMA.format("lru", 8) + " --set warm.size=1GiB --set warm.admission=second-touch",
    EIGHT + " --weights multiplied", BUSY.format("lru-step", 24) + " --weights multiplied",
]


def entry(flags, record):
    point, report = record["point"], record["report"]
    config, integrity, window = point["config"], report["integrity"], report["window"]
    return {
        "command": "kvtier hw replay " + flags, "model": config["model"], "policy": config["policy"], "managed": report["managed"],
        "overlap": config["overlap"], "transfer": config["transfer"], "prefetch": config["prefetch"], "weights": report["weights"],
        "concurrency": config["concurrency"], "slots": config["slots"], "k": config["k"], "attention": report["attention"],
        "passes": window["repeats"], "spread_percent": round(100 * (window["max_ps"] - window["min_ps"]) / window["median_ps"], 3),
        "measured": point["time"], "modelled": record["modelled"], "decision_hash": report["device_hash"],
        "mismatches": report["mismatches"], "compared": report["compared"], "bytes_compared": integrity["bytes"],
        "wrong_bytes": integrity["wrong_bytes"], "attention_error": integrity["error"], "corruption_caught": integrity["corruption_caught"],
        "steps": report["steps"], "ns_by_operation": dict(report["by_operation"]),
        "first_layers": [span for span in report["operations"] if span["layer"] == 0],
    }


def main(kvtier, out, date):
    replays, device = [], None
    for flags, repeats in [(flags, 5) for flags in FIVE] + [(flags, 3) for flags in THREE]:
        with tempfile.TemporaryDirectory() as folder:
            command = [kvtier, "hw", "replay", *flags.split(), "--repeats", str(repeats), "--out", folder]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            record = json.load(open(f"{folder}/hw.json"))
        one = entry(flags, record)
        replays.append(one)
        device = record["report"]["device"]
        measured, modelled = one["measured"]["total_ns"], one["modelled"]["total_ns"]
        print(f"{one['measured']['step_p50_ns'] / 1e6:8.2f} ms, modelled / measured {modelled / measured:.2f}: {flags}", flush=True)
        with open(out, "w") as file:
            json.dump({"device": device, "date": date, "replays": replays}, file, indent=1)
            file.write("\n")


main(*sys.argv[1:])
