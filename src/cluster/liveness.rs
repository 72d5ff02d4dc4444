//! Who is up: a judgement with hysteresis over the arrival times of heartbeats. Pure; `now_ms` is a monotonic clock.
//!
//! ```text
//!            first beat                     silence >= suspect_after        silence >= offline_after
//!  (unknown) ----------> Online <---------------------------> Suspect ----------------------> Offline
//!                          ^            next beat                                                |
//!                          |                                                                    | beat
//!                          +---------------------------------- Joining <------------------------+
//!                            beats for readmit_after, none of them suspect_after apart
//! ```
//! Invariants
//! - One lost heartbeat changes nothing, as long as `suspect_after` is more than two intervals.
//! - After `Offline` nothing but steady beats for `readmit_after` brings a storage back; a flapping one stays out.
//! - The first join is immediate.
//! - Judgement depends on arrival times only, never on how often or when it is asked for.
//! - What the storage says of itself (read-only, draining, recovering) shows only while it is heard.

use super::view::{Service, State};

/// The knobs, in milliseconds. `suspect_after <= offline_after` is the configuration's duty; a violation only makes
/// `Suspect` invisible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LivenessConfig {
    /// Silence after which a storage gets no new puts.
    pub suspect_after_ms: u64,
    /// Silence after which it is not routed to.
    pub offline_after_ms: u64,
    /// How long it must be steady before it comes back.
    pub readmit_after_ms: u64,
}

impl Default for LivenessConfig {
    fn default() -> Self {
        Self { suspect_after_ms: 3_000, offline_after_ms: 5_000, readmit_after_ms: 5_000 }
    }
}

/// What the beats of one storage have shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Liveness {
    last_beat_ms: u64,
    /// `Some(start)`: was offline, and beats steadily since `start`.
    returning_since_ms: Option<u64>,
}

impl Liveness {
    /// The first heartbeat: in service at once.
    #[must_use]
    pub const fn first(now_ms: u64) -> Self {
        Self { last_beat_ms: now_ms, returning_since_ms: None }
    }

    /// One more heartbeat.
    pub fn beat(&mut self, now_ms: u64, config: &LivenessConfig) {
        let silence = self.silence_ms(now_ms);
        self.returning_since_ms = match self.returning_since_ms {
            None if silence >= config.offline_after_ms => Some(now_ms),
            None => None,
            Some(_) if silence >= config.suspect_after_ms => Some(now_ms),
            Some(since) if now_ms.saturating_sub(since) >= config.readmit_after_ms => None,
            Some(since) => Some(since),
        };
        self.last_beat_ms = self.last_beat_ms.max(now_ms);
    }

    /// The judge itself stood still for `stall_ms` and could not have heard anything: that time does not count.
    pub const fn excuse(&mut self, stall_ms: u64) {
        self.last_beat_ms = self.last_beat_ms.saturating_add(stall_ms);
    }

