//! How a member that is copied from shares its time with its clients.
//!
//! Invariants
//! - While clients ask, whoever copies gets at most one part in [`PARTS`] of one thread's time, however many streams it opens;
//!   while none do, all of it.
//! - Nobody waits for ever: a turn comes after [`PAUSE_MAX_US`] at the latest for each that is waiting.

/// Of so many parts of time copying gets one.
pub const PARTS: u64 = 12;
/// Fewer client requests a second than this are no clients.
pub const CLIENTS_MIN: u64 = 20;
/// Longest pause before a step, microseconds.
pub const PAUSE_MAX_US: u64 = 100_000;
/// How often it is looked whether clients ask, microseconds.
const LOOK_US: u64 = 100_000;

/// See the module. Times are microseconds of a clock that never goes back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// When the next step may begin.
    free_at_us: u64,
    /// What a step takes, on average of the last ones.
    step_us: u64,
    looked_at_us: u64,
    clients: u64,
    clients_ask: bool,
}

impl Pace {
    /// A step wants to begin: how long it has to wait. `clients` counts the requests of clients since the start.
    #[must_use]
    pub fn begin(&mut self, now_us: u64, clients: u64) -> u64 {
        let since = now_us.saturating_sub(self.looked_at_us);
        if since >= LOOK_US {
            let asked = clients.saturating_sub(self.clients);
            self.clients_ask = asked.saturating_mul(1_000_000) / since >= CLIENTS_MIN;
            (self.looked_at_us, self.clients) = (now_us, clients);
        }
        if !self.clients_ask {
            self.free_at_us = now_us;
            return 0;
        }
        let begin = self.free_at_us.max(now_us);
        self.free_at_us = begin + (self.step_us * PARTS).min(PAUSE_MAX_US);
        begin - now_us
    }

    /// A step took so long.
    pub fn took(&mut self, step_us: u64) {
        self.step_us = (self.step_us * 7 + step_us) / 8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps of `step_us` by so many streams for ten seconds, with so many client requests a second: how much of the time
    /// steps took, in thousandths.
    fn share(streams: usize, step_us: u64, per_second: u64) -> u64 {
        let (mut pace, mut busy) = (Pace::default(), 0);
        let mut free = vec![10_000_000_u64; streams];
        while let Some(next) = (0..streams).min_by_key(|stream| free[*stream])
            && free[next] < 20_000_000
        {
            let now = free[next];
            let pause = pace.begin(now, now * per_second / 1_000_000);
            pace.took(step_us);
            busy += step_us;
            free[next] = now + pause + step_us;
        }
        busy / 10_000
    }

    #[test]
    fn clients_are_not_crowded_out_by_any_number_of_streams() {
        for streams in [1, 2, 4, 32] {
            for step_us in [100, 3_000, 20_000] {
                let share = share(streams, step_us, 5_000);
                assert!(share <= 300, "{streams} streams, {step_us} us: {share} of 1000");
                assert!(share >= 70, "{streams} streams, {step_us} us: {share} of 1000");
            }
        }
    }

    #[test]
    fn without_clients_nobody_waits() {
        assert_eq!(share(1, 3_000, 0), 1000);
        assert!(share(4, 3_000, CLIENTS_MIN - 1) >= 3_900);
    }

    #[test]
    fn nobody_waits_for_ever() {
        let mut pace = Pace::default();
        pace.took(u64::MAX / 16);
        let longest = (0..100).map(|n| pace.begin(1_000_000, 1_000 * n)).max();
        assert!(longest <= Some(100 * PAUSE_MAX_US), "{longest:?}");
        assert_eq!(pace.begin(60_000_000, 99_000), 0, "clients went away");
    }
}
