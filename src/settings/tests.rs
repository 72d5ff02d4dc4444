//! No bad configuration is ever accepted, and each refusal names the key, what was found and what is allowed.

use super::*;
use rstest::rstest;
use std::time::Duration;

const STORAGE: &str = r#"
group = "books"
syncgroup = "a"
machine_id = 1
[[mounts]]
index = 0
path = "/srv/folio-test/m0"
"#;

fn storage(text: &str, env: &[(&str, &str)]) -> Result<Loaded<StorageSettings>, SettingsError> {
    StorageSettings::load(Source::Text { name: "storage.toml", text }, &Environment::of(env))
}

fn tracker(text: &str, env: &[(&str, &str)]) -> Result<Loaded<TrackerSettings>, SettingsError> {
    TrackerSettings::load(Source::Text { name: "tracker.toml", text }, &Environment::of(env))
}

/// `STORAGE` with one line of a section added, or one of its lines replaced.
fn with(section: &str, line: &str) -> String {
    let key = line.split('=').next().unwrap_or_default().trim();
    match section {
        "" => {
            let rest: Vec<&str> =
                STORAGE.lines().filter(|old| !old.starts_with(&format!("{key} ="))).collect();
            format!("{line}\n{}", rest.join("\n"))
        }
        section => format!("{STORAGE}\n[{section}]\n{line}\n"),
    }
}

fn findings<T: std::fmt::Debug>(result: Result<T, SettingsError>) -> Vec<Finding> {
    match result {
        Err(SettingsError::Invalid { findings, .. }) => findings,
        other => panic!("expected findings, got {other:?}"),
    }
}

#[test]
fn the_least_that_must_be_given_is_enough() {
    let loaded = storage(STORAGE, &[]).expect("loads");
    assert!(loaded.warnings.is_empty());
    let s = loaded.settings;
    assert_eq!(s.listen.data.to_string(), "127.0.0.1:7411");
    assert_eq!(s.store.chunkfile_size, 64 << 20);
    assert_eq!(s.store.reserve, Reserve::Percent(20));
    assert_eq!(s.store.undelete_window, Duration::from_secs(86_400));
    assert_eq!(s.state_dir, Path::new("/srv/folio-test/.folio-state"));
    assert_eq!(s.recovery.bandwidth, None);
    assert_eq!(s.trackers, ["127.0.0.1:7400"]);
    let t = tracker("", &[]).expect("an empty tracker file is fine").settings;
    assert_eq!(t.liveness.offline_after, Duration::from_secs(5));
    assert_eq!(t.put_policy, PutPolicy::RoundRobin);
}

