//! How far the refilling of a mount has come, `<mount>/recovery.state`: a mount that has this file does not serve.
//!
//! ```text
//!  0  magic u32 "FoRe", major u8, minor u8, 0 u16
//!  8  length of the body u32, CRC32C of 0..12 and the body u32
//! 16  phase u8, cause u8, flags u8 (1: loss accepted, 2: paused), 0 u8, finished u16, missing u16
//! 24  started u64, ms since 1970
//! 32  bytes copied u64
//! 40  objects copied u64
//! 48  positions u32, 0 u32
//! 56  finished, then missing: machine u16 each
//!     positions: machine u16, log id u32, sequence u64 each
//! ```
//!
//! Invariants: written before the label of a mount that is refilled, removed when it is whole, so a crash at any point
//! leaves either an empty folder or a mount that goes on with its recovery; replaced as a whole. One that cannot be
//! read counts as one that has just begun: what is here is compared again, never believed.

use super::bytes::{Reader, Short, Writer};
use super::envelope::{FormatError, Kind};
use super::ids::{MachineId, Position};

/// Longest such file that is read, bytes.
pub const RECOVERY_STATE_LEN_MAX: usize = 1 << 20;

const KIND: Kind = Kind { magic: *b"FoRe", what: "state of a recovery" };
const ACCEPTED_LOSS: u8 = 1;
const PAUSED: u8 = 2;

/// How far a recovery is. The order is that of a recovery without trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Phase {
    /// Looking for members that have the mount's content.
    Assess = 1,
    /// Asking them how far their logs, and what they hold of ours, go.
    PullLogs = 2,
    /// Checking that what the logs name can be had from somebody.
    VerifyLogs = 3,
    /// Copying, verified, slot by slot.
    PullData = 4,
    /// Taking from the logs what was changed meanwhile, then comparing digests.
    CatchUp = 5,
    /// Done.
    Online = 6,
    /// Nobody has the content; waits for a member that does, or for `accept-loss`.
    Failed = 7,
}

impl Phase {
    /// As people read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Assess => "assess",
            Self::PullLogs => "pull_logs",
            Self::VerifyLogs => "verify_logs",
            Self::PullData => "pull_data",
            Self::CatchUp => "catch_up",
            Self::Online => "online",
            Self::Failed => "failed",
        }
    }

    const fn of(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Assess),
            2 => Some(Self::PullLogs),
            3 => Some(Self::VerifyLogs),
            4 => Some(Self::PullData),
            5 => Some(Self::CatchUp),
            6 => Some(Self::Online),
            7 => Some(Self::Failed),
            _ => None,
        }
    }
}

/// Why a mount is refilled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Cause {
    /// It came up empty although it was in use.
    Blank = 1,
    /// The other members remember a machine of our id that we are not: the whole machine was replaced.
    NewMachine = 2,
    /// An operator asked for it.
    Command = 3,
}

impl Cause {
    /// As people read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blank => "blank",
            Self::NewMachine => "new_machine",
            Self::Command => "command",
        }
    }

    const fn of(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Blank),
            2 => Some(Self::NewMachine),
            3 => Some(Self::Command),
            _ => None,
        }
    }
}

/// What survives a restart of a recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryState {
    /// How far it is.
    pub phase: Phase,
    /// Why it began.
    pub cause: Cause,
    /// Whether an operator accepted that what nobody has is lost.
    pub accepted_loss: bool,
    /// Whether an operator paused it.
    pub paused: bool,
    /// When it began, ms since 1970.
    pub started_ms: u64,
    /// Bytes copied so far, over all restarts.
    pub bytes: u64,
    /// Objects copied so far.
    pub objects: u64,
    /// Members whose content is here whole.
    pub finished: Vec<MachineId>,
    /// Members that could not be asked.
    pub missing: Vec<MachineId>,
    /// What the logs say must be here.
    pub target: Vec<Position>,
}

impl RecoveryState {
    /// One that begins now.
    #[must_use]
    pub const fn begin(cause: Cause, started_ms: u64) -> Self {
        Self {
            phase: Phase::Assess,
            cause,
            accepted_loss: false,
            paused: false,
            started_ms,
            bytes: 0,
            objects: 0,
            finished: Vec::new(),
            missing: Vec::new(),
            target: Vec::new(),
        }
    }

    /// Whether a mount in this state may hold copies that were not made durable before a crash, and of which neither its
    /// log nor its checkpoint knows: its accounts are made anew, and its contents verified before they are believed.
    #[must_use]
    pub fn may_have_unsynced_copies(&self) -> bool {
        self.phase == Phase::PullData
    }

    /// The file's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(128);
        let mut w = Writer::new(&mut body);
        let flags = if self.accepted_loss { ACCEPTED_LOSS } else { 0 }
            | if self.paused { PAUSED } else { 0 };
        let finished = &self.finished[..self.finished.len().min(usize::from(u16::MAX))];
        let missing = &self.missing[..self.missing.len().min(usize::from(u16::MAX))];
        let count = |len: usize| u16::try_from(len).unwrap_or(u16::MAX);
        w.u8(self.phase as u8).u8(self.cause as u8).u8(flags).u8(0);
        w.u16(count(finished.len())).u16(count(missing.len()));
        w.u64(self.started_ms).u64(self.bytes).u64(self.objects);
        w.u32(u32::try_from(self.target.len()).unwrap_or(u32::MAX)).u32(0);
        for machine in finished.iter().chain(missing) {
            w.u16(*machine);
        }
        for position in &self.target {
            w.u16(position.machine).u32(position.log_id).u64(position.sequence);
        }
        KIND.seal(&body)
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`FormatError`]: not ours, newer, or damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        KIND.decode(bytes, Self::decode_body)
    }

    fn decode_body(body: &[u8]) -> Result<Option<Self>, Short> {
        let mut r = Reader::new(body);
        let (phase, cause, flags, _) = (r.u8()?, r.u8()?, r.u8()?, r.u8()?);
        let (finished, missing) = (r.u16()?, r.u16()?);
        let (started_ms, bytes, objects) = (r.u64()?, r.u64()?, r.u64()?);
        let (positions, _) = (r.u32()?, r.u32()?);
        let finished = (0..finished).map(|_| r.u16()).collect::<Result<_, _>>()?;
        let missing = (0..missing).map(|_| r.u16()).collect::<Result<_, _>>()?;
        let mut target = Vec::new();
        for _ in 0..positions {
            target.push(Position { machine: r.u16()?, log_id: r.u32()?, sequence: r.u64()? });
        }
        let (Some(phase), Some(cause)) = (Phase::of(phase), Cause::of(cause)) else {
            return Ok(None);
        };
        Ok(Some(Self {
            phase,
            cause,
            accepted_loss: flags & ACCEPTED_LOSS != 0,
            paused: flags & PAUSED != 0,
            started_ms,
            bytes,
            objects,
            finished,
            missing,
            target,
        }))
    }
}
