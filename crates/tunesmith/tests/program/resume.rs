//! Killed, stopped, locked: a run goes on where it was, and ends with the same bytes.
#![cfg(unix)]

use std::path::PathBuf;
use std::process::{Child, Command};

use serde_json::Value;

use crate::project::{Ended, Project, adapter_bytes, start, text, until, wait};

/// Runs started to kill one.
const TRIES: usize = 20;

/// A run file whose every step is a checkpoint, long enough to be hit in the middle.
fn project() -> Project {
    let project = Project::new();
    project.edit("epochs = 4\n", "epochs = 4\ncheckpoint_seconds = 1e-9\n");
    project
}

/// The only run's folder, once there is one.
fn run_of(project: &Project) -> Option<PathBuf> {
    project.runs().first().cloned()
}

fn lines(project: &Project, file: &str) -> usize {
    run_of(project).and_then(|run| std::fs::read_to_string(run.join(file)).ok()).map_or(0, |text| text.lines().count())
}

fn there(project: &Project, file: &str) -> bool {
    run_of(project).is_some_and(|run| run.join(file).exists())
}

fn id(project: &Project) -> String {
    project.only_run().file_name().unwrap().to_str().unwrap().to_owned()
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap().success());
}

/// Starts a command and kills it as soon as something is so.
fn kill_when(project: &Project, arguments: &[&str], what: &str, so: impl Fn(&Project) -> bool) -> Ended {
    let mut child = start(project.command(arguments));
    until(what, &mut child, || so(project));
    signal(&child, "KILL");
    let ended = wait(child, arguments.join(" "));
    assert_eq!(ended.code, None, "it was to be killed: {ended}");
    ended
}

/// A project whose run was killed as soon as something was so. The last instants are so near the end that a busy machine may
/// let the run end first: then another one is tried.
fn killed_run(what: &str, so: fn(&Project) -> bool) -> Project {
    for _ in 0..TRIES {
        let project = project();
        let mut child = start(project.command(&["run", "tickets"]));
        until(what, &mut child, || so(&project));
        signal(&child, "KILL");
        if wait(child, format!("a run killed when {what}")).code.is_none() {
            return project;
        }
    }
    panic!("{TRIES} runs ended before they could be killed when {what}");
}

fn uninterrupted(arguments: &[&str]) -> (Vec<u8>, Value) {
    let project = project();
    let ended = project.tunesmith(arguments);
    (adapter_bytes(&project.only_run().join("adapter")), ended.json())
}

#[test]
fn killed_while_tuning_it_ends_with_the_same_bytes() {
    let (adapter, losses) = uninterrupted(&["tune", "tickets", "--json"]);
    // Each list is one run, killed when metrics.jsonl has so many lines, again and again.
    for kills in [&[1][..], &[2, 9, 14], &[24]] {
        let project = project();
        kill_when(&project, &["tune", "tickets"], "the first kill", |project| lines(project, "metrics.jsonl") >= kills[0]);
        let id = id(&project);
        for &kill in &kills[1..] {
            kill_when(&project, &["runs", "resume", &id], "another kill", |project| lines(project, "metrics.jsonl") >= kill);
        }
        let ended = project.tunesmith(&["runs", "resume", &id, "--json"]).expect(0);
        let json = ended.json();
        assert_eq!(json["losses"], losses["losses"], "killed at {kills:?}");
        assert!(adapter_bytes(&project.only_run().join("adapter")) == adapter, "other bytes after kills at {kills:?}");
        let steps: Vec<u64> = text(&project.only_run().join("metrics.jsonl"))
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["step"].as_u64().unwrap())
            .collect();
        assert_eq!(steps, (1..=steps.len() as u64).collect::<Vec<_>>(), "each step once, in order");
        project.nothing_half_written();
        project.tunesmith(&["audit", &id]).expect(0);
    }
}

