//! What is shipped beside the program holds: the example cluster starts from what its script writes, the units are as
//! closed as promised, the package names files that are there.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use folio::settings::{Environment, Source, StorageSettings, TrackerSettings};
use folio::tls::{MachineName, Material};
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// What the script wrote is taken by the daemons as it stands: keys, configuration, certificates.
#[test]
fn the_example_cluster_is_understood_by_the_daemons() {
    let dir = tempfile::tempdir().expect("dir");
    let out = dir.path().join("cluster");
    let make = |arguments: &[&str]| {
        let made = Command::new("sh")
            .arg(root().join("ops/example/make-cluster.sh"))
            .arg(&out)
            .args(arguments)
            .env("FOLIO", assert_cmd::cargo::cargo_bin!("folio"))
            .env("FOLIO_ETC", &out)
            .output()
            .expect("sh");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    make(&["10.0.0.1", "books-2.example", "10.0.0.1", "books-2.example", "10.0.0.3"]);
    make(&["storage", "4", "10.0.0.4"]);
    let nothing = Environment::default();
    let now_s = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now_s = now_s.expect("after 1970").as_secs();
    for n in 1..=2 {
        let path = out.join(format!("tracker{n}.toml"));
        let loaded = TrackerSettings::load(Source::File(&path), &nothing).expect("understood");
        assert!(loaded.settings.auth.keys.is_some() && loaded.warnings.is_empty());
        let tls = loaded.settings.tls.expect("certificates");
        Material::load(&tls, None, now_s).expect("good ones");
    }
    for n in 1..=4u16 {
        let path = out.join(format!("storage{n}.toml"));
        let loaded = StorageSettings::load(Source::File(&path), &nothing).expect("understood");
        let settings = loaded.settings;
        assert!(loaded.warnings.is_empty());
        assert_eq!((settings.machine_id, settings.trackers.len()), (n, 2));
        assert!(settings.auth.keys.is_some());
        let tls = settings.tls.expect("certificates");
        let machine = MachineName::parse(&format!("example/a/{n}"));
        Material::load(&tls, machine.as_ref(), now_s).expect("good ones");
    }
    let left: Vec<_> =
        std::fs::read_dir(&out).expect("dir").map(|e| e.unwrap().file_name()).collect();
    let odd = |name: &&std::ffi::OsString| name.to_string_lossy().ends_with("csr");
    assert_eq!(left.iter().find(odd), None);
    // Without its arguments it says how it is used.
    let usage =
        Command::new("sh").arg(root().join("ops/example/make-cluster.sh")).output().expect("sh");
    assert_eq!(usage.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&usage.stdout).contains("make-cluster.sh OUT"));
}

#[test]
fn the_units_leave_little_exposed() {
    for unit in ["folio-storage.service", "folio-tracker.service"] {
        let path = root().join("ops/systemd").join(unit);
        let analysed = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--threshold=20", "--no-pager"])
            .arg(&path)
            .output();
        match analysed {
            // The threshold is in tenths: more than 2.0 is a failure.
            Ok(done) => {
                let said = String::from_utf8_lossy(&done.stdout);
                assert!(done.status.success() && said.contains("exposure level"), "{unit}: {said}");
            }
            Err(error) => println!("skipped, there is no systemd-analyze here: {error}"),
        }
    }
}

#[test]
fn the_package_names_files_that_are_there() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("manifest");
    let assets = manifest.split("assets = [").nth(1).and_then(|rest| rest.split("\n]").next());
    let mut count = 0;
    for line in assets.expect("assets").lines().filter(|line| line.contains('"')) {
        let source = line.split('"').nth(1).expect("a path");
        count += 1;
        if source.starts_with("target/") || source.contains('*') {
            continue;
        }
        assert!(root().join(source).is_file(), "{source}");
    }
    assert!(count >= 8, "{count} assets");
    for script in ["postinst", "prerm", "postrm"] {
        let path = root().join("ops/debian").join(script);
        let checked = Command::new("sh").arg("-n").arg(&path).status().expect("sh");
        assert!(checked.success(), "{script}");
        let text = std::fs::read_to_string(Path::new(&path)).expect("script");
        assert!(!text.contains("rm -rf /srv"), "{script} would delete objects");
    }
}
