//! Fetching from a hub: against a small server on this computer that speaks the hub's protocol. No network is touched.
#![allow(clippy::disallowed_methods, reason = "tests set files up by hand")]
mod scratch;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use scratch::Scratch;
use serde_json::{Value, json};
use sha1::{Digest, Sha1};
use store::hub::{self, HubFault, HubProgress, HubSettings, HubSource, Snapshot, Token};
use store::{Result, StoreError, atomic};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const MOVED: &str = "89abcdef0123456789abcdef0123456789abcdef";

/// What the server does; tests change it between requests.
#[derive(Default)]
struct Behaviour {
    /// Answer everything with this status.
    status: Option<u16>,
    /// Answer this many requests with 503 first.
    busy: usize,
    /// End the body of weights after so many bytes, this many times.
    cut: (usize, usize),
    /// Send weights with another last byte.
    wrong: bool,
    /// Ignore ranges.
    no_ranges: bool,
    /// Say that a file has another commit.
    other_commit: bool,
    /// The commit of `main`.
    moved: bool,
    /// Ask for a token.
    private: bool,
    /// Every request: method and path, range, authorization.
    seen: Vec<(String, String, String)>,
}

struct Hub {
    address: String,
    behaviour: Arc<Mutex<Behaviour>>,
}

impl Hub {
    fn start(files: &[(&str, Vec<u8>)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let behaviour = Arc::new(Mutex::new(Behaviour::default()));
        let files: BTreeMap<String, Vec<u8>> = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone())).collect();
        let shared = behaviour.clone();
        // The thread ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (files, behaviour) = (files.clone(), shared.clone());
                std::thread::spawn(move || answer(stream.unwrap(), &files, &behaviour));
            }
        });
        Self { address, behaviour }
    }

    fn set(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.behaviour.lock().unwrap());
    }

    /// The paths that were asked for since the last time.
    fn paths(&self) -> Vec<String> {
        self.behaviour.lock().unwrap().seen.drain(..).map(|(path, _, _)| path).collect()
    }
}

fn git_hash(bytes: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(format!("blob {}\0", bytes.len()).as_bytes());
    hash.update(bytes);
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors") || name.ends_with(".bin")
}

fn listing(files: &BTreeMap<String, Vec<u8>>, commit: &str) -> Value {
    let entry = |(name, bytes): (&String, &Vec<u8>)| match is_large(name) {
        true => json!({"rfilename": name, "size": bytes.len(), "blobId": "0".repeat(40),
            "lfs": {"sha256": atomic::sha256_of(bytes), "size": bytes.len(), "pointerSize": 134}}),
        false => json!({"rfilename": name, "size": bytes.len(), "blobId": git_hash(bytes)}),
    };
    json!({"id": "org/model", "sha": commit, "siblings": files.iter().map(entry).collect::<Vec<_>>()})
}

/// Answers one request and closes the connection.
fn answer(stream: TcpStream, files: &BTreeMap<String, Vec<u8>>, behaviour: &Mutex<Behaviour>) {
    let mut lines = BufReader::new(&stream).lines().map_while(std::result::Result::ok);
    let Some(request) = lines.next() else { return };
    let headers: BTreeMap<String, String> = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned())))
        .collect();
    let header = |name: &str| headers.get(name).cloned().unwrap_or_default();
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut now = behaviour.lock().unwrap();
    now.seen.push((path.clone(), header("range"), header("authorization")));
    let commit = if now.moved { MOVED } else { COMMIT };
    let mut out = stream.try_clone().unwrap();
    let mut reply = |status: u16, headers: &str, declared: usize, body: &[u8]| {
        let head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {declared}\r\n{headers}\r\n");
        let _ = out.write_all(head.as_bytes()).and_then(|()| out.write_all(body)); // the client may be gone
    };
    if let Some(status) = now.status {
        return reply(status, "", 0, b"");
    }
    if now.busy > 0 {
        now.busy -= 1;
        return reply(503, "", 0, b"");
    }
    if now.private && !path.starts_with("/cdn/") && header("authorization") != "Bearer hf_right" {
        return reply(401, "", 0, b"");
    }
    if let Some(revision) = path.strip_prefix("/api/models/org/model/revision/") {
        let known = ["main?blobs=true", &format!("{COMMIT}?blobs=true"), "refs%2Fpr%2F1?blobs=true"].contains(&revision);
        let body = listing(files, commit).to_string();
        return if known { reply(200, "", body.len(), body.as_bytes()) } else { reply(404, "x-error-code: RevisionNotFound\r\n", 0, b"") };
    }
    let resolve = format!("/org/model/resolve/{commit}/");
    let (name, redirected) = match (path.strip_prefix(&resolve), path.strip_prefix("/cdn/")) {
        (Some(name), _) => (name, false),
        (_, Some(name)) => (name, true),
        _ => return reply(404, "", 0, b""),
    };
    let Some(bytes) = files.get(name) else { return reply(404, "x-error-code: EntryNotFound\r\n", 0, b"") };
    let of = if now.other_commit { MOVED } else { commit };
    if is_large(name) && !redirected {
        let host = header("host").replace("127.0.0.1", "localhost"); // another host, to the client
        let etag = atomic::sha256_of(bytes);
        let size = bytes.len();
        let headers = format!(
            "location: http://{host}/cdn/{name}\r\nx-repo-commit: {of}\r\nx-linked-etag: \"{etag}\"\r\nx-linked-size: {size}\r\netag: \"pointer\"\r\n"
        );
        return reply(302, &headers, 0, b"");
    }
    let mut bytes = bytes.clone();
    if now.wrong && redirected {
        *bytes.last_mut().unwrap() ^= 1;
    }
    let range = header("range");
    let from: usize = range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-')?.parse().ok()).unwrap_or(0);
    let (status, from) = if from > 0 && !now.no_ranges { (206, from) } else { (200, 0) };
    let mut end = bytes.len();
    if redirected && now.cut.1 > 0 {
        now.cut.1 -= 1;
        end = (from + now.cut.0).min(end);
    }
    let mut headers = if redirected { String::new() } else { format!("etag: W/\"{}\"\r\nx-repo-commit: {of}\r\n", git_hash(&bytes)) };
    if status == 206 {
        headers += &format!("content-range: bytes {from}-{}/{}\r\n", bytes.len() - 1, bytes.len());
    }
    reply(status, &headers, bytes.len() - from, &bytes[from..end]);
}

