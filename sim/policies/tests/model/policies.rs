//! The classical policies once more, each in a few lines over vectors. Slots are plain indices.

/// A policy over the slots of one buffer.
pub(crate) trait NaivePolicy {
    /// `need` of the `evictable` slots (ascending) of a buffer of `slots`, in victim order.
    fn victims(&mut self, evictable: &[usize], slots: usize, need: usize) -> Vec<usize>;
    /// Credits a step's selection: its slots in rank order, which of them were hits, and each block's next use.
    fn credit(&mut self, slots: &[usize], hit: &[bool], next: &[u32]);
    /// One more block entered a slot.
    fn enter(&mut self, slot: usize, next: u32);
    /// A block moved between steps, to a slot that was free or whose block had left.
    fn relocate(&mut self, from: usize, to: usize) {
        unreachable!("this policy does not resize, so nothing moves from {from} to {to}");
    }
}

/// The naive twin of a policy, if it has one.
pub(crate) fn naive(name: &str, params: &toml::Table) -> Option<Box<dyn NaivePolicy>> {
    let number = |field: &str, default: i64| {
        let given = params.get(field).map_or(default, |value| value.as_integer().unwrap());
        u32::try_from(given).unwrap()
    };
    Some(match name {
        "fifo" => Box::<Fifo>::default(),
        "lru" => Box::<Lru>::default(),
        "lru-step" => Box::<LruStep>::default(),
        "clock" => Box::new(Clock { most: (1 << number("bits", 1)) - 1, ring: Vec::new() }),
        "lfu" => Box::<Lfu>::default(),
        "belady" => Box::<Belady>::default(),
        _ => return None,
    })
}

/// Moves `slot` to the end.
fn renew(order: &mut Vec<usize>, slot: usize) {
    order.retain(|&other| other != slot);
    order.push(slot);
}

/// Gives `to` the place of `from` in an order.
fn rename(order: &mut Vec<usize>, from: usize, to: usize) {
    order.retain(|&slot| slot != to);
    order.iter_mut().filter(|slot| **slot == from).for_each(|slot| *slot = to);
}

fn first_of(order: &[usize], evictable: &[usize], need: usize) -> Vec<usize> {
    order.iter().copied().filter(|slot| evictable.contains(slot)).take(need).collect()
}

#[derive(Default)]
struct Fifo(Vec<usize>);

impl NaivePolicy for Fifo {
    fn victims(&mut self, evictable: &[usize], _: usize, need: usize) -> Vec<usize> {
        first_of(&self.0, evictable, need)
    }
    fn credit(&mut self, slots: &[usize], hit: &[bool], _: &[u32]) {
        slots.iter().zip(hit).filter(|(_, hit)| !**hit).for_each(|(&slot, _)| renew(&mut self.0, slot));
    }
    fn enter(&mut self, slot: usize, _: u32) {
        renew(&mut self.0, slot);
    }
    fn relocate(&mut self, from: usize, to: usize) {
        rename(&mut self.0, from, to);
    }
}

#[derive(Default)]
struct Lru(Vec<usize>);

impl NaivePolicy for Lru {
    fn victims(&mut self, evictable: &[usize], _: usize, need: usize) -> Vec<usize> {
        first_of(&self.0, evictable, need)
    }
    fn credit(&mut self, slots: &[usize], _: &[bool], _: &[u32]) {
        slots.iter().rev().for_each(|&slot| renew(&mut self.0, slot));
    }
    fn enter(&mut self, slot: usize, _: u32) {
        renew(&mut self.0, slot);
    }
    fn relocate(&mut self, from: usize, to: usize) {
        rename(&mut self.0, from, to);
    }
}

#[derive(Default)]
struct LruStep(Vec<usize>);

impl NaivePolicy for LruStep {
    fn victims(&mut self, evictable: &[usize], _: usize, need: usize) -> Vec<usize> {
        first_of(&self.0, evictable, need)
    }
    fn credit(&mut self, slots: &[usize], hit: &[bool], _: &[u32]) {
        let chosen = |wanted: bool| -> Vec<usize> {
            slots.iter().zip(hit).filter(|(_, hit)| **hit == wanted).map(|(&slot, _)| slot).collect()
        };
        let (hits, loaded) = (chosen(true), chosen(false));
        let stale = self.0.iter().copied().filter(|slot| !slots.contains(slot));
        let kept = self.0.iter().copied().filter(|slot| hits.contains(slot));
        self.0 = stale.chain(loaded).chain(kept).collect();
    }
    fn enter(&mut self, slot: usize, _: u32) {
        renew(&mut self.0, slot);
    }
    fn relocate(&mut self, from: usize, to: usize) {
        rename(&mut self.0, from, to);
    }
}

