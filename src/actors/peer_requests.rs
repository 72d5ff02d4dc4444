//! What a connection does with the requests of other storages (a part of [`connection`](super::connection)).
//!
//! Invariants: records and contents never queue beyond the peers' budget, which clients cannot exhaust; what waits for
//! the disk or for another machine waits elsewhere, and answers through the outbox.

use super::binlog::{ContentIsGone, Meet, PeerReport};
use super::budget::Permit;
use super::connection::Connection;
use super::content_fetch::{Fetched, fetch};
use super::incoming_slice::{Slice, SliceReply};
use super::mount_mirror::{Meeting, Presence, forgotten_problem};
use super::outbox::{Out, Outbox, RequestTag};
use super::peers::{Peer, PeerTable, SyncState};
use super::session::Problem;
use super::shared_mount::SharedMount;
use super::storage_room::StorageRoom;
use crate::cluster::meeting::{LOG_IDS_MAX, MEMBERS_MAX};
use crate::cluster::reuse::MemberReport;
use crate::cluster::room::Said;
use crate::cluster::view::MountState;
use crate::format::crc::crc32c;
use crate::format::forgotten::Forgotten;
use crate::format::ids::{ChunkfileId, MachineId, MountIndex, SEQUENCE_COUNTER_BITS, Sequence};
use crate::format::members::Member;
use crate::format::record::ChunkfileCreated;
use crate::messages::error::ErrorCode;
use crate::messages::frame::{Frame, Meta, encode_head, payload_len};
use crate::messages::heads::{
    PIECE_MAX, SyncChunkfile, SyncContent, SyncForgotten, SyncHello, SyncMember, SyncOffer,
    SyncOffered, SyncPiece, SyncPush, SyncReport, SyncReports, SyncStatus, Uuid, encode_map,
};
use crate::messages::opcode::Opcode;
use crate::store::sync::{LogName, LogSlice};
use bytes::{Bytes, BytesMut};
use serde::Serialize;
use std::sync::Arc;

/// Longest address of a member, bytes: as many as a label takes.
const ADDRESS_MAX: usize = 255;

impl Connection {
    /// A request that only storages make.
    pub(super) fn of_peer(
        &mut self,
        opcode: Opcode,
        tag: RequestTag,
        frame: Frame,
    ) -> Result<(), Problem> {
        match opcode {
            Opcode::SyncPush => self.sync_push(tag, frame),
            Opcode::SyncHello => self.sync_hello(tag, &frame),
            Opcode::SyncContent => self.sync_content(tag, &frame),
            Opcode::SyncOffer => self.sync_offer(tag, &frame),
            // The status; no other opcode gets here.
            _other => self.sync_status(tag, &frame),
        }
    }

    fn sync_push(&mut self, tag: RequestTag, frame: Frame) -> Result<(), Problem> {
        let head: SyncPush = StorageRoom::head(frame.head())?;
        let mount = Arc::clone(self.room.placement.mount(head.mount)?);
        mount.check_push()?;
        let instance = self.session.instance;
        let gone =
            |gone: &Forgotten| gone.instance == instance && gone.refuses(head.machine, head.log_id);
        if mount.mirror.forgotten().iter().any(gone) {
            return Err(forgotten_problem(head.machine));
        }
        let Some(binlog) = mount.registry.binlog() else { return Err(mount.out_of_service()) };
        let permit = match self.large.take() {
            Some(permit) => permit,
            None => self.permit(frame.payload().len() as u64)?,
        };
        let slice = LogSlice {
            log: LogName { machine: head.machine, log_id: head.log_id },
            from: head.from,
            to: head.to,
            chunkfiles: head.chunkfiles.iter().map(chunkfile).collect(),
            records: frame.into_payload(),
        };
        self.in_hand += 1;
        let reply = SliceReply::new(Arc::clone(&self.outbox), tag, permit);
        binlog.do_send(Slice { slice, reply });
        Ok(())
    }

