//! Attention that has the device to itself: a thread block or a cluster of them per stream, by how many streams there are.
//! The public calls are those of `attend`, which chooses between this and a grid that leaves multiprocessors free.

use super::attend::{Call, Gqa, HEAD_DIM, Mla};
use super::count32;
use crate::compile::{ATTEND_GQA_CLUSTERS, ATTEND_MLA_CLUSTERS, ATTEND_MLA_TEAMS, Module, READ_FRAMES};
use crate::{Device, HwError, Kernel, Shape, Stream, cluster};

/// Warps of a block of grouped-query attention.
const WARPS: u32 = 8;

/// How streams of grouped-query attention are cut: stages of each warp's ring, blocks of a cluster, and how many streams,
/// the last ones, have a cluster each; the others have a block each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cut {
    /// Tokens per page, where it matters.
    page: Option<u32>,
    /// Streams up to which this is the fastest (own measurement, H100 80GB SXM, streams of 2048 tokens).
    streams: u32,
    stages: u32,
    cluster: u32,
    last: u32,
}

const ALL: u32 = u32::MAX;

/// In shorter streams small last ones cost more than they save: up to 5.7 us in streams of 512 tokens; 1280 is even.
const LONG: u32 = 1536;

/// For shorter streams.
const SHORT_CUTS: &[Cut] = &[
    Cut { page: None, streams: 11, stages: 2, cluster: 8, last: ALL },
    Cut { page: None, streams: 23, stages: 2, cluster: 4, last: ALL },
    Cut { page: None, streams: 47, stages: 2, cluster: 2, last: ALL },
    Cut { page: None, streams: 191, stages: 2, cluster: 1, last: ALL },
    Cut { page: None, streams: u32::MAX, stages: 1, cluster: 1, last: ALL },
];

/// 64 blocks of 128 KiB read as fast as more, and leave room for those of the next kernel to get ready. More than the
/// device holds at once end together if the last ones are small.
const CUTS: &[Cut] = &[
    Cut { page: None, streams: 11, stages: 2, cluster: 8, last: ALL },
    Cut { page: None, streams: 27, stages: 2, cluster: 4, last: ALL },
    Cut { page: None, streams: 39, stages: 2, cluster: 2, last: ALL },
    Cut { page: None, streams: 67, stages: 2, cluster: 1, last: ALL },
    Cut { page: None, streams: 115, stages: 2, cluster: 4, last: 24 },
    Cut { page: None, streams: 132, stages: 2, cluster: 1, last: ALL },
    Cut { page: None, streams: 247, stages: 2, cluster: 4, last: 48 },
    Cut { page: Some(64), streams: 264, stages: 1, cluster: 1, last: ALL },
    Cut { page: None, streams: 495, stages: 2, cluster: 4, last: 48 },
    Cut { page: Some(64), streams: 528, stages: 1, cluster: 1, last: ALL },
    Cut { page: None, streams: u32::MAX, stages: 2, cluster: 4, last: 48 },
];

/// A warp's ring of tiles of 16 keys and values.
fn ring_bytes(stages: u32) -> u32 {
    stages * 16 * count32(HEAD_DIM) * 4
}

impl Cut {
    fn of(page: u32, streams: u32, tokens: u32) -> Cut {
        let fits = |cut: &&Cut| streams <= cut.streams && cut.page.is_none_or(|of| of == page);
        let cuts = if tokens >= LONG { CUTS } else { SHORT_CUTS };
        *cuts.iter().find(fits).expect("the last cut is for any page and number of streams")
    }

    fn shared_bytes(self) -> u32 {
        WARPS * ring_bytes(self.stages)
    }

    /// Streams that have a block each; clusters begin behind a whole number of their blocks.
    fn whole(self, streams: u32) -> u32 {
        streams.saturating_sub(self.last) / self.cluster * self.cluster
    }

    /// Thread blocks.
    fn blocks(self, streams: u32) -> u32 {
        let whole = self.whole(streams);
        whole + (streams - whole) * self.cluster
    }
}

/// The kernels of grouped-query attention.
pub(super) struct GqaClusters {
    /// By geometry and stages.
    kernels: Vec<(Gqa, u32, Kernel)>,
    _module: Module,
}

impl GqaClusters {
    pub(super) fn load(device: &Device) -> Result<GqaClusters, HwError> {
        let module = Module::load(device, ATTEND_GQA_CLUSTERS)?;
        let mut kernels = Vec::new();
        for (page, group) in [(16, 4), (16, 8), (64, 4), (64, 8)] {
            for stages in [1, 2] {
                let name = format!("attend_p{page}_g{group}_w{WARPS}_s{stages}");
                let kernel = module.kernel(&name, WARPS * ring_bytes(stages))?;
                cluster::allow(kernel)?;
                kernels.push((Gqa { page, group }, stages, kernel));
            }
        }
        Ok(GqaClusters { kernels, _module: module })
    }