/// The ring is kept with the hand at its front: (slot, references).
struct Clock {
    most: u32,
    ring: Vec<(usize, u32)>,
}

impl Clock {
    fn references(&mut self, slot: usize) -> &mut u32 {
        &mut self.ring.iter_mut().find(|(other, _)| *other == slot).unwrap().1
    }
}

impl NaivePolicy for Clock {
    fn victims(&mut self, evictable: &[usize], slots: usize, need: usize) -> Vec<usize> {
        for slot in self.ring.len()..slots {
            self.ring.push((slot, 0));
        }
        let mut out = Vec::new();
        while out.len() < need {
            let (slot, references) = self.ring.remove(0);
            let may_go = evictable.contains(&slot) && !out.contains(&slot);
            if may_go && references == 0 {
                out.push(slot);
            }
            self.ring.push((slot, if may_go { references.saturating_sub(1) } else { references }));
        }
        out
    }
    fn credit(&mut self, slots: &[usize], hit: &[bool], _: &[u32]) {
        for (&slot, &hit) in slots.iter().zip(hit) {
            if hit {
                let most = self.most;
                let references = self.references_or_new(slot);
                *references = (*references + 1).min(most);
            } else {
                *self.references_or_new(slot) = 0;
            }
        }
    }
    fn enter(&mut self, slot: usize, _: u32) {
        *self.references_or_new(slot) = 0;
    }
}

impl Clock {
    /// Before the first sweep the ring stands in slot order and may still be short.
    fn references_or_new(&mut self, slot: usize) -> &mut u32 {
        for new in self.ring.len()..=slot {
            self.ring.push((new, 0));
        }
        self.references(slot)
    }
}

/// (slot, count) from least to most recent.
#[derive(Default)]
struct Lfu(Vec<(usize, u32)>);

impl Lfu {
    fn set(&mut self, slot: usize, count: u32) {
        self.0.retain(|&(other, _)| other != slot);
        self.0.push((slot, count));
    }
}

impl NaivePolicy for Lfu {
    fn victims(&mut self, evictable: &[usize], _: usize, need: usize) -> Vec<usize> {
        let mut order = self.0.clone();
        order.sort_by_key(|&(_, count)| count);
        first_of(&order.iter().map(|&(slot, _)| slot).collect::<Vec<_>>(), evictable, need)
    }
    fn credit(&mut self, slots: &[usize], hit: &[bool], _: &[u32]) {
        for (&slot, &hit) in slots.iter().zip(hit).rev() {
            let count = self.0.iter().find(|&&(other, _)| other == slot).map_or(0, |&(_, count)| count);
            self.set(slot, if hit { count + 1 } else { 1 });
        }
    }
    fn enter(&mut self, slot: usize, _: u32) {
        self.set(slot, 1);
    }
    fn relocate(&mut self, from: usize, to: usize) {
        self.0.retain(|&(slot, _)| slot != to);
        self.0.iter_mut().filter(|(slot, _)| *slot == from).for_each(|(slot, _)| *slot = to);
    }
}

#[derive(Default)]
struct Belady(Vec<(usize, u32)>);

impl NaivePolicy for Belady {
    fn victims(&mut self, evictable: &[usize], _: usize, need: usize) -> Vec<usize> {
        let mut order: Vec<(usize, u32)> =
            self.0.iter().copied().filter(|(slot, _)| evictable.contains(slot)).collect();
        order.sort_by_key(|&(slot, next)| (std::cmp::Reverse(next), slot));
        order.into_iter().map(|(slot, _)| slot).take(need).collect()
    }
    fn credit(&mut self, slots: &[usize], _: &[bool], next: &[u32]) {
        slots.iter().zip(next).for_each(|(&slot, &next)| self.enter(slot, next));
    }
    fn enter(&mut self, slot: usize, next: u32) {
        self.0.retain(|&(other, _)| other != slot);
        self.0.push((slot, next));
    }
}
