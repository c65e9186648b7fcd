//! Movement: after any number of moves every byte is where its block is.

use super::Bench;
use crate::ops::swap::{Fills, Move, Moves, Pools, Swap, Width};
use crate::{DeviceBuffer, HwError, PinnedBuffer};
use rand::RngExt;
use rand::seq::SliceRandom;

/// A word that says which block it belongs to and where in it.
fn identity(block: u32, word: u32) -> u32 {
    (block.wrapping_mul(0x9e37_79b1) ^ word.wrapping_mul(0x85eb_ca6b)).rotate_left(7)
}

pub(super) fn run(bench: &mut Bench) -> Result<(), HwError> {
    let swap = Swap::load(&bench.device)?;
    for block_bytes in [16, 656, 1152, 2048, 8192, 32768] {
        there_and_back(bench, &swap, block_bytes)?;
    }
    ordered(bench, &swap)
}

/// Distinct blocks of `of`, shuffled.
pub(super) fn distinct(bench: &mut Bench, of: u32, n: usize) -> Vec<u32> {
    let mut all: Vec<u32> = (0..of).collect();
    all.shuffle(&mut bench.rng);
    all.truncate(n);
    all
}

fn there_and_back(bench: &mut Bench, swap: &Swap, block_bytes: u32) -> Result<(), HwError> {
    let words = block_bytes as usize / 4;
    let (blocks, frames, n) = (700u32, 500u32, 333usize);
    let mut home = PinnedBuffer::<u32>::new(&bench.device, blocks as usize * words)?;
    for (block, chunk) in (0u32..).zip(home.as_mut_slice().chunks_exact_mut(words)) {
        (0u32..).zip(chunk).for_each(|(word, to)| *to = identity(block, word));
    }
    let from = distinct(bench, blocks, n);
    let to = distinct(bench, frames, n);
    let list: Vec<Move> = from.iter().zip(&to).map(|(&home, &frame)| Move { home, frame }).collect();
    let moves = Moves::from_host(&bench.device, &list)?;
    let third = u32::try_from(n / 3).expect("a small count");
    let first = DeviceBuffer::from_host(&bench.device, &[0, third, third, 3 * third])?;
    let width = Width { grid: 13, block: 256, alone: false };
    for variant in ["flat", "per request"] {
        let pool = DeviceBuffer::<u32>::filled(&bench.device, frames as usize * words, 0xa5)?;
        let pools = Pools { home: home.address(), frames: pool.address(), block_bytes };
        match variant {
            "flat" => swap.swap_in(&bench.stream, pools, &moves, width)?,
            _ => swap.swap_in_per_request(&bench.stream, pools, &moves, &first)?,
        }
        bench.stream.synchronize()?;
        let mut expected = vec![0xa5a5_a5a5u32; frames as usize * words];
        for moved in &list {
            let chunk = &mut expected[moved.frame as usize * words..][..words];
            (0u32..).zip(chunk).for_each(|(word, to)| *to = identity(moved.home, word));
        }
        let wrong = pool.read()?.iter().zip(&expected).filter(|(a, b)| a != b).count();
        bench.note(format!("swap-in, {variant}, {block_bytes} B"), wrong as f64, 0.0);
        if variant == "flat" {
            home.as_mut_slice().fill(0);
            swap.write_back(&bench.stream, pools, &moves, width)?;
            bench.stream.synchronize()?;
            let mut wrong = 0;
            for (block, chunk) in (0u32..).zip(home.as_slice().chunks_exact(words)) {
                let moved = from.contains(&block);
                let right =
                    |(word, &value): (u32, &u32)| value == if moved { identity(block, word) } else { 0 };
                wrong += (0u32..).zip(chunk).filter(|&pair| !right(pair)).count();
            }
            bench.note(format!("write-back, {block_bytes} B"), wrong as f64, 0.0);
            for (block, chunk) in (0u32..).zip(home.as_mut_slice().chunks_exact_mut(words)) {
                (0u32..).zip(chunk).for_each(|(word, to)| *to = identity(block, word));
            }
        }
    }
    Ok(())
}

fn ordered(bench: &mut Bench, swap: &Swap) -> Result<(), HwError> {
    let (streams, blocks, stride) = (9u32, 70_001u32, 2100u32);
    let none = [u32::MAX; 4];
    let mut fills = vec![none; (streams * stride) as usize];
    let mut counts = Vec::new();
    let mut expected: Vec<Vec<Move>> = Vec::new();
    for stream in 0..streams {
        let n = if stream == 3 { 0 } else { bench.rng.random_range(1..=2048usize) };
        let chosen = distinct(bench, blocks, n);
        let mut moves = Vec::new();
        for (at, &block) in (0u32..).zip(&chosen) {
            let source = u32::from(bench.rng.random_bool(0.1));
            fills[(stream * stride + at) as usize] = [block, at, u32::MAX, source];
            if source == 0 {
                moves.push(Move { home: stream * blocks + block, frame: stream * 4096 + at });
            }
        }
        moves.sort_by_key(|moved| moved.home);
        expected.push(moves);
        counts.push(u32::try_from(n).expect("a small count"));
    }
    let base =
        |per: u32| DeviceBuffer::from_host(&bench.device, &(0..streams).map(|s| s * per).collect::<Vec<_>>());
    let moves = Moves {
        list: DeviceBuffer::filled(&bench.device, (streams * 2048) as usize, 0xff)?,
        count: DeviceBuffer::filled(&bench.device, 1, 0)?,
    };
    let fills = DeviceBuffer::from_host(&bench.device, &fills)?;
    let count = DeviceBuffer::from_host(&bench.device, &counts)?;
    let (home_base, frame_base) = (base(blocks)?, base(4096)?);
    let list = Fills {
        fills: &fills,
        count: &count,
        stride,
        home_base: &home_base,
        frame_base: &frame_base,
        streams,
        blocks,
    };
    swap.order(&bench.stream, &list, &moves)?;
    bench.stream.synchronize()?;
    let total = moves.count.read()?[0] as usize;
    let mut wrong = total.abs_diff(expected.iter().map(Vec::len).sum());
    // Streams stand in any order, each in address order.
    let all = moves.list.read()?;
    let mut rest = &all[..total.min(all.len())];
    while let Some(head) = rest.first() {
        let stream = (head.home / blocks) as usize;
        let want = expected.get(stream).map_or(&[][..], |moves| &moves[..]);
        let n = want.len().clamp(1, rest.len());
        wrong += usize::from(rest[..n] != *want);
        rest = &rest[n..];
    }
    bench.note("moves in address order".into(), wrong as f64, 0.0);
    Ok(())
}