    pub(super) fn attend(
        &self,
        stream: &Stream,
        gqa: Gqa,
        call: &Call<'_>,
        scale: f32,
    ) -> Result<(), HwError> {
        let streams = call.reading.streams();
        if streams == 0 {
            return Ok(());
        }
        let cut = Cut::of(gqa.page, streams, call.reading.usual_tokens());
        let found = self.kernels.iter().find(|(of, stages, _)| (*of, *stages) == (gqa, cut.stages));
        let &(_, _, kernel) = found.expect("pages of 16 or 64 tokens and groups of 4 or 8 heads");
        let shape = Shape { grid: (cut.blocks(streams), 1), block: WARPS * 32, shared: cut.shared_bytes() };
        let (entries, rows) = call.reading.addresses();
        let arguments = [
            call.queries.address(),
            call.pool,
            entries,
            rows,
            u64::from(call.reading.usual_entries()),
            u64::from((scale * std::f32::consts::LOG2_E).to_bits()),
            call.result.out.address(),
            call.result.lse.address(),
            u64::from(cut.whole(streams)),
        ];
        // SAFETY: as declared in attend_gqa_clusters.cu; the reading names frames within the pool.
        unsafe { stream.launch_clusters(kernel, shape, cut.cluster, &arguments) }
    }
}

/// The yardstick of grouped-query attention: reads its frames and does nothing with them.
pub(crate) struct FrameReader {
    kernels: [(u32, Kernel); 2],
    _module: Module,
}

impl FrameReader {
    /// Compiles and loads it.
    ///
    /// # Errors
    /// If it cannot be compiled or loaded.
    pub(crate) fn load(device: &Device) -> Result<FrameReader, HwError> {
        let module = Module::load(device, READ_FRAMES)?;
        let kernel = |page| Ok((page, module.kernel(&format!("read_p{page}"), WARPS * ring_bytes(2))?));
        Ok(FrameReader { kernels: [kernel(16)?, kernel(64)?], _module: module })
    }

    /// Reads what all streams, equally long, attend to.
    ///
    /// # Errors
    /// If the launch is refused.
    ///
    /// # Panics
    /// If there is no kernel for the page.
    pub(crate) fn read(&self, stream: &Stream, page: u32, call: &Call<'_>) -> Result<(), HwError> {
        let found = self.kernels.iter().find(|(of, _)| *of == page);
        let &(_, kernel) = found.expect("pages of 16 or 64 tokens");
        let shape =
            Shape { grid: (call.reading.streams(), 1), block: WARPS * 32, shared: WARPS * ring_bytes(2) };
        let (entries, _) = call.reading.addresses();
        let arguments = [call.pool, entries, u64::from(call.reading.usual_entries())];
        // SAFETY: as declared in read_frames.cu; the reading names frames within the pool.
        unsafe { stream.launch_clusters(kernel, shape, 1, &arguments) }
    }
}

/// A kernel of latent attention, for 16 or 64 heads at once.
struct Latent {
    fp8: bool,
    heads: u32,
    threads: u32,
    shared: u32,
    kernel: Kernel,
    /// How many clusters of how many blocks the device holds, largest first.
    fits: Vec<(u32, u32)>,
}

impl Latent {
    /// Four warps for either half of a step's tokens; a ring of stages of 32 rows, the queries, and a step's weights.
    fn halves(module: &Module, fp8: bool, heads: u32) -> Result<Latent, HwError> {
        let (stages, row, step) = (if heads == 16 && !fp8 { 5 } else { 4 }, 576 * 2, 64 * 128);
        let shared = stages * 32 * row + heads * row + step;
        let name = format!("attend_{}_h{heads}", if fp8 { "fp8" } else { "bf16" });
        Latent::load(module, &name, fp8, heads, (256, shared))
    }

    /// Two teams of four warps and one that brings their rows; per team, a ring of two tiles of 16 rows.
    fn teams(module: &Module) -> Result<Latent, HwError> {
        let (teams, stages, row) = (2, 2, 576 * 2 + 16);
        Latent::load(module, "attend_bf16_teams", false, 16, (teams * 128 + 32, teams * stages * 16 * row))
    }

    fn load(
        module: &Module,
        name: &str,
        fp8: bool,
        heads: u32,
        (threads, shared): (u32, u32),
    ) -> Result<Latent, HwError> {
        let kernel = module.kernel(name, shared)?;
        cluster::allow(kernel)?;
        let mut fits = Vec::new();
        let mut blocks = cluster::LARGEST;
        while blocks > 1 {
            let shape = Shape { grid: (blocks, 1), block: threads, shared };
            fits.push((blocks, cluster::most(kernel, shape, blocks)?));
            blocks /= 2;
        }
        Ok(Latent { fp8, heads, threads, shared, kernel, fits })
    }

    /// Blocks of a cluster: the most of which so many clusters run at once.
    fn cluster(&self, clusters: u32) -> u32 {
        self.fits.iter().find(|(_, most)| clusters <= *most).map_or(1, |&(blocks, _)| blocks)
    }
}

