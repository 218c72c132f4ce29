//! What was changed: manifest, both ledgers and the recomputed hashes of the files against each other.

use std::collections::BTreeMap;
use std::fmt;

use crate::canonical::Hash;
use crate::ledger::{Event, Ledger, LineFinding, Summary, Verification, What};
use crate::manifest::{FileState, Manifest, Role, verify};

/// Everything that an audit looks at; `store` reads it, `recipes` recomputes the hashes.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The run's id.
    pub run: &'a str,
    /// `manifest.json` as it stands; `None` if it isn't there.
    pub manifest: Option<&'a str>,
    /// The run's `ledger.jsonl`.
    pub run_ledger: &'a str,
    /// The project's `ledger.jsonl`.
    pub project_ledger: &'a str,
    /// The recomputed hash of every file that is there, by the name that the manifest has.
    pub found: &'a BTreeMap<String, Hash>,
    /// A head of the project ledger known from elsewhere (a printed report), to be found in the chain.
    pub known_head: Option<Hash>,
}

/// One thing that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// A file was changed.
    FileChanged {
        /// Its name in the manifest.
        name: String,
        /// What part it plays.
        role: Role,
    },
    /// A file is gone.
    FileMissing {
        /// Its name in the manifest.
        name: String,
        /// What part it plays.
        role: Role,
    },
    /// A file that the manifest doesn't list.
    FileUnlisted {
        /// Its name.
        name: String,
    },
    /// There is no manifest.
    ManifestMissing,
    /// The manifest can't be read.
    ManifestUnreadable {
        /// Why.
        why: String,
    },
    /// The manifest's text isn't as the program wrote it.
    ManifestReformatted,
    /// The manifest belongs to another run.
    ManifestOfAnotherRun {
        /// The run that it names.
        names: String,
    },
    /// The manifest isn't the one that the run's ledger last recorded.
    ManifestChanged {
        /// The hash in the ledger; `None` if none was recorded.
        recorded: Option<Hash>,
        /// The hash it has.
        found: Hash,
    },
    /// A line of a ledger.
    Line {
        /// `runs/<run>/ledger.jsonl` or the project's.
        ledger: &'static str,
        /// The line and what is wrong.
        finding: LineFinding,
    },
    /// The run's ledger is shorter than the project ledger knows it to have been.
    RunLedgerCut {
        /// Entries it had.
        anchored: u64,
        /// Entries it has.
        found: u64,
    },
    /// The run's ledger has another entry than the project ledger knows.
    RunLedgerRewritten {
        /// Position, from 0, of the anchored entry.
        seq: u64,
    },
    /// The project ledger doesn't know the run.
    RunUnknown,
    /// The run's ledger was never anchored.
    RunNotAnchored,
    /// The two ledgers tell different verdicts.
    VerdictDiffers {
        /// In the run's ledger.
        run: Option<String>,
        /// In the project's ledger.
        project: Option<String>,
    },
    /// The known head isn't in the project ledger: it was rewritten or cut.
    HeadUnknown {
        /// The head known from elsewhere.
        known: Hash,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_none = |verdict: &Option<String>| verdict.as_ref().map_or("no verdict".to_owned(), |word| format!("`{word}`"));
        match self {
            Self::FileChanged { name, role } => write!(formatter, "{name}: changed since {}", role.fixed_since()),
            Self::FileMissing { name, role } => write!(formatter, "{name}: gone since {}", role.fixed_since()),
            Self::FileUnlisted { name } => write!(formatter, "{name}: not in the manifest, so it was added later"),
            Self::ManifestMissing => formatter.write_str("manifest.json: gone"),
            Self::ManifestUnreadable { why } => write!(formatter, "manifest.json: changed, it can't be read: {why}"),
            Self::ManifestReformatted => formatter.write_str("manifest.json: its text was edited since it was written"),
            Self::ManifestOfAnotherRun { names } => {
                write!(formatter, "manifest.json: belongs to another run, {names}")
            }
            Self::ManifestChanged { recorded: Some(recorded), found } => {
                write!(formatter, "manifest.json: changed: the run's ledger recorded {}, it is {}", recorded.short(), found.short())
            }
            Self::ManifestChanged { recorded: None, .. } => formatter.write_str("manifest.json: the run's ledger never recorded it"),
            Self::Line { ledger, finding } => write!(formatter, "{ledger}, {finding}"),
            Self::RunLedgerCut { anchored, found } => {
                write!(formatter, "ledger.jsonl of the run: cut: the project ledger knows {anchored} entries, {found} are left")
            }
            Self::RunLedgerRewritten { seq } => {
                write!(formatter, "ledger.jsonl of the run: rewritten: entry {seq} is another than the one in the project ledger")
            }
            Self::RunUnknown => formatter.write_str("ledger.jsonl of the project: it doesn't know this run"),
            Self::RunNotAnchored => formatter.write_str("ledger.jsonl of the project: it holds no head of this run's ledger"),
            Self::VerdictDiffers { run, project } => {
                write!(formatter, "the run's ledger says {}, the project's ledger says {}", or_none(run), or_none(project))
            }
            Self::HeadUnknown { known } => write!(
                formatter,
                "ledger.jsonl of the project: cut or rewritten: the head {} known from elsewhere is not in it",
                known.short()
            ),
        }
    }
}