#[rstest]
// unknown
#[case("", "colour = 1", "colour", "unknown key", "group")]
#[case("store", "reserv = \"20%\"", "store.reserv", "unknown key", "reserve_free")]
#[case("stores", "reserve = \"20%\"", "stores.reserve", "unknown key", "[store]")]
#[case("store.reserve", "percent = 20", "store.reserve.percent", "unknown key", "[store]")]
// wrong type
#[case("", "machine_id = \"1\"", "machine_id", "\"1\"", "1 to 65535")]
#[case("", "machine_id = 1.5", "machine_id", "1.5", "1 to 65535")]
#[case("", "trackers = \"127.0.0.1:7400\"", "trackers", "127.0.0.1:7400", "a list")]
#[case("", "trackers = [1]", "trackers", "a list", "HOST:PORT")]
#[case("", "group = 5", "group", "5", "a-z")]
#[case("store", "reserve = 20", "store.reserve", "20", "percentage")]
#[case("store", "chunkfile_size = true", "store.chunkfile_size", "true", "4MiB to 1GiB")]
#[case("scrub", "enabled = \"true\"", "scrub.enabled", "\"true\"", "true or false")]
#[case("store", "undelete_window = 24", "store.undelete_window", "24", "a duration")]
// out of bounds or malformed
#[case("", "machine_id = 0", "machine_id", "\"0\"", "1 to 65535")]
#[case("", "machine_id = 65536", "machine_id", "65536", "1 to 65535")]
#[case("", "machine_id = -1", "machine_id", "-1", "1 to 65535")]
#[case("", "group = \"../x\"", "group", "../x", "a-z")]
#[case("", "group = \"\"", "group", "\"\"", "a-z")]
#[case("", "syncgroup = \"A\"", "syncgroup", "\"A\"", "a-z")]
#[case("", "listen = \"7411\"", "listen", "7411", "IP:PORT")]
#[case("", "listen = \"\"", "listen", "\"\"", "IP:PORT")]
#[case("", "advertise = \"host\"", "advertise", "host", "HOST:PORT")]
#[case("", "trackers = []", "trackers", "\"\"", "1 to 16")]
#[case("", "weight = 0", "weight", "\"0\"", "1 to 1000")]
#[case("store", "chunkfile_size = \"4095KiB\"", "store.chunkfile_size", "4095KiB", "4MiB to 1GiB")]
#[case("store", "chunkfile_size = \"1025MiB\"", "store.chunkfile_size", "1025MiB", "4MiB to 1GiB")]
#[case("store", "reserve = \"401%\"", "store.reserve", "401%", "400%")]
#[case("store", "mount_policy = \"best\"", "store.mount_policy", "best", "round_robin, most_free")]
#[case(
    "store",
    "active_chunkfiles_per_mount = 0",
    "store.active_chunkfiles_per_mount",
    "0",
    "1 to 64"
)]
#[case("store", "undelete_window = \"soon\"", "store.undelete_window", "soon", "a duration")]
#[case("durability", "acks = \"none\"", "durability.acks", "none", "local, mirror, all")]
#[case("durability", "sync = \"never\"", "durability.sync", "never", "fsync, os")]
#[case("recovery", "bandwidth = \"10\"", "recovery.bandwidth", "\"10\"", "0 for no limit")]
#[case("recovery", "streams = 33", "recovery.streams", "33", "1 to 32")]
#[case("limits", "idle_timeout = \"5\"", "limits.idle_timeout", "\"5\"", "a duration")]
#[case("limits", "in_flight_bytes = \"1MiB\"", "limits.in_flight_bytes", "1MiB", "4MiB")]
#[case("threads", "net = 0", "threads.net", "\"0\"", "1 to 64")]
#[case("log", "level = \"loud\"", "log.level", "loud", "error, warn")]
// across keys
#[case("", "admin_listen = \"127.0.0.1:7411\"", "admin_listen", "7411", "another address")]
#[case("", "metrics_listen = \"127.0.0.1:7511\"", "metrics_listen", "7511", "another address")]
#[case("", "listen = \"10.0.0.1:7411\"", "listen", "without a key", "auth.insecure")]
#[case("", "admin_listen = \"10.0.0.1:7511\"", "admin_listen", "without a key", "auth.key_file")]
#[case("", "state_dir = \"/srv/folio-test/m0/state\"", "state_dir", "inside mounts[0]", "outside")]
#[case(
    "store",
    "single_file_threshold = \"16MiB\"\nchunkfile_size = \"16MiB\"",
    "store.single_file_threshold",
    "16MiB",
    "half"
)]
#[case(
    "store",
    "reserve = \"400%\"\nchunkfile_size = \"4MiB\"",
    "store.reserve",
    "4MiB more",
    "three quarters"
)]
#[case("sync", "retry_min = \"9s\"\nretry_max = \"1s\"", "sync.retry_max", "1s", "retry_min")]
fn a_bad_value_is_refused_by_name(
    #[case] section: &str,
    #[case] line: &str,
    #[case] key: &str,
    #[case] found: &str,
    #[case] allowed: &str,
) {
    let findings = findings(storage(&with(section, line), &[]));
    let finding = findings.iter().find(|f| f.key == key).unwrap_or_else(|| panic!("{findings:?}"));
    assert!(finding.found.contains(found), "{finding}");
    assert!(finding.allowed.contains(allowed), "{finding}");
    assert_eq!(finding.source.as_deref(), Some("storage.toml"));
}

#[rstest]
#[case("cert = \"/etc/cert.pem\"", "tls.key")]
#[case("cert = \"/c.pem\"\nkey = \"/k.pem\"", "tls.ca")]
#[case("ca = \"/ca.pem\"", "tls.cert")]
fn half_of_tls_is_never_plaintext_by_surprise(#[case] lines: &str, #[case] missing: &str) {
    let findings = findings(storage(&with("tls", lines), &[]));
    let finding = findings.iter().find(|f| f.key == missing);
    let finding = finding.unwrap_or_else(|| panic!("{findings:?}"));
    assert!(finding.allowed.contains("a file in PEM, or no [tls] at all"), "{finding}");
}