    fn sync_hello(&mut self, tag: RequestTag, frame: &Frame) -> Result<(), Problem> {
        let head: SyncHello = StorageRoom::head(frame.head())?;
        self.speaks_as(head.this.machine)?;
        let node = &self.room.session.node;
        if (&head.group, &head.syncgroup) != (&node.group, &node.syncgroup) {
            return Err(Problem::new(
                ErrorCode::Refused,
                format!(
                    "this is a storage of {}/{}, the caller is one of {}/{}",
                    node.group, node.syncgroup, head.group, head.syncgroup
                ),
            ));
        }
        let mount = Arc::clone(self.room.placement.mount(head.mount)?);
        let from = member(&head.this)?;
        let others = head.members.iter().take(MEMBERS_MAX).map(member).collect::<Result<_, _>>()?;
        let forgotten = head.forgotten.iter().map(forgotten).collect();
        let report = MemberReport { coverage: head.coverage, tails: head.tails };
        let refilling = head.state == MountState::Recovering;
        let (machine, room) = (from.machine, Arc::clone(&self.room));
        let later = self.later(tag)?;
        actix::spawn(async move {
            let meeting = Meeting { from: Some(from), others, forgotten, join: false };
            let met = meet(&mount, meeting).await;
            if met.is_ok() {
                if let Some(peer) = room.peers.get(machine) {
                    // Whoever reaches us can be reached.
                    peer.kick();
                }
                if let Some(binlog) = mount.registry.binlog() {
                    binlog.do_send(PeerReport { machine, report, refilling });
                }
            }
            let node = &room.session.node;
            later.done(met.map(|presence| {
                let hello = hello(&node.group, &node.syncgroup, &mount, &presence);
                (hello, Bytes::new())
            }));
        });
        Ok(())
    }

    fn sync_status(&mut self, tag: RequestTag, frame: &Frame) -> Result<(), Problem> {
        let head: SyncStatus = StorageRoom::head(frame.head())?;
        self.speaks_as(head.machine)?;
        let reports: SyncReports = StorageRoom::head(frame.payload())?;
        let peer = self.room.peers.get(head.machine);
        if let (Some(peer), Some(told)) = (&peer, reports.told) {
            peer.take_told(told);
        }
        for said in reports.mounts {
            let Ok(mount) = self.room.placement.mount(said.mount) else { continue };
            take_report(mount, peer.as_deref(), head.machine, said);
        }
        let mounts = self.room.placement.mounts().iter();
        let known = std::mem::take(&mut self.reported);
        let (reports, reported) = reports_since(mounts, peer.as_deref(), known, &self.room.peers);
        self.reported = reported;
        let payload = encode_map(&reports)
            .map_err(|error| Problem::new(ErrorCode::Failed, error.to_string()))?;
        let meta = Meta::answer(tag.opcode, tag.id);
        let head = SyncStatus { machine: self.room.machine };
        self.encode_copy(meta, &head, &payload, crc32c(&payload));
        Ok(())
    }

    fn sync_content(&mut self, tag: RequestTag, frame: &Frame) -> Result<(), Problem> {
        let head: SyncContent = StorageRoom::head(frame.head())?;
        self.speaks_as(head.machine)?;
        let mount = Arc::clone(self.room.placement.mount(head.mount)?);
        let shelf = Arc::clone(&mount.open()?.shelf);
        let length = head.length.min(PIECE_MAX);
        self.room.peers.offers.progress(head.machine, head.mount, head.content);
        let mut later = self.later(tag)?;
        if !later.grow(length.into()) {
            return Err(super::connection::busy());
        }
        let pool = Arc::clone(&mount.pool);
        pool.run(Box::new(move || {
            let mut bytes = Vec::new();
            let read = shelf.content_len(head.content).and_then(|total| {
                if total.is_some() && length > 0 {
                    let wanted = length as usize;
                    let count =
                        shelf.read_content(head.content, head.offset, wanted, &mut bytes)?;
                    bytes.truncate(count);
                }
                Ok(total)
            });
            later.done(match read {
                Ok(total) => Ok((SyncPiece { total }, bytes.into())),
                Err(error) => Err(super::problems::of_read(&error, &mount)),
            });
        }));
        Ok(())
    }

    fn sync_offer(&mut self, tag: RequestTag, frame: &Frame) -> Result<(), Problem> {
        let head: SyncOffer = StorageRoom::head(frame.head())?;
        self.speaks_as(head.machine)?;
        let mount = Arc::clone(self.room.placement.mount(head.mount)?);
        mount.check_push()?;
        let table = Arc::clone(&self.room.peers);
        let later = self.later(tag)?;
        actix::spawn(async move {
            let fetched = fetch(&table, &mount, (head.content, head.length), head.machine).await;
            if fetched == Ok(Fetched::Gone)
                && let Some(binlog) = mount.registry.binlog()
            {
                // A mount that is gone takes no record either.
                binlog.send(ContentIsGone(head.content)).await.unwrap_or_default();
            }
            let why = fetched.err().unwrap_or_default();
            later.done(Ok((SyncOffered { there: why.is_empty(), why }, Bytes::new())));
        });
        Ok(())
    }

    /// Refuses who speaks as another machine than its certificate names.
    pub(super) fn speaks_as(&self, machine: MachineId) -> Result<(), Problem> {
        if self.session.may_be(machine) {
            return Ok(());
        }
        let said = format!(
            "its certificate is for {}, and it speaks as machine {machine}",
            self.session.name
        );
        Err(super::session::not_certified(said))
    }

