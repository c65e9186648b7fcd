//! `configs/policies` documents every registered policy: each file builds, lists every parameter, and states the defaults.

#![allow(clippy::unwrap_used)] // a failing test may panic

use kvtier_policies::eviction::{BufferShape, EVICTION, Entry};
use kvtier_policies::{Below, Foresight, PolicyError, Selection, StreamPlan};
use kvtier_units::{BlockId, Seed};

const SHAPE: BufferShape = BufferShape { slots: 24, blocks: 200, k: 8, seed: Seed(3) };

fn params(entry: &Entry) -> toml::Table {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/policies");
    let path = format!("{root}/{}.toml", entry.name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut table: toml::Table = text.parse().unwrap();
    assert_eq!(table.remove("policy").unwrap().as_str(), Some(entry.name), "{path}");
    let params =
        table.remove("params").map_or_else(toml::Table::new, |params| params.as_table().unwrap().clone());
    assert!(table.is_empty(), "{path} has a policy and its parameters only");
    params
}

/// Every decision on a run that drifts, with scores and near misses.
fn decisions(entry: &Entry, params: &toml::Table) -> Vec<StreamPlan> {
    let mut buffer = entry.build(params, SHAPE).unwrap();
    let pick = |step: u32, nth: u32| BlockId((step * step / 40 + nth * (7 + step % 5)) % SHAPE.blocks);
    let step_of = |step: u32| {
        let blocks: Vec<BlockId> = (0..SHAPE.k).map(|nth| pick(step, nth)).collect();
        let near: Vec<BlockId> = (SHAPE.k..SHAPE.k + 4).map(|nth| pick(step, nth)).collect();
        let scores: Vec<u16> = (0..8).map(|rank| 9000 - 1000 * rank).collect();
        let foresight = Foresight { next_use: &[u32::MAX; 8], grown_next_use: u32::MAX };
        let selection = Selection {
            blocks: &blocks,
            scores: &scores,
            near: &near,
            newest: false,
            grown: None,
            foresight: Some(foresight),
        };
        let mut plan = StreamPlan::default();
        buffer.step(step, &selection, None, Below::HOST, &mut plan);
        plan
    };
    (0..400).map(step_of).collect()
}

fn slots_and_loads(plans: &[StreamPlan]) -> Vec<(&[kvtier_units::Slot], &[kvtier_policies::Fill])> {
    plans.iter().map(|plan| (&plan.slots[..], &plan.loads[..])).collect()
}

#[test]
fn every_policy_is_documented_and_its_file_states_the_defaults() {
    for entry in EVICTION {
        let documented = decisions(entry, &params(entry));
        let default = decisions(entry, &toml::Table::new());
        assert_eq!(slots_and_loads(&documented), slots_and_loads(&default), "{}", entry.name);
    }
}

#[test]
fn an_unknown_parameter_is_refused_with_the_known_ones() {
    for entry in EVICTION {
        let mut wrong = params(entry);
        wrong.insert("no_such_parameter".into(), toml::Value::Integer(1));
        let Err(PolicyError::Params { field, message }) = entry.build(&wrong, SHAPE).map(drop) else {
            panic!("{} takes an unknown parameter", entry.name);
        };
        assert_eq!(field, "hot.params");
        assert!(message.contains("no_such_parameter") && message.contains(entry.name), "{message}");
        // serde names the fields it expects: none may be missing from the documentation.
        for known in message.split('`').skip(1).step_by(2).filter(|word| word.contains('_') || word.len() > 1)
        {
            let is_parameter = known != "no_such_parameter" && known != entry.name;
            assert!(!is_parameter || wrong.contains_key(known), "{}: {known} is undocumented", entry.name);
        }
    }
}

#[test]
fn parameters_out_of_range_are_refused() {
    let refused = [
        ("clock", "bits = 0"),
        ("clock", "bits = 9"),
        ("slru", "shares = [1]"),
        ("slru", "shares = [1, 0]"),
        ("2q", "in_percent = 2000"),
        ("lru-k", "k = 0"),
        ("s3-fifo", "small_percent = 2000"),
        ("lfu-aging", "halve_every = 0"),
        ("aged-score", "keep = 256"),
        ("region-utility", "region = 6"),
        ("slru", "variant = 'papper'"),
    ];
    for (policy, text) in refused {
        let entry = EVICTION.iter().find(|entry| entry.name == policy).unwrap();
        let error = entry.build(&text.parse().unwrap(), SHAPE).map(drop).unwrap_err();
        assert!(error.to_string().starts_with("hot.params"), "{policy} {text}: {error}");
    }
}
