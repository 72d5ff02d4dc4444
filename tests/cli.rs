//! What is typed wrong never does anything, and always says what was wrong: exit codes and error texts.
#![allow(clippy::disallowed_methods, clippy::expect_used, reason = "a test that runs the binary")]

use assert_cmd::Command;
use std::path::Path;

fn folio() -> Command {
    let mut command = Command::cargo_bin("folio").expect("the binary is built");
    for (name, _) in std::env::vars() {
        if name.starts_with("FOLIO_") {
            command.env_remove(name);
        }
    }
    command
}

/// Exit code, stdout, stderr.
fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = folio().args(arguments).output().expect("runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// A valid id of a cluster that does not run.
fn id() -> String {
    use folio::format::file_id::{FileId, ObjectId, ObjectKind};
    let object = ObjectId {
        kind: ObjectKind::Chunk,
        machine: 1,
        mount: 0,
        log_id: 7,
        sequence: 1,
        created_s: 1,
        chunk: 1,
        offset_units: 64,
        capacity_units: 80,
        cookie: 42,
    };
    FileId::new("dev", "a", object, None).expect("valid").to_string()
}

#[test]
fn usage_errors_are_exit_2_and_print_nothing_on_stdout() {
    let id = id();
    let cases: &[&[&str]] = &[
        &["frobnicate"],
        &["put"],
        &["get"],
        &["get", "not-an-id"],
        &["get", "dev/a/short"],
        &["get", "../../etc/passwd"],
        &["stat", &id[..id.len() - 1]],
        &["delete", "", "--json"],
        &["modify", "x/y/z", "-"],
        &["undelete", "x/y"],
        &["put", "f", "--reserve", "many"],
        &["put", "f", "--reserve", "500%"],
        &["get", "x", "--from", "70000"],
        &["df", "--timeout", "soon"],
        &["df", "--tracker", "nowhere"],
        &["import", "."],
        &["import", ".", "-m", "m", "--jobs", "0"],
        &["verify", "m", "--from", "1", "--all-mirrors"],
        &["list", "--since", "yesterday"],
        &["bench", "jump"],
        &["bench", "put", "--size", "3MiB"],
        &["completions", "cmd"],
        &["tracker"],
        &["tracker", "--config", "x", "--tracker", "a:1"],
        &["dev", "--storages", "0"],
        &["dev", "--key-file", "x"],
    ];
    for case in cases {
        let (code, out, err) = run(case);
        assert_eq!(code, 2, "{case:?}: {err}");
        assert!(out.is_empty() && !err.is_empty(), "{case:?}: {out} {err}");
    }
}

#[test]
fn a_bad_range_or_version_is_exit_2_before_any_cluster_is_asked() {
    let id = id();
    for range in ["5", "9-5", "a-b", "-1-2", ""] {
        let (code, _, err) = run(&["get", &id, "--range", range]);
        assert_eq!(code, 2, "{range:?}: {err}");
    }
    let (code, _, err) = run(&["modify", &id, "-", "--if-opver", "7"]);
    assert_eq!(code, 2, "{err}");
}

#[test]
fn errors_in_json_have_code_message_and_remedy() {
    let (code, out, err) = run(&["--json", "get", "dev/a/short"]);
    assert_eq!((code, out.as_str()), (2, ""));
    let error: serde_json::Value = serde_json::from_str(&err).expect("one JSON document");
    assert_eq!(error["error"]["code"], "bad_id");
    assert!(error["error"]["message"].as_str().is_some_and(|text| text.contains("dev/a/short")));
    assert!(error["error"]["remedy"].as_str().is_some_and(|text| !text.is_empty()));
    let (code, _, err) = run(&["get", "--json"]);
    let error: serde_json::Value = serde_json::from_str(&err).expect("one JSON document");
    assert_eq!((code, error["error"]["code"].as_str()), (2, Some("usage")));
}

#[test]
fn a_cluster_that_is_not_there_is_exit_5_and_named() {
    // Nothing listens on the discard port of loopback in a test environment.
    let id = id();
    for command in [&["df"][..], &["get", &id], &["list"]] {
        let mut arguments = vec!["--tracker", "127.0.0.1:9", "--timeout", "300ms"];
        arguments.extend(command);
        let (code, out, err) = run(&arguments);
        assert_eq!((code, out.as_str()), (5, ""), "{err}");
        assert!(err.contains("127.0.0.1:9"), "{err}");
    }
}

#[test]
fn version_and_help_and_completions_are_answers() {
    let (code, out, _) = run(&["--version"]);
    assert_eq!(code, 0);
    assert!(out.starts_with("folio ") && out.contains('('), "{out}");
    for words in [&["--help"][..], &["put", "--help"]] {
        assert_eq!(run(words).0, 0);
    }
    let (code, out, _) = run(&["completions", "bash"]);
    assert_eq!(code, 0);
    assert!(out.contains("_folio"));
}

#[test]
fn keygen_never_overwrites_a_key_file() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("keys");
    let name = path.to_str().expect("text");
    assert_eq!(run(&["keygen", name]).0, 0);
    let keys = std::fs::read_to_string(&path).expect("keys");
    assert_eq!(keys.lines().filter(|line| !line.starts_with('#')).count(), 3);
    let (code, _, err) = run(&["keygen", name]);
    assert_eq!(code, 1);
    assert!(err.contains("not overwritten"), "{err}");
    assert_eq!(std::fs::read_to_string(&path).expect("keys"), keys);
}

