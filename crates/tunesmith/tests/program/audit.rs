//! `audit`: nothing found where nothing was changed, and whatever was changed is named.

use std::path::Path;

use crate::project::{Project, bytes, text};

fn id(run: &Path) -> String {
    run.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn a_finished_run_is_as_it_was() {
    let project = Project::finished();
    let ended = project.tunesmith(&["audit"]).expect(0);
    assert!(ended.stdout.contains("nothing was changed"), "{ended}");
    let json = project.tunesmith(&["audit", &id(&project.only_run()), "--json"]).expect(0).json();
    assert_eq!((json["runs"].as_u64(), json["findings"].as_array().map(Vec::len)), (Some(1), Some(0)), "{json}");
    assert!(json["files"].as_u64().unwrap() > 15, "{json}");
}

/// A later look leaves a run intact, and so does a report that is written again.
#[test]
fn what_the_program_itself_does_is_no_change() {
    let (_original, project) = Project::finished_copy();
    let id = id(&project.only_run());
    project.tunesmith(&["report", &id]).expect(0);
    project.tunesmith(&["report", &id, "--redacted"]).expect(0);
    project.tunesmith(&["audit", &id]).expect(0);
    project.tunesmith(&["evaluate", &id]);
    project.tunesmith(&["audit", &id]).expect(0);
}

#[test]
fn each_change_is_named() {
    let flip = |path: &Path| {
        let mut content = bytes(path);
        let last = content.len() - 3;
        content[last] ^= 1;
        std::fs::write(path, content).unwrap();
    };
    let replace = |path: &Path, from: &str, to: &str| {
        let content = text(path);
        assert!(content.contains(from), "{} has no {from:?}", path.display());
        std::fs::write(path, content.replacen(from, to, 1)).unwrap();
    };
    let without_line = |path: &Path, index: usize| {
        let content = text(path);
        let lines: Vec<&str> = content.lines().enumerate().filter(|(i, _)| *i != index).map(|(_, line)| line).collect();
        std::fs::write(path, lines.join("\n") + "\n").unwrap();
    };
    type Change<'a> = &'a dyn Fn(&Project, &Path);
    let changes: [(&str, &str, Change<'_>); 14] = [
        ("a record", "data/records/train.jsonl", &|_, run| replace(&run.join("data/records/train.jsonl"), "lamp", "lamb")),
        ("a held-out answer", "data/records/test.jsonl", &|_, run| replace(&run.join("data/records/test.jsonl"), "refund", "refuse")),
        ("a reject", "data/rejects.jsonl", &|_, run| std::fs::write(run.join("data/rejects.jsonl"), "{}\n").unwrap()),
        ("the adapter", "adapter/adapter_model.safetensors", &|_, run| flip(&run.join("adapter/adapter_model.safetensors"))),
        ("the report", "report.json", &|_, run| replace(&run.join("report.json"), "\"score\": 0", "\"score\": 1")),
        ("the page", "report.html", &|_, run| replace(&run.join("report.html"), "<title>", "<title>Very good: ")),
        ("the plan", "plan.toml", &|_, run| replace(&run.join("plan.toml"), "rank = 4", "rank = 5")),
        ("an answer", "evaluation/", &|_, run| flip(&run.join("evaluation/tuned.free.jsonl"))),
        ("a file is gone", "metrics.jsonl", &|_, run| std::fs::remove_file(run.join("metrics.jsonl")).unwrap()),
        ("the manifest", "manifest.json", &|_, run| replace(&run.join("manifest.json"), "\"seed\": 1", "\"seed\": 2")),
        ("a line of the run's ledger", "ledger", &|_, run| without_line(&run.join("ledger.jsonl"), 2)),
        ("the last line of the run's ledger", "ledger", &|_, run| {
            let path = run.join("ledger.jsonl");
            without_line(&path, text(&path).lines().count() - 1);
        }),
        ("a line of the project's ledger", "ledger", &|project, _| without_line(&project.path("runs/ledger.jsonl"), 1)),
        ("the base", "base/model.safetensors", &|project, _| flip(&project.path("base/model.safetensors"))),
    ];
    let (_original, project) = Project::finished_copy();
    for (what, named, change) in changes {
        let run = project.only_run();
        let keep = Saved::new(&project);
        change(&project, &run);
        let ended = project.tunesmith(&["audit", &id(&run)]);
        assert_eq!(ended.code, Some(1), "{what} was changed: {ended}");
        assert!(
            ended.stdout.lines().any(|line| line.starts_with("CHANGED") && line.contains(named)),
            "{what}: {named} is not named: {ended}"
        );
        keep.restore();
        project.tunesmith(&["audit", &id(&run)]).expect(0);
    }
}

/// A run goes on only as what it was: otherwise a gate moved after training would be signed anew.
#[test]
fn a_changed_run_does_not_go_on() {
    let project = Project::new();
    project.tunesmith(&["tune", "tickets", "--max-steps", "2"]).expect(0);
    let run = project.only_run();
    let id = id(&run);
    project.edit("rank = 4", "rank = 8"); // a run does not read its run file again
    for (file, from, to) in [
        ("plan.toml", "beats = [\"few-shot\"]", "beats = [\"base\"]"),
        ("plan.toml", "at_least = []", "at_least = [[\"field_accuracy\", 0.0]]"),
        ("data/records/test.jsonl", "lamp", "lamb"),
        ("data/records/train.jsonl", "lamp", "lamb"),
        ("data/prepared.json", "Read the message", "Heed the message"),
        ("adapter/adapter_config.json", "8", "9"),
        ("training.json", "0", "1"),
    ] {
        let saved = text(&run.join(file));
        assert!(saved.contains(from), "{file}: {saved}");
        std::fs::write(run.join(file), saved.replacen(from, to, 1)).unwrap();
        for arguments in [&["evaluate", &id][..], &["runs", "resume", &id]] {
            project.tunesmith(arguments).refused(&[file, "is not what run", "tunesmith audit"]);
        }
        std::fs::write(run.join(file), saved).unwrap();
    }
    let base = project.path("base/model.safetensors");
    let saved = bytes(&base);
    let mut other = saved.clone();
    let last = other.len() - 4;
    other[last] ^= 1;
    std::fs::write(&base, other).unwrap();
    project.tunesmith(&["evaluate", &id]).refused(&["base/model.safetensors", "is not what run"]);
    std::fs::write(&base, saved).unwrap();
    let ended = project.tunesmith(&["evaluate", &id]);
    assert!(matches!(ended.code, Some(0 | 3 | 4)), "{ended}");
    project.tunesmith(&["audit", &id]).expect(0);
}

/// Answers of a finished run are not made better before it is measured once more.
#[test]
fn changed_answers_are_not_measured_again() {
    let (_original, project) = Project::finished_copy();
    let run = project.only_run();
    let path = run.join("evaluation/tuned.free.jsonl");
    std::fs::write(&path, text(&path).replacen("\"answer\":\"", "\"answer\":\"x", 1)).unwrap();
    project.write("incumbent.csv", "id,answer\nt00,x\n");
    project.tunesmith(&["evaluate", &id(&run), "--answers", "incumbent.csv"]).refused(&["evaluation/tuned.free.jsonl"]);
}

#[test]
fn a_changed_source_is_named() {
    let project = Project::new();
    project.tunesmith(&["tune", "tickets", "--max-steps", "2"]).expect(0);
    project.tunesmith(&["audit"]).expect(0);
    project.edit_file("tickets/tickets.csv", "lamp", "lamb");
    let ended = project.tunesmith(&["audit"]).expect(1);
    assert!(ended.stdout.contains("source/tickets.csv: changed"), "{ended}");
    std::fs::remove_file(project.path("tickets/tickets.csv")).unwrap();
    let ended = project.tunesmith(&["audit"]).expect(1);
    assert!(ended.stdout.contains("source/tickets.csv: gone"), "{ended}");
}

/// A project's files, to be put back.
struct Saved<'a> {
    project: &'a Project,
    files: Vec<(String, Vec<u8>)>,
}

impl<'a> Saved<'a> {
    fn new(project: &'a Project) -> Saved<'a> {
        let files = project.tree().into_iter().filter(|name| project.path(name).is_file());
        Saved { project, files: files.map(|name| (name.clone(), bytes(&project.path(&name)))).collect() }
    }

    fn restore(self) {
        for (name, content) in self.files {
            self.project.write(&name, content);
        }
    }
}