#[test]
fn killed_anywhere_a_run_ends_with_the_same_verdict() {
    let (adapter, whole) = uninterrupted(&["run", "tickets", "--json"]);
    let instants: [(&str, fn(&Project) -> bool); 8] = [
        ("the run folder is there", |project| run_of(project).is_some()),
        ("records are written", |project| there(project, "data/records/train.jsonl")),
        ("the base has answered", |project| there(project, "evaluation/base.free.jsonl")),
        ("few-shot has answered", |project| there(project, "evaluation/few-shot.free.jsonl")),
        ("the adapter is written", |project| there(project, "adapter")),
        ("tuned has answered", |project| there(project, "evaluation/tuned.free.jsonl")),
        ("a manifest is written", |project| there(project, "manifest.json")),
        ("the report is written", |project| there(project, "report.json")),
    ];
    for (what, so) in instants {
        let project = killed_run(what, so);
        let id = id(&project);
        let ended = project.tunesmith(&["runs", "resume", &id, "--json"]);
        assert_eq!(ended.code, Some(whole_code(&whole)), "killed when {what}: {ended}");
        let json = ended.json();
        for key in ["verdict", "metric", "arms", "difference"] {
            assert_eq!(json[key], whole[key], "killed when {what}: {key}");
        }
        assert!(adapter_bytes(&project.only_run().join("adapter")) == adapter, "killed when {what}: other bytes");
        project.nothing_half_written();
        let audit = project.tunesmith(&["audit", &id]);
        assert_eq!(audit.code, Some(0), "killed when {what}: {audit}");
    }
}

/// What a kill leaves that no random instant hits: the step is saved and not yet marked as best, the ledgers do not
/// know the run yet, the report is there and its manifest is not.
#[test]
fn killed_between_two_writes() {
    let project = project();
    // Labels dealt out at random are learned by heart: an early look stays the best.
    project.edit("target = [\"intent\", \"product\", \"order\"]", "target = \"intent\"");
    project.edit("[prepare]\n", "[prepare]\nshuffle_targets = true\n");
    project.edit("rank = 4\nepochs = 4", "rank = 16\nepochs = 12\npatience = 0\nschedule = \"constant\"");
    let whole = project.tunesmith(&["tune", "tickets", "--json"]).expect(0).json();
    let kept = whole["kept_step"].as_u64().unwrap() as usize;
    assert!(kept + 10 < whole["steps"].as_u64().unwrap() as usize, "{whole}");
    let expected = adapter_bytes(&project.only_run().join("adapter"));
    std::fs::remove_dir_all(project.path("runs")).unwrap();
    kill_when(&project, &["tune", "tickets"], "a look and a step after it", |project| lines(project, "metrics.jsonl") >= kept + 2);
    let run = project.only_run();
    std::fs::remove_file(run.join("checkpoints/best.json")).unwrap();
    std::fs::remove_file(run.join("ledger.jsonl")).unwrap();
    std::fs::remove_file(project.path("runs/ledger.jsonl")).unwrap();
    let resumed = project.tunesmith(&["runs", "resume", &id(&project), "--json"]).expect(0).json();
    assert_eq!(resumed["losses"], whole["losses"]);
    assert!(adapter_bytes(&run.join("adapter")) == expected, "other bytes");
    project.tunesmith(&["audit", &id(&project)]).expect(0);

    // Reported, but the last manifest not written.
    project.tunesmith(&["evaluate", &id(&project)]);
    let report = text(&run.join("report.json"));
    let ledger = text(&run.join("ledger.jsonl"));
    let cut: Vec<&str> = ledger.lines().collect();
    std::fs::write(run.join("ledger.jsonl"), cut[..cut.len() - 1].join("\n") + "\n").unwrap();
    let project_ledger = text(&project.path("runs/ledger.jsonl"));
    let without_end: Vec<&str> = project_ledger.lines().collect();
    let ends = without_end.iter().rposition(|line| line.contains("manifest_written")).unwrap();
    let anchor = without_end[..ends].iter().rposition(|line| line.contains("run_anchored")).unwrap();
    std::fs::write(project.path("runs/ledger.jsonl"), without_end[..anchor].join("\n") + "\n").unwrap();
    let ended = project.tunesmith(&["runs", "resume", &id(&project), "--json"]);
    assert!(!ended.stderr.contains("finished"), "{ended}");
    ended.json();
    project.tunesmith(&["audit", &id(&project)]).expect(0);
    let again = text(&run.join("report.json"));
    let arms = |report: &str| serde_json::from_str::<Value>(report).unwrap()["differences"].clone();
    assert_eq!(arms(&report), arms(&again));
}