    /// The answer of a request that is made elsewhere.
    pub(super) fn later(&mut self, tag: RequestTag) -> Result<Later, Problem> {
        let permit = self.permit(0)?;
        self.in_hand += 1;
        Ok(Later { inner: Some((Arc::clone(&self.outbox), tag, permit)) })
    }
}

/// Answers one request, once.
pub(super) struct Later {
    inner: Option<(Arc<Outbox>, RequestTag, Permit)>,
}

impl Later {
    /// Room for the payload; `false`: there is none.
    pub(super) fn grow(&mut self, bytes: u64) -> bool {
        self.inner.as_mut().is_some_and(|(_, _, permit)| permit.grow(bytes))
    }

    pub(super) fn done<H: Serialize>(mut self, answer: Result<(H, Bytes), Problem>) {
        let Some((to, tag, permit)) = self.inner.take() else { return };
        let encoded = answer.and_then(|(head, payload)| {
            let mut frame = BytesMut::new();
            let meta = Meta::answer(tag.opcode, tag.id);
            payload_len(&payload)
                .and_then(|len| encode_head(&mut frame, meta, &head, len, crc32c(&payload)))
                .map_err(|error| Problem::new(ErrorCode::TooLarge, error.to_string()))?;
            Ok((frame.freeze(), payload))
        });
        match encoded {
            Ok((frame, payload)) => to.push(Out::Answer { tag, frame, payload, permit }),
            Err(problem) => {
                to.push(Out::Refused { tag, problem: Box::new(problem), permit: Some(permit) });
            }
        }
    }
}

impl Drop for Later {
    fn drop(&mut self) {
        if let Some((to, tag, permit)) = self.inner.take() {
            let problem = Problem::new(ErrorCode::Stopped, "the daemon is stopping");
            to.push(Out::Refused { tag, problem: Box::new(problem), permit: Some(permit) });
        }
    }
}

/// Has a mount meet somebody.
pub(super) async fn meet(mount: &SharedMount, meeting: Meeting) -> Result<Presence, Problem> {
    let Some(binlog) = mount.registry.binlog() else { return Err(mount.out_of_service()) };
    // An actor that is gone closed its mount.
    binlog.send(Meet(meeting)).await.unwrap_or_else(|_| Err(mount.out_of_service()))
}

/// What a mount says of itself to another member.
pub(super) fn hello(
    group: &str,
    syncgroup: &str,
    mount: &SharedMount,
    presence: &Presence,
) -> SyncHello {
    let start = presence.durable >> SEQUENCE_COUNTER_BITS;
    SyncHello {
        group: group.to_owned(),
        syncgroup: syncgroup.to_owned(),
        mount: mount.index,
        state: if mount.is_refilling() { MountState::Recovering } else { MountState::Online },
        this: sync_member(&presence.this),
        start_count: u16::try_from(start).unwrap_or(u16::MAX),
        coverage: presence.report.coverage.clone(),
        tails: presence.report.tails.clone(),
        members: presence.members.iter().map(sync_member).collect(),
        forgotten: presence.forgotten.iter().map(sync_forgotten).collect(),
    }
}

/// What a peer has of a mount.
pub(super) fn take_report(
    mount: &SharedMount,
    peer: Option<&Peer>,
    machine: MachineId,
    said: SyncReport,
) {
    let known = peer.and_then(|peer| peer.mount(said.mount));
    if let Some(known) = known {
        // While it is copied to, it takes no records.
        known.set_refilling(said.refilling);
        known.set_away(said.away || (said.refilling && !said.listening));
        known.set_holds_us_live(said.live);
        known.set_reported();
    }
    let log = mount.mirror.tail().borrow().map(|tail| tail.log);
    let live = known.is_some_and(|known| known.state() == SyncState::Live);
    let room = said.room.filter(|_| !said.away && !said.refilling).zip(log).map(|(room, log)| {
        // What one that catches up lacks is no reason to wait: it may be all that was ever written.
        let covered = if live { log.covered_by(&said.coverage) } else { Sequence::MAX };
        Said { room, covered }
    });
    mount.mirror.member_room(machine, room);
    if said.away {
        return;
    }
    if let Some(known) = known {
        known.set_coverage(said.coverage.clone());
    }
    if let Some(binlog) = mount.registry.binlog() {
        let report = MemberReport { coverage: said.coverage, tails: said.tails };
        binlog.do_send(PeerReport { machine, report, refilling: said.refilling });
    }
}

/// Of a mount: what it has (nothing, if it is out of service), whether the other end was held for live, and its room.
type Told = (MountIndex, Option<Arc<MemberReport>>, bool, Filling, Option<u64>);

/// Whether a mount is being refilled, and takes records meanwhile.
type Filling = (bool, bool);

/// What was reported on a connection.
#[derive(Default)]
pub(super) struct Reported {
    /// By mount, and whether the other end was held for live.
    mounts: Vec<Told>,
    rounds: u32,
}

