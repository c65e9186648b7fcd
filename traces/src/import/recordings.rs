//! Turns raw recordings (one row per selected block) into a trace, with the ranks below the cut as extra ranks.

use super::raw::{RawMetadata, RawRequest, RawSelection, RawSelections};
use crate::error::{Place, TraceError};
use crate::{FORMAT_VERSION, Header, Layout, LoopKind, Request, Row, Summary, TraceWriter};
use half::f16;
use kvtier_units::{Bytes, Nanos};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Bytes of a bf16 number, the type in which the recorded models keep K and V.
const BF16_BYTES: u64 = 2;

/// What to take over from raw recordings.
#[derive(Clone, Debug)]
pub struct RecordingOptions {
    /// Requests by their recorded name; empty takes all.
    pub requests: Vec<String>,
    /// Steps; the first becomes step 0, with a prompt longer by the steps before it. None takes all.
    pub steps: Option<Range<u32>>,
    /// The model's own layer numbers; empty takes all.
    pub layers: Vec<u16>,
    /// Ranks that count as selected; none takes the recorder's k.
    pub k: Option<u32>,
    /// Extra ranks beyond k; none takes all there are.
    pub extra: Option<u32>,
    /// Whether to keep scores.
    pub scores: bool,
    /// The score that quantises to `u16::MAX`.
    pub score_max: f64,
    /// Who recorded it, from what; file names are added.
    pub provenance: String,
    /// Licence of the recording.
    pub licence: String,
    /// How the trace is encoded.
    pub layout: Layout,
}

impl Default for RecordingOptions {
    fn default() -> RecordingOptions {
        RecordingOptions {
            requests: Vec::new(),
            steps: None,
            layers: Vec::new(),
            k: None,
            extra: None,
            scores: true,
            score_max: 1.0,
            provenance: String::new(),
            licence: "not stated".into(),
            layout: Layout::default(),
        }
    }
}

/// Converts raw recordings into a trace at `output`.
///
/// `selected` are files with ranks 0..k, `next` files with the ranks from k on, in the same order; `next` may be empty.
pub fn convert_recordings(
    selected: &[PathBuf],
    next: &[PathBuf],
    output: &Path,
    options: &RecordingOptions,
) -> Result<Summary, TraceError> {
    let Some(first) = selected.first() else {
        return Err(TraceError::import(output, "no raw recordings given to convert"));
    };
    let mut metadata = RawMetadata::read(first)?;
    for path in &selected[1..] {
        metadata.join(RawMetadata::read(path)?, path)?;
    }
    check_options(&metadata, options, first)?;
    let mut pairs = Pairs::new(selected, next);
    if !pairs.advance()? {
        return Err(TraceError::import(first, "no rows"));
    }
    let header = header(&metadata, &pairs, selected, next, options, first)?;
    let mut rows = Rows { options, metadata: &metadata, header: &header, requests: Vec::new() };
    let mut writer = TraceWriter::create_with(output, header.clone(), &options.layout)?;
    loop {
        rows.write(&pairs, &mut writer)?;
        if !pairs.advance()? {
            break;
        }
    }
    if rows.requests.is_empty() {
        return Err(TraceError::import(first, "none of its rows are within the chosen requests and steps"));
    }
    writer.finish(&rows.requests)
}

impl RawMetadata {
    /// Takes in the requests of a further file of the same recording.
    fn join(&mut self, other: RawMetadata, path: &Path) -> Result<(), TraceError> {
        let shape = |m: &RawMetadata| {
            (m.model.clone(), m.layers.clone(), m.kv_heads, m.page_size, m.k, m.selector.clone())
        };
        if shape(self) != shape(&other) {
            let problem = "model, layers, heads, page size, k or selector differ from the first file's";
            return Err(TraceError::import(path, problem));
        }
        for request in other.requests {
            if self.requests.iter().all(|known| known.id != request.id) {
                self.requests.push(request);
            }
        }
        Ok(())
    }

