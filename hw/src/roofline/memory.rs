//! The ceilings: what memory and link give to a plain copy, and what a launch costs.

use crate::ops::dense::{BF16_NOISE, Dense};
use crate::{Device, DeviceBuffer, Figure, HwError, PinnedBuffer, Stream, copy_async};
use serde::{Deserialize, Serialize};

/// Bandwidths in GB/s and times in microseconds, all from one run.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Ceilings {
    /// Device memory to itself, bytes read plus bytes written.
    pub copy: f64,
    /// A kernel that only reads device memory.
    pub read: f64,
    /// Large pinned copy to the device.
    pub to_device: f64,
    /// Large pinned copy to the host.
    pub to_host: f64,
    /// One empty kernel within a graph, us.
    pub graph_node: f64,
    /// How far the repeats of each lie apart, as a share of it.
    pub spread: CeilingSpread,
}

/// Distance of the extremes of each ceiling's repeats, as a share of its median.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct CeilingSpread {
    /// Of the copy within device memory.
    pub copy: f64,
    /// Of the reading kernel.
    pub read: f64,
    /// Of the copy to the device.
    pub to_device: f64,
    /// Of the copy to the host.
    pub to_host: f64,
    /// Of the graph node.
    pub graph_node: f64,
}

impl Ceilings {
    /// Of ceilings taken apart the one in the middle, each for itself.
    ///
    /// # Panics
    /// If there is none.
    pub(crate) fn middle(rounds: &[Ceilings]) -> Ceilings {
        let figure = |of: fn(&Ceilings) -> (f64, f64)| {
            Figure::middle(rounds.iter().map(of).map(|(value, spread)| Figure { value, spread }))
        };
        let copy = figure(|round| (round.copy, round.spread.copy));
        let read = figure(|round| (round.read, round.spread.read));
        let to_device = figure(|round| (round.to_device, round.spread.to_device));
        let to_host = figure(|round| (round.to_host, round.spread.to_host));
        let graph_node = figure(|round| (round.graph_node, round.spread.graph_node));
        Ceilings {
            copy: copy.value,
            read: read.value,
            to_device: to_device.value,
            to_host: to_host.value,
            graph_node: graph_node.value,
            spread: CeilingSpread {
                copy: copy.spread,
                read: read.spread,
                to_device: to_device.spread,
                to_host: to_host.spread,
                graph_node: graph_node.spread,
            },
        }
    }
}

pub(crate) fn ceilings(device: &Device, stream: &Stream, dense: &Dense) -> Result<Ceilings, HwError> {
    let bytes = 2usize << 30;
    let (a, b) = (DeviceBuffer::<u8>::new(device, bytes)?, DeviceBuffer::<u8>::new(device, bytes)?);
    dense.fill_noise(stream, a.address(), bytes as u64, 1, BF16_NOISE)?;
    // SAFETY: both buffers are that long and live until the measurement is over.
    let copy = stream.time(10, || unsafe { copy_async(stream, b.address(), a.address(), bytes) })?;
    let mut read = Figure { value: 0.0, spread: 0.0 };
    for per_sm in [2, 4, 8] {
        let grid = device.info().sms * per_sm;
        let time = stream.time(10, || dense.stream_weights(stream, a.address(), bytes as u64, grid))?;
        let found = Figure::bandwidth(&time, bytes as u64);
        if found.value > read.value {
            read = found;
        }
    }
    let large = 512usize << 20;
    let host = PinnedBuffer::<u8>::new(device, large)?;
    // SAFETY: as above.
    let to_device = stream.time(5, || unsafe { copy_async(stream, b.address(), host.address(), large) })?;
    // SAFETY: as above.
    let to_host = stream.time(5, || unsafe { copy_async(stream, host.address(), b.address(), large) })?;
    let graph_node = stream.time_in_graph(200, 10, |_| dense.nothing(stream))?;
    Ok(Ceilings {
        copy: copy.gigabytes_per_second(2 * bytes as u64),
        read: read.value,
        to_device: to_device.gigabytes_per_second(large as u64),
        to_host: to_host.gigabytes_per_second(large as u64),
        graph_node: graph_node.micros(),
        spread: CeilingSpread {
            copy: copy.relative(),
            read: read.spread,
            to_device: to_device.relative(),
            to_host: to_host.relative(),
            graph_node: graph_node.relative(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ceiling_has_a_middle_of_its_own() {
        let spread = CeilingSpread { copy: 0.1, read: 0.2, to_device: 0.3, to_host: 0.4, graph_node: 0.5 };
        let round = |[copy, read, to_device, to_host, graph_node]: [f64; 5]| Ceilings {
            copy,
            read,
            to_device,
            to_host,
            graph_node,
            spread,
        };
        let rounds =
            [[10.0, 21.0, 42.0, 55.0, 8.0], [12.0, 20.0, 55.0, 11.0, 9.0], [11.0, 22.0, 54.0, 50.0, 7.0]];
        let middle = Ceilings::middle(&rounds.map(round));
        let values = [middle.copy, middle.read, middle.to_device, middle.to_host, middle.graph_node];
        assert_eq!(values, [11.0, 21.0, 54.0, 50.0, 8.0]);
        // Where rounds lie further apart than the repeats of one, that is the spread.
        let CeilingSpread { copy, read, to_device, to_host, graph_node } = middle.spread;
        assert_eq!([copy, read, to_device, graph_node], [2.0 / 11.0, 0.2, 0.3, 0.5]);
        assert_eq!(to_host, 44.0 / 50.0);
    }
}
