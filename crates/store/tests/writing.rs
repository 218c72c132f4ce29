//! Atomic files and folders, logs, run folders and checkpoints: all or nothing, whatever goes wrong.
#![allow(clippy::disallowed_methods, reason = "tests set files up by hand")]
mod scratch;

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Write};
use std::path::Path;

use scratch::Scratch;
use serde_json::json;
use store::atomic::{self, Pending, PendingFolder};
use store::checkpoint::{self, Checkpoint, StateTensor};
use store::jsonl::{self, JsonlLog};
use store::peft::{AdapterTensor, PeftAdapter, PeftConfig, TargetModules};
use store::{RunFolder, StoreError, run_folder};

#[test]
fn a_file_is_replaced_whole_or_not_at_all() {
    let folder = Scratch::new("atomic");
    let path = folder.path().join("a.txt");
    atomic::write(&path, b"one").unwrap();
    atomic::write(&path, b"two").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"two");
    for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
        let full = atomic::write_with(&path, |out| {
            out.write_all(&[0; 1 << 21])?; // beyond any buffer
            Err(Error::from(kind))
        });
        let message = full.unwrap_err().to_string();
        assert!(message.starts_with("the disk is full; nothing was changed"), "{message}");
    }
    let mut dropped = Pending::create(&path).unwrap();
    dropped.write_all(b"never seen").unwrap();
    drop(dropped);
    assert_eq!(std::fs::read(&path).unwrap(), b"two");
    assert_eq!(folder.everything(), ["a.txt"]);
    atomic::write_json(&path, &json!({"a": 1})).unwrap();
    assert_eq!(atomic::read_json(&path, 100).unwrap(), json!({"a": 1}));
}

#[test]
fn a_folder_is_replaced_whole_or_not_at_all() {
    let root = Scratch::new("atomic-folder");
    let place = root.path().join("deep/folder");
    let write = |text: &str| {
        let pending = PendingFolder::create(&place).unwrap();
        pending.write("x", text.as_bytes()).unwrap();
        pending
    };
    write("one").commit().unwrap();
    drop(write("never seen"));
    assert_eq!(std::fs::read(place.join("x")).unwrap(), b"one");
    write("two").commit().unwrap();
    assert_eq!(std::fs::read(place.join("x")).unwrap(), b"two");
    assert_eq!(root.everything(), ["deep/folder/x"]);
}

