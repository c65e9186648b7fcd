//! Whose bytes are where: after a replay every word that was moved, in slots, warm pages and at home, is compared with what
//! it must be, the last attention of every layer with one over a copy that never moved, and a page table corrupted on
//! purpose must show.

use super::ledger::Ledger;
use super::rig::Rig;
use crate::bf16::widen;
use crate::ops::attend::{Attended, Reading};
use crate::ops::replay::{Argument, Call, Part};
use crate::{DeviceBuffer, HwError, Shape};
use kvtier_sim::overlap::Overlap;
use serde::Serialize;

/// Relative error allowed where an attention was merged of two parts, in bf16.
const ALLOWED: f64 = 1e-2;

/// What was compared, and what differed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Integrity {
    /// Bytes of frames and home that were compared.
    pub bytes: u64,
    /// Of these, bytes of words that are not what they must be.
    pub wrong_bytes: u64,
    /// Results of attention that were compared: streams x heads, over all layers.
    pub outputs: u64,
    /// Largest relative error of one.
    pub error: f64,
    /// The error allowed.
    pub allowed: f64,
    /// Whether two exchanged entries of one page table were caught, by bytes and by attention.
    pub corruption_caught: bool,
}

impl Integrity {
    /// Whether everything is where it must be, and would have been missed otherwise.
    pub fn holds(&self) -> bool {
        self.bytes > 0 && self.wrong_bytes == 0 && self.error <= self.allowed && self.corruption_caught
    }
}

/// Checks a device on which nothing runs and at least one step ran; `ledger` is the host's, where it keeps one.
pub(super) fn check(rig: &mut Rig<'_>, ledger: Option<&Ledger>) -> Result<Integrity, HwError> {
    rig.settle(&ledger.map(Ledger::pending).unwrap_or_default())?;
    let pages = compare_pages(rig, &ledger.map(Ledger::pages).unwrap_or_default())?;
    let [words, wrong] = compare_bytes(rig)?;
    let [words, wrong] = [words + pages[0], wrong + pages[1]];
    let never_moved = NeverMoved::new(rig)?;
    let (mut outputs, mut error) = (0, 0f64);
    if !rig.reads_only() {
        for layer in 0..rig.geometry.layers {
            let found = read(rig, &rig.results[layer as usize])?;
            let expected = never_moved.attend(rig, layer, Part::All)?;
            outputs += (rig.results[layer as usize].lse.len()) as u64;
            error = worst(error, relative_error(rig, &found, &expected));
        }
    }
    let corruption_caught = corrupt(rig, &never_moved)?;
    let merged = rig.geometry.ways.overlap == Overlap::HitFirst;
    let allowed = if merged { ALLOWED } else { 0.0 };
    Ok(Integrity { bytes: words * 16, wrong_bytes: wrong * 16, outputs, error, allowed, corruption_caught })
}