fn weights(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 31 % 251) as u8).collect()
}

/// A model with everything around it that must not be taken.
fn model() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("config.json", b"{\"model_type\": \"llama\"}".to_vec()),
        ("tokenizer.json", b"{}".to_vec()),
        ("README.md", b"---\nlicense: mit\n---\n".to_vec()),
        ("model.safetensors", weights(300_000)),
        ("pytorch_model.bin", weights(100)),
        ("modeling_custom.py", b"import os".to_vec()),
        ("onnx/model.safetensors", weights(50)),
        (".gitattributes", b"*".to_vec()),
    ]
}

fn settings(hub: &Hub, scratch: &Scratch) -> HubSettings {
    let cache = scratch.path().join("hub");
    HubSettings { endpoint: hub.address.clone(), offline: false, pause: Duration::from_millis(1), ..HubSettings::cache_only(cache) }
}

fn fetch(name: &str, settings: &HubSettings) -> Result<Snapshot> {
    hub::snapshot(&HubSource::parse(name)?, settings, &mut |_| ControlFlow::Continue(()))
}

fn fault(result: Result<Snapshot>) -> HubFault {
    match result {
        Err(StoreError::Hub { fault, .. }) => *fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_model_is_fetched_into_hugging_faces_layout_and_found_again() {
    let (scratch, hub) = (Scratch::new("hub-good"), Hub::start(&model()));
    let settings = settings(&hub, &scratch);
    let mut last = None;
    let source = HubSource::parse("hf:org/model").unwrap();
    let snapshot = hub::snapshot(&source, &settings, &mut |progress| {
        last = Some(progress);
        ControlFlow::Continue(())
    })
    .unwrap();
    let folder = settings.cache.join("models--org--model");
    assert_eq!(
        (snapshot.folder.as_path(), snapshot.commit.as_str(), snapshot.cached),
        (&*folder.join("snapshots").join(COMMIT), COMMIT, false)
    );
    let bytes = 300_000 + 23 + 2 + 21;
    assert_eq!((snapshot.bytes, last), (bytes, Some(HubProgress::Downloading(bytes, bytes))));
    assert_eq!(std::fs::read_to_string(folder.join("refs/main")).unwrap(), COMMIT);
    let mut names: Vec<_> = std::fs::read_dir(&snapshot.folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["README.md", "config.json", "model.safetensors", "tokenizer.json"], "no pickle, no code, no other folder");
    assert_eq!(std::fs::read(snapshot.folder.join("model.safetensors")).unwrap(), weights(300_000));
    #[cfg(unix)]
    assert_eq!(
        std::fs::read_link(snapshot.folder.join("model.safetensors")).unwrap(),
        Path::new("../../blobs").join(atomic::sha256_of(&weights(300_000)))
    );
    hub.paths();

    // A commit that is there is not asked for again; a branch is asked what it is, and nothing more.
    let pinned = format!("hf:org/model@{COMMIT}");
    assert_eq!(fetch(&pinned, &settings).unwrap(), Snapshot { cached: true, ..snapshot.clone() });
    assert!(hub.paths().is_empty());
    assert!(fetch("hf:org/model", &settings).unwrap().cached);
    assert_eq!(hub.paths(), ["/api/models/org/model/revision/main?blobs=true"]);
    let offline = HubSettings { offline: true, endpoint: "http://127.0.0.1:1".into(), ..settings.clone() };
    assert_eq!(fetch("hf:org/model", &offline).unwrap().folder, snapshot.folder);
    assert_eq!(fault(fetch("hf:org/model@other", &offline)), HubFault::Offline);

    // The branch moves: files that did not change are not downloaded again.
    hub.set(|now| now.moved = true);
    let moved = fetch("hf:org/model", &settings).unwrap();
    assert_eq!((moved.commit.as_str(), moved.cached), (MOVED, true));
    assert_eq!(hub.paths().len(), 1);
    assert_eq!(hub::cached(&source, &settings).unwrap().unwrap().commit, MOVED);
}

#[test]
fn shards_are_those_of_the_index() {
    let index = json!({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}});
    let files = [
        ("config.json", b"{}".to_vec()),
        ("model.safetensors.index.json", index.to_string().into_bytes()),
        ("model-00001-of-00002.safetensors", weights(1000)),
        ("model-00002-of-00002.safetensors", weights(2000)),
        ("consolidated.safetensors", weights(3000)),
    ];
    let (scratch, hub) = (Scratch::new("hub-shards"), Hub::start(&files));
    let settings = settings(&hub, &scratch);
    let snapshot = fetch("hf:org/model@refs/pr/1", &settings).unwrap();
    assert!(
        snapshot.folder.join("model-00002-of-00002.safetensors").exists() && !snapshot.folder.join("consolidated.safetensors").exists()
    );
    assert_eq!(snapshot.bytes, 3000 + 2 + index.to_string().len() as u64);
    assert!(settings.cache.join("models--org--model/refs/refs/pr/1").exists());
    // A shard that is gone makes it not whole.
    std::fs::remove_file(snapshot.folder.join("model-00001-of-00002.safetensors")).unwrap();
    assert_eq!(hub::cached(&HubSource::parse("hf:org/model@refs/pr/1").unwrap(), &settings).unwrap(), None);

    let outside = json!({"weight_map": {"a": "../../x.safetensors"}}).to_string().into_bytes();
    let hub = Hub::start(&[("config.json", b"{}".to_vec()), ("model.safetensors.index.json", outside)]);
    let scratch = Scratch::new("hub-outside");
    assert!(matches!(fault(fetch("hf:org/model", &self::settings(&hub, &scratch))), HubFault::Answer(_)));
}

#[test]
fn broken_connections_and_busy_servers_are_tried_again_from_where_they_ended() {
    for no_ranges in [false, true] {
        let (scratch, hub) = (Scratch::new(&format!("hub-cut-{no_ranges}")), Hub::start(&model()));
        let settings = settings(&hub, &scratch);
        hub.set(|now| {
            now.busy = 2;
            now.cut = (100_000, 2);
            now.no_ranges = no_ranges;
        });
        let snapshot = fetch("hf:org/model", &settings).unwrap();
        assert_eq!(std::fs::read(snapshot.folder.join("model.safetensors")).unwrap(), weights(300_000));
        let seen = std::mem::take(&mut hub.behaviour.lock().unwrap().seen);
        let ranges: Vec<&str> =
            seen.iter().filter(|(path, ..)| path == "/cdn/model.safetensors").map(|(_, range, _)| range.as_str()).collect();
        assert_eq!(ranges, if no_ranges { ["", "bytes=100000-", "bytes=100000-"] } else { ["", "bytes=100000-", "bytes=200000-"] });
    }
    // What brings nothing five times in a row is given up, and what came before stays for the next time.
    let (scratch, hub) = (Scratch::new("hub-given-up"), Hub::start(&model()));
    let settings = settings(&hub, &scratch);
    let stopped = hub::snapshot(&HubSource::parse("hf:org/model").unwrap(), &settings, &mut |progress| match progress {
        HubProgress::Downloading(bytes, _) if bytes > 100_000 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    assert!(matches!(stopped, Err(StoreError::Stopped { .. })), "{stopped:?}");
    hub.set(|now| now.status = Some(502));
    assert!(matches!(fault(fetch("hf:org/model", &settings)), HubFault::Status { status: 502, .. }));
    hub.set(|now| {
        now.status = None;
        now.seen.clear();
    });
    fetch("hf:org/model", &settings).unwrap();
    let seen = std::mem::take(&mut hub.behaviour.lock().unwrap().seen);
    let resumed = seen.iter().find(|(path, ..)| path == "/cdn/model.safetensors").unwrap();
    assert!(resumed.1.starts_with("bytes=") && resumed.1 != "bytes=0-", "{resumed:?}");
}

#[test]
fn wrong_bytes_never_reach_the_cache() {
    let (scratch, hub) = (Scratch::new("hub-wrong"), Hub::start(&model()));
    let settings = settings(&hub, &scratch);
    hub.set(|now| now.wrong = true);
    let wrong = fault(fetch("hf:org/model", &settings));
    assert!(matches!(&wrong, HubFault::Content { file, .. } if file == "model.safetensors"), "{wrong}");
    assert!(
        !scratch.everything().iter().any(|path| path.ends_with(&atomic::sha256_of(&weights(300_000))) || path.ends_with(".incomplete"))
    );
    hub.set(|now| {
        now.wrong = false;
        now.other_commit = true;
    });
    assert!(matches!(fault(fetch("hf:org/model", &settings)), HubFault::Content { given, .. } if given == format!("commit {MOVED}")));
    hub.set(|now| now.other_commit = false);

    // A damaged beginning is noticed, and the file downloaded as a whole.
    let blobs = settings.cache.join("models--org--model/blobs");
    std::fs::write(blobs.join(format!("{}.incomplete", atomic::sha256_of(&weights(300_000)))), [9; 1000]).unwrap();
    let mut damaged = 0;
    let snapshot = hub::snapshot(&HubSource::parse("hf:org/model").unwrap(), &settings, &mut |progress| {
        damaged += usize::from(matches!(progress, HubProgress::Damaged(_)));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(damaged, 1);

    // What changes in the cache later is noticed when its hash is compared.
    let hash = |path: &Path| {
        let (sha256, bytes) = atomic::sha256(path, &mut |_| {}).unwrap();
        [store::model_files::FileHash { name: "model.safetensors".into(), sha256, bytes }]
    };
    let path = snapshot.folder.join("model.safetensors");
    hub::verified(&snapshot.folder, &hash(&path)).unwrap();
    std::fs::write(&path, weights(299_999)).unwrap();
    assert!(!cfg!(unix) || matches!(hub::verified(&snapshot.folder, &hash(&path)), Err(StoreError::Hash { .. })));
}

#[test]
fn the_token_goes_to_the_hub_and_nowhere_else() {
    let (scratch, hub) = (Scratch::new("hub-token"), Hub::start(&model()));
    let settings = settings(&hub, &scratch);
    hub.set(|now| now.private = true);
    assert_eq!(fault(fetch("hf:org/model", &settings)), HubFault::Unauthorized { with_token: false });
    let with = |token| HubSettings { token: Token::new(token), ..settings.clone() };
    assert_eq!(fault(fetch("hf:org/model", &with("hf_wrong"))), HubFault::Unauthorized { with_token: true });
    fetch("hf:org/model", &with("hf_right")).unwrap();
    let seen = std::mem::take(&mut hub.behaviour.lock().unwrap().seen);
    assert!(seen.iter().any(|(path, _, sent)| path.starts_with("/cdn/") && sent.is_empty()));
    assert!(seen.iter().all(|(path, _, sent)| !path.starts_with("/cdn/") || sent.is_empty()), "another host saw the token");
}

#[test]
fn what_the_hub_does_not_have_is_named() {
    let (scratch, hub) = (Scratch::new("hub-none"), Hub::start(&model()));
    let settings = settings(&hub, &scratch);
    assert_eq!(fault(fetch("hf:org/model@v9", &settings)), HubFault::NotFound("model org/model at v9".into()));
    assert_eq!(fault(fetch("hf:org/other", &settings)), HubFault::NotFound("model org/other at main".into()));
    hub.set(|now| now.status = Some(403));
    assert_eq!(fault(fetch("hf:org/model", &settings)), HubFault::Forbidden { with_token: false });
    let pickles = [("config.json", b"{}".to_vec()), ("pytorch_model.bin", weights(2 << 20))];
    let hub = Hub::start(&pickles);
    let refused = fetch("hf:org/model", &self::settings(&hub, &scratch)).unwrap_err();
    assert!(refused.to_string().ends_with("there is no model.safetensors; the repository has pytorch_model.bin"), "{refused}");
    let gone = HubSettings { endpoint: "http://127.0.0.1:1".into(), ..settings };
    assert!(matches!(fault(fetch("hf:org/none", &gone)), HubFault::Network { host, .. } if host == "http://127.0.0.1:1"));
}