#[test]
fn reading_has_limits_and_says_both_sides() {
    let folder = Scratch::new("reading");
    let error = |e: StoreError| e.to_string();
    let path = folder.put("a", "12345");
    assert_eq!(atomic::read(&path, 5).unwrap(), b"12345");
    assert!(error(atomic::read(&path, 4).unwrap_err()).starts_with("5 bytes; at most 4 are read: "));
    assert!(error(atomic::read(&folder.path().join("none"), 4).unwrap_err()).starts_with("there is no "));
    assert!(error(atomic::read(folder.path(), 4).unwrap_err()).starts_with("a folder where a plain file is expected: "));
    assert!(error(atomic::read_text(&folder.put("b", b"ab\xff"), 9).unwrap_err()).starts_with("not UTF-8 from byte 2: "));
    assert!(error(atomic::read_json(&folder.put("c", "{"), 9).unwrap_err()).starts_with("not valid JSON (EOF"));
    assert_eq!(atomic::sha256(&path, &mut |_| ()).unwrap(), (atomic::sha256_of(b"12345"), 5));
    assert_eq!(atomic::sha256_of(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    #[cfg(target_os = "linux")]
    {
        // A file whose length is a lie (0), read to its limit all the same; and one that never ends.
        assert!(error(atomic::read(Path::new("/proc/self/environ"), 0).unwrap_err()).contains("at most 0 are read"));
        assert!(error(atomic::read(Path::new("/dev/zero"), 9).unwrap_err()).starts_with("a device or pipe where"));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn what_may_not_be_written_is_said_and_nothing_is_left() {
    let folder = Scratch::new("read-only");
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o500)).unwrap();
    let result = atomic::write(&folder.path().join("a"), b"x");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    match result {
        Err(e) => assert!(e.to_string().starts_with("not permitted (read-only"), "{e}"),
        Ok(()) => {
            // the superuser may write everywhere but into the kernel's own tables
            let refused = atomic::write(Path::new("/proc/self/a"), b"x").unwrap_err();
            assert!(matches!(refused, StoreError::Io { .. } | StoreError::NotPermitted { .. }), "{refused}");
        }
    }
}

#[test]
fn a_log_survives_a_torn_tail() {
    let folder = Scratch::new("log");
    let path = folder.path().join("log.jsonl");
    let mut log = JsonlLog::open(&path).unwrap();
    log.append(&json!({"n": 1})).unwrap();
    log.append_line("{\"n\":2}").unwrap();
    drop(log);
    let whole = std::fs::read(&path).unwrap();
    for torn in ["{", "{\"n\":3}", &"x".repeat(200_000)] {
        std::fs::write(&path, [&whole[..], torn.as_bytes()].concat()).unwrap();
        assert_eq!(jsonl::read_lines(&path).unwrap(), ["{\"n\":1}", "{\"n\":2}"]);
        let mut log = JsonlLog::open(&path).unwrap();
        assert_eq!(log.torn_bytes(), torn.len() as u64);
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        log.append(&json!({"n": 3})).unwrap();
        assert_eq!(jsonl::read_lines(&path).unwrap().len(), 3);
    }
    std::fs::write(&path, "only a torn line").unwrap();
    assert_eq!(JsonlLog::open(&path).unwrap().torn_bytes(), 16);
    assert!(jsonl::read_lines(&folder.path().join("none")).unwrap().is_empty());
}

#[test]
fn chained_appends_see_all_lines_of_all_writers() {
    let folder = Scratch::new("chain");
    let path = folder.path().join("ledger.jsonl");
    let append = || jsonl::append_after(&path, |lines| Ok::<_, StoreError>(vec![lines.len().to_string()])).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..10).for_each(|_| append()));
        }
    });
    let expected: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    assert_eq!(jsonl::read_lines(&path).unwrap(), expected);
}

#[test]
fn a_run_is_private_and_held_by_one_process() {
    let root = Scratch::new("runs");
    let run = RunFolder::create(root.path(), "support-triage", "2026-11-24-a").unwrap();
    run.write("data/records/train.jsonl", b"{}\n").unwrap();
    run.log("metrics.jsonl").unwrap().append(&json!({})).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(run.path()).unwrap().permissions().mode() & 0o777, 0o700);
    }
    let message = RunFolder::open(run.path()).unwrap_err().to_string();
    let expected = format!("run support-triage/2026-11-24-a is in use by process {}: ", std::process::id());
    assert!(message.starts_with(&expected), "{message}");
    assert!(matches!(RunFolder::create(root.path(), "support-triage", "2026-11-24-a"), Err(StoreError::RunExists { .. })));
    let entries = RunFolder::list(root.path()).unwrap();
    assert_eq!((entries.len(), entries[0].locked_by), (1, Some(std::process::id())));
    assert_eq!((entries[0].name.as_str(), entries[0].id.as_str()), ("support-triage", "2026-11-24-a"));
    let path = run.path().to_path_buf();
    drop(run);
    assert_eq!(RunFolder::list(root.path()).unwrap()[0].locked_by, None);
    // What a killed process was writing is gone after the next opening; everything else stays.
    std::fs::create_dir_all(path.join("checkpoints/.step-000001.pending-99-0")).unwrap();
    std::fs::write(path.join("data/records/.train.jsonl.pending-99-1"), "half").unwrap();
    let run = RunFolder::open(&path).unwrap();
    assert_eq!(run.path(), path);
    assert_eq!(
        root.everything(),
        [
            "runs/support-triage/2026-11-24-a/.lock",
            "runs/support-triage/2026-11-24-a/data/records/train.jsonl",
            "runs/support-triage/2026-11-24-a/metrics.jsonl"
        ]
    );
    assert_eq!(run_folder::project_ledger(root.path()), root.path().join("runs/ledger.jsonl"));
}