    /// How long nothing was heard.
    #[must_use]
    pub const fn silence_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.last_beat_ms)
    }

    /// The judgement at this instant.
    #[must_use]
    pub fn state(&self, now_ms: u64, service: Service, config: &LivenessConfig) -> State {
        let silence = self.silence_ms(now_ms);
        if silence >= config.offline_after_ms {
            return State::Offline;
        }
        if self.returning_since_ms.is_some() {
            return if silence >= config.suspect_after_ms {
                State::Offline
            } else {
                State::Joining
            };
        }
        if silence >= config.suspect_after_ms {
            return State::Suspect;
        }
        match service {
            Service::Serving => State::Online,
            Service::Recovering => State::Recovering,
            Service::ReadOnly => State::ReadOnly,
            Service::Draining => State::Draining,
            Service::Starting => State::Joining,
        }
    }

    /// When the judgement can next change without another beat, if ever. For a timer that does not poll.
    #[must_use]
    pub fn next_change_ms(&self, now_ms: u64, config: &LivenessConfig) -> Option<u64> {
        [config.suspect_after_ms, config.offline_after_ms]
            .into_iter()
            .map(|after| self.last_beat_ms.saturating_add(after))
            .filter(|&at| at > now_ms)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONFIG: LivenessConfig = LivenessConfig {
        suspect_after_ms: 3_000,
        offline_after_ms: 5_000,
        readmit_after_ms: 5_000,
    };

    fn state(liveness: &Liveness, now_ms: u64) -> State {
        liveness.state(now_ms, Service::Serving, &CONFIG)
    }

    #[test]
    fn the_first_join_does_not_wait() {
        assert_eq!(state(&Liveness::first(0), 0), State::Online);
    }

    #[test]
    fn one_lost_packet_changes_nothing() {
        let mut liveness = Liveness::first(0);
        for second in [1, 3, 4, 6, 7] {
            for now in 0..=1 {
                assert_eq!(state(&liveness, (second - now) * 1_000), State::Online);
            }
            liveness.beat(second * 1_000, &CONFIG);
        }
    }

    #[test]
    fn a_dead_machine_is_avoided_in_time() {
        let liveness = Liveness::first(0);
        assert_eq!(state(&liveness, 2_999), State::Online);
        assert_eq!(state(&liveness, 3_000), State::Suspect);
        assert_eq!(state(&liveness, 4_999), State::Suspect);
        assert_eq!(state(&liveness, 5_000), State::Offline);
        assert_eq!(liveness.next_change_ms(0, &CONFIG), Some(3_000));
        assert_eq!(liveness.next_change_ms(3_000, &CONFIG), Some(5_000));
        assert_eq!(liveness.next_change_ms(5_000, &CONFIG), None);
    }

    #[test]
    fn a_suspect_one_is_back_with_its_next_beat() {
        let mut liveness = Liveness::first(0);
        liveness.beat(4_000, &CONFIG);
        assert_eq!(state(&liveness, 4_000), State::Online);
    }

    #[test]
    fn a_flapping_machine_is_never_readmitted() {
        let mut liveness = Liveness::first(0);
        let mut now = 10_000;
        for _ in 0..100 {
            liveness.beat(now, &CONFIG);
            assert_eq!(state(&liveness, now), State::Joining);
            liveness.beat(now + 1_000, &CONFIG);
            assert_eq!(state(&liveness, now + 1_000), State::Joining);
            assert_eq!(state(&liveness, now + 4_000), State::Offline);
            now += 4_500;
        }
    }

    #[test]
    fn a_steady_machine_comes_back_after_the_wait_and_not_before() {
        let mut liveness = Liveness::first(0);
        for second in 20..25 {
            liveness.beat(second * 1_000, &CONFIG);
            assert_eq!(state(&liveness, second * 1_000), State::Joining);
        }
        liveness.beat(25_000, &CONFIG);
        assert_eq!(state(&liveness, 25_000), State::Online);
    }

    #[test]
    fn what_a_storage_declares_shows_only_while_it_is_heard() {
        let liveness = Liveness::first(0);
        assert_eq!(liveness.state(10, Service::ReadOnly, &CONFIG), State::ReadOnly);
        assert_eq!(liveness.state(10, Service::Draining, &CONFIG), State::Draining);
        assert_eq!(liveness.state(10, Service::Recovering, &CONFIG), State::Recovering);
        assert_eq!(liveness.state(4_000, Service::ReadOnly, &CONFIG), State::Suspect);
        assert_eq!(liveness.state(6_000, Service::Draining, &CONFIG), State::Offline);
    }

    proptest! {
        /// The same arrivals give the same judgement, however often it was asked in between; and nobody who is Online
        /// has been silent for long or has returned without being steady.
        #[test]
        fn judgement_is_by_arrivals_alone(gaps in prop::collection::vec(0u64..9_000, 1..60), asks in 0u64..9_000) {
            let mut liveness = Liveness::first(0);
            let mut now = 0;
            let mut offline_until_steady: Option<u64> = None;
            for gap in gaps {
                let before = liveness;
                let ask = now + asks.min(gap);
                let judged = state(&liveness, ask);
                prop_assert_eq!(before, liveness);
                if ask - now >= CONFIG.offline_after_ms {
                    prop_assert_eq!(judged, State::Offline);
                }
                if judged == State::Online {
                    prop_assert!(ask - now < CONFIG.suspect_after_ms);
                    prop_assert!(offline_until_steady.is_none());
                }
                now += gap;
                offline_until_steady = match offline_until_steady {
                    None if gap >= CONFIG.offline_after_ms => Some(now),
                    None => None,
                    Some(_) if gap >= CONFIG.suspect_after_ms => Some(now),
                    Some(since) if now - since >= CONFIG.readmit_after_ms => None,
                    Some(since) => Some(since),
                };
                liveness.beat(now, &CONFIG);
            }
        }

        #[test]
        fn a_clock_that_stands_or_steps_back_does_no_harm(times in prop::collection::vec(any::<u64>(), 1..30)) {
            let mut liveness = Liveness::first(times[0]);
            for now in times {
                liveness.beat(now, &CONFIG);
                let _ = state(&liveness, now);
            }
        }
    }
}
