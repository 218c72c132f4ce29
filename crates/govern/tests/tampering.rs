//! A whole run's evidence, then tampered with in each way: every way is found and named.

use std::collections::BTreeMap;

use govern::audit::{Evidence, Finding, audit};
use govern::ledger::What;
use govern::policy::{Refusal, may_release};
use govern::{Artefact, Event, Hash, Ledger, Manifest, Role};

const RUN: &str = "support-triage/20260701-1";
const TIME: &str = "2026-07-01T12:00:00Z";

/// A run folder as bytes.
#[derive(Clone)]
struct Folder {
    files: BTreeMap<String, Vec<u8>>,
    manifest: Option<String>,
    run_ledger: String,
    project_ledger: String,
    known_head: Option<Hash>,
}

fn append(ledger: Ledger<'_>, text: &mut String, event: &Event) -> (u64, Hash) {
    let append = ledger.append(text, TIME, event).unwrap();
    text.truncate(append.keep);
    text.push_str(&append.line);
    (append.entry.seq + 1, append.entry.hash)
}

impl Folder {
    /// The events of a run, in the order in which `recipes` writes them.
    fn honest() -> Self {
        let files: BTreeMap<String, Vec<u8>> = [
            ("base/model.safetensors", "weights"),
            ("source/tickets.csv", "message,intent"),
            ("data/records/train.jsonl", "{}"),
            ("adapter/adapter_model.safetensors", "adapter"),
            ("report.json", "report"),
        ]
        .into_iter()
        .map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()))
        .collect();
        let roles = [Role::Adapter, Role::Base, Role::Records, Role::Report, Role::Source];
        let plan = Hash::of(b"plan");
        let mut manifest = Manifest::new(RUN, plan, 7, "exact", 4);
        for ((name, bytes), role) in files.iter().zip(roles) {
            let hash = Hash::of(bytes);
            manifest.add(name, Artefact { role, hash, bytes: bytes.len() as u64 }).unwrap();
        }
        let run = RUN.to_owned();
        let started = Event::RunStarted { run: run.clone(), plan };
        let verdict = Event::VerdictGiven {
            run: run.clone(),
            verdict: "ship".to_owned(),
            metric: "field_accuracy".to_owned(),
            compute_path: "exact".to_owned(),
        };
        let mut folder = Self {
            files,
            manifest: Some(manifest.to_json().unwrap()),
            run_ledger: String::new(),
            project_ledger: String::new(),
            known_head: None,
        };
        append(Ledger::Project, &mut folder.project_ledger, &started);
        for event in [
            started,
            Event::Prepared {
                run: run.clone(),
                records: BTreeMap::from([("train".to_owned(), 500), ("test".to_owned(), 200)]),
                rejects: 3,
            },
            Event::Trained { run: run.clone(), steps: 90, adapter: Hash::of(b"adapter") },
            verdict.clone(),
            Event::ManifestWritten { run: run.clone(), manifest: manifest.hash().unwrap() },
        ] {
            let (entries, head) = append(Ledger::Run(RUN), &mut folder.run_ledger, &event);
            let anchor = Event::RunAnchored { run: run.clone(), entries, head };
            append(Ledger::Project, &mut folder.project_ledger, &anchor);
        }
        folder.known_head = Some(append(Ledger::Project, &mut folder.project_ledger, &verdict).1);
        folder
    }

    fn audit(&self) -> govern::Audit {
        let found = self.files.iter().map(|(name, bytes)| (name.clone(), Hash::of(bytes))).collect();
        audit(&Evidence {
            run: RUN,
            manifest: self.manifest.as_deref(),
            run_ledger: &self.run_ledger,
            project_ledger: &self.project_ledger,
            found: &found,
            known_head: self.known_head,
        })
    }

    fn sentences(&self) -> Vec<String> {
        self.audit().findings.iter().map(ToString::to_string).collect()
    }
}

fn without_line(text: &str, drop: usize) -> String {
    text.lines().enumerate().filter(|(line, _)| *line != drop).map(|(_, line)| format!("{line}\n")).collect()
}

#[test]
fn an_honest_run_is_intact_and_may_be_released() {
    let audit = Folder::honest().audit();
    assert!(audit.is_intact() && audit.remarks.is_empty(), "{audit:#?}");
    assert_eq!((audit.files, audit.run.entries, audit.project.entries), (5, 5, 7));
    assert_eq!(may_release(RUN, &audit), Ok(()));
    assert_eq!(may_release("another", &audit), Err(Refusal::NoVerdict));
}