#[rstest]
#[case("group")]
#[case("syncgroup")]
#[case("machine_id")]
fn a_missing_key_is_named(#[case] key: &str) {
    let text: Vec<&str> = STORAGE.lines().filter(|l| !l.starts_with(&format!("{key} ="))).collect();
    let findings = findings(storage(&text.join("\n"), &[]));
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!((findings[0].key.as_str(), findings[0].found.as_str()), (key, "nothing"));
}

#[rstest]
#[case("", "mounts")]
#[case("mounts = []", "mounts")]
#[case("mounts = 3", "mounts")]
#[case("[mounts]\nindex = 0", "mounts.index")]
#[case("[[mounts]]\npath = \"/a\"", "mounts[0].index")]
#[case("[[mounts]]\nindex = 0", "mounts[0].path")]
#[case("[[mounts]]\nindex = 256\npath = \"/a\"", "mounts[0].index")]
#[case("[[mounts]]\nindex = 0\npath = \"\"", "mounts[0].path")]
#[case("[[mounts]]\nindex = 0\npath = \"/a\"\ncolour = 1", "mounts[0].colour")]
#[case(
    "[[mounts]]\nindex = 0\npath = \"/a\"\n[[mounts]]\nindex = 0\npath = \"/b\"",
    "mounts[1].index"
)]
#[case(
    "[[mounts]]\nindex = 0\npath = \"/a\"\n[[mounts]]\nindex = 1\npath = \"/b/../a/\"",
    "mounts[1].path"
)]
#[case(
    "[[mounts]]\nindex = 0\npath = \"/a\"\n[[mounts]]\nindex = 1\npath = \"/a/b\"",
    "mounts[1].path"
)]
fn bad_mounts_are_refused_by_name(#[case] mounts: &str, #[case] key: &str) {
    let text = format!("group = \"g\"\nsyncgroup = \"a\"\nmachine_id = 1\n{mounts}\n");
    let findings = findings(storage(&text, &[]));
    assert!(findings.iter().any(|f| f.key == key), "{findings:?}");
}

#[test]
fn a_link_does_not_hide_that_two_mounts_are_one() {
    let dir = tempfile::tempdir().expect("dir");
    std::fs::create_dir(dir.path().join("m0")).expect("mkdir");
    std::os::unix::fs::symlink(dir.path().join("m0"), dir.path().join("m1")).expect("link");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let text = format!(
        "group = \"g\"\nsyncgroup = \"a\"\nmachine_id = 1\n[[mounts]]\nindex = 0\npath = \"{}\"\n[[mounts]]\nindex = 1\npath = \"{}\"",
        path("m0"),
        path("m1")
    );
    assert_eq!(findings(storage(&text, &[]))[0].key, "mounts[1].path");
}

#[test]
fn more_than_256_mounts_are_refused() {
    let mounts: String =
        (0..257).map(|i| format!("[[mounts]]\nindex = {}\npath = \"/a{i}\"\n", i % 256)).collect();
    let text = format!("group = \"g\"\nsyncgroup = \"a\"\nmachine_id = 1\n{mounts}");
    assert!(findings(storage(&text, &[])).iter().any(|f| f.key == "mounts"));
}

#[rstest]
#[case("[liveness]\nsuspect_after = \"5s\"", "liveness.offline_after", "suspect_after")]
#[case("[liveness]\nheartbeat_interval = \"2s\"", "liveness.suspect_after", "twice")]
#[case("[liveness]\noffline_after = \"31s\"", "liveness.offline_after", "30s")]
#[case("[routing]\nput_policy = \"random\"", "routing.put_policy", "weighted")]
#[case("group = \"books\"", "group", "listen")]
#[case("listen = \"0.0.0.0:7400\"", "listen", "insecure")]
fn a_bad_tracker_is_refused_by_name(#[case] text: &str, #[case] key: &str, #[case] allowed: &str) {
    let findings = findings(tracker(text, &[]));
    let finding = findings.iter().find(|f| f.key == key).unwrap_or_else(|| panic!("{findings:?}"));
    assert!(finding.allowed.contains(allowed), "{finding}");
}