#[test]
fn what_killed_processes_left_goes_with_the_next_run() {
    let root = Scratch::new("run-unborn");
    let first = RunFolder::create(root.path(), "a", "first").unwrap();
    let project = first.path().parent().unwrap().to_path_buf();
    let [dead, alive] = [".second.pending-99-0", ".third.pending-98-0"].map(|name| project.join(name));
    for folder in [&dead, &alive] {
        std::fs::create_dir(folder).unwrap();
        std::fs::write(folder.join("plan.toml"), "half").unwrap();
        std::fs::write(folder.join(".lock"), "").unwrap();
    }
    let held = std::fs::File::open(alive.join(".lock")).unwrap();
    held.try_lock().unwrap();
    RunFolder::create(root.path(), "a", "fourth").unwrap();
    assert!(!dead.exists() && alive.join("plan.toml").exists());

    let key = root.path().join("runs/key");
    std::fs::write(root.path().join("runs/.key.pending-99-1"), "half").unwrap();
    std::fs::write(root.path().join("runs/.keys.pending-99-1"), "another's").unwrap();
    atomic::remove_leftovers(&key).unwrap();
    assert!(!root.path().join("runs/.key.pending-99-1").exists() && root.path().join("runs/.keys.pending-99-1").exists());
}

#[test]
fn names_that_are_paths_are_refused() {
    let root = Scratch::new("run-names");
    for bad in ["", ".", "..", ".hidden", "a/b", "../x", "a b", "ä", "a\0b", &"x".repeat(101)] {
        assert!(matches!(RunFolder::create(root.path(), bad, "id"), Err(StoreError::Name { .. })), "{bad:?}");
        assert!(matches!(RunFolder::create(root.path(), "name", bad), Err(StoreError::Name { .. })), "{bad:?}");
    }
    assert!(root.everything().is_empty());
    assert!(matches!(RunFolder::open(&root.path().join("runs/a/b")), Err(StoreError::Missing { .. })));
}

#[test]
#[should_panic(expected = "is not a path inside a run folder")]
fn a_file_outside_the_run_is_a_bug() {
    let root = Scratch::new("run-escape");
    let run = RunFolder::create(root.path(), "a", "b").unwrap();
    run.file("../../x");
}

fn some_checkpoint(step: u64) -> Checkpoint {
    let tensor = |x: f32| AdapterTensor { shape: vec![1, 2], values: vec![x, -x] };
    let name = |half: &str| format!("base_model.model.model.layers.0.self_attn.q_proj.lora_{half}.weight");
    Checkpoint {
        step,
        adapter: PeftAdapter {
            config: PeftConfig {
                base_model: Some("base".into()),
                rank: 1,
                alpha: 2.0,
                dropout: 0.05,
                rslora: false,
                dora: false,
                target_modules: TargetModules::List(vec!["q_proj".into()]),
                layers: None,
            },
            tensors: BTreeMap::from([(name("A"), tensor(0.1)), (name("B"), tensor(step as f32))]),
            lineage: Some(json!({"step": step})),
        },
        optimizer: BTreeMap::from([
            ("m.0".to_owned(), StateTensor::floats(vec![1, 2], &[0.5, -0.0])),
            ("m.1".to_owned(), StateTensor { dtype: store::Dtype::U8, shape: vec![3], bytes: vec![0, 127, 255] }),
        ]),
        state: json!({"epoch": 1.5, "position": [1, 2, 3]}),
    }
}

#[test]
fn checkpoints_come_back_and_are_pruned() {
    let root = Scratch::new("checkpoints");
    let run = RunFolder::create(root.path(), "a", "b").unwrap();
    assert_eq!((checkpoint::last(run.path()).unwrap(), checkpoint::best(run.path()).unwrap()), (None, None));
    for step in [100, 200, 300, 400, 1_000_000] {
        let folder = checkpoint::write(&run, &some_checkpoint(step)).unwrap();
        assert_eq!(checkpoint::read(&folder).unwrap(), some_checkpoint(step));
    }
    checkpoint::write(&run, &some_checkpoint(200)).unwrap(); // the same step again, after a resume
    checkpoint::mark_best(&run, 200).unwrap();
    assert_eq!(checkpoint::last(run.path()).unwrap(), Some(1_000_000));
    checkpoint::prune(&run, 2).unwrap();
    assert_eq!(checkpoint::steps(run.path()).unwrap(), [200, 400, 1_000_000]);
    assert_eq!(checkpoint::best(run.path()).unwrap(), Some(200));
    let message = checkpoint::mark_best(&run, 300).unwrap_err().to_string();
    assert!(message.starts_with("no checkpoint of step 300; 200, 400, 1000000 there are in"), "{message}");
    assert!(!root.everything().iter().any(|f| f.contains("pending")));
}

