//! What is asked of a source and of a release.

use crate::audit::Audit;
use crate::canonical::Hash;
use crate::ledger::Summary;

/// What the user declared about a source of data; what is missing is shown as BLANK, never guessed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Declaration {
    /// Whose data.
    pub owner: Option<String>,
    /// Under what licence.
    pub licence: Option<String>,
    /// On what basis personal data may be used.
    pub lawful_basis: Option<String>,
    /// Until when it may be kept: `YYYY-MM-DD`.
    pub keep_until: Option<String>,
}

impl Declaration {
    /// Name and value of each field, in order; BLANK where missing.
    #[must_use]
    pub fn rows(&self) -> [(&'static str, &str); 4] {
        [
            ("owner", self.owner.as_deref().unwrap_or(BLANK)),
            ("licence", self.licence.as_deref().unwrap_or(BLANK)),
            ("lawful_basis", self.lawful_basis.as_deref().unwrap_or(BLANK)),
            ("keep_until", self.keep_until.as_deref().unwrap_or(BLANK)),
        ]
    }

    /// The fields that are missing.
    #[must_use]
    pub fn blanks(&self) -> Vec<&'static str> {
        self.rows().into_iter().filter(|(_, value)| *value == BLANK).map(|(field, _)| field).collect()
    }

    /// Whether `keep_until` lies before today (`YYYY-MM-DD`, so the order of the texts is that of the days).
    #[must_use]
    pub fn is_expired(&self, today: &str) -> bool {
        self.keep_until.as_deref().is_some_and(|until| until < today)
    }
}

/// What stands where nothing was declared.
pub const BLANK: &str = "BLANK";

/// Why an adapter may not be released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The audit found changes.
    Changed {
        /// How many.
        findings: usize,
    },
    /// There is no verdict.
    NoVerdict,
    /// The verdict isn't `ship`.
    NotShip,
}

/// Whether a run's adapter may be released: all is as it was, and the last verdict is `ship`.
pub fn may_release(run: &str, audit: &Audit) -> Result<(), Refusal> {
    if !audit.is_intact() {
        return Err(Refusal::Changed { findings: audit.findings.len() });
    }
    match audit.run.verdicts.get(run).map(String::as_str) {
        Some("ship") => Ok(()),
        Some(_) => Err(Refusal::NotShip),
        None => Err(Refusal::NoVerdict),
    }
}

/// What to say about earlier looks at a test set; `None` if there were none.
///
/// A set that decides again and again is slowly fitted to: with k looks in all, the chance that at least one wrongly favours the tuned model is
/// at most k times that of one look (Bonferroni's bound).
#[must_use]
pub fn looks_before(project: &Summary, set: &Hash, level: f64) -> Option<String> {
    let looks = project.looks.get(set)?;
    let mut runs: Vec<&String> = looks.iter().collect();
    runs.sort();
    runs.dedup();
    let chance = ((looks.len() + 1) as f64 * (1.0 - level)).min(1.0);
    Some(format!(
        "this test set was looked at {} before ({}); with this look the chance of one wrong verdict grows up to {:.0} %",
        times(looks.len()),
        if runs.len() == 1 { "by 1 run".to_owned() } else { format!("by {} runs", runs.len()) },
        100.0 * chance,
    ))
}

fn times(count: usize) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        _ => format!("{count} times"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_blank() {
        let declaration =
            Declaration { owner: Some("Customer Care".to_owned()), keep_until: Some("2028-12-31".to_owned()), ..Declaration::default() };
        assert_eq!(declaration.blanks(), ["licence", "lawful_basis"]);
        assert!(!declaration.is_expired("2028-12-31"));
        assert!(declaration.is_expired("2029-01-01"));
        assert!(!Declaration::default().is_expired("2029-01-01"));
    }

    #[test]
    fn looks_are_said() {
        let set = Hash::of(b"test");
        let mut summary = Summary::default();
        assert_eq!(looks_before(&summary, &set, 0.95), None);
        summary.looks.insert(set, vec!["r1".to_owned(), "r2".to_owned(), "r1".to_owned()]);
        let said = looks_before(&summary, &set, 0.95).unwrap();
        assert_eq!(
            said,
            "this test set was looked at 3 times before (by 2 runs); with this look the chance of one wrong verdict grows up to 20 %"
        );
    }
}
