//! Certificates and keys are replaced while everything runs.

use crate::certificates::write_secret;
use crate::cluster::{
    Cluster, PATIENCE, eventually, get, machine, noise, put, run, start_storage, start_tracker,
};
use folio::client::{Client, ClientOptions, GetOptions};
use folio::messages::opcode::Role;
use folio::storage::Storage;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// New certificates for all while changes, reads and fresh connections go on; then a bad file, which changes nothing but
/// the warning.
#[test]
fn a_rotation_interrupts_nobody_and_a_bad_file_is_not_taken() {
    run(async {
        let cluster = Cluster::start(2, &[]).await;
        let over = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicU64::new(0));
        let mut load = Vec::new();
        for worker in 0..3_u64 {
            let (over, done) = (Arc::clone(&over), Arc::clone(&done));
            let options = cluster.options();
            load.push(actix::spawn(async move {
                let kept = Client::connect(options.clone()).await.expect("connects");
                while !over.load(Ordering::SeqCst) {
                    let fresh = Client::connect(options.clone()).await.expect("connects again");
                    let bytes = noise(5_000, worker);
                    let id = put(&fresh, &bytes).await.expect("stored");
                    assert!(get(&kept, &id, GetOptions::default()).await == bytes);
                    done.fetch_add(1, Ordering::SeqCst);
                }
            }));
        }
        let rotations: Vec<_> = cluster
            .storages
            .iter()
            .map(Storage::rotation)
            .chain([cluster.tracker.rotation()])
            .cloned()
            .collect();
        let shown = |year: &str| {
            rotations.iter().all(|r| r.tls.now().expect("on").expires().starts_with(year))
        };
        assert!(shown("2090"));
        for year in [2091, 2092] {
            let before = done.load(Ordering::SeqCst);
            cluster.authority.sign(cluster.dir.path(), "tracker", &["127.0.0.1"], &[], year);
            for id in [1, 2] {
                machine(&cluster.authority, cluster.dir.path(), id, year);
            }
            // One is asked, as by SIGHUP; the others look by themselves.
            rotations[0].ask();
            eventually("all show the new one", || shown(&year.to_string())).await;
            eventually("work went on", || done.load(Ordering::SeqCst) > before + 10).await;
        }
        assert!(rotations.iter().all(|rotation| rotation.warnings().is_empty()));

        let broken = cluster.dir.path().join("s1.pem");
        let good = std::fs::read(&broken).unwrap();
        std::fs::write(&broken, "half a certifi").unwrap();
        rotations[0].ask();
        eventually("it is said", || !rotations[0].warnings().is_empty()).await;
        let (what, _) = rotations[0].warnings().remove(0);
        assert!(what.contains("s1.pem") && what.contains("tls.cert"), "{what}");
        let before = done.load(Ordering::SeqCst);
        eventually("work goes on", || done.load(Ordering::SeqCst) > before + 10).await;
        assert!(shown("2092"), "the old one stays");
        std::fs::write(&broken, good).unwrap();
        eventually("it is mended", || rotations[0].warnings().is_empty()).await;

        over.store(true, Ordering::SeqCst);
        for worker in load {
            worker.await.expect("no operation failed");
        }
        cluster.stop().await;
    });
}

/// A key that is replaced: both are good while both are in the files.
#[test]
fn keys_are_replaced_without_a_restart() {
    use folio::settings::Keys;
    run(async {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join("keys");
        let (old, new) = ("00".repeat(16), "11".repeat(16));
        let lines = |keys: &[&String]| -> String {
            let line =
                |role: &str| keys.iter().map(|key| format!("{role} {key}\n")).collect::<String>();
            ["client", "peer", "admin"].iter().map(|role| line(role)).collect()
        };
        write_secret(&file, &lines(&[&old]));
        let auth = [("auth.key_file".to_owned(), file.display().to_string())];
        let tracker = start_tracker(&auth);
        let storage = start_storage(dir.path(), tracker.address(), 1, &auth).await;
        storage.ready().await;
        let options = |key: &String| ClientOptions {
            trackers: vec![tracker.address().to_string()],
            keys: Some(Keys::parse(Path::new("client"), &format!("client {key}\n")).unwrap()),
            ..ClientOptions::default()
        };
        let kept = Client::connect(options(&old)).await.expect("the old key");
        put(&kept, b"with the old one").await.expect("stored");
        assert!(Client::connect(options(&new)).await.is_err(), "not yet");
        let change = |text: String| {
            write_secret(&file, &text);
            tracker.rotation().ask();
            storage.rotation().ask();
        };
        let count = |keys: usize| {
            [tracker.rotation(), storage.rotation()]
                .iter()
                .all(|rotation| rotation.keys.of(Role::Client).len() == keys)
        };
        change(lines(&[&new, &old]));
        eventually("both are taken", || count(2)).await;
        for key in [&old, &new] {
            let client = Client::connect(options(key)).await.expect("either key");
            put(&client, b"with either").await.expect("stored");
        }
        // A file that others may read is refused, and taken again, by its mode alone: nobody touches it.
        let mode = |mode: u32| {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("a mode");
        };
        mode(0o644);
        eventually("an open key file is said", || !storage.rotation().warnings().is_empty()).await;
        mode(0o600);
        eventually("it is over by itself", || storage.rotation().warnings().is_empty()).await;
        change(lines(&[&new]));
        eventually("only the new one is taken", || count(1)).await;
        assert!(Client::connect(options(&old)).await.is_err(), "the old key is over");
        put(&kept, b"an open connection goes on").await.expect("stored");
        drop(kept);
        storage.stop(PATIENCE).await;
        tracker.stop(PATIENCE).await;
    });
}