#[test]
fn a_daemon_with_a_bad_configuration_does_not_start_and_names_the_key() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("bad.toml");
    let name = path.to_str().expect("text").to_owned();
    std::fs::write(&path, "[store]\nreserv = \"20%\"\nchunkfile_size = \"1KiB\"\n").expect("write");
    let (code, out, err) = run(&["storage", "--config", &name]);
    assert_eq!((code, out.as_str()), (2, ""));
    for part in ["store.reserv", "store.chunkfile_size", "4MiB to 1GiB", "machine_id", "group"] {
        assert!(err.contains(part), "{part} is not named: {err}");
    }
    let (code, _, err) = run(&["tracker", "--config", "/nowhere/tracker.toml"]);
    assert_eq!(code, 1);
    assert!(err.contains("/nowhere/tracker.toml"), "{err}");
    let output = folio()
        .args(["tracker", "--config", "conf/tracker.toml"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .env("FOLIO_LIVENESS__OFFLINE_AFTER", "1h")
        .output()
        .expect("runs");
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2));
    assert!(err.contains("FOLIO_LIVENESS__OFFLINE_AFTER") && err.contains("30s"), "{err}");
}

#[test]
fn a_broken_manifest_line_is_named_and_nothing_is_done() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("M");
    std::fs::write(&path, format!("# ok\n{}\t3\tabc\tname\n", id())).expect("write");
    let name = path.to_str().expect("text");
    let out = dir.path().join("out");
    for words in [vec!["verify", name], vec!["export", name, out.to_str().expect("text")]] {
        let (code, _, err) = run(&words);
        assert_eq!(code, 2, "{err}");
        assert!(err.contains("line 2"), "{err}");
    }
    assert!(!out.exists());
}

/// What is wrong on this side is told with what to do about it, before any cluster is asked.
#[test]
fn no_error_about_a_file_comes_without_a_remedy() {
    let dir = tempfile::tempdir().expect("dir");
    let folder = dir.path().to_str().expect("text");
    let (missing, keys) = (format!("{folder}/none"), format!("{folder}/none/keys"));
    let open = format!("{folder}/open");
    std::fs::write(&open, "client 00").expect("write");
    let cases: &[(&[&str], &str)] = &[
        (&["put", &missing], "check the path"),
        (&["put", folder], "folio import"),
        (&["modify", &id(), folder], "folio import"),
        (&["verify", &missing], "folio import"),
        (&["export", &missing, folder], "folio import"),
        (&["df", "--key-file", &missing], "folio keygen"),
        (&["df", "--key-file", folder], "folio keygen"),
        (&["df", "--key-file", &open], "nobody but its owner"),
        (&["keygen", &keys], "a folder that is there"),
        (&["keygen", &open], "never replaced"),
    ];
    for (case, remedy) in cases {
        let (code, _, err) = run(&[case, &["--json"][..]].concat());
        assert!(code == 1 || code == 2, "{case:?}: {code} {err}");
        let error: serde_json::Value = serde_json::from_str(&err).expect("one JSON document");
        let told = error["error"]["remedy"].as_str().expect("a remedy");
        assert!(told.contains(remedy), "{case:?}: {told:?}");
    }
}
