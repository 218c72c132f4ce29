//! `doctor` on this machine.

use recipes::context::Context;
use recipes::doctor::doctor;

use crate::home::Home;

#[test]
fn everything_is_looked_at_and_nothing_left_behind() {
    let home = Home::new();
    let checks = doctor(&home.context());
    let check = |name: &str| checks.iter().find(|check| check.name == name).unwrap_or_else(|| panic!("no check of {name}"));
    assert!(check("kernels").ok, "{}", check("kernels").detail);
    assert!(check("cache").ok && check("folder of the runs").ok);
    assert!(check("network").detail.contains("nothing was sent"));
    assert!(!check("python and pip").ok && check("python and pip").hint.is_some(), "there is no such python, and no model yet");
    assert!(!check("smollm2-135m-instruct").ok);
    for check in &checks {
        assert_eq!(check.hint.is_some(), !check.ok, "{}", check.name);
    }
    assert!(std::fs::read_dir(home.path("cache")).unwrap().next().is_none(), "the probe is gone");
}

#[test]
fn a_folder_that_is_not_there_is_said() {
    let home = Home::new();
    let context = Context { workspace: home.path("missing/deeper"), ..home.context() };
    let checks = doctor(&context);
    let runs = checks.iter().find(|check| check.name == "folder of the runs").unwrap();
    assert!(!runs.ok && runs.hint.is_some(), "{}", runs.detail);
}
