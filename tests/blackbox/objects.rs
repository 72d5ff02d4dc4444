//! put, get, modify, delete, undelete, stat: answers, exit codes, JSON keys, sizes.

use crate::harness::cluster::Cluster;
use crate::harness::content::content;
use crate::harness::run::{Answer, Cli};
use folio::format::file_id::FileId;
use serde_json::Value;

fn keys_of(value: &Value) -> Vec<String> {
    value.as_object().expect("an object").keys().cloned().collect()
}

#[track_caller]
fn has_keys(value: &Value, wanted: &str) {
    let found = keys_of(value);
    for key in wanted.split(' ') {
        assert!(found.iter().any(|k| k == key), "no {key} in {value}");
    }
}

/// Every documented answer of one object's life, in text and in JSON.
#[test]
fn no_step_of_an_objects_life_answers_other_than_documented() {
    let cluster = Cluster::small();
    let cli = cluster.cli();

    let answer = cli.run_with(["put", "-", "--json"], "one").ok().json();
    has_keys(&answer, "id opver acks copies degraded");
    assert_eq!(answer["copies"], 1);
    assert_eq!(answer["degraded"], false, "a sole configured member is not degraded");
    let id = answer["id"].as_str().expect("id").to_owned();
    let first = answer["opver"].as_str().expect("opver").to_owned();
    assert!(first.chars().all(|c| c.is_ascii_graphic()), "{first}");
    assert_eq!(cli.get(&id), b"one");

    let stat = cli.stat(&id);
    has_keys(
        &stat,
        "id group syncgroup owner mount kind length capacity opver created modified crc32c state forwarded",
    );
    assert_eq!(stat["id"], id.as_str());
    assert_eq!((&stat["group"], &stat["syncgroup"]), (&Value::from("g"), &Value::from("a")));
    assert_eq!(stat["owner"], 1);
    assert_eq!(stat["mount"], 0);
    assert_eq!(stat["length"], 3);
    assert_eq!(stat["opver"], first.as_str());
    let text = cli.run(["stat", &id]).ok().text();
    for word in ["group", "syncgroup", "owner", "mount", "kind", "length", "opver", "crc32c"] {
        assert!(text.contains(word), "stat in text has no {word}: {text}");
    }
    assert!(text.contains(&first), "the token is the same in text: {text}");

    // Compare and swap: right, then stale; a stale one changes nothing.
    let answer = cli.run_with(["modify", &id, "-", "--if-opver", &first, "--json"], "two").ok();
    let answer = answer.json();
    has_keys(&answer, "id opver acks copies degraded");
    assert_eq!(answer["id"], id.as_str(), "an id is for life");
    let second = answer["opver"].as_str().expect("opver").to_owned();
    assert_ne!(first, second);
    cli.run_with(["modify", &id, "-", "--if-opver", &first], "lost").exits(4);
    cli.run(["delete", &id, "--if-opver", &first]).exits(4);
    let error = cli.run_with(["modify", &id, "-", "--if-opver", &first, "--json"], "lost").exits(4);
    error.error_json();
    assert_eq!(cli.get(&id), b"two");
    assert_eq!(cli.opver(&id), second);
    assert_eq!(cli.run_with(["modify", &id, "-"], "three").ok().line(), id);

    // Read your writes, and from one machine.
    let third = cli.opver(&id);
    for version in [&first, &third] {
        let read = cli.run(["get", &id, "--min-opver", version]).ok();
        assert_eq!(read.stdout, b"three");
    }
    assert_eq!(cli.run(["get", &id, "--from", "1"]).ok().stdout, b"three");
    assert_eq!(cli.run(["stat", &id, "--from", "1", "--json"]).ok().json()["length"], 5);
    cli.run(["get", &id, "--from", "77"]).exits(5);

    // Deleted is not found; undelete brings the last content back under the same id.
    cli.run(["delete", &id, "--if-opver", &third]).ok();
    for args in [vec!["get", &id], vec!["delete", &id], vec!["modify", &id, "-"]] {
        cli.run_with(args, "x").exits(3);
    }
    cli.run(["get", &id, "--json"]).exits(3).error_json();
    assert!(cli.list().is_empty(), "deleted and still listed");
    cli.run(["undelete", &id]).ok();
    assert_eq!(cli.get(&id), b"three");
    assert_eq!(cli.list(), std::slice::from_ref(&id));
    assert_ne!(cli.opver(&id), third, "undelete is a version of its own");
}

