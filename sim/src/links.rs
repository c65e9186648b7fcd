//! Links and memories that concurrent transfers share: max-min fair, with a cap per flow and duplex interference.
//! State is integer (byte-picoseconds per second), so that a lone flow ends at exactly its closed form.

use kvtier_units::{Bandwidth, Bytes, Nanos};

/// Picoseconds per nanosecond: flows progress in picoseconds, and round up once, when they end.
const PICOS: u64 = 1_000;
/// Picoseconds per second, by which bytes turn into work.
const PICOS_PER_SECOND: u128 = 1_000_000_000_000;
/// Resources a set of links may have.
const MAX_RESOURCES: usize = 8;

/// One shared resource: an index into the capacities that `Links` was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource(pub u8);

/// The resources that a flow uses all at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Route(u8);

impl Route {
    /// The route over `resources`.
    pub fn over(resources: &[Resource]) -> Route {
        Route(resources.iter().fold(0, |mask, resource| mask | 1 << resource.0))
    }

    /// Whether the route uses `resource`.
    pub fn uses(self, resource: Resource) -> bool {
        self.0 & (1 << resource.0) != 0
    }
}

/// Two directions of one link, and what each carries while both are in use.
#[derive(Clone, Copy, Debug)]
pub struct Duplex {
    /// The directions.
    pub pair: [Resource; 2],
    /// Their capacities while both carry a flow.
    pub shared: [Bandwidth; 2],
}

/// Names a flow until it ends.
pub type FlowId = u64;

#[derive(Clone, Copy, Debug)]
struct Flow {
    id: FlowId,
    route: Route,
    cap: u64,
    rate: u64,
    /// Bytes left, times `PICOS_PER_SECOND`.
    left: u128,
}

/// Shared resources and the flows over them.
#[derive(Debug)]
pub struct Links {
    capacity: Vec<u64>,
    duplex: Option<Duplex>,
    flows: Vec<Flow>,
    now: Nanos,
    busy: [Nanos; MAX_RESOURCES],
}

impl Links {
    /// Idle resources of the given capacities.
    ///
    /// # Panics
    /// If there are more than eight, or one has no capacity.
    pub fn new(capacities: &[Bandwidth], duplex: Option<Duplex>) -> Links {
        assert!(capacities.len() <= MAX_RESOURCES, "a route is a mask of eight resources");
        assert!(capacities.iter().all(|capacity| capacity.0 > 0), "a resource has a capacity above zero");
        Links {
            capacity: capacities.iter().map(|capacity| capacity.0).collect(),
            duplex,
            flows: Vec::with_capacity(16),
            now: Nanos::ZERO,
            busy: [Nanos::ZERO; MAX_RESOURCES],
        }
    }

    /// Starts a flow of `bytes`, at no more than `cap`.
    pub fn start(&mut self, now: Nanos, id: FlowId, route: Route, cap: Bandwidth, bytes: Bytes) {
        self.begin(now, id, route, cap, u128::from(bytes.0) * PICOS_PER_SECOND);
    }

    /// Starts a flow that takes exactly `alone` at rate `cap`, if nothing shares its way.
    pub fn start_for(&mut self, now: Nanos, id: FlowId, route: Route, cap: Bandwidth, alone: Nanos) {
        self.begin(now, id, route, cap, u128::from(cap.0) * u128::from(alone.0) * u128::from(PICOS));
    }

    fn begin(&mut self, now: Nanos, id: FlowId, route: Route, cap: Bandwidth, work: u128) {
        assert!(cap.0 > 0 && route != Route::default(), "a flow has a rate and a way");
        self.advance(now);
        self.flows.push(Flow { id, route, cap: cap.0, rate: 0, left: work });
        self.share();
    }

    /// When the next flow ends if none starts before, and which.
    pub fn next_end(&self) -> Option<(Nanos, FlowId)> {
        let end = |flow: &Flow| {
            let picos = flow.left.div_ceil(u128::from(flow.rate));
            let length =
                u64::try_from(picos.div_ceil(u128::from(PICOS))).expect("a flow ends within 584 years");
            (self.now + Nanos(length), flow.id)
        };
        self.flows.iter().map(end).min()
    }