fn worst(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// Words compared, and words that are wrong.
fn compare_bytes(rig: &Rig<'_>) -> Result<[u64; 2], HwError> {
    let result = DeviceBuffer::<u64>::filled(&rig.device, 2, 0)?;
    let mut arguments = vec![Argument::Sizes(rig.geometry.sizes), Argument::Cells(rig.geometry.cells)];
    let words = [
        rig.owners.address(),
        rig.state.block_of(),
        rig.frame_of.address(),
        rig.metas.address(),
        rig.frames.address(),
        rig.home.address(),
        result.address(),
    ];
    arguments.extend(words.map(Argument::Word));
    let shape = Shape { grid: (16, rig.geometry.all()), block: 256, shared: 0 };
    rig.launch(&rig.stream, Call::CompareBytes, shape, &arguments)?;
    rig.stream.synchronize()?;
    let counts = result.read()?;
    Ok([counts[0], counts[1]])
}

/// The same of the warm pages: stream, block, frame.
fn compare_pages(rig: &Rig<'_>, pages: &[[u32; 4]]) -> Result<[u64; 2], HwError> {
    if pages.is_empty() {
        return Ok([0; 2]);
    }
    let result = DeviceBuffer::<u64>::filled(&rig.device, 2, 0)?;
    let list = DeviceBuffer::from_host(&rig.device, pages)?;
    let words =
        [rig.owners.address(), list.address(), pages.len() as u64, rig.frames.address(), result.address()];
    let mut arguments = vec![Argument::Cells(rig.geometry.cells)];
    arguments.extend(words.map(Argument::Word));
    let shape = Shape::flat(crate::ops::count32(pages.len()).min(4096), 256);
    rig.launch(&rig.stream, Call::ComparePages, shape, &arguments)?;
    rig.stream.synchronize()?;
    let counts = result.read()?;
    Ok([counts[0], counts[1]])
}

fn read(rig: &Rig<'_>, result: &Attended) -> Result<Vec<u16>, HwError> {
    rig.stream.synchronize()?;
    result.out.read()
}

/// The copy that never moved: what each stream of one layer selects, written where it is read.
struct NeverMoved {
    frames: DeviceBuffer<u8>,
    reading: Reading,
    result: Attended,
}

impl NeverMoved {
    fn new(rig: &Rig<'_>) -> Result<NeverMoved, HwError> {
        let geometry = &rig.geometry;
        let entries = geometry.sizes.streams as usize * geometry.stride as usize;
        let (heads, width) = geometry.result();
        let streams = geometry.sizes.streams as usize;
        Ok(NeverMoved {
            frames: DeviceBuffer::filled(&rig.device, entries * geometry.cells.words as usize * 16, 0)?,
            reading: Reading::to_fill(&rig.device, entries, streams, rig.geometry.tokens())?,
            result: Attended::new(&rig.device, streams, heads, width)?,
        })
    }

    /// Attends to a part of a layer's last selection; the rows are those that the rig has prepared.
    fn attend(&self, rig: &Rig<'_>, layer: u32, part: Part) -> Result<Vec<u16>, HwError> {
        let (entries, rows) = self.reading.addresses();
        let arguments = [
            Argument::Sizes(rig.geometry.sizes),
            Argument::Word(layer.into()),
            Argument::Word(rig.geometry.stride.into()),
            Argument::Cells(rig.geometry.cells),
            Argument::Word(rig.owners.address()),
            Argument::Word(rig.metas.address()),
            Argument::Word(rig.selected.blocks.address()),
            Argument::Word(self.frames.address()),
            Argument::Word(entries),
        ];
        let shape = Shape { grid: (4, rig.geometry.sizes.streams), block: 256, shared: 0 };
        rig.launch(&rig.stream, Call::WriteSelected, shape, &arguments)?;
        rig.prepare(layer, part)?;
        let (_, prepared) = rig.readings[0].addresses();
        let bytes = (rig.geometry.sizes.streams as usize + 1) * 16;
        // SAFETY: both hold a row per stream and one more, and live until the stream has been awaited.
        unsafe { crate::copy_async(&rig.stream, rows, prepared, bytes) }?;
        rig.attend_to(&self.reading, self.frames.address(), &self.result, rig.spare_beside())?;
        read(rig, &self.result)
    }
}

/// Largest error over streams and heads, relative to the result's norm.
fn relative_error(rig: &Rig<'_>, found: &[u16], expected: &[u16]) -> f64 {
    let (_, width) = rig.geometry.result();
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let mut most = 0f64;
    for (found, expected) in found.chunks_exact(width).zip(expected.chunks_exact(width)) {
        let pairs = || found.iter().zip(expected).map(|(&a, &b)| (widen(a), widen(b)));
        let difference = norm(&mut pairs().map(|(a, b)| a - b));
        let size = norm(&mut pairs().map(|(_, b)| b));
        most = worst(most, if difference == 0.0 { 0.0 } else { difference / size.max(1e-30) });
    }
    most
}

/// Exchanges the frames of two selected blocks of two streams, and says whether both checks notice; puts them back.
fn corrupt(rig: &mut Rig<'_>, never_moved: &NeverMoved) -> Result<bool, HwError> {
    let z = rig.geometry.sizes;
    let metas = rig.metas.read()?;
    let slots = rig.decided.slots.read()?;
    let selecting: Vec<usize> = (0..z.streams as usize).filter(|&g| metas[g].count > 0).collect();
    let (Some(&first), Some(&last)) = (selecting.first(), selecting.last()) else { return Ok(false) };
    let mut frame_of = rig.frame_of.read()?;
    let whole = frame_of.clone();
    let place = |g: usize, rank: usize| g * (z.slots as usize + 1) + slots[g * z.k as usize + rank] as usize;
    // In another stream if there is one, for the order of blocks within a stream means nothing to attention.
    let (one, other) = (place(first, 0), place(last, metas[last].count as usize - 1));
    frame_of.swap(one, other);
    let attention = |rig: &Rig<'_>| -> Result<Vec<u16>, HwError> {
        rig.prepare(0, Part::FullBlocks)?;
        rig.attend(0, Part::FullBlocks, rig.spare_beside())?;
        read(rig, &rig.results[0])
    };
    let expected = never_moved.attend(rig, 0, Part::FullBlocks)?;
    let sound = relative_error(rig, &attention(rig)?, &expected);
    rig.frame_of.write(&frame_of)?;
    let [_, wrong] = compare_bytes(rig)?;
    let shown = relative_error(rig, &attention(rig)?, &expected);
    rig.frame_of.write(&whole)?;
    let bytes_notice = one != other && wrong >= 2 * u64::from(rig.geometry.cells.words);
    let attention_notices =
        rig.reads_only() || first == last || (sound == 0.0 && (shown.is_nan() || shown > 0.0));
    Ok(bytes_notice && attention_notices)
}
