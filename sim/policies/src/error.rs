//! Errors of configuration: every one names the field, what was wrong and what to write instead.

use thiserror::Error;

/// Why a policy or a decision plane could not be built.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// No policy of that name.
    #[error("{field}: unknown {kind} `{name}`; {hint}one of: {known}")]
    Unknown {
        /// Configuration field.
        field: &'static str,
        /// What kind of policy the field names.
        kind: &'static str,
        /// What was written.
        name: String,
        /// `did you mean "lru"? ` or nothing.
        hint: String,
        /// All names, comma separated.
        known: String,
    },
    /// A policy parameter is unknown or out of range.
    #[error("{field}: {message}")]
    Params {
        /// Configuration field.
        field: &'static str,
        /// What is wrong and what to write instead.
        message: String,
    },
    /// The buffer cannot hold one selection.
    #[error(
        "hot.slots: {slots} slots cannot hold a selection of {k} blocks, all of which one step needs at once; \
         give at least {k}"
    )]
    BufferTooSmall {
        /// Slots asked for.
        slots: u32,
        /// Blocks per selection.
        k: u32,
    },
    /// Two settings exclude each other.
    #[error("{field}: {message}")]
    Conflict {
        /// Configuration field.
        field: &'static str,
        /// Why they exclude each other, and the remedy.
        message: String,
    },
}

impl PolicyError {
    /// An unknown name, with the nearest known one as a suggestion.
    pub fn unknown(field: &'static str, kind: &'static str, name: &str, known: &[&str]) -> PolicyError {
        let hint = nearest(name, known).map(|best| format!("did you mean \"{best}\"? ")).unwrap_or_default();
        PolicyError::Unknown { field, kind, name: name.into(), hint, known: known.join(", ") }
    }
}

/// The known name that starts with `name`, or else is within two edits of it (a third of its length for longer ones).
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    if let Some(longer) = known.iter().find(|candidate| name.len() >= 3 && candidate.starts_with(name)) {
        return Some(longer);
    }
    let reach = (name.chars().count() / 3).max(2);
    known
        .iter()
        .map(|candidate| (edits(name, candidate), *candidate))
        // What would replace every letter is not near.
        .filter(|&(distance, candidate)| {
            distance <= reach && distance < name.chars().count().max(candidate.chars().count())
        })
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, cb) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_gets_a_suggestion() {
        let error = PolicyError::unknown("hot.policy", "eviction policy", "lur", &["fifo", "lru", "clock"]);
        assert_eq!(
            error.to_string(),
            "hot.policy: unknown eviction policy `lur`; did you mean \"lru\"? one of: fifo, lru, clock"
        );
        assert_eq!(nearest("zzzzzz", &["fifo", "lru"]), None);
        assert_eq!(
            nearest("h100", &["gh200", "h100-pcie5"]),
            Some("h100-pcie5"),
            "a beginning beats a likeness"
        );
        assert_eq!(edits("kitten", "sitting"), 3);
    }
}