#[test]
fn a_byte_of_a_file() {
    for (name, sentence) in [
        ("base/model.safetensors", "changed since it was verified for this run"),
        ("source/tickets.csv", "changed since preparation"),
        ("data/records/train.jsonl", "changed since preparation"),
        ("adapter/adapter_model.safetensors", "changed since training"),
        ("report.json", "changed since evaluation"),
    ] {
        let mut folder = Folder::honest();
        folder.files.get_mut(name).unwrap()[0] ^= 1;
        assert_eq!(folder.sentences(), [format!("{name}: {sentence}")]);
        assert_eq!(may_release(RUN, &folder.audit()), Err(Refusal::Changed { findings: 1 }));
    }
}

#[test]
fn a_file_gone_or_added() {
    let mut folder = Folder::honest();
    folder.files.remove("data/records/train.jsonl");
    folder.files.insert("adapter/extra.bin".to_owned(), vec![1]);
    assert_eq!(
        folder.sentences(),
        ["adapter/extra.bin: not in the manifest, so it was added later", "data/records/train.jsonl: gone since preparation"]
    );
}

/// The adapter is exchanged and the manifest made to agree: the run's ledger still knows the old manifest.
#[test]
fn a_forged_manifest() {
    let mut folder = Folder::honest();
    let name = "adapter/adapter_model.safetensors";
    folder.files.insert(name.to_owned(), b"another adapter".to_vec());
    let mut manifest = Manifest::from_json(folder.manifest.as_deref().unwrap()).unwrap();
    let hash = Hash::of(b"another adapter");
    manifest.replace(name, Artefact { role: Role::Adapter, hash, bytes: 15 });
    folder.manifest = Some(manifest.to_json().unwrap());
    assert!(matches!(folder.audit().findings[..], [Finding::ManifestChanged { .. }]), "{:?}", folder.sentences());

    // And the ledger of the run as well: the project's ledger knows its head.
    let kept: String = folder.run_ledger.lines().take(4).map(|line| format!("{line}\n")).collect();
    folder.run_ledger = kept;
    let event = Event::ManifestWritten { run: RUN.to_owned(), manifest: manifest.hash().unwrap() };
    append(Ledger::Run(RUN), &mut folder.run_ledger, &event);
    assert_eq!(folder.audit().findings, [Finding::RunLedgerRewritten { seq: 4 }]);

    // And the project's ledger: the head printed in the report is not in it any more.
    let mut project = String::new();
    let first = Event::RunStarted { run: RUN.to_owned(), plan: Hash::of(b"plan") };
    append(Ledger::Project, &mut project, &first);
    let head = Ledger::Run(RUN).verify(&folder.run_ledger).summary.head.unwrap();
    append(Ledger::Project, &mut project, &Event::RunAnchored { run: RUN.to_owned(), entries: 5, head });
    let verdict = Event::VerdictGiven {
        run: RUN.to_owned(),
        verdict: "ship".to_owned(),
        metric: "field_accuracy".to_owned(),
        compute_path: "exact".to_owned(),
    };
    append(Ledger::Project, &mut project, &verdict);
    folder.project_ledger = project;
    assert!(matches!(folder.audit().findings[..], [Finding::HeadUnknown { .. }]), "{:?}", folder.sentences());
}

#[test]
fn the_manifest_itself() {
    let honest = Folder::honest();
    let text = honest.manifest.clone().unwrap();
    let with = |manifest: Option<String>| Folder { manifest, ..honest.clone() }.audit().findings;
    assert_eq!(with(None), [Finding::ManifestMissing]);
    // A run that never had one is not tampered with: it is not that far.
    let young = Folder { manifest: None, run_ledger: String::new(), project_ledger: String::new(), ..honest.clone() };
    assert!(!young.audit().findings.contains(&Finding::ManifestMissing) && young.audit().remarks[0].contains("not written yet"));
    assert_eq!(with(Some(text.replacen(": 7", ":  7", 1))), [Finding::ManifestReformatted]);
    assert!(matches!(with(Some(text.replacen(": 7", ": 8", 1)))[..], [Finding::ManifestChanged { .. }]));
    assert!(matches!(with(Some(text[..40].to_owned()))[..], [Finding::ManifestUnreadable { .. }]));
    let other = text.replace(RUN, "support-triage/20260601-9");
    assert!(matches!(with(Some(other))[..], [Finding::ManifestOfAnotherRun { .. }, Finding::ManifestChanged { .. }]));
}

