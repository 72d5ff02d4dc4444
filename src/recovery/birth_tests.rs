//! The sentences of "What a storage remembers", one by one, and then every combination for what must never be.

use super::*;

const UUID: [u8; 16] = [1; 16];
const INSTANCE: [u8; 16] = [2; 16];
const WANTED: Wanted<'_> = Wanted { group: "books", syncgroup: "a", machine: 1, mount: 0 };

fn label() -> Label {
    Label {
        group: "books".to_owned(),
        syncgroup: "a".to_owned(),
        machine: 1,
        mount: 0,
        mount_uuid: UUID,
        instance: INSTANCE,
        log_id: 7,
        start_count: 1,
        was_mountpoint: false,
        created_ms: 0,
        generation: 1,
        members: Vec::new(),
    }
}

fn memory(was_mountpoint: bool) -> Memory {
    let label = Label { was_mountpoint, ..label() };
    let mut memory = Memory::of_instance(&label);
    memory.remember(&label, "/srv/folio/m0");
    memory
}

/// Remembers the storage, but another mount only.
fn memory_of_another_mount() -> Memory {
    let label = Label { mount: 5, mount_uuid: [5; 16], ..label() };
    let mut memory = Memory::of_instance(&label);
    memory.remember(&label, "/srv/folio/m5");
    memory
}

fn judge(folder: Folder, label: LabelFact, names: &[&str], memory: Option<&Memory>) -> Verdict {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    assess(&MountFacts { wanted: WANTED, folder, label, names: &names, refilling: false }, memory)
}

const PLAIN: Folder = Folder::Present { mount_root: false };
const ROOT: Folder = Folder::Present { mount_root: true };

fn unlabelled(folder: Folder, names: &[&str], memory: Option<&Memory>) -> Verdict {
    judge(folder, LabelFact::Missing, names, memory)
}

fn leftover(name: &str) -> Verdict {
    Verdict::Failed(Failure::Foreign(Foreign::Leftovers(name.to_owned())))
}

#[test]
fn our_label_is_served_and_without_memory_adopted() {
    let found = || LabelFact::Found(label());
    let names = ["folio.mount", "chunks", "binlog"];
    assert_eq!(judge(PLAIN, found(), &names, Some(&memory(false))), Verdict::Serve);
    // The label is there, so it is the right disk, whatever it stands on today.
    assert_eq!(judge(PLAIN, found(), &names, Some(&memory(true))), Verdict::Serve);
    assert_eq!(judge(ROOT, found(), &names, Some(&memory(false))), Verdict::Serve);
    assert_eq!(judge(PLAIN, found(), &names, None), Verdict::Adopt);
    // Killed between label and memory.
    assert_eq!(judge(PLAIN, found(), &names, Some(&memory_of_another_mount())), Verdict::Adopt);
}

#[test]
fn an_absent_path_is_missing_whatever_is_remembered() {
    for memory in [None, Some(&memory(false)), Some(&memory(true))] {
        let verdict = unlabelled(Folder::Absent, &[], memory);
        assert_eq!(verdict, Verdict::Failed(Failure::Missing));
    }
}

#[test]
fn an_unmounted_disk_is_not_taken_for_a_blank_one() {
    let not_mounted = Verdict::Failed(Failure::NotMounted);
    assert_eq!(unlabelled(PLAIN, &[], Some(&memory(true))), not_mounted);
    assert_eq!(unlabelled(PLAIN, &["chunks"], Some(&memory(true))), not_mounted);
}

#[test]
fn a_remembered_mount_that_is_blank_is_never_new() {
    let blank = Verdict::BlankRemembered { was: UUID };
    for (folder, was_mountpoint) in [(PLAIN, false), (ROOT, false), (ROOT, true)] {
        for names in
            [&[][..], &["lost+found"], &["folio.mount.tmp"], &["folio.mount.tmp", "lost+found"]]
        {
            let verdict = unlabelled(folder.clone(), names, Some(&memory(was_mountpoint)));
            assert_eq!(verdict, blank, "{folder:?} {names:?}");
        }
    }
}

#[test]
fn nobody_remembers_it_and_it_is_empty_so_it_is_new() {
    for folder in [PLAIN, ROOT] {
        for names in [&[][..], &["lost+found"], &["folio.mount.tmp"]] {
            assert_eq!(unlabelled(folder.clone(), names, None), Verdict::New);
            let other = memory_of_another_mount();
            assert_eq!(unlabelled(folder.clone(), names, Some(&other)), Verdict::New);
        }
    }
}

#[test]
fn leftover_files_are_foreign() {
    for memory in [None, Some(&memory(false))] {
        for folder in [PLAIN, ROOT] {
            let names = ["lost+found", "holiday.jpg"];
            assert_eq!(unlabelled(folder.clone(), &names, memory), leftover("holiday.jpg"));
            assert_eq!(
                unlabelled(folder, &["folio.mount.tmp", "chunks"], memory),
                leftover("chunks")
            );
        }
    }
    assert_eq!(unlabelled(ROOT, &["x"], Some(&memory(true))), leftover("x"));
}