    fn request(&self, id: &str) -> Option<&RawRequest> {
        self.requests.iter().find(|request| request.id == id)
    }
}

fn check_options(metadata: &RawMetadata, options: &RecordingOptions, path: &Path) -> Result<(), TraceError> {
    for id in &options.requests {
        if metadata.request(id).is_none() {
            let known: Vec<&str> = metadata.requests.iter().map(|r| r.id.as_str()).collect();
            let problem = format!("no request `{id}`; there are {}", known.join(", "));
            return Err(TraceError::import(path, problem));
        }
    }
    for layer in &options.layers {
        if !metadata.layers.contains(layer) {
            return Err(TraceError::import(
                path,
                format!("no layer {layer}; there are {:?}", metadata.layers),
            ));
        }
    }
    match options.k {
        Some(k) if k == 0 || k > metadata.k => {
            Err(TraceError::import(path, format!("k = {k} is not within the recorded 1..{}", metadata.k)))
        }
        _ => Ok(()),
    }
}

fn header(
    metadata: &RawMetadata,
    pairs: &Pairs,
    selected: &[PathBuf],
    next: &[PathBuf],
    options: &RecordingOptions,
    path: &Path,
) -> Result<Header, TraceError> {
    let k = options.k.unwrap_or(metadata.k);
    let recorded = u32::try_from(pairs.selected.blocks.len() + pairs.next.blocks.len()).unwrap_or(u32::MAX);
    let beyond = recorded.saturating_sub(k);
    let chosen: Vec<&RawRequest> = metadata
        .requests
        .iter()
        .filter(|r| options.requests.is_empty() || options.requests.contains(&r.id))
        .collect();
    let closed = |r: &RawRequest| r.closed_loop.unwrap_or(metadata.closed_loop);
    let closed_loop = chosen.first().is_some_and(|r| closed(r));
    // With all requests taken, the metadata may list some that no file holds: they do not count.
    if !options.requests.is_empty() && chosen.iter().any(|r| closed(r) != closed_loop) {
        let problem =
            "open-loop and closed-loop requests do not go into one trace; choose requests of one kind";
        return Err(TraceError::import(path, problem));
    }
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let files: Vec<String> = selected.iter().chain(next).map(name).collect();
    let entries = u64::from(metadata.page_size);
    let layers = metadata.layers.iter().copied();
    Ok(Header {
        format_version: FORMAT_VERSION,
        model: metadata.model.clone(),
        layers: layers.filter(|l| options.layers.is_empty() || options.layers.contains(l)).collect(),
        head_groups: metadata.kv_heads,
        entries_per_block: metadata.page_size,
        bytes_per_block: Bytes(2 * u64::from(metadata.head_dim) * BF16_BYTES * entries),
        k,
        extra: options.extra.map_or(beyond, |extra| extra.min(beyond)),
        queries: 1,
        selector: metadata.selector.clone(),
        score: options.scores.then(|| metadata.score.clone()),
        score_max: options.score_max,
        loop_kind: if closed_loop { LoopKind::Closed } else { LoopKind::Open },
        provenance: format!("{}; raw files {}", options.provenance, files.join(", ")),
        licence: options.licence.clone(),
    })
}

/// Selections of both kinds of file, side by side.
struct Pairs {
    selected_rows: RawSelections,
    next_rows: Option<RawSelections>,
    selected: RawSelection,
    next: RawSelection,
}

impl Pairs {
    fn new(selected: &[PathBuf], next: &[PathBuf]) -> Pairs {
        Pairs {
            selected_rows: RawSelections::new(selected),
            next_rows: (!next.is_empty()).then(|| RawSelections::new(next)),
            selected: RawSelection::default(),
            next: RawSelection::default(),
        }
    }