#[test]
fn all_faults_are_told_at_once() {
    let text = format!("{}\n[threads]\nnet = 0\n[x]\ny = 1", with("", "machine_id = 0"));
    assert_eq!(findings(storage(&text, &[])).len(), 3);
}

#[test]
fn text_that_is_not_toml_and_files_that_are_not_there_are_named() {
    assert!(matches!(storage("group = ", &[]), Err(SettingsError::Syntax { .. })));
    let missing = Path::new("/nowhere/storage.toml");
    let error = StorageSettings::load(Source::File(missing), &Environment::default());
    assert!(error.expect_err("no file").to_string().contains("/nowhere/storage.toml"));
}

#[test]
fn plaintext_beyond_loopback_needs_an_explicit_wish_and_the_console_a_key() {
    let open = "listen = \"0.0.0.0:7411\"\nadvertise = \"h:7411\"";
    let base = format!("{open}\n{STORAGE}\n[auth]\ninsecure = true\n");
    storage(&base, &[]).expect("insecure was asked for");
    let open_console = format!("admin_listen = \"0.0.0.0:7511\"\n{base}");
    assert_eq!(findings(storage(&open_console, &[]))[0].key, "admin_listen");
}

#[test]
fn listening_everywhere_needs_an_address_to_advertise() {
    let text = format!("listen = \"0.0.0.0:7411\"\n{STORAGE}\n[auth]\ninsecure = true\n");
    assert_eq!(findings(storage(&text, &[]))[0].key, "advertise");
}

#[test]
fn the_environment_overrides_and_its_faults_name_the_variable() {
    let env = [
        ("FOLIO_STORE__RESERVE", "10%"),
        ("FOLIO_TRACKERS", "a:1, b:2"),
        ("FOLIO_MOUNTS__1__INDEX", "7"),
        ("FOLIO_MOUNTS__1__PATH", "/srv/folio-test/m7"),
        ("FOLIO_SCRUB__ENABLED", "false"),
        ("FOLIO__MACHINE_ID", "9"),
        ("FOLIO_SEED", "1"),
    ];
    let loaded = storage(STORAGE, &env).expect("loads");
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    let s = loaded.settings;
    assert_eq!(s.store.reserve, Reserve::Percent(10));
    assert_eq!(s.trackers, ["a:1", "b:2"]);
    assert_eq!(s.mounts.len(), 2);
    assert_eq!((s.mounts[1].index, s.machine_id, s.scrub.enabled), (7, 9, false));
    let shown = s.shown.iter().find(|shown| shown.key == "store.reserve").expect("shown");
    assert_eq!((shown.value.as_str(), shown.source.as_str()), ("10%", "FOLIO_STORE__RESERVE"));

    let found = findings(storage(STORAGE, &[("FOLIO_THREADS__NET", "many")]));
    assert_eq!(found[0].source.as_deref(), Some("FOLIO_THREADS__NET"));
    tracker("", &env).expect("keys of a storage are no tracker's business");
}

#[test]
fn a_key_file_is_read_and_its_faults_stop_the_start() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("keys");
    let env_path = path.display().to_string();
    let env = [("FOLIO_KEY_FILE", env_path.as_str())];
    assert!(matches!(storage(STORAGE, &env), Err(SettingsError::Keys(KeysError::Io { .. }))));
    Keys::generate(&path).expect("keys");
    let open = format!("listen = \"10.0.0.1:7411\"\nadmin_listen = \"10.0.0.1:7511\"\n{STORAGE}");
    let s = storage(&open, &env).expect("with a key it may listen anywhere").settings;
    assert!(s.auth.keys.is_some());
}

#[test]
fn what_dev_gives_is_overridden_by_the_environment() {
    let keys: Vec<(String, String)> = [
        ("group", "dev"),
        ("syncgroup", "a"),
        ("machine_id", "2"),
        ("mounts[0].index", "0"),
        ("mounts[0].path", "/srv/folio-test/a \"b\""),
        ("store.reserve_free", "64MiB"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .to_vec();
    let source = Source::Given { name: "dev", keys: &keys };
    let s =
        StorageSettings::load(source, &Environment::of(&[("FOLIO_STORE__RESERVE_FREE", "1MiB")]));
    let s = s.expect("loads").settings;
    assert_eq!(s.store.reserve_free, 1 << 20);
    assert_eq!(s.mounts[0].path, Path::new("/srv/folio-test/a \"b\""));
}
