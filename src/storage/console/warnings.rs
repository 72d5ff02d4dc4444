//! What is wrong with this storage, in plain words, each with what mends it: the last table of `status`.

use super::Sight;
use crate::actors::mirror::Outlook;
use crate::actors::peers::Peer;
use crate::actors::reporter::Registration;
use crate::actors::storage_room::Writes;
use crate::cluster::alike::{self, Unlike};
use crate::cluster::room;
use crate::cluster::view::MountState;
use crate::daemon;
use crate::settings::SyncMode;
use crate::storage::no_puts;
use crate::storage::report::MountStatus;
use std::sync::PoisonError;

/// What is wrong, and what mends it.
pub(super) type Warning = (String, String);

/// A mount with less than this share left for new objects is named.
const NEARLY_FULL: u64 = 10;

impl Sight {
    /// What an operator should do something about.
    pub(in crate::storage) fn warnings(&self, mounts: &[MountStatus]) -> Vec<Warning> {
        let mut found: Vec<Warning> = Vec::new();
        let borrowed = |(what, remedy): (String, &'static str)| (what, remedy.to_owned());
        found.extend(mounts.iter().filter_map(|mount| self.of_mount(mount)));
        found.extend(self.slow_warnings());
        found.extend(self.tracker_warnings());
        found.extend(self.mirror_warnings());
        found.extend(self.room.peers.all().iter().flat_map(|peer| self.drift_from(peer)));
        found.extend(self.absent_warnings());
        found.extend(self.scrub_warnings());
        found.extend(self.conflict_warnings().map(borrowed));
        found.extend(self.own_warnings());
        found.extend(self.rotation.warnings());
        found
    }

    fn of_mount(&self, mount: &MountStatus) -> Option<Warning> {
        let (index, space) = (mount.index, &mount.stats.space);
        if mount.state != MountState::Online {
            let what = format!("mount {index} {}: {}", mount.state, mount.why);
            return Some((what, mount.remedy.clone()));
        }
        let told = self.room.placement.mount(index).map(|mount| mount.mirror.outlook());
        if matches!(told, Ok(Outlook::Refused | Outlook::Joining)) {
            // Among what is said of the mirrors.
            return None;
        }
        if !mount.why.is_empty() {
            let what = format!("mount {index} takes no new objects: {}", mount.why);
            return Some((what, mount.remedy.clone()));
        }
        if self.room.writes() != Writes::Taken {
            return None;
        }
        let reserved = mount.reserve_free;
        let left = space.free.saturating_sub(reserved);
        if mount.has_no_room() {
            let what = format!(
                "mount {index} is full, it takes no new objects: {}",
                no_puts::of_space(space.free, reserved)
            );
            return Some((
                what,
                "free space on it, or add a mount; it goes on by itself".to_owned(),
            ));
        }
        if !mount.full_elsewhere.is_empty() {
            let what = format!("mount {index} takes no new objects: {}", mount.full_elsewhere);
            return Some((what, room::REMEDY.to_owned()));
        }
        let all = space.total.saturating_sub(reserved);
        (space.total > 0 && left < all / NEARLY_FULL).then(|| {
            let what = format!(
                "mount {index} is nearly full: {} of {} are left for new objects",
                no_puts::shown(left),
                no_puts::shown(all)
            );
            (what, "add a mount or a syncgroup, or free space on it".to_owned())
        })
    }

    /// What was slow or refused in the last minute.
    fn slow_warnings(&self) -> Vec<Warning> {
        let lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = Vec::new();
        if lately.busy() > 0 {
            found.push((
                format!("{} requests were told `busy` in the last minute: the budget of requests or bytes in flight was used up", lately.busy()),
                "see `requests slower=100ms` for what holds them up; else raise limits.in_flight_requests or limits.in_flight_bytes (`config set` tries it out)".to_owned(),
            ));
        }
        for (mount, slow, all) in lately.slow() {
            found.push((
                format!("mount {mount}: its disk is slow, {slow} of {all} syncs of the last minute took over 250 ms"),
                "look at the disk (SMART, other load on it); replace it if it stays so".to_owned(),
            ));
        }
        found
    }

    fn tracker_warnings(&self) -> Vec<Warning> {
        let mut found = Vec::new();
        for (address, status) in &self.trackers {
            let status = status.borrow();
            match &status.registration {
                Registration::Connecting => {}
                Registration::Registered => {
                    found.extend(clock(&format!("tracker {address}"), status.clock_ahead_ms));
                }
                Registration::Refused(why) => found.push((
                    format!("tracker {address} refuses this storage: {why}"),
                    "give one of the two machines another machine_id".to_owned(),
                )),
                Registration::Unreachable { why, remedy } => found.push((
                    format!("tracker {address} is not reached: {why}"),
                    format!("{remedy}; or take it out of `trackers`"),
                )),
            }
        }
        found
    }

    /// In what a mirror differs that should not.
    fn drift_from(&self, peer: &Peer) -> Vec<Warning> {
        let machine = peer.machine;
        let Some(told) = peer.told().filter(|_| peer.is_connected()) else { return Vec::new() };
        let ours = self.room.peers.particulars();
        let mut found: Vec<Warning> =
            clock(&format!("mirror {machine}"), told.clock_ahead_ms).into_iter().collect();
        let list = |mounts: &[u8]| mounts.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
        for unlike in alike::unlike(&ours, &told.particulars) {
            found.push(match unlike {
                Unlike::Mounts { here, there } => {
                    let only = |mounts: &[u8], whose: &str| {
                        (!mounts.is_empty())
                            .then(|| format!("mount {} only {whose}", list(mounts)))
                    };
                    let parts: Vec<String> = [only(&here, "here"), only(&there, "there")]
                        .into_iter()
                        .flatten()
                        .collect();
                    (
                        format!("config drift: mirror {machine} has other mounts: {}", parts.join("; ")),
                        "give every member of the syncgroup the same [[mounts]] indexes, and restart it".to_owned(),
                    )
                }
                Unlike::Setting { key, here, there } => (
                    format!("config drift: {key} is {here:?} here and {there:?} on mirror {machine}"),
                    format!("set {key} to the same value in the configuration of both, and restart the one that changes"),
                ),
                Unlike::Version { here, there } => (
                    format!("mirror {machine} runs version {there}, this storage {here}"),
                    "finish the upgrade: install the same version everywhere".to_owned(),
                ),
            });
        }
        found
    }

    /// What is said of this daemon alone.
    fn own_warnings(&self) -> Vec<Warning> {
        let mut found = Vec::new();
        match self.room.writes() {
            Writes::ReadOnly => found.push((
                "every change of an object is refused: `readonly on` was given".to_owned(),
                "`readonly off`".to_owned(),
            )),
            Writes::Draining => found.push((
                "no new objects are taken: `drain` was given".to_owned(),
                "`shutdown`, or `drain off`".to_owned(),
            )),
            Writes::Taken | Writes::Stopping => {}
        }
        if self.settings.durability.sync == SyncMode::Os {
            found.push((
                "durability.sync = \"os\": acknowledged changes do not survive a power cut"
                    .to_owned(),
                "set it to \"fsync\" if they matter".to_owned(),
            ));
        }
        let auth = &self.settings.auth;
        if auth.insecure && auth.keys.is_none() && !self.settings.listen.data.ip().is_loopback() {
            found.push((
                "auth.insecure without a key: whoever reaches the port may read and change everything".to_owned(),
                "`folio keygen`, and auth.key_file on all daemons and clients".to_owned(),
            ));
        }
        let (wanted, there) = (self.settings.limits.max_connections, daemon::descriptors());
        if there.is_some_and(|there| there < wanted as u64) {
            found.push((
                format!("only {} files and sockets may be open, limits.max_connections is {wanted}", there.unwrap_or(0)),
                "LimitNOFILE= in its unit (`ulimit -n` in a shell), or lower limits.max_connections".to_owned(),
            ));
        }
        for warning in &self.settings.warnings {
            found.push((warning.clone(), "correct it, and start the daemon again".to_owned()));
        }
        found
    }
}

/// A clock that is far off.
fn clock(whose: &str, ahead_ms: i64) -> Option<Warning> {
    let off = alike::clock_far_off(ahead_ms)?;
    Some((
        format!("the clock of {whose} is {off} of ours"),
        "set the clock that is wrong (NTP): undelete windows, creation times and retries follow it"
            .to_owned(),
    ))
}