fn whole_code(json: &Value) -> i32 {
    match json["verdict"].as_str() {
        Some("ship") => 0,
        Some("do not ship") => 3,
        _ => 4,
    }
}

#[test]
fn ctrl_c_saves_everything_and_says_how_to_resume() {
    let (adapter, losses) = uninterrupted(&["tune", "tickets", "--json"]);
    let project = project();
    let mut child = start(project.command(&["tune", "tickets", "--json"]));
    until("step 3", &mut child, || lines(&project, "metrics.jsonl") >= 3);
    signal(&child, "INT");
    let ended = wait(child, "tune tickets --json".into());
    let id = id(&project);
    ended.refused(&["stopped at step", &format!("hint: go on with `tunesmith runs resume {id}`")]);
    let listed = project.tunesmith(&["runs"]).expect(0);
    assert!(listed.stdout.contains("interrupted"), "{listed}");
    let json = project.tunesmith(&["runs", "resume", &id, "--json"]).expect(0).json();
    assert_eq!(json["losses"], losses["losses"]);
    assert!(adapter_bytes(&project.only_run().join("adapter")) == adapter);
}

/// Before there is anything to save, Ctrl-C ends at once; what was done is kept.
#[test]
fn ctrl_c_while_measuring_stops_too() {
    let (_, whole) = uninterrupted(&["run", "tickets", "--json"]);
    let project = project();
    let mut child = start(project.command(&["run", "tickets", "--json"]));
    until("records", &mut child, || there(&project, "data/prepared.json"));
    signal(&child, "INT");
    let ended = wait(child, "run tickets --json".into());
    let id = id(&project);
    ended.refused(&["stopped", &format!("tunesmith runs resume {id}")]);
    let json = project.tunesmith(&["runs", "resume", &id, "--json"]).json();
    assert_eq!(json["arms"], whole["arms"]);
}

#[test]
fn a_second_process_on_the_same_run_is_refused() {
    let project = project();
    let mut child = start(project.command(&["tune", "tickets"]));
    until("step 1", &mut child, || lines(&project, "metrics.jsonl") >= 1);
    signal(&child, "STOP");
    let id = id(&project);
    let holder = child.id().to_string();
    for arguments in [&["runs", "resume", &id][..], &["report", &id], &["evaluate", &id]] {
        let ended = project.tunesmith(arguments);
        assert_eq!(ended.code, Some(1), "{ended}");
        if arguments[0] == "runs" {
            ended.refused(&["in use", &holder]);
        }
    }
    let listed = project.tunesmith(&["runs"]).expect(0);
    assert!(listed.stdout.contains("running"), "{listed}");
    signal(&child, "KILL");
    wait(child, "tune tickets".into());
    project.tunesmith(&["runs", "resume", &id]).expect(0);
}

#[test]
fn resuming_what_is_finished_computes_nothing() {
    let (_original, project) = Project::finished_copy();
    let run = project.only_run();
    let before = text(&run.join("report.json"));
    let ended = project.tunesmith(&["runs", "resume", run.file_name().unwrap().to_str().unwrap(), "--json"]);
    assert!(ended.stderr.contains("finished"), "{ended}");
    ended.json();
    assert_eq!(before, text(&run.join("report.json")));
}