/// Sizes around every boundary that the design has: none, one, the threshold, larger; each in place, in both
/// directions, from a file and from a pipe.
#[test]
fn no_size_is_stored_wrong_and_no_change_of_size_changes_the_id() {
    let cluster =
        Cluster::new(1, &["a"], 2).storages_with("store.single_file_threshold", "\"64KiB\"");
    let cluster = cluster.storages_with("store.chunkfile_size", "\"4MiB\"").started();
    let cli = cluster.cli();
    let threshold = 64 * 1024;
    let sizes = [0, 1, 63, 64, 65, threshold - 1, threshold, threshold + 1, 5 << 20];
    let bytes = |size: usize, seed: u64| match size {
        0..=27 => vec![b'x'; size],
        _ => content(seed, 1, size).to_vec(),
    };
    let file = cluster.dir.path().join("input");
    let mut ids = Vec::new();
    for (n, size) in sizes.into_iter().enumerate() {
        let wanted = bytes(size, n as u64);
        std::fs::write(&file, &wanted).expect("write");
        let id = cli.run(["put", file.to_str().expect("text"), "--ext", "bin"]).ok().line();
        assert!(id.ends_with(".bin"), "{id}");
        assert!(cli.get(&id) == wanted, "size {size}");
        let stat = cli.stat(&id);
        assert_eq!(stat["length"], size as u64);
        assert_eq!(stat["kind"], if size > threshold { "single" } else { "chunk" }, "size {size}");
        let out = cluster.dir.path().join("out");
        cli.run(["get", &id, "-o", out.to_str().expect("text")]).ok();
        assert!(std::fs::read(&out).expect("read") == wanted, "-o, size {size}");
        std::fs::remove_file(out).expect("remove");
        ids.push(id);
    }
    // Every size to the next ones, up and down again.
    for round in 1..4usize {
        for (n, id) in ids.iter().enumerate() {
            let size = sizes[(n * 2 + round * 4) % sizes.len()];
            let wanted = bytes(size, (n + round * 100) as u64);
            assert_eq!(&cli.run_with(["modify", id, "-"], wanted.clone()).ok().line(), id);
            assert!(cli.get(id) == wanted, "round {round}: size {size}");
        }
    }
    assert_eq!(cli.list().len(), ids.len());
}

/// `--range` is zero-based and inclusive, in small and in large objects; a bad range is the caller's mistake.
#[test]
fn no_range_returns_other_bytes_than_it_names() {
    let cluster = Cluster::small();
    let cli = cluster.cli();
    for size in [1000usize, 3 << 20] {
        let bytes = content(1, 1, size);
        let id = cli.put(bytes.to_vec());
        for (first, last) in
            [(0, 0), (0, size - 1), (1, 9), (size - 1, size - 1), (size / 2, size / 2 + 99)]
        {
            let read = cli.run(["get", &id, "--range", &format!("{first}-{last}")]).ok();
            assert!(read.stdout == bytes[first..=last], "{first}-{last} of {size}");
        }
        let beyond = format!("{size}-{}", size + 5);
        for range in ["9-3", "x-3", "5", "-", "1-2-3", "", beyond.as_str()] {
            let answer = cli.run(["get", &id, "--range", range]);
            assert_eq!(answer.code, 2, "{range:?}: {}", answer.stderr);
            assert!(answer.stdout.is_empty(), "{range:?} printed bytes");
        }
    }
}

fn reword(id: &str, change: impl FnOnce(&mut Vec<char>)) -> String {
    let mut chars: Vec<char> = id.chars().collect();
    change(&mut chars);
    chars.into_iter().collect()
}

/// The same id as a later format version would write it: sound, its check fits.
fn of_version(id: &str, version: u8) -> String {
    use data_encoding::BASE64URL_NOPAD;
    let body = id.rfind('/').expect("a slash") + 1;
    let mut bytes = BASE64URL_NOPAD.decode(&id.as_bytes()[body..]).expect("an id");
    bytes[0] = version;
    let check_at = bytes.len() - 4;
    let checked = [&id.as_bytes()[..body], &bytes[..check_at]].concat();
    bytes[check_at..].copy_from_slice(&folio::format::crc::crc32c(&checked).to_le_bytes());
    format!("{}{}", &id[..body], BASE64URL_NOPAD.encode(&bytes))
}

