//! Folders as sources: what ignore files leave out, and what is never followed.

#![allow(clippy::disallowed_methods, reason = "tests set files up by hand")]

mod scratch;

use scratch::Scratch;

#[test]
fn ignore_files_are_honoured_and_links_are_named() {
    let scratch = Scratch::new("source-folder");
    let folder = scratch.path();
    for (path, text) in [
        (".gitignore", "build/\n*.log\n!keep.log\n"),
        ("src/main.rs", "fn main() {}"),
        ("src/gen/.ignore", "*.rs\n"),
        ("src/gen/tables.rs", "x"),
        ("build/out.txt", "x"),
        ("a.log", "x"),
        ("keep.log", "x"),
        (".env", "SECRET=1"),
        ("b.md", "x"),
    ] {
        scratch.put(path, text);
    }
    #[cfg(unix)]
    std::os::unix::fs::symlink("/etc/passwd", folder.join("passwd.txt")).unwrap();
    let files = store::source::files(folder).unwrap();
    let paths: Vec<&str> = files.iter().filter(|file| file.refused.is_none()).map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["b.md", "keep.log", "src/main.rs"]);
    let refused: Vec<(&str, &str)> = files.iter().filter_map(|file| Some((file.path.as_str(), file.refused?))).collect();
    if cfg!(unix) {
        assert_eq!(refused, [("passwd.txt", "it is a link")]);
    }
    assert!(store::source::files(&folder.join("nowhere")).is_err());
}