#[test]
fn a_changed_checkpoint_is_refused() {
    let root = Scratch::new("checkpoint-changed");
    let run = RunFolder::create(root.path(), "a", "b").unwrap();
    let folder = checkpoint::write(&run, &some_checkpoint(1)).unwrap();
    let files = ["adapter_config.json", "adapter_model.safetensors", "optimizer.safetensors", "state.json", "tunesmith.json"];
    for name in files {
        let path = folder.join(name);
        let good = std::fs::read(&path).unwrap();
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &bad).unwrap();
        assert!(matches!(checkpoint::read(&folder), Err(StoreError::Hash { .. })), "{name} changed");
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(checkpoint::read(&folder), Err(StoreError::Missing { .. })), "{name} removed");
        std::fs::write(&path, &good).unwrap();
    }
    checkpoint::read(&folder).unwrap();
    std::fs::write(folder.join("checkpoint.json"), r#"{"step":1,"sha256":{}}"#).unwrap();
    assert!(checkpoint::read(&folder).unwrap_err().to_string().starts_with("checkpoint lacks adapter_config.json"));
}

/// Parts of full fine-tuning's checkpoints are asked for one after the other, and come back as they were.
#[test]
fn checkpoints_of_models_come_back_and_are_checked() {
    let root = Scratch::new("checkpoint-full");
    let run = RunFolder::create(root.path(), "a", "b").unwrap();
    let tensor = |values: &[f32]| StateTensor::floats(vec![1, values.len()], values);
    let mut asked = Vec::new();
    let mut tensors = |part: &str| {
        asked.push(part.to_owned());
        BTreeMap::from([("gain".to_owned(), tensor(&[1.5, part.len() as f32])), ("matrix".to_owned(), tensor(&[-0.0, 2.0, 3.0]))])
    };
    let folder = checkpoint::write_full(&run, 7, &json!({"epoch": 0.5}), &["model", "first"], &mut tensors).unwrap();
    assert_eq!(asked, ["model", "first"]);
    let read = checkpoint::read_full(&folder, &["model", "first"]).unwrap();
    assert_eq!((read.step, &read.state), (7, &json!({"epoch": 0.5})));
    assert_eq!((read.names("first"), read.names("second")), (vec!["gain", "matrix"], vec![]));
    assert_eq!(read.tensor("model", "gain").unwrap(), [1.5, 5.0]);
    assert_eq!(read.state_tensor("first", "gain").unwrap(), Some(tensor(&[1.5, 5.0])));
    assert_eq!(read.state_tensor("first", "other").unwrap(), None);
    assert_eq!(read.tensor("model", "matrix").unwrap()[0].to_bits(), (-0.0f32).to_bits());
    assert!(read.tensor("second", "gain").unwrap_err().to_string().starts_with("checkpoint lacks second.safetensors"));
    assert_eq!((checkpoint::steps(run.path()).unwrap(), checkpoint::last(run.path()).unwrap()), (vec![7], Some(7)));
    for name in ["model.safetensors", "first.safetensors", "state.json"] {
        let path = folder.join(name);
        let good = std::fs::read(&path).unwrap();
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &bad).unwrap();
        assert!(matches!(checkpoint::read_full(&folder, &["model", "first"]), Err(StoreError::Hash { .. })), "{name} changed");
        std::fs::write(&path, &good).unwrap();
    }
    let lacks = checkpoint::read_full(&folder, &["model", "second"]).err().unwrap().to_string();
    assert!(lacks.starts_with("checkpoint lacks second.safetensors"), "{lacks}");
}