#[test]
fn another_label_is_foreign_and_says_whose() {
    for other in [
        Label { group: "films".to_owned(), ..label() },
        Label { syncgroup: "b".to_owned(), ..label() },
        Label { machine: 2, ..label() },
        Label { mount: 1, ..label() },
    ] {
        for memory in [None, Some(&memory(false))] {
            let verdict = judge(PLAIN, LabelFact::Found(other.clone()), &[], memory);
            let Verdict::Failed(Failure::Foreign(Foreign::OtherPlace { found })) = verdict else {
                panic!("{other:?} was taken: {verdict:?}");
            };
            assert!(found.contains(&format!("{}/{}", other.group, other.syncgroup)), "{found}");
        }
    }
    let of = |label| judge(PLAIN, LabelFact::Found(label), &[], Some(&memory(false)));
    let instance = of(Label { instance: [9; 16], ..label() });
    assert_eq!(instance, Verdict::Failed(Failure::Foreign(Foreign::OtherInstance)));
    let mount = of(Label { mount_uuid: [9; 16], ..label() });
    assert_eq!(mount, Verdict::Failed(Failure::Foreign(Foreign::OtherMount)));
    let two = Label { mount_uuid: [9; 16], instance: [9; 16], ..label() };
    let other = judge(PLAIN, LabelFact::Found(two), &[], Some(&memory_of_another_mount()));
    assert_eq!(other, Verdict::Failed(Failure::Foreign(Foreign::OtherInstance)));
}

#[test]
fn what_cannot_be_read_is_left_alone() {
    let why = || "Input/output error".to_owned();
    let unreadable = Verdict::Failed(Failure::Unreadable(why()));
    let newer = FormatError::Newer { what: "label", major: 2, minor: 0 };
    for memory in [None, Some(&memory(false))] {
        let folder = judge(Folder::Unreadable(why()), LabelFact::Missing, &[], memory);
        assert_eq!(folder, unreadable);
        assert_eq!(judge(PLAIN, LabelFact::Unreadable(why()), &[], memory), unreadable);
        let bad = |error| judge(PLAIN, LabelFact::Bad(error), &[], memory);
        assert_eq!(bad(newer.clone()), Verdict::Failed(Failure::Newer(newer.clone())));
        assert!(matches!(bad(FormatError::Damaged("label")), Verdict::Failed(Failure::Damaged(_))));
        assert_eq!(bad(FormatError::NotOurs("label")), leftover("folio.mount"));
    }
}

/// Every combination: nothing is labelled anew or handed to a recovery that holds data or hides some.
#[test]
fn only_an_empty_folder_is_ever_written_to() {
    let folders = [Folder::Absent, Folder::Unreadable("EIO".to_owned()), PLAIN, ROOT];
    let labels = [
        LabelFact::Missing,
        LabelFact::Unreadable("EIO".to_owned()),
        LabelFact::Bad(FormatError::Damaged("label")),
        LabelFact::Bad(FormatError::NotOurs("label")),
        LabelFact::Found(label()),
        LabelFact::Found(Label { machine: 3, ..label() }),
    ];
    let memories = [None, Some(memory(true)), Some(memory(false)), Some(memory_of_another_mount())];
    for folder in &folders {
        for fact in &labels {
            for memory in &memories {
                for names in [&[][..], &["lost+found"], &["something"]] {
                    let verdict = judge(folder.clone(), fact.clone(), names, memory.as_ref());
                    let empty = matches!(folder, Folder::Present { .. })
                        && *fact == LabelFact::Missing
                        && names != ["something"];
                    let known = memory.as_ref().and_then(|m| m.mount(0));
                    let hidden = known.is_some_and(|m| m.was_mountpoint) && *folder == PLAIN;
                    let written = matches!(verdict, Verdict::New | Verdict::BlankRemembered { .. });
                    assert_eq!(written, empty && !hidden, "{folder:?} {fact:?} {names:?}");
                    assert!(verdict != Verdict::New || known.is_none());
                    let served = matches!(verdict, Verdict::Serve | Verdict::Adopt);
                    let ours = *fact == LabelFact::Found(label());
                    assert_eq!(served, ours && matches!(folder, Folder::Present { .. }));
                    if let Verdict::Failed(failure) = verdict {
                        assert!(!failure.to_string().is_empty() && !failure.remedy().is_empty());
                        // The console refuses the command wherever it is not named: it would do nothing there.
                        let helps = matches!(
                            failure,
                            Failure::NotMounted | Failure::Foreign(_) | Failure::Damaged(_)
                        );
                        let named = failure.remedy().contains("`recover MOUNT start --confirm`");
                        assert_eq!(named, helps, "{failure}");
                    }
                }
            }
        }
    }
}