/// After so many reports everything is said again: the other end may not have known us at first.
const ALL_AGAIN: u32 = 16;

/// What we have of each mount that changed since it was reported.
pub(super) fn reports_since<'a>(
    mounts: impl Iterator<Item = &'a Arc<SharedMount>>,
    peer: Option<&Peer>,
    known: Reported,
    table: &PeerTable,
) -> (SyncReports, Reported) {
    let again = known.rounds.is_multiple_of(ALL_AGAIN);
    let told = again.then(|| table.particulars());
    let mut reports = SyncReports { mounts: Vec::new(), told };
    let mut reported = Reported { mounts: Vec::new(), rounds: known.rounds.wrapping_add(1) };
    for mount in mounts {
        let refilling = mount.is_refilling();
        let filling = (refilling, refilling && mount.refill().listening);
        let report = (refilling || mount.is_online()).then(|| mount.mirror.report());
        let live = peer
            .and_then(|peer| peer.mount(mount.index))
            .is_some_and(|mount| mount.state() == SyncState::Live);
        let room = mount.room();
        // What it says is news when it differs by so much, or when nothing is left.
        let rough = room.map(|bytes| bytes.next_multiple_of(1 << 20));
        let same = |(index, was, was_live, was_filling, was_room): &Told| {
            let as_it_was = match (was, &report) {
                (Some(was), Some(report)) => Arc::ptr_eq(was, report),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            let so = (*was_live, *was_filling, *was_room) == (live, filling, rough);
            *index == mount.index && as_it_was && so
        };
        if again || !known.mounts.iter().any(same) {
            let (refilling, listening) = filling;
            let said = SyncReport {
                mount: mount.index,
                live,
                refilling,
                listening,
                room,
                ..SyncReport::default()
            };
            reports.mounts.push(match &report {
                Some(report) => SyncReport {
                    coverage: report.coverage.clone(),
                    tails: report.tails.clone(),
                    ..said
                },
                None => SyncReport { away: true, live: false, room: None, ..said },
            });
        }
        reported.mounts.push((mount.index, report, live, filling, rough));
    }
    (reports, reported)
}

/// A member from the wire, within bounds.
pub(super) fn member(said: &SyncMember) -> Result<Member, Problem> {
    if said.address.len() > ADDRESS_MAX || said.address.chars().any(char::is_control) {
        return Err(Problem::new(ErrorCode::BadRequest, "the address of a member makes no sense"));
    }
    Ok(Member {
        machine: said.machine,
        address: said.address.clone(),
        mount_uuid: said.mount_uuid.into_array(),
        instance: said.instance.into_array(),
        log_ids: said.log_ids.iter().copied().take(LOG_IDS_MAX).collect(),
    })
}

pub(super) fn sync_chunkfile(made: &ChunkfileCreated) -> SyncChunkfile {
    SyncChunkfile {
        machine: made.id.machine,
        log_id: made.id.log_id,
        chunk: made.id.chunk,
        size_units: made.size_units,
        created_ms: made.created_ms,
        secret: Uuid::new(made.secret),
    }
}

/// A removed member from the wire, within bounds.
pub(super) fn forgotten(said: &SyncForgotten) -> Forgotten {
    Forgotten {
        machine: said.machine,
        instance: said.instance.into_array(),
        log_ids: said.log_ids.iter().copied().take(LOG_IDS_MAX).collect(),
        at: said.at,
    }
}

fn sync_forgotten(forgotten: &Forgotten) -> SyncForgotten {
    SyncForgotten {
        machine: forgotten.machine,
        instance: Uuid::new(forgotten.instance),
        log_ids: forgotten.log_ids.clone(),
        at: forgotten.at,
    }
}

fn sync_member(member: &Member) -> SyncMember {
    SyncMember {
        machine: member.machine,
        address: member.address.clone(),
        mount_uuid: Uuid::new(member.mount_uuid),
        instance: Uuid::new(member.instance),
        log_ids: member.log_ids.clone(),
    }
}

pub(super) fn chunkfile(said: &SyncChunkfile) -> ChunkfileCreated {
    ChunkfileCreated {
        id: ChunkfileId { machine: said.machine, log_id: said.log_id, chunk: said.chunk },
        size_units: said.size_units,
        created_ms: said.created_ms,
        secret: said.secret.into_array(),
    }
}

/// A slice as it travels; the records are the payload.
pub(super) fn push_head(mount: MountIndex, slice: &LogSlice) -> SyncPush {
    let chunkfiles = slice.chunkfiles.iter().map(sync_chunkfile);
    SyncPush {
        mount,
        machine: slice.log.machine,
        log_id: slice.log.log_id,
        from: slice.from,
        to: slice.to,
        chunkfiles: chunkfiles.collect(),
    }
}
