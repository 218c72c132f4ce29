//! Help is written for a person, with an example, and wrong usage is the user's to mend.

use crate::project::{Ended, Project};

const COMMANDS: &[&[&str]] = &[
    &["run"],
    &["init"],
    &["pull"],
    &["inspect"],
    &["plan"],
    &["prepare"],
    &["tune"],
    &["evaluate"],
    &["compare"],
    &["runs"],
    &["report"],
    &["chat"],
    &["score"],
    &["export"],
    &["audit"],
    &["bench"],
    &["bench", "train"],
    &["bench", "gemm"],
    &["bench", "sft"],
    &["bench", "generate"],
    &["bench", "choose"],
    &["bench", "prepare"],
    &["doctor"],
    &["label"],
    &["label", "export"],
    &["label", "import"],
    &["label", "agreement"],
    &["label", "write"],
    &["runs", "list"],
    &["runs", "show"],
    &["runs", "resume"],
];

#[test]
fn every_command_has_help_with_an_example() {
    let project = Project::bare();
    for command in COMMANDS {
        let ended = project.tunesmith(&[command, &["--help"][..]].concat()).expect(0);
        assert!(ended.stderr.is_empty(), "{ended}");
        let example = format!("tunesmith {}", command[0]);
        let (_, examples) = ended.stdout.split_once("Example").unwrap_or_else(|| panic!("no example: {ended}"));
        assert!(examples.contains(&example), "{ended}");
    }
}

#[test]
fn the_top_lists_every_command() {
    let project = Project::bare();
    let ended = project.tunesmith(&["--help"]).expect(0);
    for command in COMMANDS {
        assert!(ended.stdout.lines().any(|line| line.trim_start().starts_with(command[0])), "{command:?} is not listed: {ended}");
    }
    assert!(project.tunesmith(&["--version"]).expect(0).stdout.starts_with("tunesmith "));
}

fn usage(ended: &Ended, part: &str) {
    assert_eq!(ended.code, Some(1), "{ended}");
    assert!(ended.stdout.is_empty() && ended.stderr.contains(part) && !ended.stderr.contains("panicked"), "{ended}");
}

#[test]
fn wrong_usage_is_exit_code_one() {
    let project = Project::bare();
    for (arguments, part) in [
        (&["rnu"][..], "run"),
        (&["run"], "PROJECT"),
        (&["run", "a", "b"], "unexpected argument"),
        (&["tune", "x", "--max-step", "3"], "--max-steps"),
        (&["tune", "x", "--max-steps", "many"], "invalid digit"),
        (&["tune", "x", "--memory", "some"], "recompute"),
        (&["score", "x"], "--model"),
        (&["bench", "train", "--model", "x", "--method", "most"], "lora"),
        (&["chat", "x", "--temperature", "hot"], "float"),
    ] {
        usage(&project.tunesmith(arguments), part);
    }
    project.tunesmith(&["doctor", "--threads", "0"]).refused(&["--threads is 0, expected 1 to 1024"]);
    project.tunesmith(&["doctor", "--threads", "100000"]).refused(&["--threads is 100000"]);
}
