//! What the console says of mirrors: `peers` (also `sync`), the members in `nodes`, what is wrong with them in `status`.

use super::Sight;
use super::warnings::Warning;
use crate::actors::admin_console::{CommandResult, ConsoleAnswer, Value, no_arguments};
use crate::actors::ambient;
use crate::actors::mirror::Outlook;
use crate::actors::peers::{Peer, PeerMount, SyncState};
use crate::actors::shared_mount::SharedMount;
use crate::actors::state_pull::compare::Compared;
use crate::storage::no_puts;
use std::sync::Arc;

/// After so many comparisons in line that found a difference it is named in `status`.
const UNLIKE: u64 = 3;
/// A mirror that lacks something older than this is named in `status`, milliseconds.
const BEHIND_MS: u64 = 5000;

impl Sight {
    /// Every mirror, mount by mount: how far it is behind, and why.
    pub(super) fn peers(&self, words: &[String]) -> CommandResult {
        no_arguments(words)?;
        let mut rows = Vec::new();
        for peer in self.room.peers.all() {
            for (mount, there) in self.mirrored(&peer) {
                rows.push(self.peer_row(&peer, mount, there));
            }
        }
        let columns = [
            "peer",
            "address",
            "mount",
            "state",
            "lag_records",
            "lag_bytes",
            "lag_ms",
            "late",
            "holds_us_live",
            "sent",
            "connects",
            "errors",
            "heard_ms",
            "contents",
            "compared_ms",
            "objects",
            "digest",
            "last_error",
        ];
        Ok(ConsoleAnswer::new().table("peers", &columns, rows))
    }