    fn advance(&mut self) -> Result<bool, TraceError> {
        let more = self.selected_rows.next(&mut self.selected)?;
        if more && self.selected.first_rank != 0 {
            let RawSelection { request, step, layer, kv_head, first_rank, .. } = &self.selected;
            let problem = format!(
                "request {request}, step {step}, layer {layer}, kv_head {kv_head}: ranks start at {first_rank} and not at 0"
            );
            return Err(TraceError::import(self.selected_rows.path(), problem));
        }
        let Some(next_rows) = &mut self.next_rows else { return Ok(more) };
        let next_more = next_rows.next(&mut self.next)?;
        if more != next_more || (more && !self.selected.same_place(&self.next)) {
            let problem =
                "its rows do not pair with those of the selected ranks; give files in the same order";
            return Err(TraceError::import(next_rows.path(), problem));
        }
        if more && usize::from(self.next.first_rank) != self.selected.blocks.len() {
            let problem = format!(
                "ranks start at {}, but the selected ranks end before {}",
                self.next.first_rank,
                self.selected.blocks.len()
            );
            return Err(TraceError::import(next_rows.path(), problem));
        }
        Ok(more)
    }
}

/// Turns raw selections into rows, and keeps the requests table.
struct Rows<'a> {
    options: &'a RecordingOptions,
    metadata: &'a RawMetadata,
    header: &'a Header,
    requests: Vec<Request>,
}

impl Rows<'_> {
    fn write(&mut self, pairs: &Pairs, writer: &mut TraceWriter) -> Result<(), TraceError> {
        let raw = &pairs.selected;
        let path = pairs.selected_rows.path();
        let steps = self.options.steps.clone().unwrap_or(0..u32::MAX);
        let chosen = self.options.requests.is_empty() || self.options.requests.contains(&raw.request);
        if !chosen || !steps.contains(&u32::from(raw.step)) {
            return Ok(());
        }
        let Some(layer) = self.header.layers.iter().position(|layer| *layer == raw.layer) else {
            return if self.metadata.layers.contains(&raw.layer) {
                Ok(()) // a layer that was not asked for
            } else {
                Err(TraceError::import(path, format!("layer {} is not in its metadata", raw.layer)))
            };
        };
        let step = u32::from(raw.step) - steps.start;
        if self.requests.last().is_none_or(|request| request.id != raw.request) {
            let Some(known) = self.metadata.request(&raw.request) else {
                let problem = format!("request `{}` is not in its metadata", raw.request);
                return Err(TraceError::import(path, problem));
            };
            self.requests.push(request(known, steps.start));
        }
        let request = self.requests.len() - 1;
        self.requests[request].output_steps = step + 1;
        let place = Place {
            request: u32::try_from(request).expect("a recording has fewer than 2^32 requests"),
            step,
            layer: u16::try_from(layer).expect("layers are counted in 16 bits"),
            head_group: raw.kv_head,
            query: 0,
        };
        let k = (self.header.k as usize).min(raw.blocks.len());
        let extra: Vec<u32> = raw.blocks[k..]
            .iter()
            .chain(&pairs.next.blocks)
            .copied()
            .take(self.header.extra as usize)
            .collect();
        if self.options.scores && raw.scores.is_empty() {
            let problem = "has no scores; convert without them";
            return Err(TraceError::import(path, problem));
        }
        let scores: Vec<f16> = raw.scores.iter().take(k).map(|score| f16::from_f32(*score)).collect();
        let scores = self.options.scores.then_some(&*scores);
        writer.push(&Row { place, blocks: &raw.blocks[..k], scores, extra: &extra })
    }
}

fn request(known: &RawRequest, first_step: u32) -> Request {
    Request {
        id: known.id.clone(),
        kind: format!("{}, {}", known.kind, known.mode),
        arrival: Nanos::ZERO,
        prompt_entries: known.n0.saturating_add(first_step),
        output_steps: 0,
        prefix_group: None,
        prefix_entries: 0,
    }
}