/// Ids that are not ids, or not of this cluster: the exit code says which, and nothing is touched.
#[test]
fn no_wrong_id_is_taken_for_a_miss_or_for_another_object() {
    let cluster = Cluster::small();
    let cli = cluster.cli();
    let id = cli.put("content");
    let body = id.rfind('/').expect("a slash") + 1;

    let typo = reword(&id, |c| c[body + 20] = if c[body + 20] == 'A' { 'B' } else { 'A' });
    let cut = id[..id.len() - 1].to_owned();
    let longer = format!("{id}A");
    let renamed = id.replacen("g/", "h/", 1);
    let foreign_version = of_version(&id, 2);
    for wrong in [&typo, &cut, &longer, &renamed, &foreign_version, &String::new(), &"x".to_owned()]
    {
        for args in [
            vec!["get", wrong],
            vec!["stat", wrong],
            vec!["delete", wrong],
            vec!["undelete", wrong],
            vec!["modify", wrong, "-"],
        ] {
            cli.run_with(args, "y").exits(2);
        }
    }
    cli.run(["get", &foreign_version]).exits(2).says(&["version"]);
    cli.run(["get", &typo, "--json"]).exits(2).error_json();

    // Right check, wrong cookie: as if it had never been.
    let parsed: FileId = id.parse().expect("an id");
    let mut stranger = parsed.clone();
    stranger.object.cookie ^= 1;
    cli.run(["get", &stranger.to_string()]).exits(3);
    cli.run_with(["modify", &stranger.to_string(), "-"], "z").exits(3);
    cli.run(["delete", &stranger.to_string()]).exits(3);
    // Right check, a place where nothing ever was.
    let mut nowhere = parsed.clone();
    nowhere.object.cookie ^= 2;
    nowhere.object.chunk += 1000;
    let answer = cli.run(["get", &nowhere.to_string()]);
    assert!([3, 5].contains(&answer.code), "{}: {}", answer.code, answer.stderr);

    // A well-formed id of a group, or a syncgroup, that is not here.
    let mut elsewhere = parsed.clone();
    elsewhere.group = "elsewhere".to_owned();
    cli.run(["get", &elsewhere.to_string()]).exits(5).says(&["elsewhere"]);
    cli.run_with(["put", "-", "--group", "elsewhere"], "x").exits(5).says(&["elsewhere"]);

    // Versions and words that make no sense.
    cli.run_with(["modify", &id, "-", "--if-opver", "nonsense"], "x").exits(2);
    cli.run(["get", &id, "--min-opver", "nonsense"]).exits(2);
    cli.run(["get"]).exits(2);
    cli.run(["frobnicate"]).exits(2);
    cli.run(["put", "/no/such/file"]).exits(1);
    cli.run_with(["put", "-", "--ext", "a/b"], "x").exits(2);
    cli.run_with(["put", "-", "--reserve", "much"], "x").exits(2);

    assert_eq!(cli.get(&id), b"content");
    assert_eq!(cli.list(), [id]);
}

/// `--reserve` is room that the next edit finds.
#[test]
fn no_reserve_is_smaller_than_asked() {
    let cluster = Cluster::small();
    let cli = cluster.cli();
    let capacity = |reserve: &str| {
        let answer: Answer = cli.run_with(["put", "-", "--reserve", reserve], vec![7u8; 1000]).ok();
        cli.stat(&answer.line())["capacity"].as_u64().expect("a number")
    };
    assert!(capacity("0") >= 1000);
    assert!(capacity("50%") >= 1500);
    assert!(capacity("5000") >= 6000);
}

/// Without a cluster every command says so in time, and names where it looked.
#[test]
fn no_command_hangs_without_a_cluster() {
    let port = crate::harness::ports::free_port();
    let tracker = format!("127.0.0.1:{port}");
    let cli = Cli { trackers: vec![tracker.clone()], timeout: Some("1s"), ..Cli::default() };
    cli.run_with(["put", "-"], "x").exits(5).says(&[&tracker]);
    cli.run(["list"]).exits(5);
    cli.run(["df"]).exits(5);
}

/// `list` tells every live id, with `--group` and `--since`; `df` tells the space that was taken.
#[test]
fn no_live_object_is_missing_from_the_list() {
    let mut cluster = Cluster::new(1, &["a", "b"], 2);
    cluster.add_storage("h", "c", 1);
    let cluster = cluster.started();
    let cli = cluster.cli();
    // Two groups: a put must say which.
    let answer = cli.run_with(["put", "-"], "x");
    assert!([2, 5].contains(&answer.code), "{}: {}", answer.code, answer.stderr);
    let put =
        |group: &str| cli.run_with(["put", "-", "--group", group], vec![b'x'; 100]).ok().line();
    let mut ids: Vec<String> = (0..12).map(|_| put("g")).collect();
    let machines: std::collections::BTreeSet<String> =
        ids.iter().map(|id| cli.stat(id)["owner"].to_string()).collect();
    assert_eq!(machines.len(), 2, "round robin goes to both");
    let other = put("h");
    let of_group = |group: &str| {
        let text = cli.run(["list", "--group", group]).ok().text();
        text.lines().filter(|line| line.contains(group)).count()
    };
    assert_eq!((of_group("g"), of_group("h")), (12, 1));
    ids.push(other);
    ids.sort();
    let mut listed = cli.list();
    listed.sort();
    assert_eq!(listed, ids);
    let since = cli.run(["list", "--json", "--since", "2999-01-01T00:00:00Z"]).ok().text();
    assert_eq!(since.trim(), "");
    cli.run(["list", "--since", "yesterdayish"]).exits(2);
    let df = cli.run(["df", "--json"]).ok();
    serde_json::from_slice::<Value>(&df.stdout).expect("one document");
    let text = cli.run(["df"]).ok().text();
    assert!(text.contains('g') && text.contains('h'), "{text}");
}
