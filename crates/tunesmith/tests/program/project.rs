//! A tiny project in a folder of its own, and the program at work on it.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::tiny;

/// No command on a tiny project takes longer, even in the dev profile on a busy machine: it hangs.
const PATIENCE: Duration = Duration::from_secs(180);

/// A folder with `base/`, `tickets/tickets.csv`, `tickets/tunesmith.toml` and the workspace's `runs/`; removed in the end.
pub(crate) struct Project {
    folder: PathBuf,
}

impl Project {
    /// Structured answers (`intent`, `product`, `order`), all arms, a gate that only wants to beat few-shot.
    pub(crate) fn new() -> Project {
        let project = Project::bare();
        tiny::tickets_project(&project.path("tickets"));
        project
    }

    /// Labels (`intent`) instead of records.
    pub(crate) fn labels() -> Project {
        let project = Project::new();
        project.edit("target = [\"intent\", \"product\", \"order\"]", "target = \"intent\"");
        project
    }

    /// Only the base.
    pub(crate) fn bare() -> Project {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let shelf = Path::new(env!("CARGO_TARGET_TMPDIR"));
        sweep(shelf);
        let folder = shelf.join(format!("program-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let project = Project { folder };
        project.base("base", tiny::CONTEXT, tiny::HIDDEN);
        project
    }

    /// A random Llama as a Hugging Face folder.
    pub(crate) fn base(&self, name: &str, context: usize, hidden: usize) {
        tiny::base(&self.path(name), &golden("tokenizer/tiny.json"), context, hidden);
    }

    /// A path inside.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a file inside; its folder is made.
    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// The text of a file inside.
    pub(crate) fn text(&self, name: &str) -> String {
        text(&self.path(name))
    }

    /// Replaces a part of the run file, which must be there.
    pub(crate) fn edit(&self, from: &str, to: &str) {
        self.edit_file("tickets/tunesmith.toml", from, to);
    }

    /// Replaces a part of a file, which must be there.
    pub(crate) fn edit_file(&self, name: &str, from: &str, to: &str) {
        let text = self.text(name);
        assert!(text.contains(from), "{name} has no {from:?}:\n{text}");
        self.write(name, text.replacen(from, to, 1));
    }

    /// The program, set up to work inside this folder and nowhere else.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tunesmith"));
        command.args(arguments).args(["--workspace", self.folder.to_str().unwrap(), "--cache", self.path("cache").to_str().unwrap()]);
        command.current_dir(&self.folder).env("TUNESMITH_PYTHON", "no-such-python").env_remove("TUNESMITH_WORKSPACE").stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn tunesmith(&self, arguments: &[&str]) -> Ended {
        finish(self.command(arguments), b"")
    }

    /// Runs the program with text on its stdin.
    pub(crate) fn pipe(&self, arguments: &[&str], input: &str) -> Ended {
        finish(self.command(arguments), input.as_bytes())
    }

    /// The one run folder there is.
    pub(crate) fn only_run(&self) -> PathBuf {
        let runs = self.runs();
        assert_eq!(runs.len(), 1, "run folders {runs:?}");
        runs[0].clone()
    }

    /// All run folders.
    pub(crate) fn runs(&self) -> Vec<PathBuf> {
        let folders = |path: &Path| -> Vec<PathBuf> {
            let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
            let mut paths: Vec<PathBuf> =
                entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir() && !hidden(path)).collect();
            paths.sort();
            paths
        };
        folders(&self.path("runs")).iter().flat_map(|name| folders(name)).collect()
    }

    /// Every file and folder below, by its path inside.
    pub(crate) fn tree(&self) -> Vec<String> {
        let mut names = Vec::new();
        walk(&self.folder, &self.folder, &mut names);
        names.sort();
        names
    }

    /// Nothing that was being written is left behind.
    pub(crate) fn nothing_half_written(&self) {
        let pending: Vec<String> = self.tree().into_iter().filter(|name| name.contains(".pending-")).collect();
        assert!(pending.is_empty(), "left behind: {pending:?}");
    }

    /// A project whose `run` (structured, all arms) is done: made once, shared by all tests that only look at it.
    pub(crate) fn finished() -> Arc<Project> {
        static SHARED: Mutex<Weak<Project>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(project) = shared.upgrade() {
            return project;
        }
        let project = Arc::new(Project::new());
        let ended = project.tunesmith(&["run", "tickets", "--json"]);
        assert!(matches!(ended.code, Some(0 | 3 | 4)), "{ended}");
        *shared = Arc::downgrade(&project);
        project
    }

    /// A copy of [`Project::finished`] to be spoilt. Its run still names the original's sources.
    pub(crate) fn finished_copy() -> (Arc<Project>, Project) {
        let original = Project::finished();
        let copy = Project::bare();
        copy_tree(&original.folder, &copy.folder);
        (original, copy)
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// How a command ended.
pub(crate) struct Ended {
    pub(crate) arguments: String,
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "tunesmith {}\nexit code {:?}\n--- stdout\n{}--- stderr\n{}---", self.arguments, self.code, self.stdout, self.stderr)
    }
}

impl Ended {
    /// Checks the exit code.
    pub(crate) fn expect(self, code: i32) -> Ended {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    /// stdout, which must be exactly one JSON object on one line.
    pub(crate) fn json(&self) -> Value {
        let line = self.stdout.strip_suffix('\n').unwrap_or_else(|| panic!("stdout does not end its line: {self}"));
        assert!(!line.contains('\n'), "more than one line: {self}");
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    /// stdout as JSON lines.
    pub(crate) fn json_lines(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {self}"))).collect()
    }

    /// A refusal as STYLE wants it: exit code 1, one `error: …` line, causes and a hint after it, no word of a bug, and
    /// nothing on stdout. Every `part` stands in it.
    pub(crate) fn refused(&self, parts: &[&str]) {
        let lines = self.refusal(parts);
        let mut tail = lines[1..].iter().skip_while(|line| line.starts_with("Caused by: "));
        if let Some(blank) = tail.next() {
            assert!(blank.is_empty(), "more than one line of error: {self}");
            assert!(tail.next().is_some_and(|hint| hint.starts_with("hint: ")), "no hint after the blank line: {self}");
            assert!(tail.next().is_none(), "text after the hint: {self}");
        }
    }

    /// A refusal that may take several lines to say what was tried.
    pub(crate) fn refused_over_lines(&self, parts: &[&str]) {
        self.refusal(parts);
    }

    fn refusal(&self, parts: &[&str]) -> Vec<&str> {
        assert_eq!(self.code, Some(1), "{self}");
        assert!(self.stdout.is_empty(), "data on stdout: {self}");
        assert!(!self.stderr.contains("panicked") && !self.stderr.contains("a bug in tunesmith"), "{self}");
        let lines: Vec<&str> = self.stderr.lines().skip_while(|line| !line.starts_with("error: ")).collect();
        assert_eq!(lines.iter().filter(|line| line.starts_with("error: ")).count(), 1, "not one error: {self}");
        for part in parts {
            assert!(lines.join("\n").contains(part), "{part:?} is not said: {self}");
        }
        lines
    }
}

/// Starts a command with its output piped.
pub(crate) fn start(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Runs a command to its end; one that hangs is killed, and the test fails.
pub(crate) fn finish(mut command: Command, input: &[u8]) -> Ended {
    if !input.is_empty() {
        command.stdin(Stdio::piped());
    }
    let arguments = command.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ");
    let mut child = start(command);
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input); // a program that refuses early does not read
    }
    wait(child, arguments)
}

/// Waits for a started command.
pub(crate) fn wait(mut child: Child, arguments: String) -> Ended {
    fn reader(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut pipe) = pipe {
                let _ = pipe.read_to_end(&mut bytes);
            }
            bytes
        })
    }
    let (stdout, stderr) = (reader(child.stdout.take()), reader(child.stderr.take()));
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("`tunesmith {arguments}` hangs");
        }
        std::thread::sleep(Duration::from_millis(3));
    };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the program writes UTF-8");
    Ended { arguments, code: status.code(), stdout: text(stdout.join().unwrap()), stderr: text(stderr.join().unwrap()) }
}

