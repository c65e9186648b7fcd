//! Doubly linked lists over dense block ids, oldest first: every block stands in at most one of them.

use super::HomeId;

const NIL: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Links {
    older: u32,
    newer: u32,
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    oldest: u32,
    newest: u32,
}

const EMPTY: Ends = Ends { oldest: NIL, newest: NIL };

/// The lists.
#[derive(Debug)]
pub(super) struct Lists {
    links: Vec<Links>,
    ends: Vec<Ends>,
}

impl Lists {
    /// So many empty lists.
    pub(super) fn new(lists: usize) -> Lists {
        Lists { links: Vec::new(), ends: vec![EMPTY; lists] }
    }

    /// The block that has stood in a list for longest.
    pub(super) fn oldest(&self, list: usize) -> Option<HomeId> {
        Some(self.ends[list].oldest).filter(|&id| id != NIL).map(HomeId)
    }

    /// Puts a block that stands in no list at the newest end of one.
    pub(super) fn push(&mut self, list: usize, id: HomeId) {
        if self.links.len() <= id.index() {
            self.links.resize(id.index() + 1, Links { older: NIL, newer: NIL });
        }
        let newest = std::mem::replace(&mut self.ends[list].newest, id.0);
        self.links[id.index()] = Links { older: newest, newer: NIL };
        match newest {
            NIL => self.ends[list].oldest = id.0,
            newest => self.links[newest as usize].newer = id.0,
        }
    }

    /// Takes a block out of the list in which it stands.
    pub(super) fn remove(&mut self, list: usize, id: HomeId) {
        let Links { older, newer } = self.links[id.index()];
        match older {
            NIL => self.ends[list].oldest = newer,
            older => self.links[older as usize].newer = newer,
        }
        match newer {
            NIL => self.ends[list].newest = older,
            newer => self.links[newer as usize].older = older,
        }
    }

    /// Moves all of one list behind the newest of another; the one is empty then.
    pub(super) fn append(&mut self, from: usize, to: usize) {
        let moved = std::mem::replace(&mut self.ends[from], EMPTY);
        if moved.oldest == NIL {
            return;
        }
        let newest = std::mem::replace(&mut self.ends[to].newest, moved.newest);
        match newest {
            NIL => self.ends[to].oldest = moved.oldest,
            newest => {
                self.links[newest as usize].newer = moved.oldest;
                self.links[moved.oldest as usize].older = newest;
            }
        }
    }
}