    /// Our mounts, with the same ones of a peer.
    fn mirrored<'a>(
        &'a self,
        peer: &'a Peer,
    ) -> impl Iterator<Item = (&'a Arc<SharedMount>, &'a Arc<PeerMount>)> {
        let mounts = self.room.placement.mounts().iter();
        mounts.filter_map(|mount| peer.mount(mount.index).map(|there| (mount, there)))
    }

    fn peer_row(&self, peer: &Peer, mount: &SharedMount, there: &PeerMount) -> Vec<Value> {
        let lag = mount.mirror.behind(there.acked());
        let heard = self.room.peers.clock.now_ms().saturating_sub(peer.heard_ms());
        let heard = if peer.heard_ms() == 0 { Value::Nothing } else { Value::Millis(heard) };
        let compared = there.compared();
        let ago = |at: u64| Value::Millis(ambient::wall_ms().saturating_sub(at));
        let digest = |digest: &[u8; 16]| Value::from(hex(&digest[..8]));
        vec![
            peer.machine.into(),
            peer.address().as_str().into(),
            mount.index.into(),
            there.state().name().into(),
            lag.records.into(),
            Value::Bytes(lag.bytes),
            Value::Millis(lag.ms),
            mount.mirror.is_late(peer.machine).into(),
            there.holds_us_live().into(),
            Value::Bytes(there.sent_bytes()),
            peer.connects().into(),
            there.errors().into(),
            heard,
            self.contents(peer, mount, compared.as_deref()).into(),
            compared.as_ref().map_or(Value::Nothing, |c| ago(c.at_ms)),
            compared.as_ref().map_or(Value::Nothing, |c| c.objects.into()),
            compared.as_ref().map_or(Value::Nothing, |c| digest(&c.digest)),
            there.error().as_str().into(),
        ]
    }

    /// What the last comparison with a mirror said, or what is being done about it.
    fn contents(&self, peer: &Peer, mount: &SharedMount, compared: Option<&Compared>) -> String {
        if let Some(pull) = self.room.peers.pulls.of(mount.index, peer.machine)
            && pull.running
        {
            let percent = pull.done * 100 / pull.total.max(1);
            return format!("copying its state: {percent} %");
        }
        match compared {
            None => "not compared yet".to_owned(),
            Some(Compared { different: 0, busy: 0, .. }) => "identical".to_owned(),
            Some(Compared { different: 0, busy, .. }) => {
                format!("identical but for {busy} chunkfiles that were being written")
            }
            Some(Compared { different, .. }) => format!("{different} different, being mended"),
        }
    }

    /// The members as the labels name them, which is what is remembered with all trackers down.
    pub(super) fn members(&self) -> Vec<Vec<Value>> {
        let mut rows = Vec::new();
        for mount in self.room.placement.mounts() {
            for member in mount.mirror.members().borrow().iter() {
                let this = member.machine == self.settings.machine_id;
                let log_ids: Vec<String> =
                    member.log_ids.iter().map(|id| format!("{id:08x}")).collect();
                let peer = self.room.peers.get(member.machine);
                rows.push(vec![
                    mount.index.into(),
                    member.machine.into(),
                    member.address.as_str().into(),
                    hex(&member.instance).into(),
                    log_ids.join(" ").into(),
                    this.into(),
                    (this || peer.is_some_and(|peer| peer.is_connected())).into(),
                ]);
            }
        }
        rows
    }

    /// What is wrong with mirrors, and what mends it.
    pub(super) fn mirror_warnings(&self) -> Vec<Warning> {
        let mut warnings = Vec::new();
        for mount in self.room.placement.mounts().iter().filter(|mount| mount.is_online()) {
            let index = mount.index;
            match mount.mirror.outlook() {
                Outlook::Good => {}
                Outlook::Degraded => warnings.push((
                    format!("mount {index}: changes are acknowledged with fewer copies than durability.acks asks for"),
                    "bring the other members back, see `peers`; what they missed they get by themselves".to_owned(),
                )),
                Outlook::Refused => {
                    let (why, remedy) = no_puts::of_mirrors(&self.room, mount);
                    let what = "changes are refused, no mirror can take a copy";
                    warnings.push((format!("mount {index}: {what}: {why}"), remedy));
                }
                Outlook::Joining => warnings.push((
                    format!("mount {index} is joining its syncgroup and takes no changes yet"),
                    no_puts::JOINING.to_owned(),
                )),
            }
        }
        for peer in self.room.peers.all() {
            self.warn_of(&peer, &mut warnings);
        }
        warnings
    }

    fn warn_of(&self, peer: &Peer, warnings: &mut Vec<Warning>) {
        let machine = peer.machine;
        if !peer.is_connected() {
            let (address, why) = (peer.address(), peer.error());
            if !why.is_empty() {
                let what = format!("mirror {machine} at {address} is not connected: {why}");
                let forget = format!("`forget {machine}` if it never comes back");
                warnings.push((what, format!("{}; {forget}", peer.remedy())));
            }
            return;
        }
        for (mount, there) in self.mirrored(peer) {
            self.warn_of_state(peer, mount, there, warnings);
            let (index, lag, why) =
                (mount.index, mount.mirror.behind(there.acked()), there.error());
            match there.state() {
                SyncState::Live | SyncState::Handshake => {}
                SyncState::CatchingUp if lag.ms < BEHIND_MS && why.is_empty() => {}
                SyncState::CatchingUp => {
                    let mut what = format!(
                        "mirror {machine} mount {index} is behind by {}, {} s",
                        no_puts::shown(lag.bytes),
                        lag.ms / 1000
                    );
                    if !why.is_empty() {
                        what = format!("{what}: {why}");
                    }
                    let remedy = if why.contains("no space") {
                        format!("free space on mount {index} of machine {machine}, then it catches up by itself")
                    } else {
                        "nothing: it catches up by itself, `peers` shows how far".to_owned()
                    };
                    warnings.push((what, remedy));
                }
                SyncState::NeedsState => warnings.push((
                    format!("mirror {machine} mount {index} was away for longer than our log reaches"),
                    "nothing: it is brought up by state; a larger sync.log_retention_bytes reaches longer".to_owned(),
                )),
                // What is wrong here has a line of its own.
                SyncState::Away | SyncState::Disconnected if !mount.is_online() => {}
                SyncState::Away | SyncState::Disconnected => warnings.push((
                    format!("mirror {machine} mount {index} takes nothing: {why}"),
                    format!("see `mounts` on the console of machine {machine}"),
                )),
            }
        }
    }
}

impl Sight {
    /// What does not become the same.
    fn warn_of_state(
        &self,
        peer: &Peer,
        mount: &SharedMount,
        there: &PeerMount,
        warnings: &mut Vec<Warning>,
    ) {
        let (machine, index) = (peer.machine, mount.index);
        if there.unlike() >= UNLIKE {
            let rounds = there.unlike();
            warnings.push((
                format!("mount {index} differs from that of mirror {machine}, in {rounds} comparisons in line"),
                "see `peers` on both, and the warnings of the other one; `folio verify --all-mirrors` names objects".to_owned(),
            ));
        }
        if let Some(pull) = self.room.peers.pulls.of(index, machine)
            && !pull.why.is_empty()
        {
            warnings.push((
                format!("mount {index}: the state of mirror {machine} cannot be copied: {}", pull.why),
                "start the other members; what nobody has whole can be deleted, or written again, there".to_owned(),
            ));
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}