/// Waits until something is so.
pub(crate) fn until(what: &str, child: &mut Child, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(child.try_wait().unwrap().is_none(), "the program ended before {what}");
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The text of a file.
pub(crate) fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The bytes of a file.
pub(crate) fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The JSON in a file.
pub(crate) fn json_file(path: &Path) -> Value {
    serde_json::from_str(&text(path)).unwrap()
}

/// The weights of an adapter folder.
pub(crate) fn adapter_bytes(adapter: &Path) -> Vec<u8> {
    bytes(&adapter.join("adapter_model.safetensors"))
}

/// A committed file.
pub(crate) fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden").join(path)
}

fn hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}

fn walk(root: &Path, folder: &Path, names: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let entry = entry.unwrap();
        let path = entry.path();
        names.push(path.strip_prefix(root).unwrap().to_string_lossy().into_owned());
        if entry.file_type().unwrap().is_dir() {
            walk(root, &path, names);
        }
    }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let place = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &place);
        } else {
            fs::copy(entry.path(), &place).unwrap();
        }
    }
}

/// Removes what tests of processes that are gone have left.
fn sweep(shelf: &Path) {
    let Ok(entries) = fs::read_dir(shelf) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix("program-").and_then(|rest| rest.split('-').next());
        if process.is_some_and(|id| Path::new("/proc/self").exists() && !Path::new("/proc").join(id).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