    /// Removes a flow that ends now.
    ///
    /// # Panics
    /// If it is unknown, or has bytes left.
    pub fn end(&mut self, now: Nanos, id: FlowId) {
        self.advance(now);
        let index = self.flows.iter().position(|flow| flow.id == id).expect("a flow ends once");
        assert!(self.flows[index].left == 0, "a flow ends when its bytes are through");
        self.flows.remove(index);
        self.share();
    }

    /// Whether any flow is under way.
    pub fn is_idle(&self) -> bool {
        self.flows.is_empty()
    }

    /// The current rate of a flow.
    pub fn rate(&self, id: FlowId) -> Option<Bandwidth> {
        self.flows.iter().find(|flow| flow.id == id).map(|flow| Bandwidth(flow.rate))
    }

    /// How long `resource` has carried at least one flow, up to `now`.
    pub fn busy(&mut self, now: Nanos, resource: Resource) -> Nanos {
        self.advance(now);
        self.busy[usize::from(resource.0)]
    }

    /// Lets all flows progress to `now`.
    fn advance(&mut self, now: Nanos) {
        let passed = now - self.now;
        if passed == Nanos::ZERO {
            return;
        }
        let mut used = 0;
        for flow in &mut self.flows {
            used |= flow.route.0;
            let moved = u128::from(flow.rate) * u128::from(passed.0) * u128::from(PICOS);
            flow.left = flow.left.saturating_sub(moved);
        }
        for (index, busy) in self.busy.iter_mut().enumerate() {
            if used & (1 << index) != 0 {
                *busy += passed;
            }
        }
        self.now = now;
    }

    /// Capacities as they stand with the current flows.
    fn capacities(&self) -> [u64; MAX_RESOURCES] {
        let mut capacity = [u64::MAX; MAX_RESOURCES];
        capacity[..self.capacity.len()].copy_from_slice(&self.capacity);
        if let Some(Duplex { pair, shared }) = self.duplex {
            let used = |resource| self.flows.iter().any(|flow| flow.route.uses(resource));
            if used(pair[0]) && used(pair[1]) {
                for (resource, shared) in pair.iter().zip(shared) {
                    let slot = &mut capacity[usize::from(resource.0)];
                    *slot = (*slot).min(shared.0);
                }
            }
        }
        capacity
    }

    /// Sets every flow's rate by progressive filling: all rates rise together until a resource is full or a flow meets
    /// its cap; those stop, and the rest rise on.
    fn share(&mut self) {
        let mut free = self.capacities();
        assert!(self.flows.len() < 64, "the open flows are a mask of 64");
        let mut open: u64 = (1 << self.flows.len()) - 1;
        while open != 0 {
            let (level, fullest) = self.next_level(open, &free);
            let lowest_cap =
                open_flows(&self.flows, open).map(|(_, flow)| flow.cap).min().unwrap_or(u64::MAX);
            let rate = level.min(lowest_cap).max(1);
            let closes = |flow: &Flow| match lowest_cap <= level {
                true => flow.cap == lowest_cap,
                false => flow.route.0 & (1 << fullest) != 0,
            };
            let closing = open_flows(&self.flows, open)
                .filter(|(_, flow)| closes(flow))
                .fold(0_u64, |mask, (index, _)| mask | 1 << index);
            for (index, flow) in self.flows.iter_mut().enumerate() {
                if closing & (1 << index) != 0 {
                    flow.rate = rate;
                    for (resource, free) in free.iter_mut().enumerate() {
                        if flow.route.0 & (1 << resource) != 0 {
                            *free = free.saturating_sub(rate);
                        }
                    }
                }
            }
            open &= !closing;
        }
    }

    /// The equal share at which the first resource is full, and that resource.
    fn next_level(&self, open: u64, free: &[u64; MAX_RESOURCES]) -> (u64, usize) {
        let users = |resource: usize| {
            open_flows(&self.flows, open).filter(|(_, flow)| flow.route.0 & (1 << resource) != 0).count()
                as u64
        };
        let shares =
            free.iter().enumerate().filter_map(|(at, free)| Some((free.checked_div(users(at))?, at)));
        shares.min().expect("every flow uses a resource")
    }
}

fn open_flows(flows: &[Flow], open: u64) -> impl Iterator<Item = (usize, &Flow)> {
    flows.iter().enumerate().filter(move |(index, _)| open & (1 << index) != 0)
}
