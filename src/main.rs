//! kvtier
fn main() {}