#[test]
fn lines_of_either_ledger() {
    let honest = Folder::honest();
    // Dropped from the middle.
    let folder = Folder { run_ledger: without_line(&honest.run_ledger, 2), ..honest.clone() };
    assert!(folder.sentences().contains(&"ledger.jsonl of the run, line 3: entry 2 before it was removed".to_owned()));
    let folder = Folder { project_ledger: without_line(&honest.project_ledger, 3), ..honest.clone() };
    assert_eq!(folder.sentences(), ["ledger.jsonl of the project, line 4: entry 3 before it was removed"]);
    // Swapped.
    let mut lines: Vec<&str> = honest.run_ledger.lines().collect();
    lines.swap(1, 2);
    let folder = Folder { run_ledger: lines.join("\n") + "\n", ..honest.clone() };
    let reordered = |finding: &Finding| matches!(finding, Finding::Line { finding, .. } if matches!(finding.what, What::Reordered { .. }));
    assert!(folder.audit().findings.iter().any(reordered));
    // Edited.
    let folder = Folder { run_ledger: honest.run_ledger.replace("\"rejects\":3", "\"rejects\":0"), ..honest.clone() };
    assert_eq!(folder.sentences(), ["ledger.jsonl of the run, line 2: changed since it was written"]);
    // Emptied.
    let folder = Folder { run_ledger: String::new(), ..honest.clone() };
    assert!(folder.audit().findings.contains(&Finding::RunLedgerCut { anchored: 5, found: 0 }));
    let folder = Folder { project_ledger: String::new(), ..honest };
    let findings = folder.audit().findings;
    assert!(findings.contains(&Finding::RunUnknown) && findings.contains(&Finding::RunNotAnchored));
}

/// Cut at its end the chain is whole in itself; only the anchor tells.
#[test]
fn a_truncated_run_ledger() {
    let honest = Folder::honest();
    let folder = Folder { run_ledger: without_line(&honest.run_ledger, 4), ..honest.clone() };
    assert!(Ledger::Run(RUN).verify(&folder.run_ledger).is_intact());
    assert!(folder.audit().findings.contains(&Finding::RunLedgerCut { anchored: 5, found: 4 }));
    // The project's own ledger cut at its end: the head known from the report tells.
    let folder = Folder { project_ledger: without_line(&honest.project_ledger, 6), ..honest };
    assert!(folder.audit().findings.iter().any(|finding| matches!(finding, Finding::HeadUnknown { .. })));
}

#[test]
fn a_crash_is_a_remark_and_no_accusation() {
    let mut folder = Folder::honest();
    let event = Event::Exported { run: RUN.to_owned(), format: "peft".to_owned(), artefact: Hash::of(b"adapter") };
    append(Ledger::Run(RUN), &mut folder.run_ledger, &event);
    folder.project_ledger.push_str("{\"body\":{\"ru");
    let audit = folder.audit();
    assert!(audit.is_intact(), "{:?}", audit.findings);
    assert_eq!(audit.remarks.len(), 2);
    assert!(audit.remarks[0].contains("torn"), "{:?}", audit.remarks);
    assert!(audit.remarks[1].contains("last 1 entries are not anchored yet"), "{:?}", audit.remarks);
}

/// Random edits of random evidence: never a panic, never unnoticed.
#[test]
fn random_tampering_is_always_noticed() {
    let honest = Folder::honest();
    // A small fixed generator; the values only have to be many and different.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut draw = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound as u64) as usize
    };
    for case in 0..400 {
        let mut folder = honest.clone();
        let text = match case % 3 {
            0 => folder.manifest.as_mut().unwrap(),
            1 => &mut folder.run_ledger,
            _ => &mut folder.project_ledger,
        };
        let before = text.clone();
        let at = draw(text.len());
        match draw(4) {
            0 => {
                text.remove(at);
            }
            1 => text.insert(at, ['0', ' ', '"', '\n', 'é', '}'][draw(6)]),
            2 => text.truncate(at),
            _ => {
                let to = at + draw(text.len() - at);
                let piece = text[at..to].to_owned();
                text.insert_str(draw(at + 1), &piece);
            }
        }
        if *text != before {
            assert!(!folder.audit().is_intact(), "case {case} went unnoticed");
        }
    }
}