/// The kernels of latent attention.
pub(super) struct MlaClusters {
    kernels: Vec<Latent>,
    /// For 16 heads in bf16 of so many streams that a cluster has few blocks.
    teams: Latent,
    _modules: [Module; 2],
}

impl MlaClusters {
    pub(super) fn load(device: &Device) -> Result<MlaClusters, HwError> {
        let modules = [Module::load(device, ATTEND_MLA_CLUSTERS)?, Module::load(device, ATTEND_MLA_TEAMS)?];
        let shapes = [(false, 16), (false, 64), (true, 16), (true, 64)];
        let kernels = shapes.into_iter().map(|(fp8, heads)| Latent::halves(&modules[0], fp8, heads));
        let kernels = kernels.collect::<Result<_, _>>()?;
        Ok(MlaClusters { kernels, teams: Latent::teams(&modules[1])?, _modules: modules })
    }

    /// The fastest kernel (own measurement, H100 80GB SXM, streams of 2048 rows), and blocks of a cluster.
    fn choose(&self, fp8: bool, heads: u32, clusters: u32) -> (&Latent, u32) {
        const FEW: u32 = 2;
        let found = self.kernels.iter().find(|kernel| (kernel.fp8, kernel.heads) == (fp8, heads));
        let latent = found.expect("a kernel for both formats and both numbers of heads");
        let cluster = latent.cluster(clusters);
        if (fp8, heads) == (self.teams.fp8, self.teams.heads) && cluster <= FEW {
            return (&self.teams, self.teams.cluster(clusters).min(FEW));
        }
        (latent, cluster)
    }

    pub(super) fn attend(
        &self,
        stream: &Stream,
        mla: Mla,
        call: &Call<'_>,
        scale: f32,
    ) -> Result<(), HwError> {
        let streams = call.reading.streams();
        if streams == 0 {
            return Ok(());
        }
        let heads = if mla.heads.is_multiple_of(64) { 64 } else { 16 };
        assert_eq!(mla.heads % heads, 0, "query heads are a multiple of 16");
        let groups = mla.heads / heads;
        let (latent, cluster) = self.choose(mla.fp8, heads, streams * groups);
        let shape = Shape { grid: (streams * cluster, groups), block: latent.threads, shared: latent.shared };
        let (entries, rows) = call.reading.addresses();
        let arguments = [
            call.queries.address(),
            call.pool,
            entries,
            rows,
            u64::from(call.reading.usual_entries()),
            u64::from(mla.heads),
            u64::from((scale * std::f32::consts::LOG2_E).to_bits()),
            call.result.out.address(),
            call.result.lse.address(),
        ];
        // SAFETY: as declared in attend_mla_clusters.cu and attend_mla_teams.cu; the reading names rows within the pool.
        unsafe { stream.launch_clusters(latent.kernel, shape, cluster, &arguments) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_streams_are_cut_finest() {
        let cluster = |streams| Cut::of(16, streams, 2048).cluster;
        assert_eq!([1, 8, 24, 32, 64, 80, 128, 512].map(cluster), [8, 8, 4, 2, 1, 4, 1, 4]);
        assert_eq!([Cut::of(64, 512, 2048), Cut::of(16, 512, 2048)].map(|cut| cut.stages), [1, 2]);
        let fits_at_once = Cut::of(64, 256, 2048);
        assert_eq!((fits_at_once.stages, fits_at_once.cluster, fits_at_once.whole(256)), (1, 1, 0));
        assert_eq!([(64, 247), (16, 256), (64, 265)].map(|(page, n)| Cut::of(page, n, 2048).last), [48; 3]);
        let short = Cut::of(16, 192, 528);
        assert_eq!((short.stages, short.cluster, short.whole(192)), (1, 1, 0));
        for cuts in [CUTS, SHORT_CUTS] {
            assert!(cuts.is_sorted_by_key(|cut| cut.streams));
            assert_eq!(cuts.last().map(|cut| (cut.page, cut.streams)), Some((None, u32::MAX)));
            // A warp's piece lies in its ring afterwards: 8 heads of 132 values, maximum and sum.
            assert!(cuts.iter().all(|cut| 8 * 134 * 4 <= ring_bytes(cut.stages)));
            assert!(cuts.iter().all(|cut| cut.shared_bytes() <= 220 << 10));
        }
    }

    #[test]
    fn every_stream_has_a_block_or_a_cluster() {
        for (page, streams) in [16, 64].into_iter().flat_map(|page| (1..1200).map(move |n| (page, n))) {
            let cut = Cut::of(page, streams, 2048);
            let whole = cut.whole(streams);
            assert!(whole < streams && whole.is_multiple_of(cut.cluster), "{streams} of {page}");
            assert!(cut.blocks(streams).is_multiple_of(cut.cluster));
            assert!(streams - whole < cut.last.saturating_add(cut.cluster));
        }
    }
}