/// The result of an audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// What was changed; empty if all is as it was.
    pub findings: Vec<Finding>,
    /// Remarks that are no evidence of a change: a torn last line, entries not anchored yet.
    pub remarks: Vec<String>,
    /// Files whose hash was compared.
    pub files: usize,
    /// What the run's ledger says.
    pub run: Summary,
    /// What the project's ledger says.
    pub project: Summary,
}

impl Audit {
    /// Whether nothing was changed.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Compares everything with everything.
#[must_use]
pub fn audit(evidence: &Evidence<'_>) -> Audit {
    let run = Ledger::Run(evidence.run).verify(evidence.run_ledger);
    let project = Ledger::Project.verify(evidence.project_ledger);
    let mut findings = Vec::new();
    let mut remarks = Vec::new();
    let files = audit_manifest(evidence, &run, &mut findings, &mut remarks);
    for (ledger, verification) in [("ledger.jsonl of the run", &run), ("ledger.jsonl of the project", &project)] {
        for finding in &verification.findings {
            if finding.what == What::Torn {
                remarks.push(format!("{ledger}, {finding}; it never was an entry, the next one replaces it"));
            } else {
                findings.push(Finding::Line { ledger, finding: finding.clone() });
            }
        }
    }
    audit_anchors(evidence, &run, &project, &mut findings, &mut remarks);
    if let Some(known) = evidence.known_head
        && !project.entries.iter().any(|entry| entry.hash == known)
    {
        findings.push(Finding::HeadUnknown { known });
    }
    Audit { findings, remarks, files, run: run.summary, project: project.summary }
}

fn audit_manifest(evidence: &Evidence<'_>, run: &Verification, findings: &mut Vec<Finding>, remarks: &mut Vec<String>) -> usize {
    let written = || run.entries.iter().any(|entry| matches!(entry.event(), Some(Event::ManifestWritten { .. })));
    let Some(text) = evidence.manifest else {
        // A run that is not that far has none; its ledger would be shorter than the project's ledger knows if it had been cut.
        if written() {
            findings.push(Finding::ManifestMissing);
        } else {
            remarks.push("manifest.json: not written yet, so that nothing vouches for the run's files".to_owned());
        }
        return 0;
    };
    let (manifest, hash) = match Manifest::from_json(text).and_then(|manifest| Ok((manifest.hash()?, manifest))) {
        Ok((hash, manifest)) => (manifest, hash),
        Err(error) => {
            findings.push(Finding::ManifestUnreadable { why: error.to_string() });
            return 0;
        }
    };
    if manifest.to_json().as_deref() != Ok(text) {
        findings.push(Finding::ManifestReformatted);
    }
    if manifest.run != evidence.run {
        findings.push(Finding::ManifestOfAnotherRun { names: manifest.run.clone() });
    }
    let recorded = run.entries.iter().rev().find_map(|entry| match entry.event() {
        Some(Event::ManifestWritten { manifest, .. }) => Some(manifest),
        _ => None,
    });
    if recorded != Some(hash) {
        findings.push(Finding::ManifestChanged { recorded, found: hash });
    }
    for (name, state) in verify(&manifest, evidence.found) {
        let role = manifest.artefacts.get(&name).map(|artefact| artefact.role);
        findings.push(match (state, role) {
            (FileState::Changed, Some(role)) => Finding::FileChanged { name, role },
            (FileState::Missing, Some(role)) => Finding::FileMissing { name, role },
            (_, _) => Finding::FileUnlisted { name },
        });
    }
    manifest.artefacts.keys().filter(|name| evidence.found.contains_key(*name)).count()
}

/// The run's ledger against every anchor that the project's ledger has of it.
fn audit_anchors(
    evidence: &Evidence<'_>,
    run: &Verification,
    project: &Verification,
    findings: &mut Vec<Finding>,
    remarks: &mut Vec<String>,
) {
    if !project.summary.runs.iter().any(|known| known == evidence.run) {
        findings.push(Finding::RunUnknown);
    }
    let mut last = 0;
    let (mut cut, mut rewritten) = (None, None);
    for entry in &project.entries {
        let Some(Event::RunAnchored { run: of, entries, head }) = entry.event() else { continue };
        if of != evidence.run || entries == 0 {
            continue;
        }
        last = last.max(entries);
        match run.entries.iter().find(|entry| entry.seq == entries - 1) {
            None => cut = cut.max(Some(entries)),
            Some(anchored) if anchored.hash != head && rewritten.is_none() => rewritten = Some(entries - 1),
            Some(_) => {}
        }
    }
    let found = run.entries.len() as u64;
    if let Some(anchored) = cut {
        findings.push(Finding::RunLedgerCut { anchored, found });
    }
    if let Some(seq) = rewritten {
        findings.push(Finding::RunLedgerRewritten { seq });
    }
    if last == 0 {
        findings.push(Finding::RunNotAnchored);
    } else if found > last {
        remarks.push(format!("ledger.jsonl of the run: its last {} entries are not anchored yet", found - last));
    }
    let (of_run, of_project) = (run.summary.verdicts.get(evidence.run), project.summary.verdicts.get(evidence.run));
    if of_run != of_project {
        findings.push(Finding::VerdictDiffers { run: of_run.cloned(), project: of_project.cloned() });
    }
}
